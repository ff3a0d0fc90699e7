"""How evenly a core computes: the same work again and again, with nothing else to do.

Where a virtual machine's core is half of a real one, what the neighbour on the other half does shows here, and in the
99th percentile of everything that is measured on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter_ns

import numpy as np

from benchmarks.node_figures import quantile
from benchmarks.node_robot import POSITIONS
from benchmarks.node_subjects import HORIZON, contract_at
from rql_core.runtime.safety import SafetyFilter

# As long as a slow stretch of the host lasts, a few times.
SECONDS = 4.0


@dataclass(frozen=True)
class Evenness:
    """Of the times of equal work, in us."""

    p10_us: float
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, times_us: list[float]) -> Evenness:
        """Of so many times."""
        return cls(*(quantile(times_us, share) for share in (0.1, 0.5, 0.99)))

    def __str__(self) -> str:
        """A sentence."""
        return (
            f"equal work took {self.p10_us:.0f} us in the best tenth, {self.p50_us:.0f} in the median, and "
            f"{self.p99_us / self.p10_us:.1f} times the first at the 99th percentile, on this core alone"
        )


def measure(seconds: float = SECONDS, cores: set[int] | None = None) -> Evenness:
    """Take chunks through the safety filter for so long, on these cores."""
    contract = contract_at(50)
    safety = SafetyFilter(contract)
    position = np.array(POSITIONS)
    state = safety.activate(0, position)
    chunk = np.random.default_rng(0).normal(size=(HORIZON, contract.action_dim))
    times: list[float] = []
    with _on(cores):
        end = monotonic() + seconds
        while monotonic() < end:
            began = perf_counter_ns()
            safety.apply(chunk, state, 10**9, position)
            times.append((perf_counter_ns() - began) / 1000)
    return Evenness.of(times)


@contextmanager
def _on(cores: set[int] | None) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
