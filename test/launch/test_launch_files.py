"""What the launch files promise: they run, they end well when the work is done, and badly when a node dies."""

from __future__ import annotations

import ast
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from launch_commands import COMMANDS, REAL

from rql_core.bags.reader import bag_topics
from rql_core.evaluation.results import read_evaluation

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
FILES = sorted(path.name.removesuffix(".launch.py") for path in LAUNCH.glob("*.launch.py"))


def descendants(parent: int) -> dict[int, list[str]]:
    """Command lines of all processes below `parent`."""
    children: dict[int, list[int]] = {}
    lines: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, line = (entry / "stat").read_text(), (entry / "cmdline").read_text()
            except OSError:
                continue  # it ended while we looked
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
            lines[int(entry.name)] = line.split("\0")
    found, queue = {}, [parent]
    while queue:
        for child in children.get(queue.pop(), []):
            found[child] = lines.get(child, [])
            queue.append(child)
    return found


def node_process(launched, executable: str) -> int:
    """Process id of the node `executable`; waits until it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = {os_pid: line for process in launched._processes for os_pid, line in descendants(process.pid).items()}
        lines |= {process.pid: process.args for process in launched._processes}
        for pid, line in lines.items():
            if any(executable in word for word in line) and "launch" not in line:
                return pid
        time.sleep(0.05)
    raise AssertionError(f"{executable} was not started")


def test_every_launch_file_has_its_command_lines() -> None:
    assert sorted(COMMANDS) == FILES == ["evaluate", "policy", "record", "sim"]


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described(name: str) -> None:
    tree = ast.parse((LAUNCH / f"{name}.launch.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "argument"
    ]
    assert calls
    described = {call.args[0].value: call.args[1].value for call in calls}
    assert all(len(text) > 10 and text.endswith(".") for text in described.values())
    if REAL:
        shown = subprocess.run(
            ["ros2", "launch", "rql_ros", f"{name}.launch.py", "--show-args"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert all(argument in shown and text in shown for argument, text in described.items())


def parameters_of(command: list[str]) -> dict[str, str]:
    """Remappings and parameters of a node's command line, those in parameter files too; later ones win."""
    found: dict[str, str] = {}
    for flag, value in itertools.pairwise(command):
        if flag == "--params-file":
            content = yaml.safe_load(Path(value).read_text())
            while "ros__parameters" not in content:
                content = next(iter(content.values()))
            found |= {key: str(item).lower() for key, item in content["ros__parameters"].items()}
        elif flag in ("-p", "-r"):
            key, _, text = value.partition(":=")
            found[key] = str(yaml.safe_load(text)).lower()
    found.pop("__ns", None)
    return {key: value for key, value in found.items() if value}


@pytest.mark.skipif(not REAL, reason="compares with what the real ros2 launch runs, which is not installed")
@pytest.mark.parametrize("name", FILES)
def test_launch_runs_the_command_lines_that_stand_in_for_it(
    launch, name: str, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = {
        "policy": {"checkpoint": str(checkpoint), "mode": "rtc", "shadow": "true", "run_limit": "2.5"},
        "sim": {"world": "planar_arm", "contract": "planar_arm", "demonstrator": "true"},
        "record": {"contract": "planar_arm", "output": str(tmp_path / "bags")},
        "evaluate": {"checkpoint": str(checkpoint), "world": "planar_arm", "contract": "planar_arm"},
    }[name]
    expected = COMMANDS[name](arguments)
    launched = launch(name, **arguments)
    for command in expected:
        executable = command[2].removeprefix("rql_ros.")
        actual = Path(f"/proc/{node_process(launched, executable)}/cmdline").read_text().split("\0")
        real, ours = parameters_of(actual), parameters_of(command)
        for each in (real, ours):  # the contract is installed under share/, and stands in config/ here
            each["contract"] = Path(each.get("contract", "")).name
        assert real == ours


def test_evaluate_runs_to_the_end_and_ends_well(launch, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "evaluation.json"
    launched = launch(
        "evaluate", checkpoint=checkpoint, world="planar_arm", contract="planar_arm", episodes=2, output=output
    )
    assert launched.wait() == 0, launched.output()
    assert len(read_evaluation(output).records) == 2


def test_a_checkpoint_that_is_not_there_ends_the_launch_with_a_failure_and_says_why(launch, tmp_path: Path) -> None:
    launched = launch("policy", checkpoint=tmp_path / "nowhere")
    assert launched.wait() == 1
    assert f"not configured: {tmp_path / 'nowhere'}: is no directory" in launched.output()


def test_a_parameters_file_says_what_no_argument_says(launch, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    mode: receding\n    on_trigger: true\n")
    launched = launch("policy", checkpoint=checkpoint, params_file=file, on_trigger=False, output="both")
    launched.wait_for("mode receding")
    command = Path(f"/proc/{node_process(launched, 'policy_node')}/cmdline").read_text().split("\0")
    assert parameters_of(command)["on_trigger"] == "false"
    assert parameters_of(command)["output"] == "both"
    launched.interrupt()
    assert launched.wait() == 0, launched.output()


@pytest.mark.skipif(not REAL, reason="asks the real ros2 launch, which is not installed")
@pytest.mark.parametrize(
    ("argument", "said"),
    [("mode:=fast", "fast"), ("shadow:=perhaps", "perhaps"), ("run_limit:=soon", "'soon', expected a float")],
)
def test_a_wrong_argument_starts_nothing_and_is_named(argument: str, said: str, tmp_path: Path) -> None:
    command = ["ros2", "launch", "rql_ros", "policy.launch.py", f"checkpoint:={tmp_path}", argument]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    printed = result.stdout + result.stderr
    assert result.returncode == 1
    assert argument.partition(":=")[0] in printed
    assert said in printed
    assert "process started" not in printed


def test_a_killed_node_ends_the_launch_with_a_failure(launch) -> None:
    launched = launch("sim", world="planar_arm", contract="planar_arm", demonstrator=True)
    launched.wait_for("playing planar_arm")
    os.kill(node_process(launched, "mujoco_bridge_node"), signal.SIGKILL)
    assert launched.wait() != 0


def test_simulation_demonstrator_and_recorder_together_leave_a_bag(launch, tmp_path: Path) -> None:
    recorder = launch("record", contract="planar_arm", output=tmp_path / "bags", use_sim_time=True)
    recorder.wait_for("recording")
    simulation = launch("sim", world="planar_arm", contract="planar_arm", demonstrator=True, factor="5.0", seed=1)
    simulation.wait_for("playing planar_arm")
    deadline = time.monotonic() + 60
    file = tmp_path / "bags" / "run_0001" / "run_0001.mcap"
    while not (file.exists() and file.stat().st_size > 120_000):
        assert time.monotonic() < deadline, recorder.output() + simulation.output()
        time.sleep(0.1)
    for launched in (recorder, simulation):
        launched.interrupt()
        assert launched.wait() == 0, launched.output()
    topics = bag_topics(tmp_path / "bags" / "run_0001")
    assert topics["/joint_states"].messages > 50
    assert topics["/arm_controller/joint_trajectory"].messages > 50
