"""Stages of the demonstration: done ones are skipped, and two demonstrations keep out of each other's way."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from rql_core.demo import stages
from rql_core.demo.processes import ProcessError
from rql_core.demo.settings import SETTINGS
from rql_core.demo.stages import CONTROLLERS, STAGES, Demo, run_demo
from rql_core.errors import ConfigError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that have run; each makes what the real one would make, and needs no ROS."""
    ran: list[str] = []

    def stage(name: str) -> None:
        def action(demo: Demo) -> None:
            ran.append(name)
            for path in made(demo)[name]:
                path.parent.mkdir(parents=True, exist_ok=True)
                assert not path.exists(), f"{path} of an earlier run was left there"
                path.write_text(name)

        action.__doc__ = f"What {name} does."
        monkeypatch.setattr(stages, name, action)

    for name in STAGES:
        stage(name)
    return ran


def made(demo: Demo) -> dict[str, list[Path]]:
    return {
        "record": [demo.bags / "bag_0" / "data.mcap"],
        "convert": [demo.dataset / "report.json"],
        "train": [demo.run(name) / "checkpoint" / "manifest.json" for name in ("rql", "bc_flow")],
        "evaluate": [demo.evaluation(controller) for controller in CONTROLLERS],
        "report": [demo.out / "report.html", demo.out / "result.json"],
    }


def test_all_stages_run_once_in_order_and_are_skipped_when_done(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo(tmp_path / "new" / "demo", "planar_arm")
    assert ran == list(STAGES)
    assert "[3/5] train: What train does." in capsys.readouterr().out
    run_demo(tmp_path / "new" / "demo", "planar_arm")
    assert ran == list(STAGES)
    assert capsys.readouterr().out.count("done already") == 5


def test_the_time_of_each_stage_and_of_the_installation_is_kept(tmp_path: Path, ran: list[str]) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "install.json").write_text('{"seconds": 12}')
    run_demo(tmp_path, "planar_arm")
    demo = Demo(SETTINGS["planar_arm"], tmp_path)
    assert list(demo.seconds()) == ["install", *STAGES]
    assert demo.seconds()["install"] == 12.0
    assert all(0 <= demo.seconds()[stage] < 60 for stage in STAGES)
    demo.marker("train").write_text("{")
    demo.marker("report").unlink()
    assert list(demo.seconds()) == ["install", "record", "convert", "evaluate"]


