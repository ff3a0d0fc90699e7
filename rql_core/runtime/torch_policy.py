"""The backend that needs torch: a checkpoint's networks as they were trained, on a CPU or a GPU.

Nothing else in this package imports torch.
"""

from __future__ import annotations

from pathlib import Path

import torch

from rql_core.errors import CheckpointError
from rql_core.training.checkpoint import CheckpointConfig, load_checkpoint
from rql_core.training.policy import Policy


def load_torch_policy(directory: Path, device: str, threads: int | None) -> tuple[Policy, CheckpointConfig]:
    """Read and verify a checkpoint; ``threads`` None: as many as torch takes.  Raises CheckpointError."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        checkpoint = load_checkpoint(directory, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says both of a device that is not there
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{directory}: cannot be loaded on device {device!r}: {reason}") from None
    return checkpoint.policy, checkpoint.config
