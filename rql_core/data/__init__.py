"""Training data in memory: episodes, observation statistics, and (in ``chunks``, which needs torch) sampled chunks."""

from __future__ import annotations

from rql_core.data.normalisation import Statistics
from rql_core.data.trajectories import Trajectories

__all__ = ["Statistics", "Trajectories"]
