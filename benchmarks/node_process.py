"""A node under test as a process: how long it took to start, what it uses, by /proc (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from threading import Event, Thread
from time import monotonic
from types import TracebackType

from rql_core.demo.processes import prepare_child, ros_environment

_STOP_S = 10.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class NodeProcess:
    """Starts `command` in a ROS domain; waits for a line of its output. As a context manager it ends the process."""

    def __init__(self, command: Sequence[str], domain: int, ready: str, *, cores: set[int] | None = None) -> None:
        """`ready`: what the line has in it that says the node is ready; `cores`: those that it may use."""

        def prepare() -> None:
            prepare_child()
            if cores:
                os.sched_setaffinity(0, cores)

        self.start_s: float | None = None
        self._ready, self._seen = ready, Event()
        self._last_lines: list[str] = []
        self._started = monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=ros_environment() | {"ROS_DOMAIN_ID": str(domain)},
            preexec_fn=prepare,
        )
        Thread(target=self._read, daemon=True).start()

    def wait_until_ready(self, patience_s: float = 60.0) -> float:
        """Seconds from the start to the line; ends the program, with what the node said, where none comes."""
        if not self._seen.wait(patience_s) or self.start_s is None:
            said = "\n".join(self._last_lines) or "nothing"
            sys.exit(f"the node did not get ready within {patience_s:g} s; it said: {said}")
        return self.start_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND

    @property
    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        return int(self._status("VmRSS")) * 1024 / 1e6

    @property
    def threads(self) -> int:
        """How many there are."""
        return int(self._status("Threads"))

    def pause(self) -> None:
        """Stop it where it is, as Ctrl-Z would: it takes no time and no cache from what is measured."""
        self._process.send_signal(SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(SIGCONT)

    def close(self) -> None:
        """End it as Ctrl-C would, and if that does not help, otherwise."""
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if self.start_s is None and self._ready in line:
                self.start_s = monotonic() - self._started
                self._seen.set()
            self._last_lines = [*self._last_lines[-9:], line.rstrip()]
        self._seen.set()

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text()

    def _status(self, key: str) -> str:
        return self._proc("status").partition(f"{key}:")[2].split()[0]
