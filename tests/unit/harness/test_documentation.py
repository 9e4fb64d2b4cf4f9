"""What counts as a command on a page, on a page that has one of each kind."""

from tests.harness.documentation import commands_of

PAGE = """\
# A page

Prose with `glm130b plan FILE` in it.
    glm130b continues a paragraph

    glm130b plan configs/tiny.yaml seed='1 2'      # a comment
    sbatch launch/slurm.sbatch CONFIG              # needs a cluster, of any size
    glm130b verify \\
        data/a data/b
    NAME=value bash launch/pretrain.sh CONFIG      # needs a pencil

        step    loss
    glm130b: error: what it prints is none

```yaml
make: it so
```

```
make train
```
"""


def test_commands_are_found_with_their_place_and_words() -> None:
    found = list(commands_of(PAGE, page="docs/page.md"))
    assert [command.place for command in found] == [
        "docs/page.md:6: glm130b plan configs/tiny.yaml seed=1 2",
        "docs/page.md:7: sbatch launch/slurm.sbatch CONFIG",
        "docs/page.md:8: glm130b verify data/a data/b",
        "docs/page.md:10: NAME=value bash launch/pretrain.sh CONFIG",
        "docs/page.md:20: make train",
    ]
    assert found[0].words == ("glm130b", "plan", "configs/tiny.yaml", "seed=1 2")
    assert [command.is_marked for command in found] == [False, True, False, False, False]
