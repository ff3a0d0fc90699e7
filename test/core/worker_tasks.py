"""What the workers of test_workers.py do: functions of a module without torch, so that a process starts at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from rql_core.errors import ConfigError
from rql_core.workers import WorkerPool

Task = int | str


def make_squarer() -> Callable[[Task], tuple[int, int, int]]:
    """A runner that gives (square of the task, process, tasks so far), or dies as it is told."""
    done = 0

    def run(task: Task) -> tuple[int, int, int]:
        nonlocal done
        if task == "exit":
            os._exit(3)
        if task == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "interrupt":
            signal.raise_signal(signal.SIGINT)
            task = 0
        if task == "refuse":
            raise ConfigError("task is 'refuse', expected a number")
        if task == "wait":
            signal.pause()
        done += 1
        return int(task) ** 2, os.getpid(), done

    return run


def make_nothing() -> Callable[[Task], int]:
    raise ConfigError("there is nothing to make a runner of")


def report_and_wait() -> None:
    """Say the processes of two workers, then wait for ever while they are at work; run as a process."""
    pool = WorkerPool(make_squarer, 2)
    processes = {process for _, (_, process, _) in pool.run([1, 2, 3, 4])}
    sys.stdout.write(" ".join(map(str, processes)) + "\n")
    sys.stdout.flush()
    for _ in pool.run(["wait", "wait"]):
        pass


if __name__ == "__main__":
    report_and_wait()
