"""What a step has read, and which steps have read a document."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.cli import main
from glm130b.config.interventions import Intervention, SkipRange
from glm130b.config.load import load_config
from glm130b.data.mixing.era import continued
from glm130b.training.progress import Progress
from glm130b.training.stability.memory import Memory

SAMPLE = re.compile(r"^sample (\d+): (\w+), data\.(\S+), draw (\d+)$", re.MULTILINE)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


def test_a_step_shows_each_of_its_samples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    objectives = set()
    for step in range(5):
        page = printed(capsys, *words, "--step", str(step))
        assert page.startswith(f"step {step} takes samples {8 * step} .. {8 * step + 7}\n")
        found = SAMPLE.findall(page)
        assert [int(sample) for sample, *_ in found] == list(range(8 * step, 8 * step + 8))
        objectives |= {objective for _, objective, *_ in found}
    assert objectives == {"mask", "smask", "gmask", "instruction"}


def test_ranks_share_a_step_as_the_topology_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """TP 2 x PP 2 x DP 2, two rows a micro-batch: ranks 0, 1, 4 and 5 are data rank 0."""
    for rank in range(8):
        page = printed(capsys, *words, "--step", "1", "--rank", str(rank))
        first = [8, 9, 12, 13] if rank in (0, 1, 4, 5) else [10, 11, 14, 15]
        assert [int(sample) for sample, *_ in SAMPLE.findall(page)] == first


def test_what_is_shown_stands_in_the_file_at_the_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, *words, "--step", "0", "--width", "0")
    pattern = r"\d+\. (\S+):(\d+) \(hash \w+\)\n     reads   (.*)\n(?:     fills   (.*))?"
    pieces = re.findall(pattern, page)
    assert len(pieces) > 8
    for file, line, reads, fills in pieces:
        record = json.loads(Path(file).read_text().splitlines()[int(line) - 1])
        whole = record["text"] + "<eod>" if "text" in record else record["inputs"] + record["targets"]
        context, _, rest = re.split(r"(\[s?g?MASK(?: \d+)?\])", eval(reads), maxsplit=1)
        assert context in whole
        if fills and "MASK" not in rest:
            assert context + eval(fills).removesuffix("<eop>") in whole


def test_a_document_is_found_in_the_steps_that_read_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Against a search of every step, over several epochs of both corpora."""
    pages = [printed(capsys, *words, "--step", str(step)) for step in range(30)]
    hashes = sorted(set(re.findall(r"hash (\w{32})", "".join(pages))))
    for text_hash in (*hashes[:3], *hashes[-3:]):
        readers: list[int] = []
        for page in pages:
            _, *samples = re.split(r"^sample (?=\d+: )", page, flags=re.MULTILINE)
            readers += [int(text.partition(":")[0]) for text in samples if text_hash in text]
        found = printed(capsys, *words, "--find", text_hash)
        assert [int(sample) for sample in re.findall(r"sample (\d+) of step", found)] == readers
        assert all(f"sample {sample} of step {sample // 8}" in found for sample in readers)


def test_it_finds_what_is_drawn_with_replacement_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    drawn = [*words, "data.with_replacement=true"]
    page = printed(capsys, *drawn, "--step", "3")
    sample, text_hash = re.findall(r"sample (\d+): .*\n  1\. \S+ \(hash (\w{32})\)", page)[0]
    assert f"sample {sample} of step 3" in printed(capsys, *drawn, "--find", text_hash)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--step", "30"], "--step 30: the steps known of the run are 0 .. 29"),
        (["--step", "-1"], "--step -1: the steps known of the run are 0 .. 29"),
        (["--step", "1", "--rank", "8"], "--rank 8: the job has processes 0 .. 7"),
        (["--step", "1", "--rank", "0", "parallel.data=null"], "--rank: parallel.data is open"),
        (["--find", "0" * 32], f"--find {'0' * 32}: no training document has this hash"),
    ],
)
def test_what_is_not_there_is_told(
    words: list[str], capsys: pytest.CaptureFixture[str], asked: list[str], told: str
) -> None:
    assert told in refused(capsys, *words, *asked)


def test_a_hash_is_32_hex_digits(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--find", "abc"])
    assert "abc is no text hash, which has 32 hex digits" in capsys.readouterr().err


def save(run: list[str], progress: Progress, **described: Any) -> None:
    """The checkpoint of a run that stands there."""
    config = load_config(run[1], run[2:])
    eras = continued((), config, samples=0)
    description = Description(progress, {}, plain(config), "", eras=eras, **described)
    checkpoints = CheckpointFolder(Path(config.folder) / config.name / "checkpoints")
    checkpoints.create()
    (checkpoints.begin(progress.step) / "tensors.json").touch()
    checkpoints.commit(progress.step, description.to_json(), {})


def test_a_step_keeps_its_samples_when_the_batch_size_changes(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = [*words, f"folder={tmp_path}"]
    before = printed(capsys, *run, "--step", "5")
    progress = Progress()
    for _ in range(10):
        progress = progress.after_step(8, applied=True)
    save(run, progress)
    larger = [*run, "batch.global_size=16"]
    assert printed(capsys, *larger, "--step", "5") == before
    assert printed(capsys, *larger, "--step", "10").startswith("step 10 takes samples 80 .. 95\n")
    (sample, text_hash) = re.findall(r"sample (\d+): .*\n  1\. \S+ \(hash (\w{32})\)", before)[0]
    assert f"sample {sample} of step 5" in printed(capsys, *larger, "--find", text_hash)


def test_steps_that_no_checkpoint_tells_are_not_guessed(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Those of an older version, or of before an import."""
    run = [*words, f"folder={tmp_path}"]
    text_hash = re.findall(r"hash (\w{32})", printed(capsys, *run, "--step", "0"))[0]
    save(run, Progress(10, 100))
    assert "--step 5: the steps known of the run are 10 .. 27" in refused(capsys, *run, "--step", "5")
    assert printed(capsys, *run, "--step", "10").startswith("step 10 takes samples 100 .. 107\n")
    assert "of a step that is not known" in printed(capsys, *run, "--find", text_hash)


def test_it_knows_the_steps_that_the_stability_guard_passed_over(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = [*words, f"folder={tmp_path}"]
    (begin, end), reason = (5, 8), "loss 9 is 20 deviations above the median 3"
    skip = SkipRange(from_step=begin, steps=end - begin)
    memory = Memory(interventions=(Intervention(from_samples=8 * end, skip=skip, reason=reason),))
    save(run, Progress(20, 160), guard=memory)
    for step in (begin - 1, begin, end - 1, end):
        page = printed(capsys, *run, "--step", str(step))
        assert (f"it is passed over (by the stability guard: {reason})" in page) == (begin <= step < end)
    (text_hash, *_) = re.findall(r"hash (\w{32})", printed(capsys, *run, "--step", str(begin)))
    found = printed(capsys, *run, "--find", text_hash)
    assert re.search(rf"of step {begin} \(passed over\)", found)
