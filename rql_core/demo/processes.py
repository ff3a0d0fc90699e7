"""Nodes as processes: started together, watched together, ended together.

Each child is killed by the kernel when its parent dies, so that a killed demonstration leaves nothing behind that
would answer the next one. Each group of nodes gets a ROS domain of its own on this machine's loopback.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO

from rql_core.errors import RqlError

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Domains up to 101 keep DDS's ports below the range that Linux gives to outgoing connections.
_DOMAINS = 100
_STOP_S = 10.0


class ProcessError(RqlError):
    """A process of a group ended although it should not have."""


def node_command(node: str, *, name: str | None = None, **parameters: object) -> list[str]:
    """The command line that runs a node of this project with parameters, as a launch file would make it."""
    command = [sys.executable, "-m", f"rql_ros.{node}", "--ros-args"]
    if name:
        command += ["-r", f"__node:={name}"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={_yaml(value)}"]
    return command


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def ros_environment() -> dict[str, str]:
    """The environment of nodes that talk to each other on this machine only, in a domain that this process owns."""
    environment = dict(os.environ)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["ROS_DOMAIN_ID"] = str(1 + os.getpid() % _DOMAINS)
    # Shared memory segments of killed processes stay behind and fill small containers; loopback UDP does not.
    environment.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    environment.setdefault("ROS_LOG_DIR", str(Path("build/ros_log").resolve()))
    # One computing thread a process: several nodes share the cores, and small networks gain nothing from more.
    environment["OMP_NUM_THREADS"] = "1"
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def prepare_child() -> None:
    """For preexec_fn: listen to SIGINT, and ask the kernel to kill this process when its parent dies (Linux only).

    What a shell starts in the background ignores SIGINT, and its children would inherit that and have to be killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessGroup:
    """Processes that work together. As a context manager: leaving it ends them all, politely and then not."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[IO[bytes]] = []
        self._environment = ros_environment()
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], *, show: bool = False) -> None:
        """Start a process; its output goes to `logs/name.log`, or with `show` its standard output to the terminal."""
        log = (self._logs / f"{name}.log").open("wb")
        self._files.append(log)
        self._processes[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if show else log,
            stderr=log,
            env=self._environment,
            preexec_fn=prepare_child,  # the kernel call is async-signal-safe, and no thread of ours holds a lock
        )

    def wait(self, name: str) -> None:
        """Wait until `name` ends well; raises ProcessError when it, or any other before it, ends badly."""
        while True:
            for other, process in self._processes.items():
                code = process.poll()
                if code is None or (other == name and code == 0):
                    continue
                raise ProcessError(f"{other} ended with status {code}: {self._last_line(other)}")
            if self._processes[name].poll() == 0:
                return
            sleep(0.05)

    def stop(self, name: str) -> None:
        """Ask a process to end (SIGINT) and wait for it; raises ProcessError when it does not end well."""
        process = self._processes.pop(name)
        code = process.poll()
        if code is None:
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        if code != 0:
            raise ProcessError(f"{name} ended with status {code}: {self._last_line(name)}")

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = monotonic() + _STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self._files:
            file.close()

    def _last_line(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "FATAL" in line]
        return f"{(errors or lines or ['no output'])[-1].strip()} (log: {path})"
