"""What is chosen where, and what is refused with which words. CUDA is pretended: choosing touches no GPU."""

import sys
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch

from glm130b.config.errors import UserError
from glm130b.config.sections import KernelsConfig
from glm130b.model import kernels
from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.attention_varlen import attend_with_varlen
from glm130b.model.kernels import Kernels, choose_kernels
from tests.harness.synthetic import small_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def choose(
    wishes: dict[str, Any], device: torch.device = GPU, dtype: torch.dtype = torch.bfloat16, **model: Any
) -> Kernels:
    return choose_kernels(KernelsConfig(**wishes), small_config(model=model).model, dtype, device)


@pytest.fixture(autouse=True)
def an_ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)


def install(monkeypatch: pytest.MonkeyPatch, *names: str, **contents: Any) -> None:
    """Pretend that a package of these modules is installed; only the first knows ``contents``."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for key, value in contents.items():
        monkeypatch.setattr(sys.modules[names[0]], key, value, raising=False)
    found = {name.partition(".")[0] for name in names}
    find_spec = kernels.find_spec
    monkeypatch.setattr(kernels, "find_spec", lambda name: True if name in found else find_spec(name))


def install_flash_attn(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    contents = {"__version__": version, "flash_attn_varlen_func": lambda: None}
    install(monkeypatch, "flash_attn", "flash_attn_2_cuda", **contents)


def test_a_cpu_takes_what_pytorch_has() -> None:
    chosen = choose({}, CPU)
    assert chosen.describe() == "attention sdpa, norms torch, pointwise plain"
    assert chosen.attention is attend_with_sdpa


def test_a_gpu_takes_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = choose({"pointwise": "plain"})
    assert bare.describe() == "attention varlen, norms torch, pointwise plain"
    assert isinstance(bare.attention, partial)
    assert bare.attention.func is attend_with_varlen

    install_flash_attn(monkeypatch, "2.8.3")
    install(monkeypatch, "transformer_engine", "transformer_engine.pytorch")
    install(monkeypatch, "triton")
    assert choose({}).describe() == "attention flash_attn, norms transformer_engine, pointwise fused"
    install(monkeypatch, "apex", "apex.normalization", "fused_layer_norm_cuda")
    assert choose({}).norm == "apex"


@pytest.mark.parametrize(
    ("attention", "dtype", "model", "words"),
    [
        ("varlen", torch.float32, {}, "not in torch.float32"),
        ("varlen", torch.float16, {"attention_dropout": 0.1}, "model.attention_dropout is 0.1"),
        ("varlen", torch.float16, {"positions": "alibi"}, "ALiBi"),
        ("varlen", torch.float16, {"head_dim": 20}, "multiple of 8, these are 20"),
        ("flash_attn", torch.float16, {"head_dim": 264}, "up to 256 wide, these are 264"),
        ("flash_attn", torch.float16, {"positions": "alibi"}, "ALiBi"),
        ("flash_attn", torch.float32, {}, "not in torch.float32"),
    ],
)
def test_what_a_kernel_cannot_do_is_refused_and_auto_avoids_it(
    monkeypatch: pytest.MonkeyPatch, attention: str, dtype: torch.dtype, model: dict[str, Any], words: str
) -> None:
    if attention == "flash_attn":
        install_flash_attn(monkeypatch, "2.8.3")
    with pytest.raises(UserError) as error:
        choose({"attention": attention}, dtype=dtype, **model)
    (problem,) = error.value.problems
    assert problem.startswith(f"kernels.attention: {attention} ")
    assert words in problem
    assert problem.endswith("; take auto or sdpa")
    assert choose({"pointwise": "plain"}, dtype=dtype, **model).attention_name == "sdpa"


def test_dropout_is_no_obstacle_for_flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash_attn(monkeypatch, "2.1.0")
    assert choose({}, attention_dropout=0.1).attention_name == "flash_attn"


def test_a_folder_of_that_name_is_no_flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later flash-attn leaves under the name has no compiled part."""
    install(monkeypatch, "flash_attn")
    assert choose({"pointwise": "plain"}).attention_name == "varlen"
    with pytest.raises(UserError, match=r"kernels\.attention: flash_attn is installed but cannot be imported"):
        choose({"attention": "flash_attn"})


def test_a_gpu_without_a_compiler_fuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "triton")
    assert choose({}).fused_pointwise
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert not choose({}).fused_pointwise
    with pytest.raises(UserError, match=r"kernels\.pointwise: fused needs a C compiler"):
        choose({"pointwise": "fused"})


def test_a_flash_attn_with_the_other_triangle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash_attn(monkeypatch, "2.0.9")
    with pytest.raises(UserError, match=r"from version 2\.1 on, 2\.0\.9 is installed"):
        choose({"attention": "flash_attn"})
    assert choose({"pointwise": "plain"}).attention_name == "varlen"


def test_an_old_gpu_has_no_flash_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert choose({"pointwise": "plain"}, dtype=torch.float16).attention_name == "sdpa"


def test_a_pytorch_without_flash_attention_has_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert choose({"pointwise": "plain"}).attention_name == "sdpa"


def test_the_index_s_other_apex_is_not_nvidia_s(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "apex")
    with pytest.raises(UserError, match=r"kernels\.norm: apex is installed but cannot be imported"):
        choose({"norm": "apex"})
    assert choose({"pointwise": "plain"}).norm == "torch"


def test_a_fused_layernorm_without_bias_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "apex", "apex.normalization", "fused_layer_norm_cuda")
    with pytest.raises(UserError, match="no LayerNorm without a bias"):
        choose({"norm": "apex"}, biases=False)
    assert choose({"pointwise": "plain"}, biases=False).norm == "torch"
    assert choose({"pointwise": "plain"}, biases=False, normalization="rmsnorm").norm == "apex"


def test_a_cpu_fuses_where_it_is_asked_and_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert choose({"pointwise": "fused"}, CPU).fused_pointwise
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"kernels\.pointwise: fused needs a C\+\+ compiler"):
        choose({"pointwise": "fused"}, CPU)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with pytest.raises(UserError) as error:
        choose({"attention": "flash_attn", "norm": "transformer_engine", "pointwise": "fused"}, CPU)
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "kernels.attention",
        "kernels.norm",
        "kernels.pointwise",
    ]
