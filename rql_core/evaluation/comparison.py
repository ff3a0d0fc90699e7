"""The comparison of groups of runs: for each task, and for all together, success with its interval and the difference
to the baseline, and what a reader must know to judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rql_core.errors import ConfigError
from rql_core.evaluation.grouping import Group, Setting, differing_settings
from rql_core.evaluation.remarks import remarks
from rql_core.evaluation.statistics import (
    Interval,
    PairedTest,
    SeedScore,
    interquartile_mean,
    mean_interval,
    mean_success,
    paired_test,
    probability_of_improvement,
)

#: Success by task and seed.
SeedScores = Mapping[str, Mapping[int, SeedScore]]


@dataclass(frozen=True)
class Row:
    """One group on one task, or on all tasks (None). Without an evaluation it has no numbers."""

    group: str
    task: str | None
    scores: SeedScores
    mean: float | None
    interval: Interval | None
    iqm: float | None
    test: PairedTest | None
    improvement: float | None
    updates: tuple[int, int] | None
    seconds: float | None

    @property
    def rates(self) -> list[float]:
        """Success of each seed, by task and seed."""
        return [score.rate for seeds in self.scores.values() for _, score in sorted(seeds.items())]

    @property
    def episodes(self) -> int | None:
        """Episodes in all; None where a number is unknown."""
        counts = [score.episodes for seeds in self.scores.values() for score in seeds.values()]
        return sum(count for count in counts if count) if counts and all(counts) else None


@dataclass(frozen=True)
class Comparison:
    """Everything that is told of the runs. `at`: the update that is compared; None: each run's last evaluation."""

    groups: tuple[Group, ...]
    tasks: tuple[str, ...]
    baseline: str | None
    at: int | None
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    remarks: tuple[str, ...]

    def of_task(self, task: str | None) -> list[Row]:
        """The rows of a task, or of all tasks together (None)."""
        return [row for row in self.rows if row.task == task]

    @property
    def sections(self) -> list[str | None]:
        """All tasks together, where there are several, then each task."""
        return list(dict.fromkeys(row.task for row in self.rows))

    def as_json(self) -> dict[str, Any]:
        """The numbers, for programs."""
        return {
            "baseline": self.baseline,
            "at": self.at,
            "rows": [_row_as_json(row) for row in self.rows],
            "settings": {
                setting.name: dict(zip((group.name for group in self.groups), setting.values, strict=True))
                for setting in self.settings
            },
            "runs": [
                {
                    "path": str(run.path),
                    "group": group.name,
                    "task": run.task,
                    "seed": run.seed,
                    "step": run.step,
                    "planned": run.planned,
                    "score": None if (score := run.score(self.at)) is None else asdict(score),
                }
                for group in self.groups
                for run in group.runs
            ],
            "remarks": list(self.remarks),
        }


def _row_as_json(row: Row) -> dict[str, Any]:
    content = asdict(row) | {"episodes": row.episodes}
    if row.test is not None:
        content["test"]["smallest_p"] = row.test.smallest_p
    return content


def compare(groups: Sequence[Group], baseline: str | None = None, at: int | None = None) -> Comparison:
    """Compare groups; raises ConfigError for a baseline that is none of them, or where nothing was evaluated."""
    names = [group.name for group in groups]
    if baseline is not None and baseline not in names:
        raise ConfigError(f"baseline is {baseline!r}, expected one of the groups: {', '.join(names)}")
    if at is not None and not any(run.score(at) for group in groups for run in group.runs):
        steps = sorted({point.step or 0 for group in groups for run in group.runs for point in run.curve})
        there = f"there are some from {steps[0]} to {steps[-1]}" if steps else "there are none at all"
        raise ConfigError(f"at is {at}, but no run has an evaluation after so many updates; {there}")
    tasks = tuple(dict.fromkeys(str(run.task) for group in groups for run in group.runs))
    scores = {group.name: _scores(group, tasks, at) for group in groups}
    shared = [task for task in tasks if all(task in scores[name] for name in names)]
    rows = []
    for section in ([None] if len(tasks) > 1 and shared else []) + list(tasks):
        wanted = shared if section is None else [section]
        rows += [
            _row(group, section, wanted, scores[group.name], scores.get(baseline or "") if baseline else None, at)
            for group in groups
            if section is None or group.on(section)
        ]
    # The baseline differs from itself by nothing.
    rows = [replace(row, test=None, improvement=None) if row.group == baseline else row for row in rows]
    return Comparison(
        tuple(groups),
        tasks,
        baseline,
        at,
        tuple(rows),
        tuple(differing_settings(groups)),
        tuple(remarks(groups, shared, baseline, at)),
    )


def _scores(group: Group, tasks: Sequence[str], at: int | None) -> dict[str, dict[int, SeedScore]]:
    found: dict[str, dict[int, SeedScore]] = {}
    for task in tasks:
        for run in group.on(task):
            score = run.score(at)
            if score is not None:
                found.setdefault(task, {})[run.seed] = SeedScore(score.rate, score.episodes)
    return found


def _row(
    group: Group,
    section: str | None,
    tasks: Sequence[str],
    scores: SeedScores,
    baseline: SeedScores | None,
    at: int | None,
) -> Row:
    here = {task: scores[task] for task in tasks if task in scores}
    listed = {task: list(seeds.values()) for task, seeds in here.items()}
    test = improvement = None
    if baseline is not None:
        theirs = {task: list(baseline[task].values()) for task in here if task in baseline}
        pairs = {
            task: [
                (here[task][seed], baseline[task][seed]) for seed in sorted(here[task].keys() & baseline[task].keys())
            ]
            for task in theirs
        }
        pairs = {task: each for task, each in pairs.items() if each}
        test = paired_test(pairs) if pairs else None
        improvement = probability_of_improvement(listed, theirs) if theirs else None
    runs = [run for task in tasks for run in group.on(task)]
    steps = [run.scored_step(at) for run in runs if run.score(at) is not None] or [run.step for run in runs]
    known = [run.seconds_to(run.scored_step(at)) for run in runs]
    seconds = [each for each in known if each is not None]
    return Row(
        group=group.name,
        task=section,
        scores=here,
        mean=mean_success(listed) if listed else None,
        interval=mean_interval(listed) if listed else None,
        iqm=interquartile_mean([seed.rate for seeds in listed.values() for seed in seeds]) if listed else None,
        test=test,
        improvement=improvement,
        updates=(min(steps), max(steps)) if steps else None,
        seconds=sum(seconds) / len(seconds) if seconds else None,
    )
