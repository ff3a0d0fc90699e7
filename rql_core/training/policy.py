"""A trained policy as its users see it: physical observations in, action chunks out, numpy on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rql_core.acting import Acting, GuideMethod
from rql_core.algorithms import Algorithm
from rql_core.data import Statistics
from rql_core.errors import ConfigError
from rql_core.guidance import Guidance


@dataclass(frozen=True)
class Policy:
    """An algorithm and the statistics that its observations are normalised with."""

    algorithm: Algorithm[Any, Any]
    statistics: Statistics

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return self.algorithm.name

    @property
    def horizon(self) -> int:
        """Steps in a chunk."""
        horizon: int = self.algorithm.config.horizon
        return horizon

    @property
    def default_acting(self) -> Acting:
        """How the algorithm acts unless it is told otherwise."""
        return self.algorithm.default_acting

    @property
    def is_flow(self) -> bool:
        """Whether a flow makes the chunks, which can be guided."""
        return self.name != "fql"

    def check_acting(self, acting: Acting) -> None:
        """Raise ConfigError where the algorithm cannot act like that."""
        self.algorithm.check_acting(acting)

    def act(
        self,
        observations: NDArray[np.float32],
        noise: NDArray[np.float32],
        acting: Acting | None = None,
        *,
        guide_previous: NDArray[np.float32] | None = None,
        guide_weights: NDArray[np.float32] | None = None,
        guide_method: GuideMethod = "jacobian",
    ) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) in [-1, 1].

        ``observations`` (batch, observation_dim) are in physical units, ``noise`` is normal, (batch, horizon *
        action_dim), or (batch, samples, horizon * action_dim) to choose the best of.  ``acting`` None: as the algorithm
        acts by itself; its number of samples is that of the noise.  ``guide_previous`` (batch, horizon, action_dim) in
        [-1, 1] and ``guide_weights`` (horizon,) or (batch, horizon) in [0, 1] hold the chunks to others; raises
        ConfigError where the algorithm's policy is no flow.
        """
        algorithm = self.algorithm
        acting = acting or algorithm.default_acting
        chunks = algorithm.act(
            self._normalised(observations),
            self._tensor(noise),
            rho=acting.rho,
            flow_steps=acting.flow_steps,
            guidance=self._guidance(guide_previous, guide_weights, guide_method),
        )
        return self._array(chunks).reshape(-1, self.horizon, algorithm.action_dim)

    def _guidance(
        self, previous: NDArray[np.float32] | None, weights: NDArray[np.float32] | None, method: GuideMethod
    ) -> Guidance | None:
        if previous is None or weights is None:
            if previous is not weights:
                raise ConfigError("guide_previous and guide_weights belong together: give both or neither")
            return None
        each = np.broadcast_to(np.expand_dims(weights, -1), previous.shape).reshape(len(previous), -1)
        return Guidance(self._tensor(previous.reshape(len(previous), -1)), self._tensor(each.copy()), method)

    def sample(
        self,
        observations: NDArray[np.float32],
        generator: np.random.Generator,
        acting: Acting | None = None,
        **guide: Any,
    ) -> NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) for observations in physical units, drawing the noise; ``guide``
        are the arguments of ``act`` that begin so.
        """
        acting = acting or self.algorithm.default_acting
        shape = (len(observations), acting.samples, self.algorithm.chunk_dim)
        return self.act(observations, generator.standard_normal(shape, dtype=np.float32), acting, **guide)

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
