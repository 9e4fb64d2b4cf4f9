"""A run that has trained a little on TP 2 x PP 2 x DP 2, with a real tokenizer."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from glm130b.config.sections import RunConfig
from glm130b.data.tokenizers import training as tokenizer_training
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.unit.data.text_files import docstrings, write_jsonl
from tests.unit.inference.runs import save_and_measure

PIECES = 400


class SavedRun(NamedTuple):
    """What a test needs to know of the run."""

    folder: Path
    config: RunConfig
    tokenizer: Tokenizer
    logits_BSV: np.ndarray
    """Of the rows of ``runs.rows``, when the checkpoint was written."""


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    folder = tmp_path_factory.mktemp("run")
    text = write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in docstrings()])
    model = folder / "tokenizer.model"
    model.write_bytes(tokenizer_training.train([text], pieces=PIECES)[0])
    config = small_config(
        model={"vocab_size": PIECES + 16},
        data={"tokenizer": str(model)},
        parallel={"tensor": 2, "pipeline": 2, "data": 2},
    )
    # The last stage speaks: its tensor-parallel ranks hold one half of the vocabulary each.
    halves = [logits for logits in run_distributed(save_and_measure, 8, config, folder)[4:6] if logits is not None]
    return SavedRun(folder, config, Tokenizer.load(model), np.concatenate(halves, axis=-1))
