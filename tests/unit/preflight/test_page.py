"""One line a finding, one summary, one file."""

from glm130b.preflight.finding import at_least, broken, failed, ok, skipped, warning
from glm130b.preflight.page import is_fit, line, summary


def test_lines_are_aligned_and_stay_one_line() -> None:
    found = [ok("cores", "96"), warning("clock", "3.0 s off", "start chrony"), failed("GPU ECC", "a\nb", "reset it")]
    assert [line(finding) for finding in found] == [
        "ok      cores         96",
        "warning clock         3.0 s off; start chrony",
        "FAIL    GPU ECC       a b; reset it",
    ]


def test_the_summary_counts_what_was_looked_at() -> None:
    good, doubt, bad = ok("a", ""), warning("b", "", ""), failed("c", "", "")
    assert summary("node-7", [good, good, skipped("d", "")]) == "node-7: fit, 2 checks"
    assert summary("node-7", [good, doubt]) == "node-7: fit, 2 checks, 1 warning"
    assert summary("node-7", [doubt, bad, doubt]) == "node-7: unfit, 1 of 3 checks failed, 2 warnings"
    assert [is_fit([good, doubt]), is_fit([good, bad])] == [True, False]


def test_a_number_decides_the_state() -> None:
    states = [at_least("x", "", amount, wanted=2, needed=1, mend="m").state for amount in (2, 1.5, 1, 0.9)]
    assert states == ["ok", "warning", "warning", "FAIL"]


def test_a_problem_of_a_config_is_split_into_value_and_mend() -> None:
    assert broken("config", "seed: -1 is too small; write 0; or more") == failed(
        "config", "seed: -1 is too small", "write 0; or more"
    )
