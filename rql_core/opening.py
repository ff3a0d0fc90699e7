"""Open any data set that a policy can be trained on: a converted one with its contract, OGBench's files, a 100M set."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from rql_core.data.trajectories import Trajectories
from rql_core.errors import ConfigError

if TYPE_CHECKING:
    from rql_core.training.data_source import DataSource

#: Where OGBench itself keeps its files.
OGBENCH_DIRECTORY = Path("~/.ogbench/data")


def open_data(
    path: Path | None,
    environment: str | None,
    dataset: str | None,
    rewards: Literal["as_given", "sparse"],
    *,
    progress: bool = False,
) -> tuple[Trajectories | DataSource, str | None]:
    """Return the data, and its contract's text if it has one.

    `path` None: the files called `dataset`, or as the environment's data are, below ~/.ogbench/data. OGBench's files
    are labelled with the rewards of `environment`. `progress` shows a bar while many files are read for statistics.
    Raises ConfigError or DatasetError.
    """
    if path is None:
        path = _default_path(environment, dataset)
    if path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npz"))):
        if environment is None:
            raise ConfigError(
                f"{path}: these files have no rewards of their own, and the configuration names no environment: "
                "set environment=puzzle-3x3-play-singletask-task1-v0 or the like, or use a preset"
            )
        from rql_core.ogbench.files import Shards, read_npz

        if path.is_dir():
            return Shards(path, environment, rewards, progress=progress), None
        return read_npz(path, environment, rewards), None
    from rql_core.data.minari_io import load_dataset

    trajectories, contract_text, _ = load_dataset(path)
    if rewards == "sparse":
        trajectories = replace(trajectories, rewards=np.where(trajectories.rewards == 0, 0, -1).astype(np.float32))
    return trajectories, contract_text


def _default_path(environment: str | None, dataset: str | None) -> Path:
    if environment is None:
        raise ConfigError("no dataset is given, and the configuration names no environment whose data could be meant")
    name = dataset or re.sub(r"-singletask(-task\d+)?", "", environment)
    directory = OGBENCH_DIRECTORY.expanduser()
    for candidate in (directory / f"{name}.npz", directory / name):
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"{directory / name}.npz: is missing, and no dataset is given: give its path, copy OGBench's file there, "
        "or make it with `rql generate` (cubes, scene, puzzles)"
    )
