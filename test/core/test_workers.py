"""Tasks in processes: every one is done once, what goes wrong is said, and no process is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_tasks

from rql_core.errors import ConfigError
from rql_core.workers import WorkerError, WorkerPool

Pool = WorkerPool[worker_tasks.Task, tuple[int, int, int]]


@pytest.fixture(scope="module")
def two() -> Iterator[Pool]:
    with WorkerPool(worker_tasks.make_squarer, 2) as pool:
        yield pool


def processes(pool: Pool) -> set[int]:
    """The processes of a pool that is running."""
    return {process for _, (_, process, _) in pool.run(range(4))}


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done_once_whatever_the_number_of_workers(workers: int) -> None:
    with WorkerPool(worker_tasks.make_squarer, workers) as pool:
        results = dict(pool.run(range(20)))
    assert {index: square for index, (square, _, _) in results.items()} == {index: index**2 for index in range(20)}
    counts = sorted(count for _, _, count in results.values())
    assert len(counts) == 20
    if workers == 1:
        assert {process for _, process, _ in results.values()} == {os.getpid()}
        assert counts == list(range(1, 21))
    else:
        assert os.getpid() not in {process for _, process, _ in results.values()}


def test_a_worker_is_made_once_and_kept_for_the_next_tasks(two: Pool) -> None:
    before = dict(two.run(range(8)))
    after = dict(two.run(range(8)))
    known = {process for _, process, _ in before.values()}
    assert 1 <= len(known) <= 2
    assert {process for _, process, _ in after.values()} <= {worker.process.pid for worker in two._workers}
    assert sum(count == 1 for _, _, count in [*before.values(), *after.values()]) <= 2


def test_fewer_tasks_than_workers_need_fewer_processes() -> None:
    with WorkerPool(worker_tasks.make_squarer, 3) as pool:
        assert [square for _, (square, _, _) in pool.run([5])] == [25]
        assert len(pool._workers) == 1
        assert list(pool.run([])) == []


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [
        ("refuse", ConfigError, "task is 'refuse', expected a number"),
        ("seven", WorkerError, r"seven: ValueError: invalid literal .*; run it with one worker"),
        ("exit", WorkerError, "exit: its worker process ended with exit code 3; run it with fewer workers"),
        ("kill", WorkerError, "kill: its worker process was killed by signal 9"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_said_in_one_line_and_ends_the_others(
    two: Pool, task: str, kind: type[Exception], said: str
) -> None:
    before = processes(two)
    with pytest.raises(kind, match=said) as caught:
        list(two.run([task, *range(5)]))
    assert "\n" not in str(caught.value)
    if task == "seven":
        assert "line " in str(caught.value.__cause__)  # where it was
    assert all(is_gone(process) for process in before)
    # The pool is as good as new.
    assert sorted(square for _, (square, _, _) in two.run([1, 2])) == [1, 4]


def test_an_error_in_this_process_is_not_changed() -> None:
    with WorkerPool(worker_tasks.make_squarer, 1) as pool, pytest.raises(ValueError, match="invalid literal"):
        list(pool.run(["seven"]))


def test_a_runner_that_cannot_be_made_is_said() -> None:
    with WorkerPool(worker_tasks.make_nothing, 2) as pool, pytest.raises(ConfigError, match="nothing to make a runner"):
        list(pool.run([1, 2]))


@pytest.mark.parametrize("workers", [0, -2])
def test_at_least_one_worker_is_needed(workers: int) -> None:
    with pytest.raises(ConfigError, match=f"workers is {workers}, expected at least 1"):
        WorkerPool(worker_tasks.make_squarer, workers)


def test_ctrl_c_is_heard_by_the_parent_alone_and_ends_all(two: Pool) -> None:
    # The terminal sends it to every process; a worker does not mind.
    assert sorted(square for _, (square, _, _) in two.run(["interrupt", 3])) == [0, 9]
    before = processes(two)
    running = two.run([1, "wait", "wait"])
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert all(is_gone(process) for process in before)


def test_leaving_in_the_middle_ends_the_processes() -> None:
    with WorkerPool(worker_tasks.make_squarer, 2) as pool:
        before = processes(pool)
        next(pool.run([1, "wait"]))
    assert all(is_gone(process) for process in before)
    pool.close()  # twice does no harm


def test_no_worker_outlives_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, worker_tasks.__file__],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    # Workers have inherited the pipe: it ends when the last of them has.
    rest, _ = parent.communicate(timeout=60)
    assert rest == ""
