"""What a conversion says about the data: enough to see a slow topic, a stuck joint or a wrong limit before training."""

from __future__ import annotations

import dataclasses
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.bags.episodes import Episode
from rql_core.contract.scale import ActionScale
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS

# An action counts as at its limit within a thousandth of its range: encoders and float32 rarely hit it exactly.
_LIMIT_SHARE = 1e-3


@dataclass(frozen=True)
class TopicReport:
    """A topic of one bag; rate and ages by the contract's clock. Ages are those at the ticks, of observations only."""

    topic: str
    messages_used: int
    rate_hz: float | None
    longest_period_s: float | None
    median_age_s: float | None = None
    longest_age_s: float | None = None

    @classmethod
    def of(cls, topic: str, stamps: array[int], ages: array[int] | None) -> TopicReport:
        """Summarise the stamps of used messages, and their ages at the ticks, in ns."""
        # Only steps forward in time: after a clock jump the next one begins a new count.
        periods = np.diff(np.frombuffer(stamps, dtype=np.int64)) if len(stamps) > 1 else np.empty(0, dtype=np.int64)
        if len(periods) and periods.min() <= 0:
            periods = periods[periods > 0]
        rate = longest = age = oldest = None
        if len(periods):
            longest = float(periods.max()) / NANOSECONDS
            # In place: a bag of ten gigabytes has tens of millions of them.
            rate = NANOSECONDS / float(np.median(periods, overwrite_input=True))
        if ages:
            values = np.frombuffer(ages, dtype=np.int64)
            age, oldest = float(np.median(values)) / NANOSECONDS, float(values.max()) / NANOSECONDS
        return cls(topic, len(stamps), rate, longest, age, oldest)


@dataclass(frozen=True)
class BagReport:
    """What became of one bag. `left_out` counts what was not used, `cuts` why episodes ended."""

    path: str
    sha256: dict[str, str]
    notes: list[str]
    messages: int
    seconds: float
    episodes: int
    steps: int
    left_out: dict[str, int]
    cuts: dict[str, int]
    topics: list[TopicReport]


