"""What `nvidia-smi` prints, as its manual describes it, for an A100 node, an H100 node and older cards."""

from pathlib import Path

import pytest

from glm130b.preflight.nvidia import (
    Gpu,
    RemappedRows,
    parse_gpus,
    parse_links,
    parse_remapped_rows,
    read_gpus,
    read_remapped_rows,
)
from tests.unit.preflight.conftest import A100

H100 = """\
0, NVIDIA H100 80GB HBM3, 550.90.07, Enabled, 81559, 81004, 28, 345, 1980, 700.00, 0, 0, 0x0000000000000000
"""
OLD = "0, Tesla V100-PCIE-32GB, 470.57.02, [N/A], 32510, 32508, 31, [N/A], [Not Supported], [N/A], [N/A], [N/A]\n"
LINKS = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-00000000-0000-0000-0000-000000000000)
\t Link 0: 25 GB/s
\t Link 1: 25 GB/s
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-00000000-0000-0000-0000-000000000001)
\t Link 0: 25 GB/s
\t Link 1: <inactive>
"""


def test_an_a100_node() -> None:
    first, second = parse_gpus(A100)
    assert first == Gpu(
        index=0,
        name="NVIDIA A100-SXM4-80GB",
        driver="535.183.01",
        ecc_mode="Enabled",
        memory_bytes=80 * 2**30,
        free_bytes=81038 * 2**20,
        temperature=34,
        clock=210,
        highest_clock=1410,
        power_limit=400,
        errors_since_reset=0,
        errors_ever=0,
        reasons=1,
    )
    assert first.slowed_by == [], "it is idle"
    assert second.slowed_by == ["slowed down by heat (driver)"], "the power cap, 0x4, is no trouble"
    assert second.troubles == ("slowed down by heat (driver)",), "old errors are none"
    assert second.errors_ever == 2


def test_an_h100_node() -> None:
    (gpu,) = parse_gpus(H100)
    assert (gpu.name, gpu.clock, gpu.highest_clock, gpu.slowed_by) == ("NVIDIA H100 80GB HBM3", 345, 1980, [])


def test_what_a_card_does_not_tell_is_none() -> None:
    (gpu,) = parse_gpus(OLD)
    assert (gpu.clock, gpu.highest_clock, gpu.power_limit, gpu.errors_since_reset, gpu.errors_ever) == (None,) * 5
    assert gpu.temperature == 31


def test_rows_and_links() -> None:
    assert parse_remapped_rows("0, 0\nYes, No\n0, 1\n") == [
        RemappedRows(pending=False, failure=False),
        RemappedRows(pending=True, failure=False),
        RemappedRows(pending=False, failure=True),
    ]
    assert parse_links(LINKS) == [["25 GB/s", "25 GB/s"], ["25 GB/s", "<inactive>"]]


def test_an_older_driver_is_asked_in_its_own_words(smi: Path) -> None:
    smi.write_text(
        f"""#!/bin/sh
case "$*" in
*clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.'; exit 2;;
*remapped*) echo 'Option "--query-remapped-rows" is not recognized.'; exit 2;;
*clocks_throttle_reasons*) printf '%s' '{A100}';;
esac
"""
    )
    assert read_gpus() == parse_gpus(A100)
    assert read_remapped_rows() == []


def test_a_driver_that_does_not_answer_is_an_error_in_words(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9\n")
    with pytest.raises(OSError, match="could not talk to the driver"):
        read_gpus()


def test_a_gpu_that_has_fallen_off_is_an_error(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho '0, NVIDIA A100, 535, ERR!, ERR!, ERR!, ERR!, 0, 0, 0, 0, 0'\n")
    with pytest.raises(OSError, match=r"nvidia-smi: .*ERR!"):
        read_gpus()


def test_no_program_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="nvidia-smi"):
        read_gpus()
