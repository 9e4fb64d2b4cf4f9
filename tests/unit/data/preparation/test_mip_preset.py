"""configs/mip/glm-130b.yaml is the paper's table (arXiv 2210.02414, table 12) and loads once its paths are there."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.yaml_dialect import parse
from glm130b.data.preparation.mip import load_mip

PRESET = Path(__file__).parents[4] / "configs" / "mip" / "glm-130b.yaml"
NUM_DATASETS = {
    "coreference_resolution": 2,
    "natural_language_inference": 3,
    "paraphrase_identification": 3,
    "closed_book_qa": 6,
    "extractive_qa": 9,
    "multi_choice_qa": 17,
    "sentiment": 5,
    "sentence_completion": 2,
    "structure_to_text": 2,
    "summarization": 5,
    "topic_classification": 3,
    "word_sense_disambiguation": 1,
    "dialogue_state_tracking": 1,
    "event_extraction": 1,
    "named_entity_recognition": 6,
    "relation_extraction": 4,
    "relation_classification": 1,
    "semantic_role_labeling": 3,
}
EXTRACTION = list(NUM_DATASETS)[12:]


def test_the_table_of_the_paper() -> None:
    tasks = parse(PRESET.read_text(), origin="preset")["tasks"]
    assert {name: len(task["datasets"]) for name, task in tasks.items()} == NUM_DATASETS
    assert sum(NUM_DATASETS.values()) == 74
    assert sum(NUM_DATASETS[task] for task in EXTRACTION) == 16


def test_nobody_has_filled_it_in() -> None:
    with pytest.raises(UserError, match="no dataset has a path"):
        load_mip(PRESET)


def test_it_loads_when_it_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"inputs": "q", "targets": "a"}\n')
    (tmp_path / "mip.yaml").write_text(PRESET.read_text().replace("path: null", f"path: {tmp_path}/records.jsonl"))
    mip = load_mip(tmp_path / "mip.yaml")
    assert not mip.skipped
    assert len({dataset.name for dataset in mip.datasets}) == 74
    for dataset in mip.datasets:
        task, _, name = dataset.name.partition("/")
        large = 500_000 if name in ("kelm", "propbank") else 200_000
        assert dataset.cap == (large if task in EXTRACTION else 100_000)
