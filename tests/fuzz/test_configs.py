"""Config files and overrides: any text gives a run or sentences about what to mend."""

from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from glm130b.config.load import dump_config, load_config
from glm130b.config.yaml_dialect import parse
from glm130b.environment import Launch
from glm130b.launcher import checked_config
from tests.fuzz.examples import command, contents, ends_well, numbers, search
from tests.fuzz.trees import ODD_TEXTS, SCALARS, SYNTAX, TREES, mutated

PRESETS = ("tiny.yaml", "glm-130b.yaml", "glm-130b-h100.yaml")
WORLD_SIZES = st.sampled_from((0, 1, 8, 2**40))


def _key_paths(tree: object, prefix: str = "") -> list[str]:
    paths = []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        paths += [f"{prefix}{key}", *_key_paths(value, f"{prefix}{key}.")]
    return paths


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", errors="surrogatepass"))
    return path


def check(path: Path, overrides: list[str], world_size: int) -> None:
    """Every way into the product that starts from a config; nothing is written by any of them."""
    before = contents(path.parent)
    ends_well(lambda: checked_config(str(path), overrides, Launch(rank=0, local_rank=0, world_size=world_size)))
    config = ends_well(lambda: load_config(path, overrides))
    if config:
        assert command(["plan", str(path), "--", *overrides]) == 0
        assert parse(dump_config(config), origin="dump") == config.model_dump(mode="json")
    assert contents(path.parent) == before


@numbers(60, 400)
def test_any_text(examples: int, tmp_path: Path) -> None:
    texts = SYNTAX | st.binary(max_size=60) | TREES.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))
    search(lambda text: check(written(tmp_path / "run.yaml", text), [], 8), texts, examples=examples)


@pytest.mark.parametrize("preset", PRESETS)
@numbers(40, 200)
def test_a_preset_with_mistakes(examples: int, preset: str, root: Path, tmp_path: Path) -> None:
    tree = load_config(root / "configs" / preset).model_dump(mode="json")
    values = SCALARS | TREES

    def mistaken(case: tuple[object, int]) -> None:
        check(written(tmp_path / "run.yaml", yaml.safe_dump(case[0])), [], case[1])

    search(mistaken, st.tuples(mutated(tree, values), WORLD_SIZES), examples=examples)


@numbers(60, 400)
def test_overrides(examples: int, root: Path, tmp_path: Path) -> None:
    preset = (root / "configs" / "tiny.yaml").read_text()
    keys = _key_paths(yaml.safe_load(dump_config(load_config(root / "configs" / "tiny.yaml"))))
    values = SYNTAX | st.sampled_from(ODD_TEXTS) | SCALARS.map(lambda value: yaml.safe_dump(value).strip())
    override = st.builds("{}={}".format, st.sampled_from(keys) | st.text(max_size=10), values) | st.text(max_size=20)

    def overridden(overrides: list[str]) -> None:
        check(written(tmp_path / "run.yaml", preset), overrides, 8)

    search(overridden, st.lists(override, max_size=3), examples=examples)


@numbers(40, 150)
def test_bases(examples: int, root: Path, tmp_path: Path) -> None:
    """Files that start from each other, from themselves, from folders, devices and files that are not there."""
    tiny = str(root / "configs" / "tiny.yaml")
    base = st.sampled_from(("a.yaml", "b.yaml", "c.yaml", "./c.yaml", tiny, ".", "/dev/null", "/dev/zero", *ODD_TEXTS))

    def chained(bases: list[str]) -> None:
        for name, its_base in zip("abc", bases, strict=True):
            written(tmp_path / f"{name}.yaml", yaml.safe_dump({"base": its_base, "seed": 3}))
        check(tmp_path / "a.yaml", [], 8)

    search(chained, st.lists(base, min_size=3, max_size=3), examples=examples)


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 60)),
        "model: &m {num_layers: *m}",
        "model: &m [*m]",
        "data: " + "[" * 5000,
        "data: " + "{a: " * 3000 + "1" + "}" * 3000,
        "data: " + "- " * 3000,
        "seed: " + "9" * 200_000,
        "name: " + "x" * 10_000_000,
    ],
    ids=["laughing lists", "laughing maps", "its own map", "its own list", "open", "deep", "dashes", "digits", "long"],
)
def test_texts_that_grow(text: str, tmp_path: Path) -> None:
    search(lambda text: check(written(tmp_path / "run.yaml", text), [], 8), st.just(text), examples=1)
