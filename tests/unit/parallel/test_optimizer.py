"""The optimizers: what is decayed, and what an answer of no leaves alone."""

import copy
from typing import Any

import pytest
import torch

from glm130b.parallel.optimizer import AskingAdamW, AskingSGD, Tell, build_optimizer
from tests.harness.synthetic import small_config


def built(
    model: torch.nn.Module, answers: list[bool], tell: Tell = lambda groups: None, **options: Any
) -> torch.optim.Optimizer:
    config = small_config(optimizer=options).optimizer
    return build_optimizer(config, model, device=torch.device("cpu"), ask=lambda: answers.pop(0), tell=tell)


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    ours = built(model, [], weight_decay=0.3, beta1=0.8, beta2=0.7, epsilon=1e-6)
    decayed, plain = ours.param_groups
    assert [p is model[0].weight for p in decayed["params"]] == [True]
    assert decayed["weight_decay"] == 0.3
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0
    assert (decayed["betas"], decayed["eps"]) == ((0.8, 0.7), 1e-6)
    assert isinstance(ours, AskingAdamW)
    assert isinstance(built(model, [], name="sgd"), AskingSGD)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_no_changes_nothing_and_yes_is_pytorchs_step(name: str) -> None:
    model = torch.nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    ours, theirs = built(model, [True, False, True], name=name), built(twin, [True, True], name=name)
    for permitted in (True, False, True):
        for parameter in (*model.parameters(), *twin.parameters()):
            parameter.grad = torch.full_like(parameter, 0.5)
        ours.step()
        if permitted:
            theirs.step()
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
        assert str(ours.state_dict()["state"]) == str(theirs.state_dict()["state"])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_it_tells_after_an_update_while_the_gradient_is_there(name: str) -> None:
    model, told = torch.nn.Linear(3, 2), []
    before = model.weight.detach().clone()

    def tell(groups: list[dict[str, Any]]) -> None:
        gradients = [parameter.grad.sum().item() for group in groups for parameter in group["params"]]
        told.append((gradients, torch.equal(model.weight, before)))

    ours = built(model, [False, True], tell, name=name)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        ours.step()
    assert told == [([3.0, 1.0], False)]
