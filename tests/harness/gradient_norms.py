"""The oracle's numbers of gradients and weights, by their names in a record: plain PyTorch, one process, no ZeRO.

The two shares of a tied embedding's gradient come from a twin whose head is a matrix of its own with the embedding's
values: autograd keeps the two apart.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.training.schedules import Schedules
from tests.harness.reference_comparison import oracle
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.reference_training import Step, backward, clip_gradients
from tests.harness.synthetic import SyntheticRows

EMBEDDING, HEAD = "embedding.word.weight", "output_layer.weight"
PREFIXES = ("gradient_norm", "embedding_gradient_norm", "parameter_norm", "update_ratio", "second_moment")
"""What the names of these numbers begin with."""


def oracle_numbers(config: RunConfig, weights: Mapping[str, Tensor], count: int) -> list[dict[str, float]]:
    """Every number of gradients and weights in the oracle's first ``count`` steps, which all read the weights."""
    model, optimizer = oracle(config, weights), config.optimizer
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": optimizer.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    stepper: torch.optim.Optimizer = torch.optim.SGD(groups)
    if optimizer.name == "adamw":
        betas = (optimizer.beta1, optimizer.beta2)
        stepper = torch.optim.AdamW(groups, betas=betas, eps=optimizer.epsilon)
    numbers = []
    for step in steps(config, count):
        stepper.zero_grad()
        backward(model, step)
        found = gradient_norms(model) | side_norms(config, model, step)
        found["gradient_norm"] = clip_gradients(list(parameters.values()), optimizer.clip_gradient_norm)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        for group in stepper.param_groups:
            group["lr"] = step.learning_rate
        stepper.step()
        changes = {name: parameter.detach() - before[name] for name, parameter in parameters.items()}
        numbers.append(found | weight_norms(before, changes) | second_moment(stepper.state[parameters[EMBEDDING]]))
    return numbers


def steps(config: RunConfig, count: int) -> Iterator[Step]:
    """The run's first steps."""
    schedules, rows, batch = Schedules(config), SyntheticRows(), config.batch.global_size
    sides = config.model.embedding_gradient_shrink
    for first in range(0, count * batch, batch):
        alpha = schedules.embedding_gradient_alpha(first)
        yield Step(
            rows=[rows[sample] for sample in range(first, first + batch)],
            learning_rate=schedules.learning_rate(first),
            input_alpha=alpha if sides.input_side else 1.0,
            logit_alpha=alpha if sides.logit_side else 1.0,
        )


def gradient_norms(model: ReferenceGLM) -> dict[str, float]:
    """Of every kind, every layer and the embedding."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        words = name.split(".")
        kind = next(kind for word, kind in KINDS.items() if any(word in each for each in words))
        parts["embedding_gradient_norm" if name == EMBEDDING else f"gradient_norm/{kind}"].append(parameter.grad)
        if words[1] == "layers":
            parts[f"gradient_norm/layer.{words[2]}"].append(parameter.grad)
    return {name: norm(gradients) for name, gradients in parts.items()}


KINDS = {
    "norm": "norms",
    "self_attention": "attention",
    "mlp": "ffn",
    "output_layer": "projection",
    "position": "positions",
    "word": "embedding",
}
"""By a word in a parameter's name; the first that fits."""


def side_norms(config: RunConfig, model: ReferenceGLM, step: Step) -> dict[str, float]:
    """Of the shares of the embedding's gradient."""
    twin_config = config.model.model_copy(update={"tie_embedding": False})
    whole = model.state_dict()
    head = whole[EMBEDDING] if config.model.tie_embedding else whole[HEAD]
    twin = oracle(config.model_copy(update={"model": twin_config}), {**whole, HEAD: head.clone()})
    backward(twin, step)
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters() if parameter.grad is not None}
    sides = {"embedding_gradient_norm/input_side": norm([gradients[EMBEDDING]])}
    if config.model.tie_embedding:  # the twin's own head is not shrunk
        sides["embedding_gradient_norm/logit_side"] = step.logit_alpha * norm([gradients[HEAD]])
    return sides


def weight_norms(before: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the weights before a step, and the ratios of its change to them."""
    layers = sorted({name.split(".")[2] for name in before if ".layers." in name})
    found = {}
    for suffix, inside in {"": "", **{f"/layer.{index}": f"decoder.layers.{index}." for index in layers}}.items():
        names = [name for name in before if name.startswith(inside)]
        found[f"parameter_norm{suffix}"] = norm([before[name] for name in names])
        found[f"update_ratio{suffix}"] = norm([changes[name] for name in names]) / found[f"parameter_norm{suffix}"]
    return found


def second_moment(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Extremes of Adam's second moment of the embedding; nothing for SGD."""
    if "exp_avg_sq" not in state:
        return {}
    lowest, highest = torch.aminmax(state["exp_avg_sq"])
    return {"second_moment/embedding_min": lowest.item(), "second_moment/embedding_max": highest.item()}


def norm(tensors: list[Tensor]) -> float:
    """L2 over all of them, in fp64."""
    return nn.utils.get_total_norm([tensor.double() for tensor in tensors]).item()
