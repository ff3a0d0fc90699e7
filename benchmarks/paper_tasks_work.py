"""The work of benchmarks/paper_tasks.py: one training after another, and beside it data are played and checkpoints
evaluated as they come.

One thread does it all: after each episode, or every second, it looks after its processes, reads how far training is and
decides whether the next checkpoint can still be evaluated in the time that is left.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.paper_tasks_budget import (
    UNKNOWN_START_S,
    Budget,
    UpdateRate,
    checkpoint_fits,
    next_checkpoint,
)
from benchmarks.paper_tasks_child import Child
from benchmarks.paper_tasks_evaluate import Evaluator
from benchmarks.paper_tasks_plan import Group, Places, Plan, generate_command, train_command
from benchmarks.paper_tasks_state import (
    Batch,
    Job,
    current_step,
    first_batch,
    go_back_to,
    missing_evaluations,
    newest_steps,
    plan_batches,
    reached_steps,
    remove_evaluated,
    saved_checkpoints,
)
from rql_core.ogbench.generate import PlayFiles
from rql_core.progress import print_above, progress_bar

# Seconds between two looks at files and processes.
_LOOK_EVERY_S = 1.0


class TimeUp(Exception):
    """Nothing more can be done within the time."""


@dataclass
class Training:
    """The training that runs."""

    group: Group
    batch: Batch
    child: Child
    rate: UpdateRate
    # By the wall clock, as files have their times by it.
    began_wall: float
    stopped: bool = False


class Work:
    """Everything there is to do, done in order as far as the time goes; `remarks` says what went wrong.

    `check()` is called now and then, and may raise what ends the work.
    """

    def __init__(
        self,
        plan: Plan,
        places: Places,
        budget: Budget,
        workers: int,
        check: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.remarks: list[str] = []
        self._check = check
        self._plan, self._places, self._budget, self._workers, self._now = plan, places, budget, workers, now
        self._evaluator = Evaluator(plan, places, workers, self._say, now)
        self._training: Training | None = None
        self._data: tuple[str, Child] | None = None
        self._no_data: set[str] = set()
        # Groups that are not trained any more in this run of the program.
        self._settled: set[Group] = set()
        # Batches that were begun, and (group, None) where it was said that seeds cannot go on.
        self._tried: set[tuple[Group, Batch | None]] = set()
        # Of the last training, to tell whether the next is worth its start.
        self._start_s: float = UNKNOWN_START_S
        self._per_second: float | None = None
        self._bar: Any = None
        self._looked = -math.inf

    def run(self) -> None:
        """Do it; children are ended however this ends."""
        try:
            self._look()
            while not self._is_done():
                if not self._evaluate_next():
                    self._wait()
                self._look()
        except TimeUp:
            pass
        finally:
            self._settled |= set(self._plan.groups)
            self._evaluator.close()
            for child in (self._training and self._training.child, self._data and self._data[1]):
                if child:
                    child.stop()
            self._show(None)
            self.remarks += [f"not evaluated: {reason}" for reason in self._evaluator.damaged.values()]

    def missing(self) -> dict[Group, int]:
        """How many evaluations are missing of each group."""
        return dict(Counter(job.group for job in self._jobs()))

    def _jobs(self) -> list[Job]:
        return missing_evaluations(self._plan, self._places, self._settled)

    def _left(self) -> float:
        return self._budget.left(self._now())

    def _all_settled(self) -> bool:
        return self._settled >= set(self._plan.groups)

    def _is_done(self) -> bool:
        return self._all_settled() and self._data is None and set(self._evaluator.damaged) >= set(self._jobs())

    # Time

    def _look(self) -> None:
        """Look after everything, unless that was done a moment ago."""
        self._check()
        if self._now() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = self._now()
        self._look_at_data()
        if self._training is not None:
            ended = self._training.child.wait(0.0)
            self._look_at_training(self._training)
            if ended:
                self._end_training(self._training)
        if self._training is None:
            self._look_for_training()
        if self._training is None:
            self._show_rest()

    def _wait(self) -> None:
        """For the next look, or until a process ends."""
        child = self._training.child if self._training is not None else self._data and self._data[1]
        if child:
            child.wait(_LOOK_EVERY_S)
        elif self._all_settled():
            raise TimeUp  # what is missing does not fit
        self._looked = -math.inf

    def _after_episode(self) -> None:
        if self._left() <= 0:
            raise TimeUp
        self._look()

    # Training

    def _look_for_training(self) -> None:
        """Begin with the next training as soon as its data are there."""
        for group in self._plan.groups:
            if group in self._settled:
                continue
            batch = self._next_batch(group)
            if batch is not None and not self._places.dataset(group.task.domain).exists():
                if group.task.domain not in self._no_data and self._left() > 0:
                    return  # they are being played
                batch = None
            if batch is not None and self._is_worth_starting(group, batch):
                self._start_training(group, batch)
                return
            if batch is not None:
                self._say(f"{group.name}: not begun, a checkpoint and its evaluation do not fit into the time left")
            self._settle(group)

    def _next_batch(self, group: Group) -> Batch | None:
        saved = {seed: saved_checkpoints(self._places.run(group, seed)) for seed in self._plan.seeds}
        reached = reached_steps(self._places, group, self._plan.seeds)
        batches, lost = plan_batches(saved, reached, self._plan)
        if lost and (group, None) not in self._tried:
            self._tried.add((group, None))
            self._remark(
                f"{group.name}, seed {', '.join(map(str, lost))}: cannot be resumed, as the training state was "
                "not packed; to train it anew remove its directories in runs and results"
            )
        # What was tried and ended without a new checkpoint is not tried again; why it ended was said.
        return next((batch for batch in batches if (group, batch) not in self._tried), None)

    def _is_worth_starting(self, group: Group, batch: Batch) -> bool:
        following = next_checkpoint(batch.step, self._plan.checkpoint_every, self._plan.updates)
        seconds = self._start_s + ((following - batch.step) / self._per_second if self._per_second else 0.0)
        return checkpoint_fits(self._left(), seconds, self._evaluation_s(group, batch, following))

    def _evaluation_s(self, group: Group, batch: Batch, step: int) -> float:
        """Seconds for all that counts and is not evaluated, if this batch makes a checkpoint at `step`."""
        final = [job for job in self._jobs() if job.final]
        ways = (1, *self._plan.best_of)
        final += [Job(group, seed, step, samples, True) for seed in batch.seeds for samples in ways]
        running = self._evaluator.speeds.needed(self._evaluator.running, self._workers)
        return running + self._evaluator.seconds_for(final)

    def _start_training(self, group: Group, batch: Batch) -> None:
        self._tried.add((group, batch))
        if batch.step:
            for seed in batch.seeds:
                go_back_to(self._places.run(group, seed), batch.step)
        arguments = train_command(self._plan, self._places, group, batch.seeds, batch.step > 0)
        machines = self._places.machines(group), self._describe_data(group.task.domain)
        began_wall = time.time()
        child = Child(arguments, self._places.logs / f"{group.name}.log", machines=machines)
        self._training = Training(group, batch, child, UpdateRate(self._now(), batch.step), began_wall)
        seeds = f"{len(batch.seeds)} seed{'s' * (len(batch.seeds) > 1)}"
        self._show(None)
        self._say(child.command)
        total, description = self._plan.updates, f"{group.name}, {seeds}"
        self._show(progress_bar(total=total, initial=batch.step, unit="update", desc=description, smoothing=0.05))

    def _look_at_training(self, training: Training) -> None:
        """See how far it is, and stop it where its next checkpoint would come too late."""
        now, group, seeds = self._now(), training.group, training.batch.seeds
        step = min(current_step(self._places.run(group, seed), training.began_wall) for seed in seeds)
        training.rate.see(now, step)
        if self._bar is not None:
            time_left = "" if math.isinf(self._left()) else f", {max(self._left(), 0) / 60:.1f} min left"
            self._bar.set_postfix_str(self._evaluated(group) + time_left, refresh=False)
            self._bar.update(training.rate.step - self._bar.n)
        # The next one counts only when all seeds have this one.
        saved = min(newest_steps(self._places, group, seeds).values())
        if training.stopped or saved >= self._plan.updates:
            return
        following = next_checkpoint(saved, self._plan.checkpoint_every, self._plan.updates)
        seconds = training.rate.seconds_to(following, now)
        if not checkpoint_fits(self._left(), seconds, self._evaluation_s(group, training.batch, following)):
            training.stopped = True
            training.child.stop()
            self._say(f"{group.name}: stopped at {saved:,} updates; a further checkpoint would come too late")

    def _end_training(self, training: Training) -> None:
        """It has ended: remember how fast it was, and say why it ended where it should not have."""
        self._training = None
        self._show(None)
        self._per_second = training.rate.per_second or self._per_second
        self._start_s = training.rate.start_s or self._start_s
        child = training.child
        if training.stopped:
            self._settle(training.group)
        elif child.exit_code:
            how = f"training ended with {child.exit_code}, see {child.log.name}: {child.last_words()}"
            self._remark(f"{training.group.name}: {how}")

    def _settle(self, group: Group) -> None:
        self._settled.add(group)
        remove_evaluated(self._places, group, self._plan.seeds)

    # Data

    def _look_at_data(self) -> None:
        """See how the playing ended, and begin with the next domain: ahead of training, which needs other things."""
        if self._data is not None:
            domain, child = self._data
            if not child.wait(0.0):
                return
            self._data = None
            self._show(None if self._training is None else self._bar)
            if not self._places.dataset(domain).exists():
                self._no_data.add(domain)
                how = f"playing ended with {child.exit_code}, see {child.log.name}: {child.last_words()}"
                self._remark(f"{domain}: {how}")
        for group in self._plan.groups:
            domain = group.task.domain
            unfinished = min(reached_steps(self._places, group, self._plan.seeds).values()) < self._plan.updates
            wanted = unfinished and group not in self._settled and domain not in self._no_data and self._left() > 0
            if wanted and not self._places.dataset(domain).exists():
                arguments = generate_command(self._plan, self._places, domain, self._workers)
                child = Child(arguments, self._places.logs / f"{domain}-data.log", gives_way=True)
                self._say(child.command)
                self._data = domain, child
                return

    def _describe_data(self, domain: str) -> str:
        if not PlayFiles(self._places.data, domain).manifest.exists():
            return f"{domain}: a file that was there, not made here"
        data = self._plan.data
        return f"{domain}: {data.count(domain):,} episodes of {data.steps:,} steps, seed {data.seed}"

    # Evaluation

    def _evaluate_next(self) -> bool:
        """Evaluate the checkpoints that matter most, those of a group's seeds together; False where none fits."""
        jobs = [job for job in self._jobs() if job not in self._evaluator.damaged]
        while jobs:
            batch = first_batch(jobs)
            # What counts is begun in any case: plans are made with a margin.
            if batch[0].final or self._evaluator.seconds_for(batch) <= self._left():
                if self._left() <= 0:
                    raise TimeUp
                self._evaluator.evaluate(batch, self._after_episode)
                return True
            jobs = [job for job in jobs if job not in batch]
        return False

    def _evaluated(self, group: Group) -> str:
        missing = sum(job.group == group for job in self._jobs())
        folders = [self._places.result(group, seed, 0, 1).parent for seed in self._plan.seeds]
        done = sum(len(list(folder.glob("step-*.json"))) for folder in folders)
        return f"evaluated {done} of {done + missing}"

    # What is said

    def _show_rest(self) -> None:
        """A bar for what goes on without training: data that are waited for, or the last evaluations."""
        if self._data is not None:
            domain = self._data[0]
            if self._bar is None:
                count = self._plan.data.count(domain)
                self._show(progress_bar(total=count, unit="episode", desc=f"playing {domain}"))
            played = len(list(PlayFiles(self._places.data, domain).episodes.glob("train-*.npz")))
            self._bar.update(max(0, played - self._bar.n))
        elif self._all_settled():
            missing = len(self._jobs()) * self._plan.episodes
            if self._bar is None and missing == 0:
                return
            if self._bar is None:
                self._show(progress_bar(total=missing, unit="episode", desc="evaluating"))
            done = self._bar.total - missing + self._evaluator.begun
            self._bar.update(max(0, done - self._bar.n))

    def _remark(self, text: str) -> None:
        self.remarks.append(text)
        self._say(text)

    def _say(self, text: str) -> None:
        print_above(text, sys.stderr)
        sys.stderr.flush()

    def _show(self, bar: Any) -> None:
        if self._bar is not None and self._bar is not bar:
            self._bar.close()
        self._bar = bar
