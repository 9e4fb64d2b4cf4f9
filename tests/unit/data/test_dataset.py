"""Rows of real corpora: text can be rebuilt from them, shares hold, and nothing depends on who asks when."""

import errno
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.sections import RunConfig
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.dataset import OBJECTIVES, GLMDataset
from glm130b.data.mixing.era import continued
from glm130b.data.objectives.row import Row, Segment
from glm130b.data.tokenizers.tokenizer import Tokenizer

Build = Callable[..., RunConfig]
SAMPLES = 400


@pytest.fixture(scope="module")
def rows(run_config: Build) -> list[Row]:
    config = run_config(
        objective={"instruction_share": {"start": 0.1, "end": 0.1}, "smask_share": {"start": 0.2, "end": 0.2}}
    )
    dataset = GLMDataset.open(config, split="train")
    return [dataset[sample] for sample in range(SAMPLES)]


def same(one: Row, other: Row) -> bool:
    arrays = ("tokens", "targets", "loss_mask", "positions", "block_positions")
    rest = ("segments", "objective", "source")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        getattr(one, name) == getattr(other, name) for name in rest
    )


def rebuilt(row: Row, segment: Segment, special: dict[str, int]) -> list[int]:
    """The text of a segment: its context with every blank filled by the target that belongs there."""
    split = segment.start + segment.context_length
    targets: dict[int, list[int]] = {}
    for token in range(split, segment.end):
        if row.tokens[token] == special["sop"]:
            # The blank of a target stands at its position; a continuation counts on from the blank before it.
            is_continuation = row.objective == "gmask"
            blank = targets.setdefault(segment.context_length - 1 if is_continuation else int(row.positions[token]), [])
        if row.targets[token] != special["eop"]:
            blank.append(int(row.targets[token]))
    context = row.tokens[segment.start : split].tolist()
    blanks = [i for i, token in enumerate(context) if token in (special["mask"], special["smask"], special["gmask"])]
    assert blanks == sorted(targets)  # every blank is filled exactly once
    return [token for i, token in enumerate(context) for token in targets.get(i, [token])]


def test_text_is_rebuilt_from_every_row(rows: list[Row], folder: Path, tokenizer: Tokenizer) -> None:
    special = {name: getattr(tokenizer.special, name) for name in ("mask", "smask", "gmask", "sop", "eop")}
    streams = {}
    for source in ("text", "other"):
        corpus = Corpus(folder / source, split="train", kind="text", tokenizer=tokenizer.fingerprint)
        streams[source] = corpus.read(0, corpus.num_tokens).astype(">i4").tobytes()
    for row in rows:
        if row.objective != "instruction":
            for segment in row.segments:
                text = np.array(rebuilt(row, segment, special), ">i4").tobytes()
                at = streams[row.source].find(text)
                assert at >= 0
                assert at % 4 == 0


