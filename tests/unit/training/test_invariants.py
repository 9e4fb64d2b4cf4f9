"""Who differs from whom, what a digest sees, and what the ranks say of their data."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glm130b.training.invariants import _BLOCK, DataAgreement, InvariantError, Invariants, _who_differs
from glm130b.training.journal import Event
from glm130b.training.progress import Progress


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({0: 5, 2: 5, 4: 5}, ""),
        ({3: 5}, ""),
        ({0: 5, 2: 6, 4: 6}, "on rank 0 differs from that on ranks 2, 4"),
        ({0: 5, 2: 6, 4: 5, 6: 7, 8: 5}, "on ranks 2, 6 differs from that on ranks 0, 4, 8"),
        ({1: 5, 5: 6}, "on rank 5 differs from that on rank 1"),
    ],
)
def test_the_majority_is_taken_for_right(numbers: dict[int, int], words: str) -> None:
    assert _who_differs(numbers) == words


def test_an_error_says_each_finding_once_and_not_hundreds() -> None:
    error = InvariantError([f"tensor {number // 2}" for number in range(40)])
    assert len(error.findings) == 20
    assert str(error).endswith("tensor 9; and 10 more")


@pytest.fixture(scope="module")
def digest() -> Any:
    topology: Any = SimpleNamespace(device=torch.device("cpu"), embedding_group=None, data=SimpleNamespace(size=1))
    stage: Any = SimpleNamespace(model=SimpleNamespace(tie_embedding=True))
    engine: Any = None
    journal: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glm130b.training.invariants.parameter_shards", lambda stage: iter(()))
        hook = Invariants(stage, engine, topology, every_steps=1, journal=journal)
    return lambda tensor: hook._digest(tensor).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_digest_sees_every_bit(digest: Any, dtype: torch.dtype) -> None:
    size = 2 * _BLOCK + 3
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)
    right = digest(tensor)
    assert digest(tensor.clone()) == right
    seen = {right}
    bits = tensor.view(torch.int32 if dtype == torch.float32 else torch.int16)
    for element in (0, 7, _BLOCK - 1, _BLOCK, 2 * _BLOCK, size - 1):
        for bit in (0, bits.element_size() * 8 - 1):
            bits[element] ^= -(2**bit) if bit > 14 and bits.element_size() == 2 else 1 << bit if bit < 31 else -(2**31)
            seen.add(digest(tensor))
            bits[element] ^= -(2**bit) if bit > 14 and bits.element_size() == 2 else 1 << bit if bit < 31 else -(2**31)
    assert len(seen) == 13
    assert digest(tensor) == right
    assert digest(tensor.flip(0)) != right  # the order counts
    assert digest(torch.cat((tensor[_BLOCK : 2 * _BLOCK], tensor[:_BLOCK], tensor[2 * _BLOCK :]))) != right


def agreement(fingerprint: int, told: list[Event] | None = None) -> DataAgreement:
    """Of one rank of TP 2 x PP 2 x DP 2."""
    axis = SimpleNamespace(size=2)
    loader: Any = SimpleNamespace(fingerprint=fingerprint)
    topology: Any = SimpleNamespace(tensor=axis, data=axis)
    journal: Any = SimpleNamespace(tell=(told if told is not None else []).append)
    return DataAgreement(loader, topology, journal)


def hear(voices: list[DataAgreement], progress: list[Progress]) -> None:
    said = torch.tensor([voice.say() for voice in voices], dtype=torch.float64)
    for voice, where in zip(voices, progress, strict=True):
        voice.hear(said, where)


LARGE = 2**32 - 1
FED = [7, 7, LARGE, LARGE, 7, 7, LARGE, LARGE]


def test_data_ranks_are_fed_differently_and_the_ranks_of_one_alike() -> None:
    voices = [agreement(fingerprint) for fingerprint in FED]
    for step in range(1, 100):
        hear(voices, [Progress(step=step, samples=8 * step)] * 8)


def test_a_rank_with_other_data_is_named() -> None:
    told: list[Event] = []
    voices = [agreement(fingerprint, told) for fingerprint in [*FED[:6], LARGE - 1, LARGE]]
    words = "the data of step 5 on rank 6 differs from that on ranks 2-3, 7"
    with pytest.raises(InvariantError, match=f"^{words}$"):
        hear(voices, [Progress(step=5, samples=40)] * 8)
    assert told == [Event("invariant broken", 5, words)]


def test_a_rank_at_another_place_in_the_run_is_named_after_its_next_step() -> None:
    voices = [agreement(fingerprint) for fingerprint in FED]
    progress = [Progress(step=5, samples=40)] * 8
    progress[3] = Progress(step=5, samples=48)
    hear(voices, progress)
    with pytest.raises(InvariantError, match=r"^the place in the run on rank 3 differs from that on ranks 0-2, 4-7$"):
        hear(voices, progress)
