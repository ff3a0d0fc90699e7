"""Data sets in many files: at most two in memory, and the same numbers as of all files laid end to end."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from small_sets import MAZE, MAZE_GOAL, maze_columns

from rql_core.algorithms import RewardRange
from rql_core.data import Statistics, Trajectories
from rql_core.errors import DatasetError
from rql_core.ogbench import files
from rql_core.ogbench.columns import Columns
from rql_core.ogbench.files import Shards, read_npz
from rql_core.ogbench.survey import FILE_NAME

pytestmark = pytest.mark.usefixtures("ogbench")

LENGTHS = ([30, 8], [5], [60, 2, 2], [11, 12])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for number, lengths in enumerate(LENGTHS):
        columns = maze_columns(lengths, seed=number)
        columns["observations"] *= 10.0**number  # so that files differ in mean and spread
        columns["observations"][:, 20] = 3.5  # and one number is constant
        if number != 2:
            columns["qpos"][:, 0] = -50  # only one file has steps at the goal
        np.savez_compressed(tmp_path / f"antmaze-large-navigate-v0-{number:03d}.npz", **columns)  # type: ignore[arg-type]
    return tmp_path


@pytest.fixture
def shards(directory: Path) -> Iterator[Shards]:
    with Shards(directory, MAZE) as shards:
        yield shards


class Watched:
    """Reads files, and knows how many of those that it gave out are in memory when a reading begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive: list[weakref.ref[Any]] = []
        self.others: list[int] = []
        self.read: list[str] = []
        self.began = {index: Event() for index in range(len(LENGTHS))}
        self._real = files._read
        monkeypatch.setattr(files, "_read", self)

    def __call__(self, path: Path, labels: Any) -> Trajectories:
        self.others.append(sum(each() is not None for each in self.alive))
        self.read.append(path.stem[-3:])
        self.began[int(path.stem[-3:])].set()
        trajectories = self._real(path, labels)
        observations: Any = trajectories.observations
        self.alive.append(weakref.ref(observations if observations.base is None else observations.base))
        return trajectories


def test_a_shard_is_what_its_file_holds(shards: Shards) -> None:
    assert len(shards) == len(LENGTHS)
    for index in (0, 1, 2, 3, 0, 2):
        assert shards.load(index).fingerprint() == read_npz(shards.files[index], MAZE).fingerprint()


def test_in_order_every_file_is_read_once_a_round(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for index in (0, 1, 2, 3, 0):
        shard = shards.load(index)
    shards.close()
    assert watched.read[:5] == ["000", "001", "002", "003", "000"]
    assert shard.steps == sum(LENGTHS[0])


def test_the_next_file_is_read_while_one_is_in_use(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    in_use = shards.load(0)
    assert watched.began[1].wait(timeout=60)
    assert in_use.steps == sum(LENGTHS[0])


def test_no_third_file_is_read_while_two_are_in_use(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    first, second = shards.load(0), shards.load(1)
    assert not watched.began[2].wait(timeout=0.3)
    rows = first.observations[3:5]  # what is kept of a shard keeps all of it
    del first
    assert not watched.began[2].wait(timeout=0.3)
    del rows
    assert watched.began[2].wait(timeout=60)
    assert second.steps == sum(LENGTHS[1])


def test_two_files_are_in_memory_at_most_in_any_order(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    shard = None
    for index in (0, 1, 2, 3, 0, 2, 3, 3, 1):
        shard = None  # let go of the last one
        shard = shards.load(index)
    assert shard is not None
    shards.close()
    assert max(watched.others) == 1  # and the one that is read then makes two


def test_a_file_that_is_wanted_is_read_although_two_are_in_use(shards: Shards) -> None:
    kept = [shards.load(index) for index in range(4)]
    assert [shard.episodes for shard in kept] == [2, 1, 3, 2]


def test_an_error_in_the_background_comes_when_the_file_is_wanted(shards: Shards) -> None:
    shards.files[1].write_bytes(b"nothing")
    shards.load(0)
    with pytest.raises(DatasetError, match=r"001\.npz: is no \.npz file"):
        shards.load(1)
    assert shards.load(2).episodes == 3
    with pytest.raises(DatasetError, match="there is no file 4: expected 0 to 3"):
        shards.load(4)


def test_statistics_are_those_of_all_files_laid_end_to_end(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", 7)
    every = np.concatenate([shards.load(index).observations for index in range(4)])
    expected, found = Statistics.of(every), shards.statistics()
    for name, array in expected.to_tensors().items():
        np.testing.assert_allclose(found.to_tensors()[name], array, rtol=1e-6, err_msg=name)
    assert found.std[20] == 1.0
    assert found.count == len(every)


def test_the_reward_range_is_that_of_all_files(shards: Shards, directory: Path) -> None:
    assert shards.reward_range() == RewardRange(-1.0, 0.0, can_end=True)
    for path in directory.glob("*-002.npz"):
        path.unlink()
    with Shards(directory, MAZE) as rest:
        assert rest.reward_range() == RewardRange(-1.0, -1.0, can_end=False)


def test_what_was_computed_is_kept_beside_the_files(
    shards: Shards, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics, rewards = shards.statistics(), shards.reward_range()
    with monkeypatch.context() as patch:
        patch.setattr(Columns, "read", None)
        patch.setattr(Columns, "blocks", None)
        with Shards(directory, MAZE) as again:
            assert again.statistics().to_tensors().keys() == statistics.to_tensors().keys()
            for name, array in statistics.to_tensors().items():
                np.testing.assert_array_equal(again.statistics().to_tensors()[name], array)
            assert again.reward_range() == rewards
        patch.undo()
        patch.setattr(Columns, "blocks", None)  # another task's rewards need no other statistics
        with Shards(directory, MAZE.replace("task1", "task2")) as other:
            assert other.reward_range() == RewardRange(-1.0, -1.0, can_end=False)
    with Shards(directory, MAZE) as again:
        assert again.reward_range() == rewards
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", *[".npz"] * 4]


def test_what_was_computed_of_other_contents_is_not_used(shards: Shards, directory: Path) -> None:
    before = shards.statistics()
    columns = maze_columns([50], seed=9)
    np.savez_compressed(shards.files[0], **columns)  # type: ignore[arg-type]
    with Shards(directory, MAZE) as changed:
        assert changed.statistics().count != before.count


def test_a_place_that_cannot_be_written_does_without(shards: Shards, directory: Path) -> None:
    (directory / FILE_NAME).mkdir()
    assert shards.statistics().count == sum(sum(lengths) + len(lengths) for lengths in LENGTHS)
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", *[".npz"] * 4]


def test_the_fingerprint_tells_contents_and_tasks_apart(shards: Shards, directory: Path) -> None:
    first = shards.fingerprint()
    assert Shards(directory, MAZE).fingerprint() == first
    assert Shards(directory, MAZE, "sparse").fingerprint() != first
    assert Shards(directory, MAZE.replace("task1", "task2")).fingerprint() != first
    columns = maze_columns(LENGTHS[3], seed=3)
    columns["qpos"][0, 0] = MAZE_GOAL[0]
    np.savez_compressed(shards.files[3], **columns)  # type: ignore[arg-type]
    assert shards.fingerprint() != first
