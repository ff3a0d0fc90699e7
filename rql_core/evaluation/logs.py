"""Logs for a checkpoint: opened, and found to mean what the checkpoint was trained to understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rql_core.checkpoint_files import CONTRACT, TRAINING_JSON
from rql_core.contract import Contract, parse_contract
from rql_core.data.trajectories import Trajectories
from rql_core.errors import CheckpointError, ContractError
from rql_core.opening import open_data
from rql_core.runtime.policy import check_contract
from rql_core.training.checkpoint import Checkpoint


def open_logs(checkpoint: Checkpoint, dataset: Path) -> tuple[Trajectories, Contract | None]:
    """Return the episodes of a dataset, and its contract if it has one.

    Of a data set in many files the first is taken. Raises DatasetError where it cannot be read, and CheckpointError
    where its contract and the checkpoint's do not mean the same.
    """
    path = _first_file(dataset)
    trajectories, contract_text = open_data(path, checkpoint.config.environment, None, _rewards(checkpoint))
    assert isinstance(trajectories, Trajectories)  # not many files, as the path is that of one
    contract = None if contract_text is None else parse_contract(contract_text, str(dataset))
    if contract is not None and checkpoint.contract_text is not None:
        where = checkpoint.directory / CONTRACT
        try:
            trained = parse_contract(checkpoint.contract_text, str(where))
        except ContractError as error:
            raise CheckpointError(str(error)) from None
        check_contract(checkpoint.directory, trained, contract, f"of {dataset}")
    elif contract is not None or checkpoint.contract_text is not None:
        without, other = (
            (checkpoint.directory, dataset) if checkpoint.contract_text is None else (dataset, checkpoint.directory)
        )
        raise CheckpointError(
            f"{checkpoint.directory}: does not fit {dataset}: {without} has no contract, but {other} has one; "
            "take logs of the kind that it was trained on"
        )
    return trajectories, contract


def _first_file(dataset: Path) -> Path:
    """The first file of a set of many .npz, to be read alone: the set as a whole reads ahead; else the path itself."""
    if not dataset.is_dir() or not any(dataset.glob("*.npz")):
        return dataset
    from rql_core.ogbench.files import npz_shards

    return npz_shards(dataset)[0]


def _rewards(checkpoint: Checkpoint) -> Literal["as_given", "sparse"]:
    """How the rewards of the training data were taken, where the checkpoint still says it."""
    if TRAINING_JSON not in checkpoint.manifest.files:
        return "as_given"
    state: dict[str, Any] = json.loads((checkpoint.directory / TRAINING_JSON).read_text(encoding="utf-8"))
    return "sparse" if state.get("config", {}).get("rewards") == "sparse" else "as_given"
