"""Everybody comes, whatever an earlier attempt has left with the server; who does not is named."""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from glm130b.environment import Launch, MeetingPoint
from glm130b.parallel.meeting import Meeting, meet

SOON = timedelta(seconds=1)
LATE = timedelta(seconds=20)


@pytest.fixture
def server() -> TCPStore:
    """It outlives the attempts, as the one of torchrun's agent does."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def point(server: TCPStore) -> MeetingPoint:
    return MeetingPoint("127.0.0.1", server.port, kept_by_launcher=True)


def come(point: MeetingPoint, *present: int, world_size: int, patience: timedelta = LATE) -> list[Future[Meeting]]:
    def one(rank: int) -> Meeting:
        return meet(Launch(rank=rank, local_rank=rank, world_size=world_size), point, patience=patience)

    with ThreadPoolExecutor(world_size) as pool:
        return [pool.submit(one, rank) for rank in present]


def test_all_learn_the_same_attempt(point: MeetingPoint) -> None:
    met = [one.result() for one in come(point, 2, 1, 0, world_size=3)]
    assert len({meeting.attempt for meeting in met}) == 1


def test_an_earlier_attempt_means_nothing(point: MeetingPoint) -> None:
    first = [one.result() for one in come(point, 0, 1, 2, world_size=3)]
    first[0].store("topic", LATE).set("key", "stale")
    for world_size in (3, 2, 3):
        again = [one.result() for one in come(point, *range(world_size), world_size=world_size)]
        assert len({meeting.attempt for meeting in again}) == 1
        assert again[0].attempt != first[0].attempt
        assert not again[1].store("topic", LATE).check(["key"])


def test_a_topic_is_shared_and_apart_from_others(point: MeetingPoint) -> None:
    zero, one = (one.result() for one in come(point, 0, 1, world_size=2))
    zero.store("topic", LATE).set("key", "value")
    assert one.store("topic", LATE).get("key") == b"value"
    assert not one.store("other", LATE).check(["key"])


def test_who_has_not_come_is_named(point: MeetingPoint) -> None:
    first, other = come(point, 0, 2, world_size=5, patience=SOON)
    with pytest.raises(TimeoutError, match="ranks 1, 3-4 of 5 not there after 1 s"):
        first.result()
    assert other.result().attempt


@pytest.mark.parametrize("kept", [True, False])
def test_the_first_rank_has_not_come(kept: bool, point: MeetingPoint) -> None:
    port = point.port if kept else 9  # where nobody answers
    (other,) = come(MeetingPoint("127.0.0.1", port, kept), 1, world_size=2, patience=SOON)
    words = rf"^rank 1: no answer from rank 0 at 127.0.0.1:{port} within 1 s \(.+\); if rank 0 names missing ranks"
    with pytest.raises(TimeoutError, match=words):
        other.result()


def test_one_process_meets_itself() -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = server.port
    del server
    meeting = meet(Launch(rank=0, local_rank=0, world_size=1), MeetingPoint("127.0.0.1", port, False), patience=SOON)
    meeting.store("topic", SOON).set("key", "value")
