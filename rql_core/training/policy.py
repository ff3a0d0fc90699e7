"""A trained policy as its users see it: physical observations in, action chunks out, numpy on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rql_core.algorithms import Algorithm
from rql_core.data import Statistics


@dataclass(frozen=True)
class Policy:
    """An algorithm and the statistics that its observations are normalised with."""

    algorithm: Algorithm[Any, Any]
    statistics: Statistics

    @property
    def horizon(self) -> int:
        """Steps in a chunk."""
        horizon: int = self.algorithm.config.horizon
        return horizon

    def act(self, observations: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) in [-1, 1].

        ``observations`` (batch, observation_dim) are in physical units, ``noise`` (batch, horizon * action_dim) is
        normal.
        """
        algorithm = self.algorithm
        chunks = algorithm.act(self._normalised(observations), self._tensor(noise))
        return self._array(chunks).reshape(-1, self.horizon, algorithm.action_dim)

    def sample(self, observations: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) for observations in physical units, drawing the noise."""
        noise = generator.standard_normal((len(observations), self.algorithm.chunk_dim), dtype=np.float32)
        return self.act(observations, noise)

    def value(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return each critic's value (batch, critics) of observations in physical units; (batch, 0) without critics."""
        return self._array(self.algorithm.value(self._normalised(observations)))

    def _normalised(self, observations: NDArray[np.float32]) -> Tensor:
        return self._tensor(self.statistics.normalise(observations))

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(array, dtype=self.algorithm.dtype, device=self.algorithm.device)

    def _array(self, tensor: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = tensor.cpu().numpy().astype(np.float32, copy=False)
        return array
