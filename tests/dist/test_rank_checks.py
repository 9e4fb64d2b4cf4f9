"""Real processes tell each other what they are; one of them is not what the others are."""

from dataclasses import replace

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import Topology
from glm130b.preflight.rank_checks import compare_ranks
from glm130b.preflight.rank_facts import Facts, local_facts
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import small_config

ODD = 2


def outcomes(launch: Launch) -> dict[str, list[str]]:
    """By case, what this rank was told: warnings, or the problems of the error."""
    config, _ = in_layout(small_config(), "TP2 PP2")
    with joined(launch, config) as topology:
        facts = local_facts(config, topology.device)
        odd = launch.rank == ODD
        must, should = dict(facts.must_agree), dict(facts.should_agree)
        other_torch = replace(facts, must_agree=must | {"torch": "2.12.0"}) if odd else facts
        other_kernel = replace(facts, should_agree=should | {"kernel": "5.4.0"}) if odd else facts
        other_config = config.model_copy(update={"seed": 12}) if odd else config
        return {
            "alike": told(facts, config, topology),
            "torch": told(other_torch, config, topology),
            "kernel": told(other_kernel, config, topology),
            "config": told(local_facts(other_config, topology.device), other_config, topology),
        }


def told(facts: Facts, config: RunConfig, topology: Topology) -> list[str]:
    named = replace(facts, host=f"node-{topology.rank}")
    try:
        return [f"warning: {warning}" for warning in compare_ranks(named, config, topology)]
    except UserError as error:
        return list(error.problems)


def test_the_odd_one_out_is_named_on_every_rank() -> None:
    ranks: list[dict[str, list[str]]] = run_distributed(outcomes, 4)
    assert ranks == [ranks[0]] * 4, "all end for the same reason"
    found = ranks[0]
    assert found["alike"] == []
    (line,) = found["torch"]
    assert line.startswith("rank 2 on node-2: torch 2.12.0, all others 2.")
    (line,) = found["kernel"]
    assert line.startswith("warning: rank 2 on node-2: kernel 5.4.0, all others ")
    (line,) = found["config"]
    assert line.startswith("rank 2 on node-2: seed 12, all others 11; ")