def test_loss_is_on_targets_only_and_nothing_is_cut(rows: list[Row], tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    for row in rows:
        in_target = np.zeros(256, np.bool_)
        inside = np.zeros(256, np.bool_)
        for segment in row.segments:
            split = segment.start + segment.context_length
            in_target[split : segment.end] = inside[segment.start : segment.end] = True
            assert row.tokens[split] == special.sop
            num_blanks = np.isin(row.tokens[segment.start : split], [special.mask, special.smask, special.gmask]).sum()
            assert (row.tokens[split : segment.end] == special.sop).sum() == num_blanks
            ends = (row.targets[split : segment.end] == special.eop).sum()
            assert ends == (0 if row.objective == "gmask" else num_blanks)
        assert np.array_equal(row.loss_mask, in_target)
        for array in (row.tokens, row.targets, row.positions, row.block_positions):
            assert not array[~inside].any()


def test_shares_are_those_of_the_config(rows: list[Row]) -> None:
    counts = Counter(row.objective for row in rows)
    assert set(counts) == set(OBJECTIVES)
    assert abs(counts["instruction"] - 0.1 * SAMPLES) < 1
    assert abs(counts["mask"] - 0.9 * 0.3 * SAMPLES) < 3
    assert abs(counts["smask"] - 0.9 * 0.2 * SAMPLES) < 3
    sources = Counter(row.source for row in rows)
    assert abs(sources["text"] - 0.9 * 0.7 * SAMPLES) < 1


def test_every_segment_tells_where_its_text_stands(rows: list[Row], folder: Path, tokenizer: Tokenizer) -> None:
    special = {name: getattr(tokenizer.special, name) for name in ("mask", "smask", "gmask", "sop", "eop")}
    for row in rows:
        if row.objective != "instruction":
            corpus = Corpus(folder / row.source, split="train", kind="text", tokenizer=tokenizer.fingerprint)
            for segment, origin in zip(row.segments, row.origins, strict=True):
                assert rebuilt(row, segment, special) == corpus.read(*origin).tolist()
                assert len(corpus.documents(*origin)) == 1  # documents in a row are apart


def test_a_mixture_that_changes_on_the_way_leaves_the_past_alone(run_config: Build) -> None:
    config = run_config()
    shares = {"mask_share": {"start": 0.9, "end": 0.9}, "instruction_share": {"start": 0.0, "end": 0.0}}
    changed = run_config(objective=shares)
    dataset = GLMDataset.open(config, split="train")
    eras = continued(continued((), config, samples=0), changed, samples=60)
    later = GLMDataset.open(changed, split="train", eras=eras)
    assert all(same(dataset[sample], later[sample]) for sample in range(60))
    assert Counter(later[sample].objective for sample in range(60, 160))["mask"] >= 88
    ordinals = [draw.ordinal for draw in map(later.mixture.locate, range(160)) if draw.source == "text"]
    assert ordinals == list(range(len(ordinals)))  # no row is left out or met again

    unnamed = run_config(objective=shares, data={"instructions": {}})  # it needs none of them any more
    going_on = GLMDataset.open(unnamed, split="train", eras=eras)
    assert all(same(going_on[sample], later[sample]) for sample in range(60, 100))
    past = next(sample for sample in range(60) if dataset[sample].objective == "instruction")
    with pytest.raises(UserError, match="pairs: was drawn from here"):
        going_on[past]


def test_rows_do_not_depend_on_what_was_asked_before(rows: list[Row], run_config: Build) -> None:
    config = run_config(
        objective={"instruction_share": {"start": 0.1, "end": 0.1}, "smask_share": {"start": 0.2, "end": 0.2}}
    )
    dataset = GLMDataset.open(config, split="train")
    for sample in (399, 3, 250, 3, 0):
        assert same(dataset[sample], rows[sample])


def test_another_process_makes_the_same_rows(rows: list[Row], run_config: Build, tmp_path: Path) -> None:
    config = run_config(
        objective={"instruction_share": {"start": 0.1, "end": 0.1}, "smask_share": {"start": 0.2, "end": 0.2}}
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    program = (
        "import sys, json, pathlib\n"
        "from glm130b.config.sections import RunConfig\n"
        "from glm130b.data.dataset import GLMDataset\n"
        "config = RunConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text())\n"
        "dataset = GLMDataset.open(config, split='train')\n"
        "print(json.dumps([dataset[sample].tokens.tolist() for sample in range(390, 400)]))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "config.json")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [row.tokens.tolist() for row in rows[390:]]
    assert done.stderr == ""


def test_seed_and_split_change_rows(run_config: Build) -> None:
    one, other, held_out = (
        GLMDataset.open(run_config(seed=seed), split=split)  # type: ignore[arg-type]
        for seed, split in ((1, "train"), (2, "train"), (1, "validation"))
    )
    for dataset in (other, held_out):
        assert sum(same(one[sample], dataset[sample]) for sample in range(20)) < 2


def test_the_held_out_split_is_mixed_as_ramps_end(run_config: Build) -> None:
    ramp = {"start": 0.0, "end": 1.0, "from_samples": 50, "over_samples": 10}
    config = run_config(objective={"instruction_share": ramp})
    assert GLMDataset.open(config, split="train")[0].objective != "instruction"
    assert {GLMDataset.open(config, split="validation")[sample].objective for sample in range(10)} == {"instruction"}


def test_all_problems_are_reported_with_their_keys(run_config: Build, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "train.bin").write_bytes(b"")
    weight = {"start": 1.0, "end": 1.0}
    config = run_config(
        model={"vocab_size": 500},
        data={
            "text": {
                "gone": {"path": str(tmp_path / "gone"), "weight": weight},
                "left_out": {"path": str(tmp_path / "gone"), "weight": {"start": 0.0, "end": 0.0}},
                "pairs": {"path": str(folder / "pairs"), "weight": weight},
            },
            "instructions": {"broken": {"path": str(tmp_path / "pairs"), "weight": weight}},
        },
    )
    with pytest.raises(UserError) as raised:
        GLMDataset.open(config, split="train")
    vocabulary, gone, kind, broken = raised.value.problems
    assert vocabulary.startswith("model.vocab_size: 500 is less than the 608 tokens of ")
    assert gone.startswith("data.text.gone.path: ")
    assert kind.startswith("data.text.pairs.path: ")
    assert "holds instructions, not text" in kind
    assert broken.startswith("data.instructions.broken.path: ")


def test_a_corpus_whose_file_system_is_gone_is_no_mistake(run_config: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the run so that it is started again."""

    def read(file: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        if file.name == "manifest.json":
            raise OSError(errno.ESTALE, "Stale file handle", str(file))
        return read(file)

    config = run_config()
    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(FileSystemGone, match=r"manifest\.json: cannot be read \(Stale file handle\); bring its file"):
        GLMDataset.open(config, split="train")


def test_a_corpus_shorter_than_a_row_says_so(run_config: Build) -> None:
    config = run_config(data={"sequence_length": 65_536})
    with pytest.raises(UserError) as raised:
        GLMDataset.open(config, split="train")
    for problem, name in zip(raised.value.problems, ("text", "other"), strict=True):
        assert problem.startswith(f"data.text.{name}.path: the train split holds ")
        assert "less than one row of 65535" in problem


def test_the_end_of_piece_switch_keeps_rows_full(run_config: Build, tokenizer: Tokenizer) -> None:
    objective = {"mask_share": {"start": 0.0, "end": 0.0}, "gmask": {"end_of_piece": True}}
    dataset = GLMDataset.open(run_config(objective=objective, data={"isolate_documents": False}), split="train")
    row = next(row for row in (dataset[sample] for sample in range(20)) if row.objective == "gmask")
    assert row.segments[0].end == 256
    assert row.targets[-1] == tokenizer.special.eop


def test_block_positions_keep_every_target_at_its_blank_and_change_nothing_else(
    run_config: Build, tokenizer: Tokenizer
) -> None:
    objective = {"instruction_share": {"start": 0.3, "end": 0.3}}
    plain = GLMDataset.open(run_config(objective=objective), split="train")
    blocks = GLMDataset.open(run_config(objective=objective, model={"positions": "rope_2d"}), split="train")
    for sample in range(60):
        one, two = plain[sample], blocks[sample]
        assert same(one, replace(two, positions=one.positions))
        for segment in two.segments:
            split = segment.start + segment.context_length
            targets = slice(split, segment.end)
            stays = len(set(two.positions[targets].tolist())) == (two.tokens[targets] == tokenizer.special.sop).sum()
            counts_on = one.positions[targets].tolist() == list(
                range(segment.context_length, segment.end - segment.start)
            )
            assert stays
            assert counts_on == (one.objective != "mask" and two.positions[split] == segment.context_length - 1)


def test_a_whole_text_as_the_target_is_causal_language_modelling(run_config: Build, tokenizer: Tokenizer) -> None:
    """With ``gmask.target_minimum_share: 1.0`` the context is nothing but the blank."""
    objective = {
        "instruction_share": {"start": 0.0, "end": 0.0},
        "mask_share": {"start": 0.0, "end": 0.0},
        "gmask": {"target_minimum_share": 1.0},
    }
    config = run_config(objective=objective, data={"isolate_documents": False})
    dataset = GLMDataset.open(config, split="train")
    for row in (dataset[sample] for sample in range(30)):
        assert row.segments == (Segment(0, 1, 255),)
        assert row.tokens[:2].tolist() == [tokenizer.special.gmask, tokenizer.special.sop]
        assert row.targets[1:-1].tolist() == row.tokens[2:].tolist()  # the next token, at every token
        assert row.loss_mask.tolist() == [False] + [True] * 255
        assert row.positions.tolist() == list(range(256))
