"""Observation statistics, and the one normalisation that training and deployment share.

Computed in float64 over blocks of rows, stored and applied in float32: a row normalised alone at deployment equals, to
the last bit, the same row normalised within a million at training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rql_core.errors import DatasetError

# Below this a standard deviation is no signal in any unit a contract uses (0.1 mm, 0.1 mrad): dividing by less would
# turn sensor noise on the robot into large inputs.
STD_FLOOR = 1e-4
# A feature whose spread is within float32's rounding of its size is constant: it is only centred, with a std of 1.
CONSTANT_SPREAD = 1e-6
# Rows a block: 65,536 x 30 float64 are 16 MB, so millions of rows need no copy of the data.
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Statistics:
    """What each of an observation's numbers looked like in the training data; arrays are (observation_dim,) float32."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    count: NDArray[np.int64]
    """(): rows that were seen."""

    def __post_init__(self) -> None:
        for name in ("mean", "std", "minimum", "maximum"):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.ndim != 1 or array.shape != self.mean.shape:
                raise DatasetError(
                    f"the statistic '{name}' is {array.dtype} {array.shape}: expected float32 {self.mean.shape}"
                )
            if not np.isfinite(array).all():
                raise DatasetError(f"the statistic '{name}' holds a value that is not finite")
        if not (self.std > 0).all():
            raise DatasetError(f"the statistic 'std' holds {self.std.min()}: expected values above 0")
        if self.count.dtype != np.int64 or self.count.ndim != 0:
            raise DatasetError(f"the statistic 'count' is {self.count.dtype} {self.count.shape}: expected one int64")

    @classmethod
    def of(cls, observations: NDArray[np.float32]) -> Statistics:
        """Compute the statistics of observations (rows, observation_dim); raises DatasetError without rows."""
        rows = len(observations)
        if rows == 0:
            raise DatasetError("there are no observations to take statistics of: expected at least one row")
        blocks = [observations[first : first + BLOCK_ROWS] for first in range(0, rows, BLOCK_ROWS)]
        mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in blocks], axis=0) / rows
        variance = np.sum([np.square(block - mean).sum(axis=0) for block in blocks], axis=0) / rows
        std, minimum, maximum = np.sqrt(variance), observations.min(axis=0), observations.max(axis=0)
        size = np.maximum(np.abs(minimum), np.abs(maximum)).astype(np.float64)
        constant = maximum.astype(np.float64) - minimum <= CONSTANT_SPREAD * size
        std = np.where(constant, 1.0, np.maximum(std, STD_FLOOR))
        return cls(
            mean.astype(np.float32),
            std.astype(np.float32),
            minimum.astype(np.float32),
            maximum.astype(np.float32),
            np.array(rows, dtype=np.int64),
        )

    def without_scaling(self) -> Statistics:
        """Return the same with mean 0 and std 1: observations stay as they are, as in the published code."""
        return replace(self, mean=np.zeros_like(self.mean), std=np.ones_like(self.std))

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation."""
        return len(self.mean)

    def normalise(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (observations - mean) / std for float32 observations (..., observation_dim), in float32."""
        if observations.dtype != np.float32 or observations.shape[-1:] != self.mean.shape:
            raise DatasetError(
                f"observations are {observations.dtype} {observations.shape}: "
                f"expected float32 with {self.observation_dim} numbers in the last dimension"
            )
        normalised: NDArray[np.float32] = (observations - self.mean) / self.std
        return normalised

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as they are stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Statistics:
        """Take the arrays that ``to_tensors`` gave; raises DatasetError where they do not fit."""
        names = [field.name for field in fields(cls)]
        for name in (*names, *tensors):
            if name not in tensors or name not in names:
                state = "missing" if name not in tensors else "unknown"
                raise DatasetError(f"the statistic '{name}' is {state}: expected {', '.join(names)}")
        return cls(**{name: tensors[name] for name in names})
