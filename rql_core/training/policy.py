"""A trained policy as its users see it: physical observations in, action chunks out, numpy on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rql_core.algorithms import Acting, Algorithm
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

    def act(
        self, observations: NDArray[np.float32], noise: NDArray[np.float32], acting: Acting | None = None
    ) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) in [-1, 1].

        ``observations`` (batch, observation_dim) are in physical units, ``noise`` is normal, (batch, horizon *
        action_dim), or (batch, samples, horizon * action_dim) to choose the best of.  ``acting`` None: as the algorithm
        acts by itself; its number of samples is that of the noise.
        """
        algorithm = self.algorithm
        acting = acting or algorithm.default_acting
        chunks = algorithm.act(
            self._normalised(observations), self._tensor(noise), rho=acting.rho, flow_steps=acting.flow_steps
        )
        return self._array(chunks).reshape(-1, self.horizon, algorithm.action_dim)

    def sample(
        self, observations: NDArray[np.float32], generator: np.random.Generator, acting: Acting | None = None
    ) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) for observations in physical units, drawing the noise."""
        acting = acting or self.algorithm.default_acting
        shape = (len(observations), acting.samples, self.algorithm.chunk_dim)
        return self.act(observations, generator.standard_normal(shape, dtype=np.float32), acting)

    def action_value(self, observations: NDArray[np.float32], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return each critic's value (batch, critics) of doing chunks (batch, horizon, action_dim) in [-1, 1] there."""
        flat = chunks.reshape(len(chunks), -1)
        return self._array(self.algorithm.action_value(self._normalised(observations), self._tensor(flat)))

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
