"""OGBench's .npz files as episodes: official ones and those of `rql generate`, one file or a set of many.

An episode of T steps is T + 1 rows in a file: the last row, where `terminals` is true, holds the observation that the
episode ends with, and an action that nobody executed. The rows of observations are therefore laid out as in
`Trajectories` already. Rewards and masks are those that OGBench itself gives (see rql_core.ogbench.rewards).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rql_core.data.normalisation import BLOCK_ROWS, Statistics
from rql_core.data.trajectories import Trajectories
from rql_core.errors import DatasetError
from rql_core.ogbench.columns import Columns
from rql_core.ogbench.moments import Moments
from rql_core.ogbench.read_ahead import ReadAhead
from rql_core.ogbench.rewards import Rewards, TaskLabels
from rql_core.ogbench.survey import Survey, read_survey, write_survey
from rql_core.progress import progress_bar

if TYPE_CHECKING:
    from rql_core.algorithms import RewardRange


def read_npz(path: Path | str, environment: str, rewards: Rewards = "as_given") -> Trajectories:
    """The episodes of a file, with the rewards and masks of a single task (puzzle-3x3-play-singletask-task1-v0).

    `rewards` "sparse": every reward other than 0 becomes -1, as in the published settings of scene and puzzles.
    Reward i and mask i are judged at observation i, as OGBench does it: at the goal, and not on the way to it.

    Raises DatasetError that names the file, the array and its shape; ConfigError for an environment without a task;
    SimulationError where OGBench is not installed.
    """
    return _read(Path(path), TaskLabels(environment, rewards))


def npz_shards(directory: Path | str) -> list[Path]:
    """The files of a data set in many files, in order, without those for validation (`...-val.npz`).

    Raises DatasetError where there are none.
    """
    folder = Path(directory)
    found = sorted(path for path in folder.glob("*.npz") if not path.stem.endswith("-val"))
    if not found:
        raise DatasetError(
            f"{folder}: has no .npz files (those for validation, ...-val.npz, do not count); give the directory that "
            "the data set's files lie in"
        )
    return found


class Shards:
    """A data set in many files, at most two of them in memory: the one in use and the next, read in the background.

    That holds for a caller who lets go of one shard before it asks for the next but one; a shard counts as long as
    anything refers to its observations. Owned by one thread. `close`, or leaving a `with` block, ends the reading.
    """

    def __init__(
        self,
        directory: Path | str,
        environment: str,
        rewards: Rewards = "as_given",
        *,
        progress: bool = False,
    ) -> None:
        """Find the files and make the environment. `progress`: show a bar while all files are read for statistics."""
        self.directory = Path(directory)
        self.files = npz_shards(self.directory)
        self._labels = TaskLabels(environment, rewards)
        self._progress = progress
        self._ahead = ReadAhead(lambda index: _read(self.files[index], self._labels), len(self.files))

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def load(self, index: int) -> Trajectories:
        """The episodes of file `index`; reading of the file after it (of the first, after the last) begins.

        Raises DatasetError as `read_npz` does.
        """
        return self._ahead.load(index)

    def statistics(self) -> Statistics:
        """Statistics of the observations of all files; reads them all once, and keeps the result beside them."""
        return self._survey().statistics

    def reward_range(self) -> RewardRange:
        """Range of the rewards of all files; reads them all once, and keeps the result beside them."""
        from rql_core.algorithms import RewardRange

        return RewardRange(*self._survey().rewards[self._key])

    def fingerprint(self) -> str:
        """What tells these data from others: checksums of the files' contents, the task and its rewards."""
        return hashlib.sha256(f"{self._contents()} {self._key}".encode()).hexdigest()

    def close(self) -> None:
        """End the reading in the background; may be called twice."""
        self._ahead.close()

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _key(self) -> str:
        return f"{self._labels.environment} {self._labels.rewards}"

    def _contents(self) -> str:
        digest = hashlib.sha256()
        for path in self.files:
            with Columns(path) as columns:
                digest.update(f"{path.name} {columns.fingerprint()}\n".encode())
        return digest.hexdigest()

    def _survey(self) -> Survey:
        """What is known of all files together, from the file beside them or from reading them."""
        contents = self._contents()
        known = read_survey(self.directory, contents)
        if known is not None and self._key in known.rewards:
            return known
        moments = Moments.nothing(self._labels.observation_dim)
        low, high, can_end = np.inf, -np.inf, False
        for path in progress_bar(self.files, unit="file", desc="statistics", disable=not self._progress):
            with Columns(path) as columns:
                last = _last_rows(columns)
                if known is None:
                    _check(columns, self._labels, "observations", len(last))
                    for block in columns.blocks("observations", BLOCK_ROWS):
                        moments = moments.merged(Moments.of(block.astype(np.float32, copy=False)))
                rewards, masks = _label(columns, self._labels, ~last)
            low, high = min(low, float(rewards.min())), max(high, float(rewards.max()))
            can_end = can_end or bool((masks == 0).any())
        statistics = moments.statistics() if known is None else known.statistics
        ranges = {} if known is None else known.rewards
        survey = Survey(contents, statistics, {**ranges, self._key: (low, high, can_end)})
        write_survey(self.directory, survey)
        return survey


def _read(path: Path, labels: TaskLabels) -> Trajectories:
    with Columns(path) as columns:
        last = _last_rows(columns)
        rows = len(last)
        for name in ("observations", "actions"):
            _check(columns, labels, name, rows)
        observations, actions = columns.read("observations"), columns.read("actions")
        rewards, masks = _label(columns, labels, ~last)
    ends = np.flatnonzero(last)
    try:
        return Trajectories(
            observations.astype(np.float32, copy=False),
            actions[~last].astype(np.float32, copy=False),
            rewards,
            masks,
            np.diff(ends, prepend=-1).astype(np.int64) - 1,
        )
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _last_rows(columns: Columns) -> npt.NDArray[np.bool_]:
    """(rows,): where an episode ends. Raises DatasetError unless every episode has a step, and the last one an end."""
    terminals = columns.read("terminals")
    if terminals.ndim != 1 or len(terminals) == 0:
        raise DatasetError(f"{columns.path}: terminals has shape {terminals.shape}, expected (rows,)")
    last: npt.NDArray[np.bool_] = terminals != 0
    if not last[-1]:
        raise DatasetError(
            f"{columns.path}: terminals[{len(last) - 1}], the last, is false, so the last episode has no end; "
            "is the file cut short?"
        )
    empty = np.flatnonzero(last & np.concatenate([[True], last[:-1]]))
    if len(empty):
        raise DatasetError(
            f"{columns.path}: terminals[{empty[0]}] ends an episode of one row, expected at least two: one step"
        )
    return last


def _label(
    columns: Columns, labels: TaskLabels, steps: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rewards and masks of the rows where `steps` is true."""
    needed: dict[str, npt.NDArray[Any]] = {}
    for name in labels.columns:
        _check(columns, labels, name, len(steps))
        needed[name] = columns.read(name)[steps]
    return labels.label(needed)


def _check(columns: Columns, labels: TaskLabels, name: str, rows: int) -> None:
    shape = columns.shape(name)
    labels.check(str(columns.path), name, shape)
    if shape[0] != rows:
        raise DatasetError(f"{columns.path}: {name} has {shape[0]} rows, expected {rows}, as terminals has")
