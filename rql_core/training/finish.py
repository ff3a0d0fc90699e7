"""What a checkpoint gets when training has ended: the critics' values over the data, and graphs that run without torch.

A training of days does not fail on these: where one cannot be made, a warning says why, and the checkpoint stays as it
was.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rql_core.checkpoint_files import MANIFEST, SAMPLER, VALUES, Manifest, list_files, read_model, sha256
from rql_core.errors import RqlError
from rql_core.training.checkpoint import load_checkpoint
from rql_core.training.value_distribution import value_distribution
from rql_core.whole_files import write_whole

_logger = logging.getLogger(__name__)


def is_finished(directory: Path) -> bool:
    """Whether a checkpoint has its graphs."""
    return SAMPLER in read_model(directory / MANIFEST, Manifest).files


def finish_checkpoint(directory: Path, observations: NDArray[np.float32]) -> None:
    """Add to a checkpoint what can be added; ``observations`` (rows, observation_dim) are those of its data."""
    try:
        write_values(directory, observations)
        # Not before it is needed: it needs packages that training does not.
        from rql_core.export.checkpoint import export_checkpoint

        export_checkpoint(directory)
    except RqlError as error:
        _logger.warning("%s has no ONNX graphs: %s", directory, error)
    except ModuleNotFoundError as error:
        _logger.warning(
            "%s has no ONNX graphs: the package %r is not installed: run `pip install %s`, then `rql export %s`",
            *(directory, error.name, error.name, directory),
        )


def write_values(directory: Path, observations: NDArray[np.float32]) -> None:
    """Write values.json, where the policy has critics."""
    checkpoint = load_checkpoint(directory)
    distribution = value_distribution(checkpoint.policy, observations)
    if distribution is None:
        return
    content = json.dumps(distribution, indent=2).encode()
    manifest = list_files(directory, checkpoint.manifest, (VALUES,), {})
    write_whole(directory / VALUES, content)
    list_files(directory, manifest, (VALUES,), {VALUES: sha256(content)})
