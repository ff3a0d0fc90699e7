"""What is asked of a policy and what it answers: a chunk, perhaps held to the one before it, and what it is worth.

No torch, no clock: steps are counted from the observation's tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rql_core.errors import ConfigError


@dataclass(frozen=True)
class Guide:
    """What real-time chunking holds a new chunk to (Black et al., arXiv 2506.07339).  Raises ConfigError."""

    previous: npt.NDArray[np.float64]
    """(horizon, action_dim), physical: what the chunk before says for each step of the new one; beyond its end, its
    last step, with weight 0."""
    weights: npt.NDArray[np.float32]
    """(horizon,), in [0, 1]: 1 is frozen, 0 is free."""

    def __post_init__(self) -> None:
        if self.previous.ndim != 2 or self.weights.shape != self.previous.shape[:1]:
            raise ConfigError(
                f"a guide has previous {self.previous.shape} and weights {self.weights.shape}: "
                "expected (horizon, action_dim) and (horizon,)"
            )
        if not np.isfinite(self.previous).all():
            raise ConfigError("a guide's previous chunk holds a number that is not finite: leave the guide out")
        if not ((self.weights >= 0) & (self.weights <= 1)).all():
            raise ConfigError(f"a guide's weights are {self.weights.min()} to {self.weights.max()}: expected 0 to 1")


@dataclass(frozen=True)
class Plan:
    """A chunk, and what the critics say of it."""

    actions: npt.NDArray[np.float64]
    """(horizon, action_dim), physical."""
    values: npt.NDArray[np.float32] | None = None
    """(critics,) of this chunk; None where nobody asked, or nobody could be asked."""


class Actor(Protocol):
    """What plans chunks.  Owned by one thread."""

    @property
    def horizon(self) -> int:
        """Steps of a chunk."""

    def reset(self, seed: int | None) -> None:
        """Start an episode; the same seed, observations and guides give the same chunks."""

    def plan(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        """Plan for an observation (observation_dim,) float32 in physical units, held to a guide if there is one."""

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the chunk (horizon, action_dim) that ``plan`` makes without a guide."""

    def values(
        self, observation: npt.NDArray[np.float32], actions: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32] | None:
        """Return each critic's value (critics,) of a planned chunk (horizon, action_dim); None without critics."""


@runtime_checkable
class Rehearsing(Protocol):
    """An actor that can plan in vain."""

    def rehearse(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        """Plan as ``Actor.plan`` does, by the same code; nothing that is planned later depends on it."""
