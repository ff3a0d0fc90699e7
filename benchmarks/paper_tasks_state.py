"""What benchmarks/paper_tasks.py finds done: checkpoints in run directories, results beside them, and what is missing.

Nothing is remembered anywhere else, so that a program that was killed at any moment goes on from what is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.paper_tasks_plan import Group, Places, Plan
from rql_core.checkpoint_files import MANIFEST, TRAINING_TENSORS
from rql_core.errors import ConfigError
from rql_core.evaluation.results import Evaluation
from rql_core.training.metrics import read_metrics
from rql_core.whole_files import write_whole

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk; whole, as it appears by a rename."""

    path: Path
    step: int
    resumable: bool


@dataclass(frozen=True)
class Batch:
    """Seeds that are trained beside each other from the same number of updates on; 0: from nothing."""

    seeds: tuple[int, ...]
    step: int


@dataclass(frozen=True)
class Job:
    """An evaluation that is missing."""

    group: Group
    seed: int
    step: int
    samples: int
    # Of a checkpoint that counts in the table, and not only in the curves.
    final: bool


def saved_checkpoints(run: Path) -> list[Saved]:
    """The checkpoints of a run, first to last; none where there is no run."""
    found = [path for path in (run / "checkpoints").glob("step-*") if (path / MANIFEST).exists()]
    saved = [Saved(path, int(path.name.removeprefix("step-")), (path / TRAINING_TENSORS).exists()) for path in found]
    return sorted(saved, key=lambda each: each.step)


def newest_steps(places: Places, group: Group, seeds: Sequence[int]) -> dict[int, int]:
    """Updates of each seed's newest checkpoint; 0 where there is none."""
    saved = {seed: saved_checkpoints(places.run(group, seed)) for seed in seeds}
    return {seed: each[-1].step if each else 0 for seed, each in saved.items()}


def reached_steps(places: Places, group: Group, seeds: Sequence[int]) -> dict[int, int]:
    """Updates that each seed has made, as a checkpoint or the result of one says, which may be elsewhere; or 0."""
    steps = newest_steps(places, group, seeds)
    for seed in seeds:
        results = [step_of(path) for path in places.result(group, seed, 0, 1).parent.glob("step-*.json")]
        steps[seed] = max(steps[seed], *results, 0)
    return steps


def step_of(result: Path) -> int:
    """The updates that a result's name tells: 50,000 of step-00050000.json and of step-00050000-best16.json."""
    return int(re.split(r"[-.]", result.name)[1])


def plan_batches(
    saved: Mapping[int, Sequence[Saved]], reached: Mapping[int, int], plan: Plan
) -> tuple[list[Batch], list[int]]:
    """Which seeds are to be trained together, and those that are unfinished but have lost what they could go on from.

    What a seed has reached may be more than is saved, where a checkpoint did not fit into an archive. Seeds go on
    together from the same checkpoint. A kill between the checkpoints of two seeds leaves them one interval
    apart: then those ahead go back by it, as two trainings one after another would take twice as long.
    """
    lost: list[int] = []
    by_step: dict[int, list[int]] = {}
    for seed, checkpoints in saved.items():
        if reached[seed] >= plan.updates:
            continue
        if reached[seed] and not (checkpoints and checkpoints[-1].resumable):
            lost.append(seed)
            continue
        by_step.setdefault(checkpoints[-1].step if checkpoints else 0, []).append(seed)
    batches: list[Batch] = []
    for step in sorted(by_step, reverse=True):
        seeds = by_step[step]
        behind = max((other for other in by_step if other < step), default=0)
        has_both = all(any(each.step == behind and each.resumable for each in saved[seed]) for seed in seeds)
        if plan.at_once != 1 and behind and step - behind <= plan.checkpoint_every and has_both:
            by_step[behind] = sorted([*by_step[behind], *seeds])
            continue
        size = plan.at_once or len(seeds)
        parts = [tuple(seeds[first : first + size]) for first in range(0, len(seeds), size)]
        batches += [Batch(part, step) for part in parts]
    return batches, lost


def go_back_to(run: Path, step: int) -> None:
    """Make the checkpoint of `step` the one that training goes on from; what is newer goes when it does."""
    partial = run / ".checkpoint.partial"
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path("checkpoints") / f"step-{step:08d}")
    os.replace(partial, run / "checkpoint")


