"""Each rule on a small file that breaks it and on its neighbour that does not."""

import pytest

from tests.architecture import rules
from tests.architecture.rules import Rule, Source

LONG_FUNCTION = "def f() -> None:\n" + "    pass\n" * 60

BROKEN = [
    (rules.one_door_per_library, "training/loop.py", "import deepspeed"),
    (rules.one_door_per_library, "training/loop.py", "def f():\n    from deepspeed.ops import adam"),
    (rules.one_door_per_library, "parallel/zero.py", "from megatron.core import parallel_state"),
    (rules.one_door_per_library, "parallel/zero.py", "import megatron.core.pipeline_parallel.schedules as s"),
    (
        rules.one_door_per_library,
        "data/mixture.py",
        "from pyarrow import parquet",
    ),
    (rules.one_door_per_library, "training/metrics.py", "import importlib\nimportlib.import_module('wandb')"),
    (rules.no_patches, "parallel/zero.py", "import torch\ntorch.cuda.synchronize = None"),
    (rules.no_patches, "parallel/zero.py", "import torch as t\nt.x: int = 0"),
    (rules.no_patches, "model/glm.py", "from megatron.core import tensor_parallel\ntensor_parallel.layers.a = 1"),
    (rules.no_patches, "model/glm.py", "import torch\ntorch.backends.x += 1"),
    (rules.no_environment, "config/load.py", "import os\nos.environ['A']"),
    (rules.no_environment, "config/load.py", "import os\nos.getenv('A')"),
    (rules.no_environment, "config/load.py", "from os import environ"),
    (rules.no_global, "a.py", "def f():\n    global x\n    x = 1"),
    (rules.short_files, "a.py", "x = 1\n" * 401),
    (rules.short_files, "model/__init__.py", "x = 1\n" * 41),
    (rules.short_functions, "a.py", LONG_FUNCTION),
    (rules.short_functions, "a.py", "class A:\n" + "".join(f"    {line}\n" for line in LONG_FUNCTION.splitlines())),
    (rules.annotated_functions, "a.py", "def f(x) -> None: ..."),
    (rules.annotated_functions, "a.py", "def f(x: int): ..."),
    (rules.annotated_functions, "a.py", "def f(*x, **y: int) -> None: ..."),
    (rules.annotated_functions, "a.py", "class A:\n    async def f(self, *, x) -> None: ..."),
    (rules.annotated_functions, "a.py", "def f() -> None:\n    def g(y): ..."),
]

KEPT = [
    (rules.one_door_per_library, "parallel/zero.py", "import deepspeed"),
    (rules.one_door_per_library, "parallel/topology.py", "from megatron.core import parallel_state"),
    (rules.one_door_per_library, "model/glm.py", "from megatron.core import tensor_parallel\nimport deepspeedometer"),
    (rules.one_door_per_library, "training/loop.py", "from glm130b.parallel import zero"),
    (rules.no_patches, "parallel/cpu.py", "import torch\ntorch.cuda.synchronize = None"),
    (
        rules.no_patches,
        "model/glm.py",
        "import torch\nx = torch.ones(3)\nx.y = 1\nmodel.f = torch.cuda.synchronize",
    ),
    (rules.no_environment, "environment.py", "import os\nos.environ['A']"),
    (rules.no_environment, "config/files.py", "import os\nos.access('a', os.R_OK)"),
    (rules.no_global, "a.py", "X = 1\ndef f():\n    return X"),
    (rules.short_files, "a.py", "x = 1\n" * 400),
    (rules.short_files, "model/__init__.py", "x = 1\n" * 40),
    (rules.short_functions, "a.py", LONG_FUNCTION.removesuffix("    pass\n")),
    (rules.annotated_functions, "a.py", "class A:\n    def f(self, *x: int, y: int = 0, **z: int) -> None: ..."),
    (rules.annotated_functions, "a.py", "f = lambda x: x"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_broken_rule_is_seen_once(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(Source(path, text)))) == 1


@pytest.mark.parametrize(("rule", "path", "text"), KEPT)
def test_a_kept_rule_is_not_reported(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_is_applied_and_has_a_sample() -> None:
    applied = {*rules.PRODUCT_RULES, *rules.BUDGETS}
    assert {rule for rule, _, _ in BROKEN} == {rule for rule, _, _ in KEPT} == applied
