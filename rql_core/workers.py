"""Tasks in parallel processes: a worker is made once and given one task after another, and its death is an error here.

Processes are spawned, not forked, because a fork of a process in which torch has threads may hang. Tasks are handed out
one at a time, so a slow one keeps nobody waiting. No worker outlives its parent, however that ends.
test/core/test_workers.py pins this.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

from rql_core.errors import ConfigError, RqlError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

# A worker that was told to end and does not is stuck in a simulator's C code; nobody waits longer for it.
_PATIENCE_S = 5.0


class WorkerError(RqlError):
    """A worker process died, or met an error that nobody had foreseen."""


class WorkerPool(Generic[TaskT, ResultT]):
    """So many processes, each of which calls `make_runner` once and then the runner for every task that it is given.

    `make_runner`, tasks and results are sent between processes: functions of modules and plain data. With one worker
    everything happens in this process. Processes are started when there is work and kept for the next; `close`, or
    leaving the `with` block, ends them. Owned by one thread.
    """

    def __init__(self, make_runner: Callable[[], Callable[[TaskT], ResultT]], workers: int) -> None:
        """Raise ConfigError for fewer than one worker."""
        if workers < 1:
            raise ConfigError(f"workers is {workers}, expected at least 1")
        self._make_runner = make_runner
        self._count = workers
        self._runner: Callable[[TaskT], ResultT] | None = None
        self._workers: list[_Worker] = []

    def run(self, tasks: Sequence[TaskT]) -> Iterator[tuple[int, ResultT]]:
        """Yield (index of the task, its result) in the order in which they end.

        Raises a runner's RqlError as it is, and WorkerError where a process died or met any other error.
        """
        if self._count == 1:
            self._runner = self._runner or self._make_runner()
            for index, task in enumerate(tasks):
                yield index, self._runner(task)
            return
        try:
            yield from self._run_in_processes(tasks)
        except BaseException:
            self.close()  # they are in the middle of something that nobody asks for any more
            raise

    def _run_in_processes(self, tasks: Sequence[TaskT]) -> Iterator[tuple[int, ResultT]]:
        waiting = iter(enumerate(tasks))
        while len(self._workers) < min(self._count, len(tasks)):
            self._workers.append(_Worker(self._make_runner))
        running: dict[Connection[Any, Any], tuple[_Worker, TaskT]] = {}
        for worker, (index, task) in zip(self._workers, waiting):  # noqa: B905  (as many as there are workers)
            worker.start(index, task)
            running[worker.connection] = worker, task
        while running:
            for ready in wait(list(running)):
                worker, task = running.pop(ready)  # type: ignore[call-overload]
                index, result = worker.answer(task)
                following = next(waiting, None)
                if following is not None:
                    worker.start(*following)
                    running[worker.connection] = worker, following[1]
                yield index, result

    def close(self) -> None:
        """End the processes, also where they are at work; may be called twice."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()

    def __enter__(self) -> WorkerPool[TaskT, ResultT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One process as its parent sees it."""

    def __init__(self, make_runner: Callable[[], Callable[[Any], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, make_runner), daemon=True)
        with interrupts_ignored():
            self.process.start()
        far_end.close()  # so that the worker's death closes the pipe

    def start(self, index: int, task: object) -> None:
        try:
            self.connection.send((index, task))
        except OSError:
            raise self._death(task) from None

    def answer(self, task: object) -> tuple[int, Any]:
        try:
            index, result, error, trace = self.connection.recv()
        except (EOFError, OSError):
            raise self._death(task) from None
        if isinstance(error, RqlError):
            raise error
        if error is not None:
            raise WorkerError(
                f"{task}: {error}; run it with one worker to see where it comes from"
            ) from _RemoteTraceback(trace)
        return index, result

    def _death(self, task: object) -> WorkerError:
        self.process.join(_PATIENCE_S)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return WorkerError(f"{task}: its worker process {how}; run it with fewer workers, or with one to see more")

    def end(self) -> None:
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()
        self.process.close()


class _RemoteTraceback(Exception):
    """The traceback of a worker, as text."""


def _serve(connection: Connection[Any, Any], make_runner: Callable[[], Callable[[Any], Any]]) -> None:
    """What a worker does: take a task, answer (index, result, error, traceback), until the pipe closes."""
    end_with_parent()
    runner: Callable[[Any], Any] | None = None
    while True:
        try:
            index, task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if runner is None:
                runner = make_runner()
            answer: tuple[int, Any, RqlError | str | None, str | None] = index, runner(task), None, None
        except RqlError as error:
            answer = index, None, error, None
        except Exception as error:
            answer = index, None, f"{type(error).__name__}: {error}", traceback.format_exc()
        try:
            connection.send(answer)
        except OSError:
            return


def end_with_parent() -> None:
    """From now on this process ends, whatever it is doing, when its parent is gone without having said so."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A process that is started inside never hears Ctrl-C, which the terminal sends to all: its parent ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
