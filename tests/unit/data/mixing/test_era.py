"""What a run is mixed of, and since when."""

from typing import Any

from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era, changes, continued
from tests.harness.synthetic import small_config


def config(english: float = 1.0, **objective: Any) -> RunConfig:
    source = {"path": "none", "weight": {"start": english, "end": english}}
    shares = {"instruction_share": 0.05, "mask_share": 0.3}
    return small_config(data={"text": {"english": source}, "instructions": {}}, objective={**shares, **objective})


def test_an_era_is_what_the_config_says_and_survives_as_plain_data() -> None:
    era = Era.of(config(2.5, smask_share=0.1), from_samples=70)
    assert (era.from_samples, era.instruction_share.at(0), era.mask_share.at(0), era.smask_share.at(0)) == (
        70,
        0.05,
        0.3,
        0.1,
    )
    assert era.text["english"].at(0) == 2.5
    assert Era.model_validate_json(era.model_dump_json()) == era


def test_a_run_begins_with_one_era() -> None:
    assert continued((), config(), samples=0) == (Era.of(config()),)
    assert continued((), config(), samples=500) == (Era.of(config()),)


def test_the_same_mixture_goes_on_without_a_new_era() -> None:
    first = continued((), config(), samples=0)
    assert continued(first, config(), samples=100) == first


def test_a_change_begins_an_era_and_keeps_those_before() -> None:
    first = continued((), config(), samples=0)
    second = continued(first, config(2.0), samples=100)
    assert second == (*first, Era.of(config(2.0), from_samples=100))
    third = continued(second, config(2.0, mask_share=0.4), samples=300)
    assert [era.from_samples for era in third] == [0, 100, 300]
    assert third[:2] == second


def test_an_era_in_which_nothing_was_drawn_is_replaced() -> None:
    eras = continued(continued((), config(), samples=0), config(2.0), samples=100)
    assert continued(eras, config(3.0), samples=100) == (eras[0], Era.of(config(3.0), from_samples=100))
    assert continued(eras, config(), samples=100) == eras[:1]


def test_a_rewind_forgets_the_eras_after_it() -> None:
    eras = continued(continued((), config(), samples=0), config(2.0), samples=100)
    assert continued(eras, config(), samples=60) == eras[:1]
    assert continued(eras, config(3.0), samples=0) == (Era.of(config(3.0)),)


def test_after_a_rewind_an_era_to_come_stays_if_the_config_is_the_same() -> None:
    """As it does in a process that lives on."""
    eras = continued(continued((), config(), samples=0), config(2.0), samples=100)
    assert continued(eras, config(2.0), samples=60) == eras


def test_changes_in_words() -> None:
    assert not list(changes(()))
    eras = [Era.of(config(), from_samples=samples) for samples in (0, 1000, 25_000)]
    assert not list(changes(eras[:1]))
    assert list(changes(eras)) == ["mixed in another way from sample 1,000, 25,000 on"]
