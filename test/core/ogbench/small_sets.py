"""Small files of OGBench's form, made up: what is in them is random but for what a test needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

EPISODES, STEPS = 3, 120  # of the data that conftest.py generates

MAZE = "antmaze-large-navigate-singletask-task1-v0"
MAZE_GOAL = (36.0, 24.0)  # of that task, in metres


def maze_columns(lengths: list[int], seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Arrays as of antmaze-large-navigate, with so many steps an episode; about every fifth row is at task 1's goal."""
    random = np.random.default_rng(seed)
    rows = sum(lengths) + len(lengths)
    terminals = np.zeros(rows, dtype=bool)
    terminals[np.cumsum(np.array(lengths) + 1) - 1] = True
    qpos = random.normal(size=(rows, 15)).astype(np.float32)
    qpos[:, :2] += MAZE_GOAL
    observations = random.normal(size=(rows, 29)).astype(np.float32)
    observations[:, :15] = qpos
    return {
        "observations": observations,
        "actions": random.uniform(-1, 1, size=(rows, 8)).astype(np.float32),
        "terminals": terminals,
        "qpos": qpos,
        "qvel": random.normal(size=(rows, 14)).astype(np.float32),
    }


def write(path: Path, columns: dict[str, npt.NDArray[Any]]) -> Path:
    """Write a file and, as OGBench's loader wants one, the same for validation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in (path.name, path.name.replace(".npz", "-val.npz")):
        np.savez_compressed(path.with_name(name), **columns)  # type: ignore[arg-type]
    return path
