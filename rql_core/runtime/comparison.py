"""Shadow mode: how far what would leave is from what the present controller commands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, CommandSchedule, Contract

# A minute at 20 Hz: what a person who watches the figures has just seen.
WINDOW = 1200
# Commands that differ by less than a twentieth of the range would hardly be told apart by a person who watches.
AGREEMENT = 0.05
# Ticks are compared within less of their time, and nothing may be proposed for hours.
KEPT_NS = 2_000_000_000


@dataclass(frozen=True)
class Difference:
    """At one tick: `commanded` and `proposed` (action_dim,), their `distance`, and whether they agree.

    The distance is the root mean square over the action's numbers, each as a share of its range.
    """

    commanded: npt.NDArray[np.float64]
    proposed: npt.NDArray[np.float64]
    distance: float
    agrees: bool


class ShadowComparison:
    """Keeps what the present controller commands, and compares at the ticks where both have a command in force."""

    def __init__(self, contract: Contract, agreement: float = AGREEMENT) -> None:
        features = contract.action.features
        self._range = np.array([feature.upper - feature.lower for feature in features], dtype=np.float64)
        self._max_age_ns = contract.action.max_age_ns
        self._agreement = agreement
        self._commanded = CommandSchedule(self._max_age_ns)
        self._recent: deque[Difference] = deque(maxlen=WINDOW)
        self._untold: list[Difference] = []
        self._waiting: tuple[int, npt.NDArray[np.float64]] | None = None
        self.compared = 0
        self.uncommanded = 0

    def reset(self) -> None:
        """Forget commands and differences; counts stay."""
        self._commanded.clear()
        self._recent.clear()
        self._untold.clear()
        self._waiting = None

    def commanded(self, chunk: ActionChunk) -> None:
        """Take a command of the present controller."""
        self._commanded.add(chunk)
        self._commanded.forget_before(chunk.stamp_ns - KEPT_NS)

    def propose(self, time_ns: int, proposed: npt.NDArray[np.float64]) -> None:
        """Take the policy's command (action_dim,) for a tick; it is compared when the next one is taken.

        A controller that answers each observation commands the tick after it has begun.
        """
        waiting, self._waiting = self._waiting, (time_ns, proposed)
        if waiting is not None:
            self.compare(*waiting)

    def compare(self, time_ns: int, proposed: npt.NDArray[np.float64]) -> Difference | None:
        """Compare the policy's command (action_dim,) for `time_ns`; None where the controller has none in force."""
        actual = self._commanded.action_at(time_ns)
        self._commanded.forget_before(time_ns)
        if actual is None:
            self.uncommanded += 1
            return None
        shares = (proposed - actual) / self._range
        distance = float(np.sqrt(np.mean(shares**2)))
        difference = Difference(actual, proposed, distance, bool((np.abs(shares) <= self._agreement).all()))
        self.compared += 1
        self._recent.append(difference)
        self._untold.append(difference)
        return difference

    def take_new(self) -> list[Difference]:
        """The differences since this was last asked."""
        new, self._untold = self._untold, []
        return new

    def figures(self) -> dict[str, float]:
        """Over the last minute: share of ticks at which they agree, median and 95th percentile of the distance."""
        if not self._recent:
            return {}
        distances = [difference.distance for difference in self._recent]
        middle, high = np.quantile(distances, [0.5, 0.95])
        agreement = sum(difference.agrees for difference in self._recent) / len(self._recent)
        return {"agreement": agreement, "distance_p50": float(middle), "distance_p95": float(high)}