def missing_evaluations(plan: Plan, places: Places, settled: Collection[Group]) -> list[Job]:
    """What is to be evaluated, what matters most first.

    First the last checkpoints of groups that are settled: not trained any more; in every way of acting. Then the others
    from the newest on, as those behind make the curves only.
    """
    order = {group: place for place, group in enumerate(plan.groups)}
    jobs = []
    for group in plan.groups:
        for seed in plan.seeds:
            saved = saved_checkpoints(places.run(group, seed))
            for each in saved:
                final = each == saved[-1] and group in settled
                for samples in (1, *plan.best_of) if final else (1,):
                    if not places.result(group, seed, each.step, samples).exists():
                        jobs.append(Job(group, seed, each.step, samples, final))
    return sorted(jobs, key=lambda job: (not job.final, job.samples, order[job.group], -job.step, job.seed))


def first_batch(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are done together: those like the first in all but the seed."""
    return [job for job in jobs if (job.group, job.step, job.samples) == (jobs[0].group, jobs[0].step, jobs[0].samples)]


def write_result(path: Path, evaluation: Evaluation, seconds_an_episode: float) -> None:
    """Write an evaluation as the project does, and how long one process took for an episode."""
    content = {**asdict(evaluation), "statistics": evaluation.statistics(), "seconds_an_episode": seconds_an_episode}
    write_whole(path, json.dumps(content))


def publish_evaluations(plan: Plan, places: Places) -> None:
    """Put each run's last evaluation where `rql compare` looks for it, in RUN/evaluation.json."""
    for group in plan.groups:
        for seed in plan.seeds:
            run, folder = places.run(group, seed), places.result(group, seed, 0, 1).parent
            # By one sample; the best of several is another way of acting.
            results = sorted(folder.glob("step-*.json"), key=step_of)
            results = [path for path in results if path == places.result(group, seed, step_of(path), 1)]
            if results and run.is_dir():
                write_whole(run / "evaluation.json", results[-1].read_bytes())


def episode_seconds(plan: Plan, places: Places) -> dict[tuple[str, int], float]:
    """Seconds that one process took for an episode when it was last measured, by domain and number of samples."""
    seconds = {}
    for group in plan.groups:
        for seed in plan.seeds:
            for path in sorted(places.result(group, seed, 0, 1).parent.glob("step-*.json")):
                content = json.loads(path.read_text(encoding="utf-8"))
                seconds[group.task.domain, int(content["samples"])] = float(content["seconds_an_episode"])
    return seconds


def current_step(run: Path, since: float) -> int:
    """Updates that a training that began at `since` (seconds of the wall clock) has logged; 0 before the first row.

    Before it has begun to write, the rows are those of the training before.
    """
    path = run / "metrics.jsonl"
    try:
        if path.stat().st_mtime < since:
            return 0
        rows = read_metrics(path)
    except (OSError, ValueError):
        return 0  # replaced at this moment; looked at again soon
    return int(rows[-1]["step"]) if rows else 0


def remove_evaluated(places: Places, group: Group, seeds: Sequence[int]) -> None:
    """Remove checkpoints that were evaluated and that nothing goes on from; not while the group is trained.

    A checkpoint of the paper's size is 180 MB, and twenty of each of four seeds fill a disk.
    """
    newest = [step for step in newest_steps(places, group, seeds).values() if step]
    for seed in seeds:
        for each in saved_checkpoints(places.run(group, seed)):
            if each.step < min(newest) and places.result(group, seed, each.step, 1).exists():
                # Renamed first: a half-removed directory must not look like a checkpoint.
                doomed = each.path.with_name(f".{each.path.name}.removed")
                os.rename(each.path, doomed)
                shutil.rmtree(doomed)


def check_settings(plan: Plan, places: Places) -> None:
    """Write down what must stay the same, or raise ConfigError where it does not."""
    path = places.out / SETTINGS
    now = {
        "episodes": plan.data.episodes,
        "steps": plan.data.steps,
        "data-seed": plan.data.seed,
        "evaluation-episodes": plan.episodes,
        "evaluation-steps": plan.episode_steps,
    }
    if not path.exists():
        write_whole(path, json.dumps(now, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}; name another place with --out") from None
    for name, value in now.items():
        if before.get(name) != value:
            raise ConfigError(
                f"{name} is {value}, but what is in {places.out} was begun with {before.get(name)}: give the same, or "
                "another place with --out"
            )
