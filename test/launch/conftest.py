"""Launch files, run by the real `ros2 launch` where it is installed.

Where it is not (the ROS wheels of PyPI have no launch), the nodes run as processes with the command lines that launch
makes of the launch files. The header of the test run says which.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_commands import COMMANDS, REAL

pytest.importorskip("rclpy", reason="test/launch needs rclpy: install requirements/ros-wheels.txt or source ROS 2")

PATIENCE_S = 90.0


def pytest_report_header() -> str:
    """One line that says what these tests run."""
    how = "the real ros2 launch" if REAL else "processes with launch's command lines (ros2 launch is not installed)"
    return f"launch files: {how}"


@pytest.fixture(scope="session", autouse=True)
def domain(loopback_domain: None) -> None:
    """Every test here runs in that domain."""


class Launched:
    """A running launch file: one process group, with all output in one file."""

    def __init__(self, name: str, arguments: dict[str, str], log: Path) -> None:
        self._file = log.open("wb")
        self.log = log
        if REAL:
            commands = [["ros2", "launch", "rql_ros", f"{name}.launch.py"]]
            commands[0] += [f"{key}:={value}" for key, value in arguments.items()]
        else:
            commands = COMMANDS[name](arguments)
        self._processes = [
            subprocess.Popen(command, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True)
            for command in commands
        ]

    def output(self) -> str:
        """Everything that was printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until `text` was printed."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.output():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {text!r}:\n{self.output()[-2000:]}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Exit status of the launch. Without launch: of the first process that ends, and the others are interrupted."""
        deadline = time.monotonic() + PATIENCE_S
        while all(process.poll() is None for process in self._processes):
            assert time.monotonic() < deadline, f"still running after {PATIENCE_S:g} s:\n{self.output()[-2000:]}"
            time.sleep(0.05)
        first = next(process.returncode for process in self._processes if process.poll() is not None)
        self.interrupt()
        for process in self._processes:
            process.wait(PATIENCE_S)
        return first

    def close(self) -> None:
        """End what is left."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._file.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator:
    """`launch(name, **arguments)` starts a launch file."""
    started: list[Launched] = []

    def start(name: str, **arguments: object) -> Launched:
        texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in arguments.items()}
        started.append(Launched(name, texts, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for launched in started:
        launched.close()