@dataclass(frozen=True)
class NumberReport:
    """One number of the observation or action vector over the whole dataset, in physical units."""

    name: str
    minimum: float
    maximum: float
    mean: float
    std: float
    share_at_limits: float | None = None
    share_outside_limits: float | None = None


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read, left out and wrote. Returns are undiscounted sums of an episode's rewards."""

    dataset: str
    contract: str
    contract_sha256: str
    content_sha256: str
    episodes: int
    steps: int
    shortest_episode: int
    longest_episode: int
    episodes_with_success: int
    terminal_episodes: int
    solved_steps: int
    mean_reward: float
    mean_return: float
    lowest_return: float
    highest_return: float
    observations: list[NumberReport]
    actions: list[NumberReport]
    bags: list[BagReport]
    software: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A page to read."""
        share = 100 * self.episodes_with_success / self.episodes
        lines = [
            f"{self.dataset}: {self.episodes} episodes, {self.steps} steps (contract {self.contract})",
            f"episode length {self.shortest_episode} to {self.longest_episode} steps, "
            f"success in {self.episodes_with_success} episodes ({share:.1f} %), {self.solved_steps} steps solved",
            f"reward mean {self.mean_reward:.4g}, return mean {self.mean_return:.4g} "
            f"({self.lowest_return:.4g} to {self.highest_return:.4g})",
            "",
        ]
        for bag in self.bags:
            lines.append(f"{bag.path}: {bag.messages} messages, {bag.episodes} episodes, {bag.steps} steps")
            lines += [f"  note: {note}" for note in bag.notes]
            for topic in bag.topics:
                parts = [f"{topic.messages_used} used"]
                if topic.rate_hz is not None and topic.longest_period_s is not None:
                    parts.append(f"{topic.rate_hz:.2f} Hz, longest pause {topic.longest_period_s:.3f} s")
                if topic.median_age_s is not None and topic.longest_age_s is not None:
                    parts.append(f"age at tick {topic.median_age_s:.4f} s (longest {topic.longest_age_s:.4f} s)")
                lines.append(f"  {topic.topic}: {', '.join(parts)}")
            if bag.left_out:
                lines.append("  left out: " + ", ".join(f"{name} {count}" for name, count in bag.left_out.items()))
            lines.append("  episodes ended by: " + ", ".join(f"{why} {count}" for why, count in bag.cuts.items()))
        lines += ["", f"{'':44s}{'minimum':>12s}{'maximum':>12s}{'mean':>12s}{'std':>12s}  at limit  outside"]
        for number in [*self.observations, *self.actions]:
            row = f"{number.name:44s}{number.minimum:12.4g}{number.maximum:12.4g}{number.mean:12.4g}{number.std:12.4g}"
            if number.share_at_limits is not None and number.share_outside_limits is not None:
                row += f"{100 * number.share_at_limits:8.2f} %{100 * number.share_outside_limits:7.2f} %"
            lines.append(row)
        return "\n".join(lines) + "\n"


@dataclass
class _Moments:
    """Minimum, maximum, mean and standard deviation of columns, batch by batch (Chan et al., 1979)."""

    width: int
    count: int = 0
    minimum: npt.NDArray[np.float64] = field(init=False)
    maximum: npt.NDArray[np.float64] = field(init=False)
    mean: npt.NDArray[np.float64] = field(init=False)
    squares: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.minimum = np.full(self.width, np.inf)
        self.maximum = np.full(self.width, -np.inf)
        self.mean, self.squares = np.zeros(self.width), np.zeros(self.width)

    def add(self, rows: npt.NDArray[np.floating[Any]]) -> None:
        values = rows.astype(np.float64)
        mean, count = values.mean(axis=0), len(values)
        total, offset = self.count + count, mean - self.mean
        self.squares += ((values - mean) ** 2).sum(axis=0) + offset**2 * self.count * count / total
        self.mean += offset * count / total
        self.count = total
        self.minimum = np.minimum(self.minimum, values.min(axis=0))
        self.maximum = np.maximum(self.maximum, values.max(axis=0))

    def report(self, names: tuple[str, ...]) -> list[NumberReport]:
        std = np.sqrt(self.squares / max(self.count, 1))
        columns = (self.minimum, self.maximum, self.mean, std)
        return [NumberReport(name, *(float(column[i]) for column in columns)) for i, name in enumerate(names)]


class DatasetStatistics:
    """Statistics of the episodes seen so far, in memory that does not grow with the steps."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._scale = ActionScale(contract)
        self._observations = _Moments(contract.observation_dim)
        self._actions = _Moments(contract.action_dim)
        self._at_limits = np.zeros(contract.action_dim)
        self._outside = np.zeros(contract.action_dim)
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._successes = self._terminals = self._solved = 0

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        self._observations.add(episode.observations)
        self._actions.add(episode.actions)
        lower, upper = self._scale.lower, self._scale.upper
        margin = _LIMIT_SHARE * (upper - lower)
        self._at_limits += ((episode.actions <= lower + margin) | (episode.actions >= upper - margin)).sum(axis=0)
        # float32 moves a limit such as 0.1 by less than a millionth of itself.
        slack = 1e-6 * (upper - lower)
        self._outside += ((episode.actions < lower - slack) | (episode.actions > upper + slack)).sum(axis=0)
        self._returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self._lengths.append(episode.steps)
        solved = int((episode.masks == 0).sum())
        self._solved += solved
        self._successes += solved > 0
        self._terminals += episode.terminal

    def report(
        self, dataset: str, contract_sha256: str, content_sha256: str, bags: list[BagReport], software: dict[str, str]
    ) -> ConversionReport:
        """The report of at least one episode."""
        steps = sum(self._lengths)
        actions = [
            dataclasses.replace(
                number,
                share_at_limits=float(self._at_limits[i]) / steps,
                share_outside_limits=float(self._outside[i]) / steps,
            )
            for i, number in enumerate(self._actions.report(self._contract.action.names))
        ]
        return ConversionReport(
            dataset=dataset,
            contract=self._contract.name,
            contract_sha256=contract_sha256,
            content_sha256=content_sha256,
            episodes=len(self._lengths),
            steps=steps,
            shortest_episode=min(self._lengths),
            longest_episode=max(self._lengths),
            episodes_with_success=self._successes,
            terminal_episodes=self._terminals,
            solved_steps=self._solved,
            mean_reward=sum(self._returns) / steps,
            mean_return=sum(self._returns) / len(self._returns),
            lowest_return=min(self._returns),
            highest_return=max(self._returns),
            observations=self._observations.report(self._contract.observation_names),
            actions=actions,
            bags=bags,
            software=software,
        )
