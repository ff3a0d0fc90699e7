"""A command of `rql` in a process of its own that does not outlive benchmarks/paper_tasks.py, however that ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rql_core.workers import end_with_parent, interrupts_ignored

# Training sets the pace, on one core; whatever else runs beside it gives way.
NICENESS = 10
# A process that was told to end and does not within this time is stuck in a driver.
_PATIENCE_S = 10.0
_LOG_LINES = 5


class Child:
    """One such process. It hears no Ctrl-C, which a terminal sends to all: whoever started it ends it."""

    def __init__(
        self, arguments: Sequence[str], log: Path, *, gives_way: bool = False, machines: tuple[Path, str] | None = None
    ) -> None:
        """Start `rql` with these arguments, its output appended to `log`; `machines` as in `run_rql`."""
        self.command = shlex.join(["rql", *arguments])
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # Not forked: a fork of a process in which torch has threads may hang.  Not a daemon: those have no workers.
        self._process = multiprocessing.get_context("spawn").Process(
            target=run_rql, args=(list(arguments), log, gives_way, machines), daemon=False
        )
        with interrupts_ignored():
            self._process.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._process.exitcode

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so many seconds."""
        self._process.join(seconds)
        return self.exit_code is not None

    def stop(self) -> None:
        """End it now; may be called twice."""
        if self.exit_code is None:
            self._process.terminate()
            self._process.join(_PATIENCE_S)
        if self.exit_code is None:
            self._process.kill()
            self._process.join()

    def last_words(self) -> str:
        """The end of what it printed, on one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-_LOG_LINES:])


def run_rql(arguments: list[str], log: Path, gives_way: bool, machines: tuple[Path, str] | None) -> None:
    """What the process does. `machines`: a file to which a row is added of the machine, and of the data named so."""
    end_with_parent()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(['rql', *arguments])}\n")
        file.flush()
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    if gives_way:
        os.nice(NICENESS)
    from rql_core.cli import main

    if machines is not None:
        path, data = machines
        wants_cpu = "cpu" in arguments[1:]
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(describe_machine(wants_cpu) | {"data": data}) + "\n")
    sys.exit(main(arguments))


def describe_machine(on_cpu: bool) -> dict[str, Any]:
    """The device that torch trains on, the processor and the version of torch."""
    import torch

    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    device = "CPU" if on_cpu or not torch.cuda.is_available() else torch.cuda.get_device_name()
    return {"device": device, "cpu": f"{processor}, {os.cpu_count()} cores", "torch": torch.__version__}
