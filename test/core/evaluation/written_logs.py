"""Episodes in memory as a dataset on disk, for commands that read one."""

from __future__ import annotations

from pathlib import Path

from rql_core.contract import ActionScale, Contract
from rql_core.data import Trajectories
from rql_core.data.minari_io import DatasetWriter


def write_dataset(path: Path, trajectories: Trajectories, contract_text: str, contract: Contract) -> Path:
    """Write the episodes under `contract_text`, with actions in the units of `contract`."""
    scale = ActionScale(contract)
    with DatasetWriter(path, contract_text) as writer:
        for index in range(trajectories.episodes):
            observations, actions, rewards, masks = trajectories.episode(index)
            writer.add(observations, scale.physical(actions), rewards, masks, terminal=False, origin={"episode": index})
        writer.finish({}, {})
    return path
