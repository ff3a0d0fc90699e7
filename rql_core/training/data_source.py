"""What a run is trained on: episodes that are all in memory, or a data set in many files of which one is at a time."""

from __future__ import annotations

from typing import Protocol

from rql_core.algorithms import RewardRange
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import reward_range


class DataSource(Protocol):
    """Shards of data that take turns; each is whole episodes, and all have the same dimensions."""

    def __len__(self) -> int:
        """Number of shards."""

    def load(self, index: int) -> Trajectories:
        """Return a shard; the caller goes through them in order."""

    def statistics(self) -> Statistics:
        """Return the statistics of all shards' observations."""

    def reward_range(self) -> RewardRange:
        """Return the range of all shards' rewards."""

    def fingerprint(self) -> str:
        """Return what tells this data from other data."""


class InMemory:
    """Episodes in memory as the one shard that there is."""

    def __init__(self, trajectories: Trajectories) -> None:
        self._trajectories = trajectories

    def __len__(self) -> int:
        """One."""
        return 1

    def load(self, index: int) -> Trajectories:
        """Return the episodes."""
        return self._trajectories

    def statistics(self) -> Statistics:
        """Return the statistics of the observations."""
        return Statistics.of(self._trajectories.observations)

    def reward_range(self) -> RewardRange:
        """Return the range of the rewards."""
        return reward_range(self._trajectories)

    def fingerprint(self) -> str:
        """Return a hash of all numbers."""
        return self._trajectories.fingerprint()
