"""Hardware by name and by numbers, and what a ring of it carries."""

import pytest

from glm130b.config.errors import UserError
from glm130b.plan.cluster import ACHIEVED_BANDWIDTH, read_hardware


def test_a_name_is_the_vendors_numbers() -> None:
    cluster = read_hardware("a100-40g")
    assert cluster.accelerator.memory_bytes == 40 * 2**30
    assert cluster.accelerator.peak_flops("fp16") == 312e12
    assert cluster.gpus_per_node == 8
    assert cluster.efficiency == cluster.accelerator.matrix_efficiency
    assert cluster.dollars_per_hour == cluster.accelerator.dollars_per_hour


def test_the_beginning_of_one_name_is_enough() -> None:
    assert read_hardware("v100,memory=16") == read_hardware("v100-32g,memory=16")


def test_numbers_behind_a_name_replace_its_own() -> None:
    changed = read_hardware("h100, network=12.5,memory=94", gpus_per_node=4, efficiency=0.5, price=9.0)
    assert changed.accelerator.network_bandwidth == 12.5e9
    assert changed.accelerator.memory_bytes == 94 * 2**30
    assert changed.accelerator.node_bandwidth == read_hardware("h100").accelerator.node_bandwidth
    assert (changed.gpus_per_node, changed.efficiency, changed.dollars_per_hour) == (4, 0.5, 9.0)


def test_custom_is_its_numbers_and_has_no_price_of_its_own() -> None:
    custom = "custom,memory=64,peak=383,memory_bandwidth=1600,node=50,network=25"
    gpu = read_hardware(custom).accelerator
    assert read_hardware(custom).dollars_per_hour is None
    assert read_hardware(custom, price=0.0).dollars_per_hour == 0
    assert (gpu.peak_flops("bf16"), gpu.memory_bytes, gpu.node_bandwidth) == (383e12, 64 * 2**30, 50e9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a100", "'a100' is not known; write a100-40g or a100-80g"),
        ("v10", "'v10' is not known; write v100-32g"),
        ("h20", "'h20' is not known; write h200"),
        ("", "'' is not known; write one of v100-32g"),
        ("tpu", "'tpu' is not known; write one of v100-32g"),
        ("h100,speed=3", "'speed=3' is not understood; write memory, peak"),
        ("h100,memory", "'memory' is not understood"),
        ("h100,memory=lots", "memory 'lots' is not a number above 0"),
        ("h100,network=0", "network '0' is not a number above 0"),
        ("h100,memory=1e-10", "memory '1e-10' is less than one byte"),
        ("custom,memory=1e-10,peak=1,memory_bandwidth=1,node=1,network=1", "memory '1e-10' is less than one byte"),
        ("h100,network=inf", "network 'inf' is not a number above 0"),
        ("custom,memory=3,peak=1", "custom needs memory_bandwidth, node, network too"),
    ],
)
def test_a_bad_name_or_number_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_hardware(text)
    assert len(error.value.problems) == 1
    assert said in error.value.problems[0]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        read_hardware("tpu", gpus_per_node=0, efficiency=1.5, price=-1.0)
    assert len(error.value.problems) == 4


def test_a_ring_in_a_machine_has_its_links_and_one_between_machines_their_cards() -> None:
    cluster = read_hardware("a100-40g")
    links, card = ACHIEVED_BANDWIDTH * 300e9, ACHIEVED_BANDWIDTH * 25e9
    assert cluster.ring_bandwidth(8) == cluster.ring_bandwidth(2, stride=4) == links
    assert cluster.ring_bandwidth(24, stride=8) == card
    assert cluster.ring_bandwidth(24, stride=4) == 2 * card  # two members in each machine, through two cards
    assert cluster.ring_bandwidth(16) == 8 * card
    assert cluster.ring_bandwidth(3) == card  # machines of eight cut it anywhere
    assert read_hardware("h100,network=400").ring_bandwidth(16) == ACHIEVED_BANDWIDTH * 450e9
