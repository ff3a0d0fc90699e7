"""Where bags are converted: in this process, in several, or on the machines of a Ray cluster.

An engine takes tasks and yields (index, part or bad bag) in the order in which they end. Which engine it was cannot be
seen in the dataset: parts are made by one function, and put together in the order of the bags.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from rql_core.bags.parts import BadBag, Part, PartTask, make_part
from rql_core.bags.software import software_versions
from rql_core.errors import ConfigError, RqlError
from rql_core.workers import WorkerError, WorkerPool

EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = ("local", "ray")

Engine = Callable[[Sequence[PartTask]], Iterator[tuple[int, Part | BadBag]]]
# (index of the task, share of its messages that was read)
TaskShare = Callable[[int, float], None]


def make_engine(name: EngineName, workers: int | None, address: str | None, share_done: TaskShare) -> Engine:
    """The engine called `name`.

    `workers`: how many bags at once; None is one for "local", and as many as the cluster has CPUs for "ray".
    `address`: of the Ray cluster ("auto", "ray://HOST:10001"); None starts Ray on this machine. `share_done` hears of
    progress within a task only where there is one worker, in this process.
    Raises ConfigError for options that do not go together.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine is {name!r}, expected one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")
    if name == "ray":
        return partial(_on_ray, _ray(), address, workers)
    if address is not None:
        raise ConfigError(f"address is {address!r}, which the engine 'local' has no use for; add --engine ray")
    return partial(_here, share_done) if workers in (None, 1) else partial(_in_processes, workers or 1)


def _here(share_done: TaskShare, tasks: Sequence[PartTask]) -> Iterator[tuple[int, Part | BadBag]]:
    for index, task in enumerate(tasks):
        yield index, make_part(task, software_versions(), partial(share_done, index))


def _in_processes(workers: int, tasks: Sequence[PartTask]) -> Iterator[tuple[int, Part | BadBag]]:
    with WorkerPool(_make_runner, workers) as pool:
        yield from pool.run(tasks)


def _make_runner() -> Callable[[PartTask], Part | BadBag]:
    return partial(make_part, software=software_versions())


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError(
            "engine 'ray' needs the package ray, here and on the cluster; pip install 'rql_ros[cluster]', "
            "or use --engine local --workers N"
        ) from None
    return ray


def _on_ray(
    ray: Any, address: str | None, workers: int | None, tasks: Sequence[PartTask]
) -> Iterator[tuple[int, Part | BadBag]]:
    """One Ray task a bag. A cluster that was joined or started here is left or stopped at the end, whatever happens."""
    started = not ray.is_initialized()
    if started:
        try:
            # "local", because without an address Ray would look for a cluster that somebody once started here.
            ray.init(address=address or "local", log_to_driver=False)
        except Exception as error:  # of Ray and of what it connects with
            raise ConfigError(
                f"address is {address!r}, where Ray does not answer: {_one_line(error)}; start a cluster with "
                "ray start --head, or leave the address out to use this machine"
            ) from None
    try:
        yield from _ray_tasks(ray, workers, tasks)
    finally:
        if started:
            ray.shutdown()


def _ray_tasks(ray: Any, workers: int | None, tasks: Sequence[PartTask]) -> Iterator[tuple[int, Part | BadBag]]:
    # A bag that stops the conversion would stop it again, and a machine that died is named rather than hidden.
    remote = ray.remote(max_retries=0)(answer)
    waiting = iter(enumerate(tasks))
    running: dict[Any, int] = {}

    def start(count: int | None) -> None:
        for index, task in waiting:
            running[remote.remote(task)] = index
            if count is not None:
                count -= 1
                if count <= 0:
                    return

    start(workers)
    try:
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(ready)
            try:
                part, error, trace = ray.get(ready)
            except Exception as failure:  # Ray's own: a worker or a machine died
                raise WorkerError(
                    f"{tasks[index].bag}: its Ray worker failed: {_one_line(failure)}; give the command again, it "
                    "goes on where it stopped"
                ) from None
            if isinstance(error, RqlError):
                raise error
            if error is not None:
                raise WorkerError(f"{tasks[index].bag}: {error}\n{trace}")
            start(1)
            yield index, part
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def answer(task: PartTask) -> tuple[Part | BadBag | None, RqlError | str | None, str | None]:
    """What a Ray worker does with a task: the part, or the error as plain data, as in `rql_core.workers`."""
    try:
        return make_part(task, software_versions()), None, None
    except RqlError as error:
        return None, error, None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}", traceback.format_exc()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
