"""What a reader of a comparison must know to judge it, in sentences: what is missing, and what was not alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rql_core.evaluation.grouping import Group
from rql_core.evaluation.runs import Run

# So many are named in a remark; a comparison of hundreds of runs stays readable.
_NAMED = 4


def remarks(groups: Sequence[Group], shared: Sequence[str], baseline: str | None, at: int | None) -> list[str]:
    """All remarks, the most important first. `shared`: the tasks on which every group was evaluated."""
    return [
        *_of_runs(groups, at),
        *_of_updates(groups, at),
        *_of_evaluations(groups, at),
        *_of_seeds(groups, baseline, at),
        *_of_tasks(groups, shared),
    ]


def _of_runs(groups: Sequence[Group], at: int | None) -> Iterator[str]:
    """Runs that are unfinished, or that no number stands for."""
    runs = [run for group in groups for run in group.runs]
    if at is None:
        yield from _about(
            [run for run in runs if run.unfinished],
            "is not finished and counts as it is",
            "are not finished and count as they are",
            lambda run: f" ({run.step:,} of {run.planned:,} updates)",
        )
    when = "" if at is None else f" after {at:,} updates"
    without = [run for run in runs if run.score(at) is None]
    left_out = "left out of the table"
    yield from _about(
        without, f"has no evaluation{when} and is {left_out}", f"have no evaluation{when} and are {left_out}"
    )
    if at is None:
        yield from _about(
            [run for run in runs if run.score() is not None and run.scored_step() < run.step],
            "went on after its last evaluation",
            "went on after their last evaluation",
            lambda run: f" (evaluated after {run.scored_step():,}, trained for {run.step:,})",
        )


def _of_updates(groups: Sequence[Group], at: int | None) -> Iterator[str]:
    for group in groups:
        steps = sorted({run.scored_step(at) for run in _scored(group, at)})
        if len(steps) > 1:
            yield f"{group.name}: seeds had different numbers of updates, {steps[0]:,} to {steps[-1]:,}."


def _of_evaluations(groups: Sequence[Group], at: int | None) -> Iterator[str]:
    """Evaluations from different files, run in different ways, or of unknown size."""
    scores = [(group.name, score) for group in groups for run in group.runs if (score := run.score(at)) is not None]
    sources = [score.source for _, score in scores]
    if len(set(sources)) > 1:
        counted = ", ".join(f"{source}: {sources.count(source)}" for source in sorted(set(sources)))
        yield (
            f"Some runs count by evaluation.json and some by the last row of metrics.jsonl ({counted}): "
            "run `rql evaluate` on all, or compare with --at."
        )
    for key in dict.fromkeys(key for _, score in scores for key in score.how):
        values: dict[str, list[str]] = {}
        for name, score in scores:
            if key in score.how:
                values.setdefault(str(score.how[key]), []).append(name)
        if len(values) > 1:
            said = "; ".join(f"{value}: {_list(dict.fromkeys(names))}" for value, names in values.items())
            yield f"Evaluations were not run alike: {key.replace('_', ' ')} differs ({said})."
    if any(score.episodes is None for _, score in scores):
        yield (
            "Some evaluations do not say how many episodes they had: "
            "intervals there are of seeds alone and too short, or missing."
        )


def _of_seeds(groups: Sequence[Group], baseline: str | None, at: int | None) -> Iterator[str]:
    """Seeds that are alone, or that the baseline does not have."""
    tasks = {run.task for group in groups for run in group.runs}
    alone = []
    for group in groups:
        for task in dict.fromkeys(run.task for run in group.runs):
            if sum(run.task == task for run in _scored(group, at)) == 1:
                alone.append(group.name if len(tasks) == 1 else f"{group.name} on {task}")
    if alone:
        yield f"One seed alone says nothing of how others would do: {_list(alone)}."
    theirs = {(run.task, run.seed) for group in groups if group.name == baseline for run in _scored(group, at)}
    for group in groups:
        unpaired = [run for run in _scored(group, at) if (run.task, run.seed) not in theirs]
        if baseline not in (None, group.name) and unpaired:
            seeds = _list(dict.fromkeys(str(run.seed) for run in unpaired))
            yield f"{group.name}: {baseline} lacks seed {seeds} on a task, which so has no part in the difference."


def _of_tasks(groups: Sequence[Group], shared: Sequence[str]) -> Iterator[str]:
    missing = dict.fromkeys(str(run.task) for group in groups for run in group.runs if run.task not in shared)
    if missing and len(missing) + len(shared) > 1:
        rest = "all tasks together means the others" if shared else "there is no row for all tasks together"
        yield f"Not every group was evaluated on {_list(missing)}: {rest}."


def _about(runs: Sequence[Run], one: str, many: str, more: Callable[[Run], str] = lambda run: "") -> Iterator[str]:
    if len(runs) == 1:
        yield f"{runs[0].path} {one}{more(runs[0])}."
    elif runs:
        yield f"{len(runs)} runs {many}: {_list(f'{run.path}{more(run)}' for run in runs)}."


def _scored(group: Group, at: int | None) -> list[Run]:
    return [run for run in group.runs if run.score(at) is not None]


def _list(names: Iterable[str]) -> str:
    """Names with commas, the first few of many."""
    listed = list(names)
    rest = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + rest
