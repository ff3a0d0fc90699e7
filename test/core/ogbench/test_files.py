"""OGBench's files as episodes: OGBench's own rewards and masks, to the last value; errors name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_sets import EPISODES, MAZE, MAZE_GOAL, STEPS, maze_columns, write

from rql_core.errors import ConfigError, DatasetError
from rql_core.ogbench.columns import Columns
from rql_core.ogbench.files import npz_shards, read_npz

pytestmark = pytest.mark.usefixtures("ogbench")


def ogbench_labels(name: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    from ogbench import make_env_and_datasets

    _, train, _ = make_env_and_datasets(name, dataset_path=str(path))
    return train  # type: ignore[no-any-return]


def at_the_goal(path: Path, name: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Put some rows, and parts of others, to where the task is solved: so little play hardly gets there."""
    from rql_core.ogbench.environments import make_environment

    environment: Any = make_environment(name)
    environment.reset(seed=0)
    world = environment.unwrapped
    rows = np.array([3, 4, 50, 121, 200])
    if "cube" in name or "scene" in name:
        for cube in range(world._num_cubes):
            columns["qpos"][rows[cube:], 14 + 7 * cube : 17 + 7 * cube] = world._data.mocap_pos[cube]
    if "scene" in name:
        columns["qpos"][rows[1:], -2] = world._target_drawer_pos
        columns["qpos"][rows[2:], -1] = world._target_window_pos
    if "scene" in name or "puzzle" in name:
        columns["button_states"][rows[1:]] = world._target_button_states
    write(path, columns)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
@pytest.mark.parametrize(
    ("family", "task"), [("cube-double", "-task5"), ("scene", "-task4"), ("puzzle-3x3", "")], indirect=["family"]
)
def test_generated_files_get_the_rewards_that_ogbench_gives(
    family: str, task: str, generated: Path, tmp_path: Path
) -> None:
    name = f"{family}-play-singletask{task}-v0"
    path = tmp_path / f"{family}-play-v0.npz"
    with np.load(generated / path.name) as data:
        columns = {each: data[each] for each in data.files}
    at_the_goal(path, name, columns)
    expected = ogbench_labels(name, path)
    found = read_npz(path, name)
    assert (found.masks == 0).any()
    assert len(np.unique(found.rewards)) > 2
    for each in ("actions", "rewards", "masks"):
        np.testing.assert_array_equal(getattr(found, each), expected[each], err_msg=each)
    rows = np.arange(found.steps) + np.repeat(np.arange(EPISODES), STEPS)
    np.testing.assert_array_equal(found.observations[rows], expected["observations"])
    np.testing.assert_array_equal(found.observations[rows + 1], expected["next_observations"])
    np.testing.assert_array_equal(found.lengths, [STEPS] * EPISODES)
    sparse = read_npz(path, name, "sparse")
    np.testing.assert_array_equal(sparse.rewards, np.where(expected["rewards"] == 0, 0, -1))
    np.testing.assert_array_equal(sparse.masks, expected["masks"])


@pytest.mark.parametrize(
    "name", [MAZE, "antmaze-giant-navigate-singletask-v0", "humanoidmaze-medium-navigate-singletask-task5-v0"]
)
def test_mazes_get_the_rewards_that_ogbench_gives(name: str, tmp_path: Path) -> None:
    from rql_core.ogbench.environments import make_environment

    environment: Any = make_environment(name)
    environment.reset(seed=0)
    columns = maze_columns([4, 30, 1, 60])
    rows, random = len(columns["qpos"]), np.random.default_rng(1)
    if "humanoid" in name:
        columns["observations"] = random.normal(size=(rows, 69)).astype(np.float32)
        columns["actions"] = random.uniform(-1, 1, size=(rows, 21)).astype(np.float32)
        columns["qpos"] = random.normal(size=(rows, 28)).astype(np.float32)
    columns["qpos"][:, :2] = random.normal(environment.unwrapped.cur_goal_xy, 0.5, size=(rows, 2))
    path = write(tmp_path / "maze.npz", columns)
    expected, found = ogbench_labels(name, path), read_npz(path, name)
    assert 0.1 < (found.masks == 0).mean() < 0.9
    for each in ("actions", "rewards", "masks"):
        np.testing.assert_array_equal(getattr(found, each), expected[each], err_msg=each)
    np.testing.assert_array_equal(found.lengths, [4, 30, 1, 60])


def test_a_step_is_judged_where_it_begins(tmp_path: Path) -> None:
    columns = maze_columns([5])
    columns["qpos"][:, 0] = 0
    columns["qpos"][[2, 5], :2] = MAZE_GOAL
    found = read_npz(write(tmp_path / "maze.npz", columns), MAZE)
    np.testing.assert_array_equal(found.rewards, [-1, -1, 0, -1, -1])
    np.testing.assert_array_equal(found.masks, [1, 1, 0, 1, 1])


