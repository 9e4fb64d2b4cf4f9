"""Who counts as lost, and when, by the listener's own clock."""

from glm130b.parallel.listening import Clock, JobEnd, Listener, Sign


def watch() -> Listener:
    return Listener(silence_seconds=60, stall_seconds=1800)


def sign(number: int, phase: str = "step 12", seconds: float = 1.0, *, ended: bool = False) -> Sign:
    return Sign(number, "node-007", phase, seconds, ended)


def test_nothing_new_for_too_long_is_silence() -> None:
    listener = watch()
    assert listener.hear({0: sign(1), 3: sign(5)}, now=10) is None
    assert listener.hear({0: sign(2), 3: sign(5)}, now=69) is None
    told = listener.hear({0: sign(3), 3: sign(5)}, now=71)
    assert told == JobEnd(3, "rank 3 (node-007): no sign of life for 61 s; last phase: step 12")


def test_any_change_is_a_sign_of_life() -> None:
    listener = watch()
    for number, now in enumerate(range(0, 600, 59)):
        assert listener.hear({1: sign(number)}, now) is None


def test_of_several_the_longest_silent_is_named() -> None:
    listener = watch()
    listener.hear({1: sign(1), 2: sign(1)}, now=0)
    listener.hear({1: sign(2), 2: sign(1)}, now=5)
    told = listener.hear({1: sign(2), 2: sign(1)}, now=100)
    assert told is not None
    assert told.rank == 2


def test_one_phase_for_too_long_is_a_stall_of_the_one_who_is_there_longest() -> None:
    listener = watch()
    signs = {0: sign(1, "reduction of step 9", 1801), 1: sign(1, "loading step-00000100", 1850), 2: sign(1)}
    told = listener.hear(signs, now=0)
    assert told == JobEnd(1, "rank 1 (node-007): has not moved for 1850 s; phase: loading step-00000100")


def test_who_has_ended_is_not_silent() -> None:
    listener = watch()
    signs = {0: sign(1, seconds=9999, ended=True)}
    assert listener.hear(signs, now=0) is None
    assert listener.hear(signs, now=500) is None


def test_the_clock_passes_over_the_time_in_which_this_process_was_stopped() -> None:
    clock = Clock(2.0)
    assert clock.tick(1000.0) == 0
    assert clock.tick(1002.0) == 2
    assert clock.tick(4600.0) == 8  # an hour, stopped
    assert clock.tick(4602.0) == 10


def test_signs_and_verdicts_travel_as_text() -> None:
    assert Sign.from_text(sign(4, 'a "phase"', 2.5).to_text()) == sign(4, 'a "phase"', 2.5)
    verdict = JobEnd(7, "rank 7 (a): failed in step 3: ü", 2)
    assert JobEnd.from_text(verdict.to_text()) == verdict