def test_a_stage_whose_settings_have_changed_is_done_again_with_those_after_it(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo(tmp_path, "planar_arm")
    ran.clear()
    settings = dataclasses.replace(SETTINGS["planar_arm"], rql_config="ur5e_rql")
    monkeypatch.setitem(SETTINGS, "planar_arm", settings)
    run_demo(tmp_path, "planar_arm")
    assert ran == ["train", "evaluate", "report"]
    assert "train: its settings have changed" in capsys.readouterr().out


@pytest.mark.parametrize("failing", STAGES)
def test_a_stage_that_fails_is_done_again_and_those_before_it_are_not(
    tmp_path: Path, ran: list[str], failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(demo: Demo) -> None:
        """Fails."""
        ran.append("failed")
        raise ProcessError("bridge ended with status 1")

    with monkeypatch.context() as patch:
        patch.setattr(stages, failing, fail)
        with pytest.raises(ProcessError):
            run_demo(tmp_path, "planar_arm")
    before = list(STAGES[: STAGES.index(failing)])
    assert ran == [*before, "failed"]
    assert not Demo(SETTINGS["planar_arm"], tmp_path).marker(failing).exists()
    run_demo(tmp_path, "planar_arm")
    assert ran == [*before, "failed", *STAGES[STAGES.index(failing) :]]


@pytest.mark.parametrize("start", STAGES)
def test_from_does_that_stage_and_those_after_it_again_and_no_other(tmp_path: Path, ran: list[str], start: str) -> None:
    run_demo(tmp_path, "planar_arm")
    ran.clear()
    demo = Demo(SETTINGS["planar_arm"], tmp_path)
    kept = [path for name in STAGES[: STAGES.index(start)] for path in [demo.marker(name), *made(demo)[name]]]
    for path in kept:
        path.write_text(json.dumps({"seconds": 7, "kept": True}))
    run_demo(tmp_path, "planar_arm", start=start)
    assert ran == list(STAGES[STAGES.index(start) :])
    for path in kept:
        assert "kept" in path.read_text()


def test_fresh_does_everything_again(tmp_path: Path, ran: list[str]) -> None:
    run_demo(tmp_path, "planar_arm")
    run_demo(tmp_path, "planar_arm", fresh=True)
    assert ran == [*STAGES, *STAGES]


def test_what_a_user_put_beside_the_demonstrations_things_is_left_alone(tmp_path: Path, ran: list[str]) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    run_demo(tmp_path, "planar_arm")
    run_demo(tmp_path, "planar_arm", fresh=True)
    assert (tmp_path / "runs" / "mine").is_dir()


def test_another_robot_in_the_same_directory_is_refused_and_nothing_changes(tmp_path: Path, ran: list[str]) -> None:
    run_demo(tmp_path, "planar_arm")
    before = sorted(tmp_path.rglob("*"))
    for start in (None, "train"):
        with pytest.raises(ConfigError, match=r"holds the demonstration of robot 'planar_arm'; use --fresh, .* 'ur5e'"):
            run_demo(tmp_path, "ur5e", start=start)
    assert ran == list(STAGES)
    assert sorted(tmp_path.rglob("*")) == before
    run_demo(tmp_path, "ur5e", fresh=True)
    assert ran == [*STAGES, *STAGES]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_directory_whose_robot_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, ran: list[str], content: str
) -> None:
    (tmp_path / "robot.json").write_text(content)
    with pytest.raises(ConfigError, match=r"robot\.json: .*--fresh") as error:
        run_demo(tmp_path, "planar_arm")
    assert "\n" not in str(error.value)
    run_demo(tmp_path, "planar_arm", fresh=True)
    assert ran == list(STAGES)


HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_a_second_demonstration_waits_until_the_first_ends_however_it_ends(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        record, flock = stages.record, fcntl.flock

        def record_alone(demo: Demo) -> None:
            """Records."""
            assert first.returncode is not None, "the first demonstration was still running"
            record(demo)

        def lock(file: TextIO, operation: int) -> None:
            if not operation & fcntl.LOCK_NB:  # the first is killed at the moment from which on the second waits
                assert ran == []
                assert not (tmp_path / "robot.json").exists()
                first.kill()
                first.wait()
            flock(file, operation)

        monkeypatch.setattr(stages, "record", record_alone)
        monkeypatch.setattr(stages.fcntl, "flock", lock)
        run_demo(tmp_path, "planar_arm")
    assert ran == list(STAGES)
    assert "waiting for it to end" in capsys.readouterr().out


def test_the_lock_is_let_go_when_a_demonstration_ends_or_fails(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(demo: Demo) -> None:
        """Fails."""
        raise ProcessError("no")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "train", fail)
        with pytest.raises(ProcessError):
            run_demo(tmp_path, "planar_arm")
    for _ in range(2):
        with (tmp_path / ".lock").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run_demo(tmp_path, "planar_arm")
    assert "Another demonstration" not in capsys.readouterr().out


@pytest.mark.parametrize("robot", sorted(SETTINGS))
def test_the_files_that_a_demonstration_starts_from_are_there(robot: str, tmp_path: Path) -> None:
    demo = Demo(SETTINGS[robot], tmp_path)
    assert demo.contract.is_file()
    assert demo.settings.robot == robot
    assert demo.dataset.name == f"{robot}-v0"
    assert demo.settings.first_seed + demo.settings.evaluation_episodes > demo.settings.first_seed > 100


def test_a_sub_command_that_fails_stops_the_stage(capfd: pytest.CaptureFixture[str]) -> None:
    stages._rql("contract", "check", "ur5e")
    assert "ur5e_ring: 20 Hz" in capfd.readouterr().out
    with pytest.raises(ProcessError, match=r"`rql contract --nonsense` ended with status 2"):
        stages._rql("contract", "--nonsense")


def test_training_goes_on_from_its_newest_checkpoint_and_starts_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(stages, "_rql", lambda *arguments: calls.append(arguments))
    demo = Demo(SETTINGS["planar_arm"], tmp_path)
    (demo.run("bc_flow") / "checkpoint").mkdir(parents=True)
    demo.run("rql").mkdir()
    (demo.run("rql") / "metrics.csv").write_text("half a run without a checkpoint")
    stages.train(demo)
    assert [call[:2] for call in calls] == [("train", demo.dataset)] * 2
    assert ["--resume" in call for call in calls] == [True, False]
    assert (demo.run("bc_flow") / "checkpoint").exists()
    assert not demo.run("rql").exists()
