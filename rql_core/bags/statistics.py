"""Numbers about the episodes of a dataset, gathered one by one in memory that hardly grows with the steps."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.bags.episodes import Episode
from rql_core.bags.findings import check_bounds, find_remarks
from rql_core.bags.report import BagReport, ConversionReport, EpisodeReport, NumberReport, Place
from rql_core.contract.scale import ActionScale
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS

Float64 = npt.NDArray[np.float64]

# An action counts as at its limit within a thousandth of its range: encoders and float32 rarely hit it exactly.
_LIMIT_SHARE = 1e-3
# A percentile of 20,000 to 40,000 rows is off by less than half a percent of the rows; 40,000 x 50 numbers are 8 MB.
_SAMPLE_ROWS = 20_000
# So many rows are looked at together: an episode of hours is not copied as a whole.
_BLOCK_ROWS = 20_000
# In fewer steps a number may well keep its value: a sensor is slow, the robot waits.
_STUCK_STEPS = 10
# As many bars as can be told apart in a table's cell.
_BINS = 32
# Rewards with more values than this are a continuum, of which a list says nothing.
_MOST_REWARDS = 12


@dataclass
class _Moments:
    """Extremes and where they are, mean and standard deviation of columns, batch by batch (Chan et al., 1979)."""

    width: int
    count: int = 0
    minimum: Float64 = field(init=False)
    maximum: Float64 = field(init=False)
    minimum_at: list[Place] = field(init=False)
    maximum_at: list[Place] = field(init=False)
    mean: Float64 = field(init=False)
    squares: Float64 = field(init=False)

    def __post_init__(self) -> None:
        self.minimum = np.full(self.width, np.inf)
        self.maximum = np.full(self.width, -np.inf)
        self.mean, self.squares = np.zeros(self.width), np.zeros(self.width)
        self.minimum_at, self.maximum_at = [Place(0, 0)] * self.width, [Place(0, 0)] * self.width

    def add(self, at: Place, values: Float64) -> None:
        """Count rows, the first of which is at this place."""
        mean, count = values.mean(axis=0), len(values)
        total, offset = self.count + count, mean - self.mean
        self.squares += ((values - mean) ** 2).sum(axis=0) + offset**2 * self.count * count / total
        self.mean += offset * count / total
        self.count = total
        low, high = values.min(axis=0), values.max(axis=0)
        for column in np.flatnonzero(low < self.minimum):
            self.minimum_at[column] = Place(at.episode, at.step + int(values[:, column].argmin()))
        for column in np.flatnonzero(high > self.maximum):
            self.maximum_at[column] = Place(at.episode, at.step + int(values[:, column].argmax()))
        self.minimum, self.maximum = np.minimum(self.minimum, low), np.maximum(self.maximum, high)

    def report(self, names: Sequence[str]) -> list[NumberReport]:
        std = np.sqrt(self.squares / max(self.count, 1))
        return [
            NumberReport(
                name=name,
                minimum=float(self.minimum[i]),
                maximum=float(self.maximum[i]),
                mean=float(self.mean[i]),
                std=float(std[i]),
                minimum_at=self.minimum_at[i],
                maximum_at=self.maximum_at[i],
            )
            for i, name in enumerate(names)
        ]


class _Sample:
    """Every n-th row of all that was added; n doubles when there are too many, so that the rows stay evenly spread."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((2 * _SAMPLE_ROWS, width), dtype=np.float32)
        self._kept = self._seen = 0
        self._every = 1

    def add(self, rows: npt.NDArray[np.floating[Any]]) -> None:
        position = 0
        while position < len(rows):
            first = position + (-(self._seen + position)) % self._every
            room = len(self._rows) - self._kept
            taken = rows[first :: self._every][:room]
            self._rows[self._kept : self._kept + len(taken)] = taken
            self._kept += len(taken)
            if self._kept < len(self._rows):
                break
            position = first + (len(taken) - 1) * self._every + 1
            self._rows[: len(self._rows) // 2] = self._rows[::2].copy()
            self._kept //= 2
            self._every *= 2
        self._seen += len(rows)

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        return self._rows[: self._kept]


class DatasetStatistics:
    """Statistics of the episodes seen so far."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._scale = ActionScale(contract)
        self._observations, self._actions = _Moments(contract.observation_dim), _Moments(contract.action_dim)
        self._observation_sample, self._action_sample = _Sample(contract.observation_dim), _Sample(contract.action_dim)
        self._jump_sample = _Sample(contract.action_dim)
        self._jumps = np.zeros(contract.action_dim)
        self._jumps_at = [Place(0, 0)] * contract.action_dim
        self._at_limits = np.zeros(contract.action_dim)
        self._outside = np.zeros(contract.action_dim)
        self._constant: list[npt.NDArray[np.bool_]] = []
        self._rewards: Counter[float] = Counter()
        self._episodes: list[EpisodeReport] = []

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        index = len(self._episodes)
        constant = np.full(self._contract.observation_dim, episode.steps >= _STUCK_STEPS)
        for first in range(0, episode.steps + 1, _BLOCK_ROWS):
            rows = episode.observations[first : first + _BLOCK_ROWS]
            self._observations.add(Place(index, first), rows.astype(np.float64))
            self._observation_sample.add(rows)
            constant &= (rows == episode.observations[0]).all(axis=0)
        self._constant.append(constant)
        saturated, largest_jump = self._add_actions(index, episode.actions)
        self._add_rewards(episode.rewards)
        self._episodes.append(
            EpisodeReport(
                bag=0,
                start_ns=episode.start_ns,
                seconds=(episode.end_ns - episode.start_ns) / NANOSECONDS,
                steps=episode.steps,
                total_reward=float(episode.rewards.sum(dtype=np.float64)),
                solved_steps=episode.solved_steps,
                terminal=bool(episode.terminal),
                cut=episode.cut,
                saturated=saturated,
                largest_jump=largest_jump,
            )
        )

    def _add_actions(self, index: int, actions: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Count an episode's actions; returns the share of steps at a limit, and the largest jump by its range."""
        lower, upper = self._scale.lower, self._scale.upper
        margin = _LIMIT_SHARE * (upper - lower)
        # float32 moves a limit such as 0.1 by less than a millionth of itself.
        slack = 1e-6 * (upper - lower)
        saturated, furthest = 0, 0.0
        for first in range(0, len(actions), _BLOCK_ROWS):
            rows = actions[first : first + _BLOCK_ROWS]
            self._actions.add(Place(index, first), rows)
            self._action_sample.add(rows)
            at_limits = (rows <= lower + margin) | (rows >= upper - margin)
            self._at_limits += at_limits.sum(axis=0)
            saturated += int(at_limits.any(axis=1).sum())
            self._outside += ((rows < lower - slack) | (rows > upper + slack)).sum(axis=0)
            before = max(first - 1, 0)
            jumps = np.abs(np.diff(actions[before : first + _BLOCK_ROWS], axis=0))
            if not len(jumps):
                continue
            self._jump_sample.add(jumps)
            largest = jumps.max(axis=0)
            for column in np.flatnonzero(largest > self._jumps):
                self._jumps_at[column] = Place(index, before + int(jumps[:, column].argmax()) + 1)
            self._jumps = np.maximum(self._jumps, largest)
            furthest = max(furthest, float((jumps / (upper - lower)).max()))
        return saturated / len(actions), furthest

    def _add_rewards(self, rewards: npt.NDArray[np.float32]) -> None:
        """Count how often each reward was given, until there are too many of them."""
        for first in range(0, len(rewards), _BLOCK_ROWS):
            if len(self._rewards) > _MOST_REWARDS:
                return
            values, counts = np.unique(rewards[first : first + _BLOCK_ROWS], return_counts=True)
            # One more than may be listed says that there are too many.
            pairs = zip(values[: _MOST_REWARDS + 1], counts, strict=False)
            self._rewards.update({float(value): int(count) for value, count in pairs})

    def report(
        self,
        dataset: str,
        contract_sha256: str,
        content_sha256: str,
        bags: list[BagReport],
        software: dict[str, str],
        **others: Any,
    ) -> ConversionReport:
        """The report of at least one episode; `bags` in the order in which their episodes were added.

        `others`: fields of the report that are not about the episodes' numbers, such as `skipped`.
        """
        each = self._located(bags)
        returns = [episode.total_reward for episode in each]
        lengths = [episode.steps for episode in each]
        steps = sum(lengths)
        report = ConversionReport(
            dataset=dataset,
            contract=self._contract.name,
            contract_sha256=contract_sha256,
            content_sha256=content_sha256,
            episodes=len(each),
            steps=steps,
            shortest_episode=min(lengths),
            longest_episode=max(lengths),
            episodes_with_success=sum(episode.solved_steps > 0 for episode in each),
            terminal_episodes=sum(episode.terminal for episode in each),
            solved_steps=sum(episode.solved_steps for episode in each),
            mean_reward=sum(returns) / steps,
            mean_return=sum(returns) / len(returns),
            lowest_return=min(returns),
            highest_return=max(returns),
            observations=self._observation_reports(),
            actions=self._action_reports(steps),
            bags=bags,
            software=software,
            rate=float(self._contract.rate_fraction),
            rewards=self._reward_counts(),
            each_episode=each,
            **others,
        )
        bounds = check_bounds(self._contract.quality, self._contract.action.topic, report)
        report = dataclasses.replace(report, bounds=bounds)
        return dataclasses.replace(report, findings=find_remarks(report))

    def _located(self, bags: list[BagReport]) -> list[EpisodeReport]:
        """The episodes with the bag that each comes from and its topics."""
        if sum(bag.episodes for bag in bags) != len(self._episodes):
            raise ValueError(
                f"the bags have {sum(b.episodes for b in bags)} episodes, {len(self._episodes)} were added"
            )
        located, rest = [], iter(self._episodes)
        for number, bag in enumerate(bags):
            for of_episode in bag.episode_topics or [[] for _ in range(bag.episodes)]:
                located.append(dataclasses.replace(next(rest), bag=number, topics=of_episode))
        return located

    def _observation_reports(self) -> list[NumberReport]:
        units = {feature.name: feature.unit for feature in self._contract.features}
        constant = np.array(self._constant)
        reports = []
        for i, number in enumerate(self._observations.report(self._contract.observation_names)):
            values = self._observation_sample.rows[:, i]
            stuck = [] if number.dead else [int(e) for e in np.flatnonzero(constant[:, i])]
            reports.append(
                dataclasses.replace(
                    number,
                    unit=units[number.name.split(".", 1)[0]],
                    stuck_episodes=stuck,
                    **_spread(values, number.minimum, number.maximum),
                )
            )
        return reports

    def _action_reports(self, steps: int) -> list[NumberReport]:
        reports = []
        for i, number in enumerate(self._actions.report(self._contract.action.names)):
            lower, upper = float(self._scale.lower[i]), float(self._scale.upper[i])
            jumps = self._jump_sample.rows[:, i]
            reports.append(
                dataclasses.replace(
                    number,
                    unit=self._contract.action.unit,
                    share_at_limits=float(self._at_limits[i]) / steps,
                    share_outside_limits=float(self._outside[i]) / steps,
                    lower=lower,
                    upper=upper,
                    jump_p99=float(np.percentile(jumps, 99)) if len(jumps) else 0.0,
                    largest_jump=float(self._jumps[i]),
                    largest_jump_at=self._jumps_at[i],
                    **_spread(self._action_sample.rows[:, i], lower, upper),
                )
            )
        return reports

    def _reward_counts(self) -> dict[str, int]:
        """How often each reward was given, where there are few; empty where there are many."""
        if len(self._rewards) > _MOST_REWARDS:
            return {}
        return {f"{value:.6g}": count for value, count in sorted(self._rewards.items())}


def _spread(values: npt.NDArray[np.float32], low: float, high: float) -> dict[str, Any]:
    """Quantiles, outliers and histogram of a column of the sample; the ends of the histogram take what is past them."""
    quantiles = [float(value) for value in np.percentile(values, [1, 25, 50, 75, 99])]
    distance = quantiles[3] - quantiles[1]
    # Tukey's outer fences. Where half of the values are one, such as a gripper's, they would be nothing but that value.
    beyond = (values < quantiles[1] - 3 * distance) | (values > quantiles[3] + 3 * distance)
    outliers = float(beyond.mean()) if distance > 0 else 0.0
    clipped = np.clip(values.astype(np.float64), low, high)
    counts = np.histogram(clipped, bins=_BINS, range=(low, high) if high > low else (low - 0.5, low + 0.5))[0]
    return {"quantiles": quantiles, "outliers": outliers, "histogram": [int(count) for count in counts]}
