"""The part of a contract that says how recorded time is cut into episodes, and what the end of one means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rql_core.contract.strict_model import Clock, MessageType, Qos, Strict, Topic

# terminal: nothing comes after the last step (mask 0). truncation: the task went on, only the recording did not.
End = Literal["terminal", "truncation"]


class MarkerBoundary(Strict):
    """A message on this topic starts an episode at its stamp."""

    by: Literal["marker"]
    topic: Topic
    type: Literal["std_msgs/msg/Header"]
    end: End = Field(default="truncation", description="what the end of an episode at the next marker means")
    qos: Qos = Qos(durability="transient_local", depth=1)


class BagBoundary(Strict):
    """A bag is one episode."""

    by: Literal["bag"]
    end: End = Field(default="truncation", description="what the end of the bag means")


class GapCut(Strict):
    """So many seconds without an observation end an episode; what is missing for less time always truncates it."""

    by: Literal["gap"]
    seconds: float = Field(gt=0, le=86_400, allow_inf_nan=False)
    end: End


class ResetCut(Strict):
    """Any message on this topic ends an episode at its time, and another may begin."""

    by: Literal["reset"]
    topic: Topic
    type: MessageType
    clock: Clock = Field(description="'header' needs a type with a header")
    end: End
    qos: Qos = Qos()

    @model_validator(mode="after")
    def _has_a_time(self) -> ResetCut:
        package, _, name = self.type.split("/")
        if self.clock == "header" and (package == "std_srvs" or (package == "std_msgs" and name != "Header")):
            raise ValueError(f"{self.topic}: {self.type} has no header, which clock 'header' needs; use clock: receive")
        return self


class TimeLimitCut(Strict):
    """An episode ends after so many seconds; the next begins with the observation that it ended with."""

    by: Literal["time_limit"]
    seconds: float = Field(gt=0, le=86_400, allow_inf_nan=False)
    end: End


Cut = Annotated[GapCut | ResetCut | TimeLimitCut, Field(discriminator="by")]


class Episodes(Strict):
    """How recorded time is cut into episodes, and what the end of one means.

    `cuts` come on top of the boundary. Where what was needed is missing (an observation, an action in force, or the
    clock was set back) an episode ends as well, and always as a truncation: nobody saw how it went on.
    """

    boundary: Annotated[MarkerBoundary | BagBoundary, Field(discriminator="by")]
    cuts: list[Cut] = Field(default=[], max_length=16, description="further reasons to end an episode")
    min_steps: int = Field(ge=1, description="shorter episodes are left out and reported")
    at_success: Literal["continue", "end"] = Field(
        description="'continue': recording goes on after the task is solved (mask 0 there); 'end': cut, terminal"
    )

    @model_validator(mode="after")
    def _cuts_once(self) -> Episodes:
        keys = [cut.topic if isinstance(cut, ResetCut) else cut.by for cut in self.cuts]
        if isinstance(self.boundary, MarkerBoundary):
            keys.append(self.boundary.topic)
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key} cuts episodes {keys.count(key)} times, expected once")
        return self

    @property
    def gap(self) -> GapCut | None:
        return next((cut for cut in self.cuts if isinstance(cut, GapCut)), None)

    @property
    def time_limit(self) -> TimeLimitCut | None:
        return next((cut for cut in self.cuts if isinstance(cut, TimeLimitCut)), None)

    @property
    def events(self) -> tuple[MarkerBoundary | ResetCut, ...]:
        """The topics whose messages cut episodes."""
        resets = tuple(cut for cut in self.cuts if isinstance(cut, ResetCut))
        return (*resets, self.boundary) if isinstance(self.boundary, MarkerBoundary) else resets
