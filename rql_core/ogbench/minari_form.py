"""OGBench's files as Minari datasets: episodes of T + 1 observations and T actions, read and written one by one.

Play has no task, so rewards are 0 and no step is a terminal; `infos` has qpos, qvel and button states, T + 1 rows each,
from which OGBench's tasks give their rewards. The action of an episode's last row, which was not executed, is left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rql_core.errors import DatasetError
from rql_core.ogbench.columns import Columns
from rql_core.progress import progress_bar

# Minari opens its file, and rewrites its metadata, once a batch; 20 episodes of 1,000 steps are 10 MB of memory.
_BATCH_EPISODES = 20


def write_minari(source: Path, directory: Path, metadata: Mapping[str, Any], *, progress: bool = True) -> None:
    """Write the dataset `directory` (its name ends in -vN) of the .npz file `source`; it is there whole or not at all.

    Raises DatasetError where the file cannot be read or the directory not be written.
    """
    directory = directory.resolve()  # Minari takes a path relative to its own file for another
    partial = directory.parent / f".{directory.name}.partial"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        _write(source, partial / "data", {"dataset_id": directory.name, **metadata}, progress)
        partial.rename(directory)
    except OSError as error:
        raise DatasetError(f"{directory}: cannot be written: {error}; is the disk full?") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(source: Path, data: Path, metadata: Mapping[str, Any], progress: bool) -> None:
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    with Columns(source) as columns, ExitStack() as stack:
        ends = np.flatnonzero(columns.read("terminals"))
        names = [name for name in columns.names if name != "terminals"]
        streams = {name: stack.enter_context(columns.stream(name)) for name in names}
        storage = MinariStorage.new(
            data,
            observation_space=Box(-np.inf, np.inf, streams["observations"].shape[1:], np.float32),
            action_space=Box(-1.0, 1.0, streams["actions"].shape[1:], np.float32),
            data_format="hdf5",
        )
        batch: list[Any] = []
        lengths = np.diff(ends, prepend=-1).tolist()
        for index, rows in enumerate(progress_bar(lengths, unit="episode", desc="minari", disable=not progress)):
            episode = {name: stream.take(rows) for name, stream in streams.items()}
            truncations = np.zeros(rows - 1, dtype=np.bool_)
            truncations[-1] = True
            batch.append(
                EpisodeBuffer(
                    id=index,
                    observations=episode.pop("observations"),
                    actions=episode.pop("actions")[:-1],
                    rewards=np.zeros(rows - 1, dtype=np.float32),
                    terminations=np.zeros(rows - 1, dtype=np.bool_),
                    truncations=truncations,
                    infos=episode,
                )
            )
            if len(batch) == _BATCH_EPISODES or index + 1 == len(lengths):
                storage.update_episodes(batch)
                batch = []
        storage.update_metadata({"minari_version": minari.__version__, **metadata})
