"""Who is the odd one out, in few words, among as many ranks as there may be."""

from dataclasses import replace

import pytest

from glm130b.preflight.rank_checks import clocks_off, differences, doubts, odd_ones
from glm130b.preflight.rank_facts import Facts

GIB = 2**30
FACTS = Facts(
    host="",
    config="c0ffee",
    must_agree={"torch": "2.13.0", "data.text.english": "123 bytes (abc)"},
    should_agree={"driver": "535.183.01", "NCCL_IB_HCA": "mlx5"},
    free={"host memory": 900 * GIB, "GPU memory": 79 * GIB},
)


def job(size: int = 768) -> list[Facts]:
    """By rank, alike, 8 to a machine."""
    return [replace(FACTS, host=f"node-{rank // 8:03}") for rank in range(size)]


def with_other(told: list[Facts], ranks: range, **must_agree: str) -> list[Facts]:
    for rank in ranks:
        told[rank] = replace(told[rank], must_agree={**told[rank].must_agree, **must_agree})
    return told


def test_equal_ranks_have_nothing_to_say() -> None:
    assert [*differences(job()), *doubts(job())] == []


def test_one_odd_rank_is_named() -> None:
    told = with_other(job(), range(13, 14), torch="2.12.0")
    assert list(differences(told)) == ["rank 13 on node-001: torch 2.12.0, all others 2.13.0"]


def test_odd_ranks_of_a_machine_are_one_line() -> None:
    told = with_other(job(), range(56, 64), torch="2.12.0")
    assert list(differences(told)) == ["ranks 56-63 on node-007: torch 2.12.0, all others 2.13.0"]


def test_a_stale_copy_of_data_is_a_difference() -> None:
    told = with_other(job(), range(8, 16), **{"data.text.english": "99 bytes (def)"})
    assert list(differences(told)) == [
        "ranks 8-15 on node-001: data.text.english 99 bytes (def), all others 123 bytes (abc)"
    ]


def test_the_message_of_many_odd_ranks_stays_short() -> None:
    told = job()
    for rank in range(0, 700, 2):
        with_other(told, range(rank, rank + 1), torch="2.12.0")
    for rank in range(1, 20, 2):
        with_other(told, range(rank, rank + 1), torch=f"2.{rank}.9")
    lines = list(differences(told))
    assert lines[0] == (
        "350 ranks, the first rank 0, on node-000, node-001, node-002 and 85 more: torch 2.12.0, 408 others 2.13.0"
    )
    assert lines[1] == "rank 1 on node-000: torch 2.1.9, 408 others 2.13.0"
    assert lines[-1] == "8 ranks more: torch of 8 further values"
    assert len(lines) == 4


def test_of_two_ranks_the_second_is_the_odd_one() -> None:
    assert list(odd_ones(["a", "b"], [{"x": "1"}, {"x": "2", "y": "3"}])) == [
        "rank 1 on b: x 2, all others 1",
        "rank 1 on b: y 3, all others not set",
    ]


def test_little_free_memory_is_a_doubt() -> None:
    told = job(32)
    for rank in range(8, 16):
        told[rank] = replace(told[rank], free={"host memory": (100 + rank) * GIB, "GPU memory": 79 * GIB})
    told[20] = replace(told[20], free={"host memory": 900 * GIB, "GPU memory": 30 * GIB})
    assert list(doubts(told)) == [
        "ranks 8-15 on node-001: 108.0 GiB of host memory free, the median is 900.0 GiB",
        "rank 20 on node-002: 30.0 GiB of GPU memory free, the median is 79.0 GiB",
    ]


def test_other_settings_are_a_doubt_and_no_difference() -> None:
    told = job(32)
    told[9] = replace(told[9], should_agree={"driver": "550.90.07"})
    assert list(differences(told)) == []
    assert list(doubts(told)) == [
        "rank 9 on node-001: driver 550.90.07, all others 535.183.01",
        "rank 9 on node-001: NCCL_IB_HCA not set, all others mlx5",
    ]


def test_trouble_of_a_gpu_is_told_with_its_rank() -> None:
    told = job(32)
    for rank in (9, 10):
        told[rank] = replace(told[rank], troubles=("slowed down by heat (hardware)",))
    told[20] = replace(told[20], troubles=("uncorrected ECC errors since its reset: 2",))
    assert list(differences(told)) == []
    assert list(doubts(told)) == [
        "ranks 9-10 on node-001: GPU: slowed down by heat (hardware)",
        "rank 20 on node-002: GPU: uncorrected ECC errors since its reset: 2",
    ]


@pytest.mark.parametrize(
    ("offset", "words"),
    [(4.0, []), (9.2, ["9 s ahead of the others'"]), (-3600.0, ["3600 s behind the others'"])],
)
def test_a_clock_that_is_off(offset: float, words: list[str]) -> None:
    clocks = [1000.0 + 0.01 * rank for rank in range(16)]
    clocks[8:] = [clock + offset if rank > 12 else clock for rank, clock in enumerate(clocks[8:], start=8)]
    hosts = [facts.host for facts in job(16)]
    assert list(clocks_off(hosts, clocks)) == [f"ranks 13-15 on node-001: clock {told}" for told in words]
