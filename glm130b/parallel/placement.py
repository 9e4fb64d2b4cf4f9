"""Puts the model where it runs: this process's chunks of layers, cut as the config says, on its device."""

from glm130b.config.sections import RunConfig
from glm130b.model.glm import GLM
from glm130b.model.initialization import initialize_
from glm130b.model.kernels import choose_kernels
from glm130b.model.stage import Stage
from glm130b.model.transformer_config import DTYPES, transformer_config
from glm130b.parallel.shared_gradients import mark_tied_copy
from glm130b.parallel.topology import Topology


def build_stage(config: RunConfig, topology: Topology, *, initialize: bool = True) -> Stage:
    """This process's part of the model on its device; its weights are undefined when a checkpoint will fill them."""
    kernels = choose_kernels(
        config.kernels, model=config.model, dtype=DTYPES[config.precision.dtype], device=topology.device
    )
    transformer = transformer_config(
        config.model, config.parallel, config.precision, fused_pointwise=kernels.fused_pointwise
    )
    virtual = config.parallel.virtual_stages
    stage = Stage(
        [
            GLM(
                config.model,
                transformer,
                kernels=kernels,
                groups=topology.groups,
                first_stage=topology.is_first_stage and chunk == 0,
                last_stage=topology.is_last_stage and chunk == virtual - 1,
                virtual_stage=chunk if virtual > 1 else None,
            )
            for chunk in range(virtual)
        ]
    ).to(topology.device)
    if initialize:
        initialize_(stage, config.seed)
    mark_tied_copy(stage)
    return stage
