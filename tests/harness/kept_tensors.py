"""What a process really keeps: parameters, gradients, optimizer state, and the tensors that autograd holds for the
backward pass, counted by storage; and the peak of all that PyTorch allocates on the CPU."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.training.progress import Progress
from tests.harness.training import LiveRun, live_run

_T = TypeVar("_T")


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Views of one storage count once, and as much as the whole of it."""
    return sum({_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class KeptTensors:
    """Within the block: bytes of the storages that autograd holds, parameters left out, at their fullest moment."""

    def __init__(self, parameters: Iterable[Tensor], *, logits_columns: int) -> None:
        self._parameters = {_key(parameter) for parameter in parameters}
        self._logits_columns = logits_columns
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}
        self._now = 0
        self.peak = 0
        """Of everything."""
        self.logits = 0
        """Of the largest fp32 tensor with the vocabulary's columns."""
        self._hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: _Held(self, t), lambda held: held.tensor)

    def __enter__(self) -> "KeptTensors":
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def hold(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._parameters:
            return
        self._holders[key] += 1
        if self._holders[key] == 1:
            self._sizes[key] = tensor.untyped_storage().nbytes()
            self._now += self._sizes[key]
            self.peak = max(self.peak, self._now)
        if tensor.dtype == torch.float32 and tensor.shape[-1:] == (self._logits_columns,):
            self.logits = max(self.logits, tensor.untyped_storage().nbytes())

    def release(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._parameters:
            return
        self._holders[key] -= 1
        if not self._holders[key]:
            self._now -= self._sizes.pop(key)


class _Held:
    """What autograd holds in place of the tensor, and drops when its node is done."""

    def __init__(self, kept: KeptTensors, tensor: Tensor) -> None:
        self.tensor, self._kept = tensor, kept
        kept.hold(tensor)

    def __del__(self) -> None:
        self._kept.release(self.tensor)


def measure_memory(launch: Launch, config: RunConfig) -> tuple[int, dict[str, int]]:
    """This process's stage, and bytes by the names of ``plan.memory.StageMemory``, over the micro-batches of one
    step."""
    run = live_run(config, launch)
    parameters = list(run.stage.parameters())
    with KeptTensors(parameters, logits_columns=config.model.vocab_size // config.parallel.tensor) as kept:
        run.accumulate_gradients()
    if config.parallel.zero_stage == 2:
        gradients = [tensor for group in _flat(run.engine._optimizer.averaged_gradients) for tensor in _flat(group)]
    else:
        gradients = [run.engine.gradient_of(parameter) for parameter in parameters]
    measured = {
        "weights": storage_bytes(parameters),
        "gradients": storage_bytes(gradients),
        "optimizer": storage_bytes(value for part in run.engine.fragments() for value in part.state.values()),
        "activations": kept.peak - kept.logits,
        "logits": kept.logits,
    }
    stage = run.topology.pipeline.rank
    disconnect()
    return stage, measured


def measure_peak(launch: Launch, config: RunConfig) -> tuple[int, int]:
    """This process's stage, and bytes allocated at the fullest moment of its second step, temporary tensors and buffers
    included."""
    held, _, (run, progress) = _allocated(lambda: _after_one_step(config, launch))
    _, peak, _ = _allocated(lambda: run.take_steps(1, progress))
    stage = run.topology.pipeline.rank
    disconnect()
    return stage, held + peak


def _after_one_step(config: RunConfig, launch: Launch) -> tuple[LiveRun, Progress]:
    run = live_run(config, launch)
    return run, run.take_steps(1)[0]


def _allocated(work: Callable[[], _T]) -> tuple[int, int, _T]:
    """Bytes more than before at the end of ``work`` and at its fullest moment, and its result; by PyTorch's profiler,
    which sees every allocation on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    assert seen.profiler
    assert seen.profiler.kineto_results
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return held[-1], max(held), result


def _flat(gradients: Any) -> list[Any]:
    return list(gradients.values()) if isinstance(gradients, dict) else list(gradients)
