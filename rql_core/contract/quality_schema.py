"""What a contract asks of bags and of converted data: what becomes of a bad bag, and bounds that --strict keeps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rql_core.contract.strict_model import Strict

BadBags = Literal["stop", "skip"]


class Quality(Strict):
    """What becomes of a bad bag, and bounds on the data of a conversion: what is left out is not bounded.

    `rql convert --strict` fails past a bound.
    """

    bad_bags: BadBags = Field(
        default="stop",
        description="what a bag that is damaged or does not keep to the contract does: it stops the conversion, or is "
        "left out of the dataset and named in its report",
    )
    max_skipped_bags: int | None = Field(default=None, ge=0, description="bags that `bad_bags: skip` may leave out")

    max_gap: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="s; longest pause of an observation topic within an episode",
    )
    max_age_p95: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="s; age of an observation topic's message at the ticks of an episode, 95th percentile",
    )
    max_drops: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of an observation topic's messages that its own rate says are missing",
    )
    max_clock_offset: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="s; how far a topic's stamps may be from when they were received, median, either way",
    )
    max_saturation: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="share of steps at which an action is at its limit"
    )
    max_outside_limits: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="share of steps at which an action is past its limit"
    )
    max_jump: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="largest change of an action from one step to the next, as a share of its range",
    )
    max_outliers: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of a feature's values outside its quartiles by more than three times their distance",
    )
    max_dead_features: int | None = Field(
        default=None, ge=0, description="numbers of the observation that never change in the whole dataset"
    )
    max_dropped_share: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="share of the cut steps that lie in dropped episodes"
    )
    min_episodes: int | None = Field(default=None, ge=1, description="episodes that the dataset must have")
