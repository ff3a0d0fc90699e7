"""Generated data: the same bytes for the same seed, however they were made; files that OGBench and Minari read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import EPISODES, STEPS

from rql_core.errors import ConfigError, DatasetError, SimulationError
from rql_core.ogbench import generate as generating
from rql_core.ogbench import play as playing
from rql_core.ogbench.generate import FAMILIES, family_of, generate, transitions

# One play of cube-single that kills its own process at a given moment: ("write", 2) while the second episode is
# written, ("join", 7) in the middle of joining, ("minari", 1) when the files are done.
KILLED = """
import os, signal, sys
from pathlib import Path
from rql_core.ogbench import generate as generating

moment, countdown = sys.argv[2], int(sys.argv[3])

def die_in_the_end():
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def write(path, arrays, real=generating.write_columns):
    path.with_name(f".{path.name}.1.partial").write_bytes(b"half")
    if moment == "write":
        die_in_the_end()
    real(path, arrays)

def join(path, parts, advance, real=generating.join_columns):
    real(path, parts, lambda: die_in_the_end() if moment == "join" else None)

def minari(*arguments, real=generating.write_minari, **options):
    if moment == "minari":
        die_in_the_end()
    real(*arguments, **options)

generating.write_columns, generating.join_columns, generating.write_minari = write, join, minari
generating.generate("cube-single", Path(sys.argv[1]), episodes=3, steps=20, seed=1, progress=False)
"""


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.npz"))}


@pytest.mark.parametrize("family", ["scene"], indirect=True)
def test_two_workers_write_the_same_bytes_as_one(family: str, generated: Path, tmp_path: Path) -> None:
    generate(family, tmp_path, episodes=EPISODES, steps=STEPS, seed=7, workers=2, minari=False, progress=False)
    assert contents(tmp_path) == contents(generated)
    assert list(contents(tmp_path)) == [f"{family}-play-v0-val.npz", f"{family}-play-v0.npz"]


def test_an_episode_does_not_depend_on_what_was_played_before(family: str, generated: Path) -> None:
    with np.load(generated / f"{family}-play-v0.npz") as data:
        whole = {name: data[name][2 * (STEPS + 1) :][:41] for name in data.files if name != "terminals"}
    alone = playing.OraclePlayer(family, 40).play(7, 0, 2)
    for name, array in whole.items():
        np.testing.assert_array_equal(alone[name], array, err_msg=name)


def test_the_global_generator_is_left_as_it_was(ogbench: None) -> None:
    player = playing.OraclePlayer("cube-single", 5)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(4)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    player.play(0, 0, 0)
    np.testing.assert_array_equal(np.random.random(4), expected)  # noqa: NPY002


def test_seed_split_and_number_each_give_another_episode(ogbench: None) -> None:
    player = playing.OraclePlayer("cube-single", 5)
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    starts = {player.play(*place)["observations"].tobytes() for place in places}
    assert len(starts) == len(places)


def test_a_relative_directory_is_as_good_as_another(
    ogbench: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = generate("cube-single", Path("plays"), episodes=1, steps=20, seed=1, progress=False)
    assert (tmp_path / files.minari(0)).is_dir()


def test_it_goes_on_after_being_killed_at_any_moment(ogbench: None, tmp_path: Path) -> None:
    first = generating.PlayFiles(tmp_path / "killed", "cube-single").episode(generating.PlayEpisode(0, 0))
    written: list[int] = []
    for moment in (("write", 2), ("write", 1), ("join", 7), ("minari", 1)):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "killed"), *map(str, moment)], check=False, timeout=120
        )
        assert ended.returncode == -signal.SIGKILL, moment
        if first.exists():
            written.append(first.stat().st_mtime_ns)
    assert len(written) == 3  # it was there until the files were joined,
    assert len(set(written)) == 1  # and never written again
    options: dict[str, Any] = {"episodes": 3, "steps": 20, "seed": 1, "progress": False}
    files = generate("cube-single", tmp_path / "killed", **options)
    generate("cube-single", tmp_path / "whole", **options)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert transitions(files) == (60, 20)
    assert files.minari(0).is_dir()
    assert files.minari(1).is_dir()
    assert not files.episodes.exists()
    assert [path.name for path in (tmp_path / "killed").rglob("*.partial")] == []


def test_what_is_done_is_not_played_again(generated: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(generated)
    monkeypatch.setattr(generating, "OraclePlayer", None)
    generate(family, generated, episodes=EPISODES, steps=STEPS, seed=7, progress=False)
    assert contents(generated) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"episodes": 30}, "episodes 3, and episodes is 30"), ({"seed": 8}, "seed 7, and seed is 8")],
)
def test_other_settings_are_refused(family: str, generated: Path, change: dict[str, Any], message: str) -> None:
    before = contents(generated)
    with pytest.raises(DatasetError, match=rf"was begun with {message} now; give the same, .* --out, or --overwrite"):
        generate(family, generated, **{"episodes": EPISODES, "steps": STEPS, "seed": 7, "progress": False, **change})
    assert contents(generated) == before


def test_other_software_is_refused_and_named(ogbench: None, tmp_path: Path) -> None:
    manifest = tmp_path / "scene-play-v0.json"
    software = dict.fromkeys(generating._SOFTWARE, "0.1")
    settings = generating.PlaySettings("scene", 1, 1, 5, 0, software)
    manifest.write_text(json.dumps({"made_by": "rql generate", **asdict(settings)}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"was begun with software mujoco 0\.1, and software mujoco is \d"):
        generate("scene", tmp_path, episodes=1, steps=5)


def test_overwriting_begins_anew(ogbench: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"episodes": 1, "steps": 5, "progress": False}
    generate("cube-single", tmp_path, seed=0, **options)
    first = contents(tmp_path)
    files = generate("cube-single", tmp_path, seed=1, overwrite=True, **options)
    assert contents(tmp_path) != first
    assert json.loads(files.manifest.read_text(encoding="utf-8"))["seed"] == 1


def test_files_of_somebody_else_are_never_replaced(ogbench: None, tmp_path: Path) -> None:
    official = tmp_path / "cube-double-play-v0.npz"
    official.write_bytes(b"official")
    for overwrite in (False, True):
        with pytest.raises(DatasetError, match=r"exists, and cube-double-play-v0\.json does not say that rql generate"):
            generate("cube-double", tmp_path, episodes=1, steps=5, overwrite=overwrite)
    assert official.read_bytes() == b"official"


def test_a_second_process_at_the_same_place_is_refused(ogbench: None, tmp_path: Path) -> None:
    files = generating.PlayFiles(tmp_path, "scene")
    with (
        generating._at_work(files),
        pytest.raises(DatasetError, match="another process is making scene here"),
    ):
        generate("scene", tmp_path, episodes=1, steps=5)


def test_a_place_that_cannot_be_written_is_named(ogbench: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(DatasetError, match=r"file/data: cannot be written: Not a directory; give another directory"):
        generate("scene", tmp_path / "file" / "data", episodes=1, steps=5)


@pytest.mark.parametrize("name", ["cube-double", "cube-double-play", "cube-double-play-v0", "cube-double-v0"])
def test_a_domain_may_be_called_by_any_of_its_names(name: str) -> None:
    assert family_of(name) == "cube-double"


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(ConfigError, match="name is 'cube-dozen'; expected one of " + ", ".join(FAMILIES)):
        family_of("cube-dozen")


@pytest.mark.parametrize("name", ["antmaze-giant-navigate", "antmaze-giant-navigate-v0"])
def test_a_maze_says_where_its_data_come_from(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"not in its wheel.*antmaze-giant-navigate-v0-val\.npz from .*~/\.ogbench/data"
    ):
        family_of(name)


@pytest.mark.parametrize("field", ["episodes", "steps", "workers"])
def test_values_that_make_no_sense_are_refused(field: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 0, expected at least 1"):
        generate("scene", tmp_path, **{field: 0})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed is -1, expected at least 0"):
        generate("scene", tmp_path, seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_the_cube_of_scene_has_to_stay_in_view() -> None:
    def seen(y: float, z: float) -> bool:
        qpos = np.zeros((3, 25))
        qpos[1, 15:17] = y, z
        return playing._cube_in_view(qpos)

    assert [seen(0.28, 0.02), seen(0.29, 0.02), seen(-0.29, 0.02), seen(-0.3, 0.02)] == [True, False, True, False]
    assert [seen(-0.3, 0.05), seen(-0.3, 0.07), seen(-0.3, 0.09)] == [False, True, False]


def test_an_episode_that_loses_the_cube_is_played_again(ogbench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    player = playing.OraclePlayer("scene", 5)
    first = player.play(0, 0, 0)
    answers = iter([False, True])
    monkeypatch.setattr(playing, "_cube_in_view", lambda qpos: next(answers))
    again = player.play(0, 0, 0)
    assert not np.array_equal(again["observations"], first["observations"])
    np.testing.assert_array_equal(again["terminals"], [False] * 5 + [True])
    monkeypatch.setattr(playing, "_cube_in_view", lambda qpos: False)
    monkeypatch.setattr(playing, "_ATTEMPTS", 3)
    with pytest.raises(SimulationError, match="episode 0 lost its cube out of view 3 times in a row"):
        player.play(0, 0, 0)


def test_files_have_the_arrays_and_types_of_the_official_ones(family: str, generated: Path) -> None:
    with np.load(generated / f"{family}-play-v0.npz") as data:
        arrays = {name: data[name] for name in data.files}
    expected = {
        "observations": np.float32,
        "actions": np.float32,
        "terminals": np.bool_,
        "qpos": np.float32,
        "qvel": np.float32,
    }
    if family != "cube-double":
        expected["button_states"] = np.int64
    assert {name: array.dtype for name, array in arrays.items()} == {name: np.dtype(d) for name, d in expected.items()}
    assert {len(array) for array in arrays.values()} == {EPISODES * (STEPS + 1)}
    np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]), [120, 241, 362])
    assert np.abs(arrays["actions"]).max() <= 1
    # Observation, positions and states of a row are of the same instant.
    np.testing.assert_array_equal(arrays["observations"][:, :6], arrays["qpos"][:, :6])
    if family == "puzzle-3x3":
        np.testing.assert_array_equal(arrays["observations"][:, 20::4], arrays["button_states"])


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_ogbench_itself_loads_the_files(family: str, generated: Path) -> None:
    from ogbench import make_env_and_datasets

    path = generated / f"{family}-play-v0.npz"
    _, train, validation = make_env_and_datasets(f"{family}-play-v0", dataset_path=str(path))
    assert train["observations"].shape == (EPISODES * STEPS, train["next_observations"].shape[1])
    assert len(validation["actions"]) == STEPS
    assert train["terminals"].sum() == EPISODES


def test_minari_loads_the_same_episodes(family: str, generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(generated / "minari"))
    with np.load(generated / f"{family}-play-v0.npz") as data:
        arrays = {name: data[name].reshape(EPISODES, STEPS + 1, -1) for name in data.files}
    dataset = minari.load_dataset(f"{family}-play-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (EPISODES, EPISODES * STEPS)
    for index, episode in enumerate(dataset.iterate_episodes()):
        np.testing.assert_array_equal(episode.observations, arrays["observations"][index])
        np.testing.assert_array_equal(episode.actions, arrays["actions"][index, :-1])
        np.testing.assert_array_equal(episode.truncations, [False] * (STEPS - 1) + [True])
        assert not episode.terminations.any()
        for name in set(arrays) - {"observations", "actions", "terminals"}:
            np.testing.assert_array_equal(episode.infos[name], arrays[name][index])
    metadata = dataset.storage.metadata
    assert metadata["settings"]["seed"] == 7
    assert metadata["environment"] == f"{family}-v0"
    assert minari.load_dataset(f"{family}-play-val-v0").total_episodes == 1


def test_the_command_says_what_it_made(
    ogbench: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Callable[..., None]
) -> None:
    run("cube-single", "--episodes", "1", "--steps", "8", "--no-minari", "--out", tmp_path)
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"{tmp_path}/cube-single-play-v0.npz: 8 steps",
        f"{tmp_path}/cube-single-play-v0-val.npz: 8 steps",
    ]
    assert not (tmp_path / "minari").exists()


def test_the_command_lists_domains_and_worlds(run: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"expected one of cube-single, .*, or one of the worlds planar_arm, ur5e_ring"
    ):
        run("cube", "--out", tmp_path)


@pytest.fixture
def run() -> Callable[..., None]:
    """`rql generate` with these arguments."""
    import tyro

    from rql_core.commands.generate import Generate

    return lambda *arguments: tyro.cli(Generate, args=[str(argument) for argument in arguments]).run()
