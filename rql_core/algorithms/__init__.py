"""One file an algorithm; a new one is a config in the union below, a class in the table, and nothing anywhere else."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from rql_core.acting import Acting
from rql_core.algorithms.algorithm import CORRECTIONS, Algorithm, AlgorithmConfig, Correction
from rql_core.algorithms.batch import Batch, RewardRange
from rql_core.algorithms.bc_flow import BCFlow, BCFlowConfig
from rql_core.algorithms.critics import CriticAlgorithm, CriticConfig
from rql_core.algorithms.fql import FQL, FQLConfig
from rql_core.algorithms.ifql import IFQL, IFQLConfig
from rql_core.algorithms.qc import QC, QCConfig
from rql_core.algorithms.rql import RQL, RQLConfig

#: The config of any algorithm, told apart by its field ``algorithm``.
AnyAlgorithmConfig = Annotated[
    RQLConfig | BCFlowConfig | IFQLConfig | FQLConfig | QCConfig, Field(discriminator="algorithm")
]

_ALGORITHMS: dict[type[AlgorithmConfig], Any] = {
    RQLConfig: RQL,
    BCFlowConfig: BCFlow,
    IFQLConfig: IFQL,
    FQLConfig: FQL,
    QCConfig: QC,
}


def make_algorithm(
    config: AlgorithmConfig,
    observation_dim: int,
    action_dim: int,
    reward_range: RewardRange,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Algorithm[Any, Any]:
    """Make the algorithm that a config describes; ``seed`` determines its first weights, on any device."""
    algorithm: Algorithm[Any, Any] = _ALGORITHMS[type(config)](
        config,
        observation_dim,
        action_dim,
        reward_range,
        generator=torch.Generator().manual_seed(seed),
        device=device,
        dtype=dtype,
    )
    return algorithm


__all__ = [
    "CORRECTIONS",
    "FQL",
    "IFQL",
    "QC",
    "RQL",
    "Acting",
    "Algorithm",
    "AlgorithmConfig",
    "AnyAlgorithmConfig",
    "BCFlow",
    "BCFlowConfig",
    "Batch",
    "Correction",
    "CriticAlgorithm",
    "CriticConfig",
    "FQLConfig",
    "IFQLConfig",
    "QCConfig",
    "RQLConfig",
    "RewardRange",
    "make_algorithm",
]
