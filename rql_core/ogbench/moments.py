"""Mean and spread of data that are never in memory together, merged block by block without loss.

Merging is that of Chan, Golub and LeVeque (Updating formulae and a pairwise algorithm for computing sample variances,
1979), in float64: the result equals that of `Statistics.of` on all rows to the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rql_core.data.normalisation import CONSTANT_SPREAD, STD_FLOOR, Statistics
from rql_core.errors import DatasetError

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared distances from the mean, least and greatest of some rows; each (observation_dim,)."""

    count: int
    mean: Float64
    squares: Float64
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]

    @classmethod
    def nothing(cls, observation_dim: int) -> Moments:
        """Moments of no rows, to merge others with."""
        zeros, infinity = np.zeros(observation_dim), np.full(observation_dim, np.inf, dtype=np.float32)
        return cls(0, zeros, zeros, infinity, -infinity)

    @classmethod
    def of(cls, observations: npt.NDArray[np.float32]) -> Moments:
        """Moments of a block of rows (rows, observation_dim). Raises DatasetError for a number that is not finite."""
        if not np.isfinite(observations).all():
            row = tuple(int(index) for index in np.argwhere(~np.isfinite(observations))[0])
            raise DatasetError(f"observations{list(row)} is {observations[row]}: expected a finite number")
        mean = observations.mean(axis=0, dtype=np.float64)
        squares = np.square(observations - mean).sum(axis=0)
        return cls(len(observations), mean, squares, observations.min(axis=0), observations.max(axis=0))

    def merged(self, other: Moments) -> Moments:
        """Moments of the rows of both, of which there is at least one."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + np.square(apart) * (self.count * other.count / count),
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    def statistics(self) -> Statistics:
        """The statistics, with the same rules for small and for constant features as `Statistics.of`."""
        size = np.maximum(np.abs(self.minimum), np.abs(self.maximum)).astype(np.float64)
        spread = self.maximum.astype(np.float64) - self.minimum
        std = np.maximum(np.sqrt(self.squares / self.count), STD_FLOOR)
        std = np.where(spread <= CONSTANT_SPREAD * size, 1.0, std)
        return Statistics(
            self.mean.astype(np.float32),
            std.astype(np.float32),
            self.minimum,
            self.maximum,
            np.array(self.count, dtype=np.int64),
        )
