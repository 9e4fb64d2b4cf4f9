"""What must be equal on several processes is: weights over the data axis, replicated ones over the tensor axis, the
tied embedding on the first and the last stage, and the data of a step on all who share it.

Nothing in a healthy run can break these. What does is a faulty chip, a lost message or a defect, and no loss curve
shows it for a long time.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.config.wording import rank_spans
from glm130b.data.loader import Loader
from glm130b.model.sharding import EMBEDDING, parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.agreement import shown_by_all, told_by_all
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.journal import Event, Journal
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress

_BLOCK = 2**20
"""Elements digested at a time, for which it takes 25 MB beside the weights."""
_ODD = 0x5851F42D4C957F2D
"""Between blocks; any large odd number would do."""
_FINGERPRINTS, _PLACES = 2**32, 2**21  # together as many as float64 tells apart
_MOST_SHOWN = 10


class InvariantError(RuntimeError):
    """What must be equal differs; the run must not go on, for nobody knows which copy is right."""

    def __init__(self, findings: Iterable[str]) -> None:
        self.findings = tuple(dict.fromkeys(findings))
        more = len(self.findings) - _MOST_SHOWN
        lines = [*self.findings[:_MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        super().__init__("; ".join(lines))


class Invariants:
    """Hook: checks weights and masters before the first step and after every few, and ends the run where they are not
    as they must be."""

    def __init__(
        self, stage: Stage, engine: ZeroEngine, topology: Topology, *, every_steps: int, journal: Journal
    ) -> None:
        self._engine = engine
        self._topology = topology
        self._every_steps = every_steps
        self._journal = journal
        self._shards = {id(shard.parameter): shard for shard in parameter_shards(stage)}
        self._embedding_group = topology.embedding_group if stage.model.tie_embedding else None
        # Odd, so that a change of one element always changes the digest; the same on every rank.
        numbers = torch.randint(2**62, (_BLOCK,), generator=torch.Generator().manual_seed(0))
        self._weights = (2 * numbers + 1).to(topology.device)

    def before_training(self, progress: Progress) -> None:
        self._check(progress)

    def after_step(self, progress: Progress, record: Record) -> None:
        if progress.step % self._every_steps == 0:
            self._check(progress)

    def _check(self, progress: Progress) -> None:
        """Collective over the whole job; raises InvariantError on every rank."""
        found = [*self._strange_states(), *self._differences()]
        if told_by_all([len(found)], self._topology).any():
            everywhere = chain.from_iterable(shown_by_all(found, self._topology))
            _break_off(everywhere, step=progress.step, journal=self._journal)

    def _strange_states(self) -> Iterator[str]:
        """Masters or moments that are not finite, weights that are not the masters, rounded."""
        rank = self._topology.rank
        for fragment in self._engine.fragments():
            name, master = self._shards[id(fragment.parameter)].name, fragment.state["master"]
            for kind, tensor in fragment.state.items():
                if not torch.linalg.vector_norm(tensor, torch.inf).isfinite():
                    yield f"{kind} of {name} on rank {rank} is not finite"
            if self._shards[id(fragment.parameter)].is_tied_copy:
                continue  # its weights are the first stage's, whatever its master
            weights = fragment.parameter.detach().flatten().narrow(0, fragment.start, len(master))
            if not torch.equal(master.to(weights), weights):
                yield f"{name} on rank {rank} is not the rounding of its master"

    def _differences(self) -> Iterator[str]:
        """What copies of one tensor do not agree on: an axis at a time, all its tensors in one collective."""
        weights, replicated = {}, {}
        for shard in self._shards.values():
            weights[shard.name] = self._digest(shard.parameter)
            if shard.is_replicated:
                replicated[shard.name] = weights[shard.name]
        for fragment in self._engine.fragments():  # cut alike on all ranks of the tensor axis
            if (shard := self._shards[id(fragment.parameter)]).is_replicated:
                for kind, tensor in fragment.state.items():
                    replicated[f"{kind} of {shard.name}"] = self._digest(tensor)
        yield from _differing(weights, self._topology.data.group)
        yield from _differing(replicated, self._topology.tensor.group)
        if self._embedding_group is not None:
            yield from _differing({EMBEDDING: weights[EMBEDDING]}, self._embedding_group)

    def _digest(self, tensor: Tensor) -> Tensor:
        """A number, int64 [], of all bits: the sum of the elements' bits times odd weights, modulo 2**64."""
        bits = tensor.detach().flatten().view(torch.int32 if tensor.element_size() == 4 else torch.int16)
        digest = torch.zeros((), dtype=torch.int64, device=self._weights.device)
        for block in bits.split(_BLOCK):
            digest = _ODD * digest + (block.to(digest.device) * self._weights[: len(block)]).sum()
        return digest


class DataAgreement:
    """A voice: says what this process was fed in the step, which all ranks of its place on the data axis must say, and
    where the run stood before it, which all must say."""

    def __init__(self, loader: Loader, topology: Topology, journal: Journal) -> None:
        self._loader = loader
        self._journal = journal
        self._tensor_size, self._data_size = topology.tensor.size, topology.data.size
        self._began = Progress()

    def say(self) -> float:
        """The fingerprint of the step's tokens, 32 bits, and 21 of a hash of where the last step ended."""
        place = zlib.crc32(f"{self._began.step} {self._began.samples}".encode()) % _PLACES
        return float(place * _FINGERPRINTS + self._loader.fingerprint)

    def hear(self, said: Tensor, progress: Progress) -> None:
        """Raises InvariantError, on every rank."""
        numbers = [int(number) for number in said.tolist()]
        places = {rank: number // _FINGERPRINTS for rank, number in enumerate(numbers)}
        found = [f"the place in the run {who}"] if (who := _who_differs(places)) else []
        for data_rank in range(self._data_size):
            fed = {
                rank: number % _FINGERPRINTS
                for rank, number in enumerate(numbers)
                if rank // self._tensor_size % self._data_size == data_rank
            }
            if who := _who_differs(fed):
                found.append(f"the data of step {progress.step} {who}")
        self._began = progress
        if found:
            _break_off(found, step=progress.step, journal=self._journal)


def _break_off(findings: Iterable[str], *, step: int, journal: Journal) -> NoReturn:
    """Say what was found, which outlives the process, and raise it."""
    error = InvariantError(findings)
    journal.tell(Event("invariant broken", step, str(error)))
    raise error


def _differing(digests: Mapping[str, Tensor], group: dist.ProcessGroup) -> Iterator[str]:
    """Collective over the group: which of the tensors differ, and where."""
    ranks = dist.get_process_group_ranks(group)
    own_N = torch.stack(list(digests.values()))
    all_RN = own_N.new_empty(len(ranks), len(digests))
    dist.all_gather(list(all_RN), own_N, group=group)
    for name, digests_R in zip(digests, all_RN.t().tolist(), strict=True):
        if who := _who_differs(dict(zip(ranks, digests_R, strict=True))):
            yield f"{name} {who}"


def _who_differs(numbers: Mapping[int, int]) -> str:
    """By rank. Empty where all are equal.

    >>> _who_differs({0: 7, 2: 7, 4: 5})
    'on rank 4 differs from that on ranks 0, 2'
    """
    ((most, _), *others) = Counter(numbers.values()).most_common()
    if not others:
        return ""
    odd = [rank for rank, number in numbers.items() if number != most]
    usual = [rank for rank, number in numbers.items() if number == most]
    return f"on {rank_spans(odd)} differs from that on {rank_spans(usual)}"
