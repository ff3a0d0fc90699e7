"""Episodes of the checkpoints that benchmarks/paper_tasks.py has found, in a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.paper_tasks_budget import EpisodeSpeeds
from benchmarks.paper_tasks_child import NICENESS
from benchmarks.paper_tasks_plan import Places, Plan
from benchmarks.paper_tasks_state import Job, episode_seconds, write_result
from rql_core.errors import CheckpointError
from rql_core.evaluation.episodes import EpisodeRunner, EpisodeSettings, EpisodeTask, describe, evaluate_all, place
from rql_core.evaluation.results import EpisodeRecord, Evaluation
from rql_core.training.checkpoint import load_checkpoint
from rql_core.workers import WorkerError, WorkerPool

# A worker that dies may have been killed for memory; when it happens so often in a row, it will go on.
_MOST_DEATHS = 3


class Evaluator:
    """Evaluates checkpoints and writes a result for each as soon as it is there. Owned by one thread; to be closed."""

    def __init__(
        self,
        plan: Plan,
        places: Places,
        workers: int,
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.speeds = EpisodeSpeeds()
        for (domain, samples), seconds in episode_seconds(plan, places).items():
            self.speeds.add(domain, samples, seconds)
        # Checkpoints that cannot be read, and why.
        self.damaged: dict[Job, str] = {}
        # What runs now: domain, samples, and episodes that have not ended.
        self.running: list[tuple[str, int, int]] = []
        # Episodes that have ended, of checkpoints that have no result yet.
        self.begun = 0
        self._plan, self._places, self._workers, self._say, self._now = plan, places, workers, say, now
        self._pool: WorkerPool[EpisodeTask, EpisodeRecord] = WorkerPool(make_runner, workers)
        self._deaths = 0

    def close(self) -> None:
        """End the processes, also where they are at work."""
        self._pool.close()

    def seconds_for(self, jobs: Sequence[Job]) -> float:
        """How long these will take."""
        episodes = [(job.group.task.domain, job.samples, self._plan.episodes) for job in jobs]
        return self.speeds.needed(episodes, self._workers)

    def evaluate(self, jobs: Sequence[Job], after_episode: Callable[[], None]) -> None:
        """Run the episodes of jobs that differ in the seed alone; whatever `after_episode` raises ends it.

        Raises WorkerError where processes die again and again.
        """
        plans, kept = [], []
        for job in jobs:
            prepared = self._prepare(job)
            if prepared is not None:
                plans.append(prepared)
                kept.append(job)
        each, total = self._plan.episodes, len(plans) * self._plan.episodes
        domain, samples = jobs[0].group.task.domain, jobs[0].samples
        processes, began, done, written = min(self._workers, max(total, 1)), self._now(), 0, 0

        def count() -> None:
            nonlocal done
            done += 1
            self.running, self.begun = [(domain, samples, total - done)], done - written * each
            after_episode()

        self.running = [(domain, samples, total)]
        pool: Any = _CountingPool(self._pool, count)
        try:
            for index, evaluation in evaluate_all(plans, range(each), pool, progress=False):
                written += 1
                job, seconds = kept[index], (self._now() - began) * processes / (done + 1)
                write_result(self._places.result(job.group, job.seed, job.step, job.samples), evaluation, seconds)
                best = "" if samples == 1 else f", best of {samples}"
                solved = f"{evaluation.successes} of {len(evaluation.records)}"
                self._say(f"{job.group.name}-seed{job.seed} after {job.step:,} updates{best}: success {solved}")
            if total:
                self.speeds.add(domain, samples, (self._now() - began) * processes / total)
            self._deaths = 0
        except WorkerError as error:
            self._deaths += 1
            if self._deaths == _MOST_DEATHS:
                raise
            self._say(f"{error}; begun again")
        finally:
            self.running, self.begun = [], 0

    def _prepare(self, job: Job) -> tuple[EpisodeSettings, Evaluation] | None:
        """What is to be run; None where the checkpoint is gone or damaged."""
        directory = self._places.run(job.group, job.seed) / "checkpoints" / f"step-{job.step:08d}"
        try:
            checkpoint = load_checkpoint(directory)
        except CheckpointError as error:
            if directory.exists():
                self.damaged[job] = str(error)
                self._say(f"not evaluated: {error}")
            return None
        options = {} if self._plan.episode_steps is None else {"max_episode_steps": self._plan.episode_steps}
        acting = checkpoint.policy.algorithm.default_acting
        if job.samples > 1:
            acting = acting.changed(samples=job.samples)
        _, environment = place(checkpoint, None, None)
        settings = EpisodeSettings(directory, acting, environment=environment, options=options)
        return settings, describe(checkpoint, settings, 0)


class _CountingPool:
    """A pool of workers that calls a function after each result was taken."""

    def __init__(self, pool: WorkerPool[EpisodeTask, EpisodeRecord], after: Callable[[], None]) -> None:
        self._pool, self._after = pool, after

    def run(self, tasks: Sequence[EpisodeTask]) -> Iterator[tuple[int, EpisodeRecord]]:
        for result in self._pool.run(tasks):
            yield result
            self._after()


def make_runner() -> EpisodeRunner:
    """What a worker runs episodes with; it gives way to training where it has a process of its own."""
    if multiprocessing.parent_process() is not None:
        os.nice(NICENESS)
    return EpisodeRunner()
