"""How a runner runs: when it plans, what an unusual value does, whether anything leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rql_core.errors import ConfigError
from rql_core.runtime.schedule import Mode

Monitoring = Literal["off", "warn", "hold"]
Interpolation = Literal["held", "linear"]


@dataclass(frozen=True)
class Options:
    """How a runner runs."""

    mode: Mode = "open_loop"
    """When it plans, and how chunks join (see ChunkSchedule)."""
    replan_every: int = 0
    """Steps between plans; 0: as suits the mode."""
    lockstep: bool = True
    """A simulation waits for the answer to each observation."""
    shadow: bool = False
    """Nothing leaves; what would have is compared with what the present controller commands."""
    on_trigger: bool = False
    """Nothing is commanded but for a limited time after `run`."""
    monitor: Monitoring = "warn"
    """What an unusual value of the critics does."""
    interpolation: Interpolation | None = None
    """Of single commands between two ticks (see Outgoing); None: linear for positions, held for everything else."""

    @property
    def values_first(self) -> bool:
        """Whether a chunk waits for the critics' values: to be held by them, or where a simulation waits anyhow."""
        return self.monitor == "hold" or (self.monitor == "warn" and self.lockstep)

    def __post_init__(self) -> None:
        """Raise ConfigError for what is none of the choices."""
        for name, choices in (("mode", get_args(Mode)), ("monitor", get_args(Monitoring))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        if self.interpolation is not None and self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ConfigError(f"interpolation is {self.interpolation!r}, expected one of {known}")
