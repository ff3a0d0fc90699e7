"""How a trained policy acts, where that may differ from how it was trained: best of N samples, fewer flow steps, held
to the chunk before.

Without torch, for what runs on a robot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rql_core.errors import ConfigError

# 1024 samples of a large policy are a second of one core's time; more than that is a typing error.
MAX_SAMPLES = 1024

#: How a flow is held to a chunk of before; rql_core/guidance.py says what each does.
GuideMethod = Literal["jacobian", "prefix"]
# How strong Jacobian guidance may get (beta): without a bound it is infinite at the first step; 5 is the value of the
# paper for few flow steps (arXiv 2506.07339).
GUIDANCE_LIMIT = 5.0
# What is said of an algorithm that makes its chunks in one step.
NO_FLOW_TO_GUIDE = "{} acts in one step and has no flow to guide: choose another way to join chunks, such as ensemble"


@dataclass(frozen=True)
class Acting:
    """What acting does with noise; raises ConfigError for a number that makes no sense."""

    samples: int = 1
    """Chunks that are made of as many noises; the critics choose one (arXiv 2304.10573, 2507.07969)."""
    rho: float = 0.0
    """Pessimism of that choice: it takes the greatest mean - rho * std over the critics."""
    flow_steps: int | None = None
    """Flow steps from noise to action; None: as many as in training."""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise ConfigError(f"samples is {self.samples}: expected 1 to {MAX_SAMPLES}")
        if not 0.0 <= self.rho < float("inf"):
            raise ConfigError(f"rho is {self.rho}: expected 0 or more")
        if self.flow_steps is not None and not 1 <= self.flow_steps <= 1000:
            raise ConfigError(f"flow_steps is {self.flow_steps}: expected 1 to 1000")

    def changed(self, *, samples: int | None = None, rho: float | None = None, flow_steps: int | None = None) -> Acting:
        """Return the same with what is not None in place of its own."""
        return Acting(
            self.samples if samples is None else samples,
            self.rho if rho is None else rho,
            self.flow_steps if flow_steps is None else flow_steps,
        )


def check_rho(rho: float, every_acting: Iterable[Acting]) -> None:
    """Raise ConfigError where a rho was asked for, but with one sample there is nothing to choose."""
    if rho > 0 and all(acting.samples == 1 for acting in every_acting):
        raise ConfigError(f"rho is {rho}, but there is one sample and nothing to choose: give --samples 16 as well")
