"""Time for benchmarks/paper_tasks.py: how fast training and episodes are, and whether one more checkpoint fits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Until an episode was measured: the longest of the paper's manipulation tasks have 1,000 steps, and a step with its
# share of the plan took 2 ms of one core; a slower one is reckoned with.
UNKNOWN_EPISODE_S = 4.0
# A batch of 16 samples took twice as long as a single one; more may be asked for.
BEST_OF_FACTOR = 3.0
# Episodes differ in length, and training gets in their way: what is measured is the mean, what is planned is more.
MARGIN = 1.3
# Processes start and load checkpoints before the first episode.
LOADING_S = 5.0
# Importing, reading a data set and the first update, until it was measured; compiling takes longer.
UNKNOWN_START_S = 30.0


@dataclass(frozen=True)
class Budget:
    """The time that everything may take; `seconds` None: as long as it takes. `reserve_s` is kept for the end."""

    began: float
    seconds: float | None
    reserve_s: float = 0.0

    def left(self, now: float) -> float:
        """Seconds left for training and episodes, infinite without a limit; negative where the reserve is begun."""
        return math.inf if self.seconds is None else self.began + self.seconds - self.reserve_s - now


class UpdateRate:
    """How fast a training is, from when it was seen where; its start, with all that is loaded and compiled, apart."""

    def __init__(self, began: float, step: int) -> None:
        self.began = began
        self.step = step
        self._first: tuple[float, int] | None = None
        self._last = (began, step)

    def see(self, now: float, step: int) -> None:
        """It has made so many updates; what was seen already says nothing new."""
        if step <= self.step:
            return
        self.step, self._last = step, (now, step)
        self._first = self._first or self._last

    @property
    def start_s(self) -> float | None:
        """From the start to the first updates that were seen; None before."""
        return None if self._first is None else self._first[0] - self.began

    @property
    def per_second(self) -> float | None:
        """Updates a second; None until it was seen twice."""
        if self._first is None or self._last == self._first:
            return None
        (begun, first), (now, last) = self._first, self._last
        return (last - first) / max(now - begun, 1e-6)

    def seconds_to(self, step: int, now: float) -> float:
        """Seconds until so many updates are made; 0 where the rate is unknown or they should have been made already."""
        rate = self.per_second
        if rate is None:
            return 0.0
        return max(0.0, (step - self._last[1]) / rate - (now - self._last[0]))


class EpisodeSpeeds:
    """Seconds that one process takes for an episode, by domain and number of samples."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int], float] = {}

    def add(self, domain: str, samples: int, seconds: float) -> None:
        """So long it took; the newest measurement counts, as policies learn to end episodes early."""
        self._seconds[domain, samples] = seconds

    def of(self, domain: str, samples: int) -> float:
        """As measured; or else by the same domain with other samples, or by the slowest of all."""
        if (domain, samples) in self._seconds:
            return self._seconds[domain, samples]
        same = [seconds for (name, _), seconds in self._seconds.items() if name == domain]
        single = max(same or self._seconds.values(), default=UNKNOWN_EPISODE_S)
        return single if samples == 1 else single * BEST_OF_FACTOR

    def needed(self, episodes: Iterable[tuple[str, int, int]], workers: int) -> float:
        """Seconds for (domain, samples, number of episodes) in so many processes, with a margin; 0 for none."""
        listed = [(self.of(domain, samples), count) for domain, samples, count in episodes if count > 0]
        if not listed:
            return 0.0
        # With more processes than episodes the longest episode is what is waited for.
        total = sum(seconds * count for seconds, count in listed)
        return LOADING_S + MARGIN * max(total / workers, max(seconds for seconds, _ in listed))


def next_checkpoint(step: int, every: int, updates: int) -> int:
    """The updates after which the next checkpoint is made."""
    return min(updates, (step // every + 1) * every)


def checkpoint_fits(left_s: float, to_checkpoint_s: float, evaluation_s: float) -> bool:
    """Whether a checkpoint that comes in so many seconds can still be evaluated; if not, training on gains nothing."""
    return to_checkpoint_s + evaluation_s <= left_s
