"""What the critics say of the policy's own chunks over the training data: what a monitor at run time compares with.

A value far outside of this distribution says that the policy is where it has never been, or that nothing it can do is
any good there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rql_core.training.policy import Policy

# Observations in the sample: two of them lie beyond the quantile .001, and valuing them takes some seconds where the
# best of 32 samples of large networks is taken.
OBSERVATIONS = 2_000
QUANTILES = (0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999)
SEED = 0


def sample_observations(observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a fixed sample of rows, all where there are few."""
    if len(observations) <= OBSERVATIONS:
        return observations
    chosen = np.random.default_rng(SEED).choice(len(observations), OBSERVATIONS, replace=False)
    sampled: NDArray[np.float32] = observations[np.sort(chosen)]
    return sampled


def value_distribution(policy: Policy, observations: NDArray[np.float32]) -> dict[str, Any] | None:
    """Return quantiles, over observations, of mean and std (population's) over the critics; None without critics.

    Each is of the chunk that the policy, acting as it does by itself, makes of fixed noise.
    """
    chunks = policy.sample(observations, np.random.default_rng(SEED))
    values = policy.action_value(observations, chunks).astype(np.float64)
    if values.shape[1] == 0:
        return None
    acting = policy.default_acting
    return {
        "observations": len(observations),
        "seed": SEED,
        "critics": values.shape[1],
        "acting": {"samples": acting.samples, "rho": acting.rho},
        "mean": _quantiles(values.mean(axis=1)),
        "std": _quantiles(values.std(axis=1)),
    }


def _quantiles(numbers: NDArray[np.float64]) -> dict[str, float]:
    return {str(each): float(value) for each, value in zip(QUANTILES, np.quantile(numbers, QUANTILES), strict=True)}
