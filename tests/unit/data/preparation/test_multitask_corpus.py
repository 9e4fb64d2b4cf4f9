"""``glm130b prepare --mip``: many datasets become one corpus, whose held-out records no training prompt shows."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.text_files import write_jsonl

MIP = """
templates_per_record: all
variants: [{share: 1}, {share: 3, shots: 3, most_characters: 400}, {share: 1, shots: 1, reasoning: true}]
tasks:
  sums:
    cap: 150
    datasets:
      plain: {path: plain.jsonl, weight: 2}
      templated: {path: templated.jsonl, templates: templates.yaml}
      none: {path: null}
"""
TEMPLATES = """
dataset: sums
templates:
  a: !Template {name: ask, answer_choices: null, jinja: 'What is {{ t }}? ||| {{ r }}', metadata: !TemplateMetadata {}}
  b: !Template {name: fill, jinja: '{{ t }} is [MASK]. ||| {{ r }}', metadata: !TemplateMetadata {}}
"""
COUNTS = 300, 200


def test_a_corpus_of_many_datasets(
    tmp_path: Path,
    folder: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = [{"instruction": f"Name p{n}p", "output": f"=p{n}p", "rationale": f"since {n}"} for n in range(COUNTS[0])]
    write_jsonl(tmp_path / "plain.jsonl", plain)
    write_jsonl(tmp_path / "templated.jsonl", [{"t": f"p{n}p", "r": f"=p{n}p"} for n in range(1000, 1000 + COUNTS[1])])
    (tmp_path / "templates.yaml").write_text(TEMPLATES)
    (tmp_path / "mip.yaml").write_text(MIP)
    corpus = tmp_path / "multitask"
    arguments = ["--mip", "mip.yaml", "--tokenizer", str(folder / "tokenizer.model"), "--output", str(corpus)]
    assert main(["prepare", *arguments, "--validation-share", "0.3", "--workers", "1"]) == 0
    assert "datasets without a path are left out (1): sums/none" in capsys.readouterr().err
    asked: dict[str, Counter[str]] = {}
    shown: dict[str, Counter[str]] = {}
    for split in ("train", "validation"):
        pairs = Corpus(corpus, split=split, kind="instructions", tokenizer=tokenizer.fingerprint)  # type: ignore[arg-type]
        asked[split], shown[split] = Counter(), Counter()
        for index in range(pairs.num_pairs):
            prompt, answer = (tokenizer.decode(part.tolist()) for part in pairs.pair(index))
            *exemplars, record = re.findall(r"(?<!=)p\d+p", prompt)
            assert answer.endswith(f"={record}")
            asked[split][record] += 1
            shown[split].update(exemplars)
    assert not asked["train"].keys() & asked["validation"].keys()
    assert sum(shown["train"].values()) > 100
    assert not shown["train"].keys() & asked["validation"].keys()
    assert not shown["validation"].keys() & asked["validation"].keys()
    total = asked["train"] + asked["validation"]
    assert sum(count for record, count in total.items() if int(record[1:-1]) < 1000) == 2 * 150
    assert sum(count for record, count in total.items() if int(record[1:-1]) >= 1000) == 150
    assert json.loads((corpus / "manifest.json").read_text())["capped"] == 150 + 2 * COUNTS[1] - 150
