"""The base of every config section: frozen, strict, closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One concern of a run. Values are checked once, when the section is built, and never change afterwards."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
