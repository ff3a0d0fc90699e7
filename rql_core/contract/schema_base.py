"""What every part of a contract file is made of: strict models, names, numbers, quality of service."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$", max_length=255)]
MessageType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*$")]
Number = StrictFloat | StrictInt


def finite(value: float, what: str) -> float:
    """The number as a float; raises ValueError that says `what` it is when it is NaN or infinite."""
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}, expected a finite number")
    return float(value)


class Strict(BaseModel):
    """A part of a contract: unknown keys are refused, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Qos(Strict):
    """Quality of service of a subscription or publisher, in the words of rmw."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: int = Field(default=1000, ge=1, le=100_000)
    # 1000: two seconds of a 500 Hz stream; a reader that falls behind must not lose training data.
