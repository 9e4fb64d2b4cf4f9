"""Whether the packages that a config asks for are installed; imports none of them."""

from importlib.util import find_spec

from glm130b.config.sections import RunConfig

_TENSORBOARD = (
    "logging.tensorboard: the package tensorboard is not installed; run `pip install 'glm130b[report]'`, or set "
    "logging.tensorboard=false"
)


def missing_packages(config: RunConfig) -> list[str]:
    """One problem for each, with the mend."""
    return [_TENSORBOARD] if config.logging.tensorboard and find_spec("tensorboard") is None else []
