"""Episodes in flat arrays: what every source of data becomes, and what every reader of data may rely on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rql_core.errors import DatasetError

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Actions are divided by their limits in float32, which may leave an action at its limit this far outside.
ACTION_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trajectories:
    """Episodes laid end to end; episode e has lengths[e] = T steps and T + 1 observations.

    An episode may go on after a mask of 0 (play data).  Construction checks types, shapes and numbers and raises
    DatasetError.
    """

    observations: Float32
    """(steps + episodes, observation_dim), in physical units."""
    actions: Float32
    """(steps, action_dim), normalised to [-1, 1] by the contract's limits."""
    rewards: Float32
    """(steps,): reward i belongs to the transition from observation i by action i to observation i + 1."""
    masks: Float32
    """(steps,): 0 where the task was solved at the step's end (a terminal), else 1."""
    lengths: Int64
    """(episodes,): steps of each episode."""

    def __post_init__(self) -> None:
        for name, dimensions in (("observations", 2), ("actions", 2), ("rewards", 1), ("masks", 1), ("lengths", 1)):
            _check_type(name, getattr(self, name), dimensions, np.int64 if name == "lengths" else np.float32)
        self._check_lengths()
        for name in ("observations", "actions", "rewards"):
            _check_rows(name, getattr(self, name), np.isfinite(getattr(self, name)), "a finite number")
        bounded = np.abs(self.actions) <= 1.0 + ACTION_TOLERANCE
        _check_rows("actions", self.actions, bounded, "in [-1, 1]: normalise by the contract's limits")
        _check_rows("masks", self.masks, (self.masks == 0.0) | (self.masks == 1.0), "0 or 1")

    @classmethod
    def from_episodes(cls, episodes: Iterable[tuple[Any, Any, Any, Any]]) -> Trajectories:
        """Lay episodes end to end; each is (observations (T + 1, o), actions (T, d), rewards (T,), masks (T,))."""
        parts = [tuple(np.asarray(array, dtype=np.float32) for array in episode) for episode in episodes]
        if not parts:
            raise DatasetError("there are no episodes: expected at least one")
        for index, (observations, actions, rewards, masks) in enumerate(parts):
            rows = (len(observations) - 1, len(actions), len(rewards), len(masks))
            if len(set(rows)) != 1:
                raise DatasetError(
                    f"episode {index} has {rows[0] + 1} observations, {rows[1]} actions, {rows[2]} rewards "
                    f"and {rows[3]} masks: expected T + 1, T, T and T"
                )
        observations, actions, rewards, masks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(observations, actions, rewards, masks, np.array([len(part[1]) for part in parts], dtype=np.int64))

    def fingerprint(self) -> str:
        """Return a hash of all numbers: two data sets with the same one train the same policy."""
        digest = hashlib.sha256()
        for array in (self.observations, self.actions, self.rewards, self.masks, self.lengths):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """Number of steps in all episodes."""
        return len(self.actions)

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation."""
        return int(self.observations.shape[1])

    @property
    def action_dim(self) -> int:
        """Numbers in an action."""
        return int(self.actions.shape[1])

    @property
    def step_offsets(self) -> Int64:
        """(episodes,): the row in actions, rewards and masks where each episode starts."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths, dtype=np.int64)

    @property
    def observation_offsets(self) -> Int64:
        """(episodes,): the row in observations where each episode starts."""
        return self.step_offsets + np.arange(self.episodes, dtype=np.int64)

    def episode(self, index: int) -> tuple[Float32, Float32, Float32, Float32]:
        """Return views of one episode's observations (T + 1, o), actions (T, d), rewards (T,) and masks (T,)."""
        if not 0 <= index < self.episodes:
            raise DatasetError(f"there is no episode {index}: expected 0 to {self.episodes - 1}")
        first, length = int(self.step_offsets[index]), int(self.lengths[index])
        rows, start = slice(first, first + length), first + index
        return self.observations[start : start + length + 1], self.actions[rows], self.rewards[rows], self.masks[rows]

    def _check_lengths(self) -> None:
        if self.episodes == 0:
            raise DatasetError("lengths is empty: expected at least one episode")
        if int(self.lengths.min()) < 1:
            episode = int(self.lengths.argmin())
            raise DatasetError(f"lengths[{episode}] is {self.lengths[episode]}: expected at least one step an episode")
        steps = int(self.lengths.sum())
        expected = {"observations": steps + self.episodes, "actions": steps, "rewards": steps, "masks": steps}
        for name, rows in expected.items():
            found = len(getattr(self, name))
            if found != rows:
                raise DatasetError(
                    f"{name} has {found} rows: expected {rows}, as lengths has {self.episodes} episodes, {steps} steps"
                    + (", each with one observation more than steps" if name == "observations" else "")
                )
        for name in ("observations", "actions"):
            if getattr(self, name).shape[1] == 0:
                raise DatasetError(f"{name} has no columns: expected at least one")


def _check_type(name: str, array: Any, dimensions: int, dtype: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != dimensions:
        found = f"{array.dtype} with {array.ndim} dimensions" if isinstance(array, np.ndarray) else type(array).__name__
        raise DatasetError(
            f"{name} is {found}: expected a numpy array of {dtype.__name__} with {dimensions} dimensions"
        )


def _check_rows(name: str, array: Float32, good: NDArray[np.bool_], expected: str) -> None:
    if not good.all():
        position = tuple(int(index) for index in np.argwhere(~good)[0])
        raise DatasetError(
            f"{name}{list(position)} is {array[position]}: expected {expected} ({int((~good).sum())} such values)"
        )
