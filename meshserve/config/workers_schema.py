"""The key `workers` of a pool in config.yaml: a number, or bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag, model_validator

from meshserve.config import fields
from meshserve.core.values import desired, llm_spec


class WorkersSection(fields.Section):
    """How many workers a pool has, by what they have to do; see docs/scaling.md."""

    min: fields.Natural = 1
    """The fewest. With 0 a pool whose models nobody calls has none, and the first request waits
    until one has started."""
    max: fields.Workers = "auto"
    """The most; `auto`: one for each core, 16 at most, or one for each GPU."""
    grow_after_s: fields.Seconds = 5.0
    """How long more must be needed before another worker is started."""
    shrink_after_s: fields.Seconds = 300.0
    """How long fewer must be enough before a worker ends, or nobody may call until the last one
    of `min: 0` does."""
    wait_s_max: fields.Seconds = 120.0
    """How long a request waits for the first worker of a pool that has none."""

    @model_validator(mode="after")
    def _has_room(self) -> WorkersSection:
        if isinstance(self.max, int) and self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, which is {self.max}")
        return self

    def settings(self) -> desired.ScalingSettings:
        """Return the core's value."""
        held = llm_spec.HoldLimits(wait_s_max=self.wait_s_max)
        return desired.ScalingSettings(self.min, self.grow_after_s, self.shrink_after_s, held)


def _form(value: object) -> str:
    """Return the tag of a value for `workers`: a mapping, or something else."""
    return fields.RANGE if isinstance(value, dict | WorkersSection) else fields.NUMBER


WorkersOrRange = Annotated[
    Annotated[fields.Workers, Tag(fields.NUMBER)] | Annotated[WorkersSection, Tag(fields.RANGE)],
    Discriminator(_form),
]
