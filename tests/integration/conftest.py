"""The demo's data, made by the commands that a user types."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

Command = Callable[[Sequence[str | Path]], str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time for the commands of a test with the demo, and for the demo: pytest's limit holds for both, in whichever test
    is the first to ask for it."""
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def command(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs a command in a folder that holds nothing but what commands have made; gives back what it printed."""
    folder = tmp_path_factory.mktemp("workplace")
    environment = {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONUNBUFFERED": "1",
        "DS_ACCELERATOR": "cpu",
        "HOME": str(folder),
    }
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]

    def run(words: Sequence[str | Path]) -> str:
        finished = subprocess.run(
            [str(word) for word in words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def demo(root: Path, command: Command) -> list[str]:
    """Overrides that point a config at the demo's tokenizer and corpora."""
    pwd = Path(command(["pwd"]).strip())
    command([sys.executable, root / "tools" / "demo_corpus.py", "text"])
    texts = ["text/english.jsonl", "text/code.jsonl", "text/chinese.jsonl"]
    command(["glm130b", "tokenizer", "train", "--output", "tokenizer.model", "--pieces", "4088", *texts])
    for name in ("english", "code", "chinese", "facts"):
        kind = ["--instructions"] if name == "facts" else []
        share = ["--validation-share", "0.1"]
        source = f"text/{name}.jsonl"
        command(["glm130b", "prepare", *kind, *share, "--tokenizer", "tokenizer.model", "--output", name, source])
    return [
        f"data.tokenizer={pwd / 'tokenizer.model'}",
        *(f"data.text.{name}.path={pwd / name}" for name in ("english", "code", "chinese")),
        f"data.instructions.facts.path={pwd / 'facts'}",
        f"folder={pwd / 'runs'}",
    ]