def test_the_environment_judges_a_step_where_it_begins() -> None:
    from rql_core.ogbench.environments import make_environment

    environment: Any = make_environment(MAZE)
    environment.reset(seed=0)
    assert environment.step(np.zeros(8))[4]["success"] == 0
    environment.unwrapped.set_xy(environment.unwrapped.cur_goal_xy)
    _, reward, terminated, _, info = environment.step(np.zeros(8))
    assert (reward, terminated, info["success"]) == (0, True, 1)


def test_numbers_of_other_types_are_read(tmp_path: Path) -> None:
    columns = maze_columns([6, 3])
    expected = read_npz(write(tmp_path / "a.npz", columns), MAZE)
    other = {**columns, "terminals": columns["terminals"].astype(np.float32)}
    other["observations"] = other["observations"].astype(np.float64)
    assert read_npz(write(tmp_path / "b.npz", other), MAZE).fingerprint() == expected.fingerprint()


def broken(tmp_path: Path, **changes: Any) -> Path:
    columns = maze_columns([5, 5]) | changes
    return write(tmp_path / "maze.npz", {name: array for name, array in columns.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminals": None}, "has no array 'terminals', it has observations, actions, qpos, qvel"),
        ({"qpos": None}, "has no array 'qpos'"),
        ({"observations": np.zeros((12, 28), np.float32)}, r"observations has shape \(12, 28\), expected \(rows, 29\)"),
        ({"actions": np.zeros((12, 5), np.float32)}, r"actions has shape \(12, 5\), expected \(rows, 8\)"),
        ({"qpos": np.zeros((12, 16), np.float32)}, r"qpos has shape \(12, 16\), expected \(rows, 15\)"),
        ({"actions": np.zeros((11, 8), np.float32)}, "actions has 11 rows, expected 12, as terminals has"),
        ({"terminals": np.zeros(12, bool)}, r"terminals\[11\], the last, is false"),
        ({"terminals": np.ones((12, 1), bool)}, r"terminals has shape \(12, 1\), expected \(rows,\)"),
        ({"terminals": np.arange(12) > 9}, r"terminals\[11\] ends an episode of one row"),
        ({"actions": np.full((12, 8), 1.1, np.float32)}, r"maze.npz: actions\[0, 0\] is 1\.1.*expected in \[-1, 1\]"),
        ({"observations": np.full((12, 29), np.nan, np.float32)}, "expected a finite number"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message) as error:
        read_npz(broken(tmp_path, **changes), MAZE)
    assert str(error.value).startswith(str(tmp_path / "maze.npz"))


def test_files_that_are_missing_cut_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.npz: cannot be opened: No such file"):
        read_npz(tmp_path / "none.npz", MAZE)
    path = write(tmp_path / "maze.npz", maze_columns([50]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"is no \.npz file, or is cut short"):
        read_npz(path, MAZE)
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(DatasetError, match="cannot be read, the file is cut short or damaged"):
        read_npz(path, MAZE)


def cut_out(whole: bytearray) -> None:
    del whole[len(whole) // 2 : len(whole) // 2 + 100]


def spoil_local_header(whole: bytearray) -> None:
    whole[:4] = b"none"


def name_unknown_compression(whole: bytearray) -> None:
    entry = whole.index(b"PK\x01\x02")  # the first file's, in the directory at the end
    whole[entry + 10 : entry + 12] = (99).to_bytes(2, "little")


def ask_for_password(whole: bytearray) -> None:
    entry = whole.index(b"PK\x01\x02")
    whole[entry + 8] |= 1
    whole[6] |= 1  # the same flag in the local header


@pytest.mark.parametrize("damage", [cut_out, spoil_local_header, name_unknown_compression, ask_for_password])
def test_an_array_that_cannot_be_opened_is_named(damage: Callable[[bytearray], None], tmp_path: Path) -> None:
    path = write(tmp_path / "maze.npz", maze_columns([50]))
    whole = bytearray(path.read_bytes())
    damage(whole)
    path.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"is cut short") as error, Columns(path) as columns:
        columns.read("observations")
    assert str(error.value).startswith(str(path))


def test_a_directory_of_arrays_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "maze.npz", maze_columns([5]))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 6] = 99  # needs version 9.9 of the format
    path.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"maze\.npz: is no \.npz file, or is cut short"):
        Columns(path)


def test_an_environment_without_a_task_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "maze.npz", maze_columns([5]))
    with pytest.raises(ConfigError, match="'antmaze-large-navigate-v0' has no task of its own"):
        read_npz(path, "antmaze-large-navigate-v0")
    with pytest.raises(ConfigError, match="rewards is 'dense'; expected 'as_given' or 'sparse'"):
        read_npz(path, MAZE, "dense")  # type: ignore[arg-type]


def test_shards_are_the_training_files_in_order(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        for kind in ("", "-val"):
            (tmp_path / f"puzzle-4x4-play-v0-{number:03d}{kind}.npz").touch()
    (tmp_path / "rql_statistics.json").touch()
    assert [path.name[-7:] for path in npz_shards(tmp_path)] == ["000.npz", "001.npz", "002.npz"]
    with pytest.raises(DatasetError, match=r"nothing: has no \.npz files"):
        npz_shards(tmp_path / "nothing")
