"""Which runs are seeds of the same thing: by names given on the command line, or by the settings that differ."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rql_core.errors import ConfigError
from rql_core.evaluation.runs import Run, find_runs

#: The task of runs that say nothing of theirs.
UNKNOWN_TASK = "unknown task"
_ALGORITHM = "algorithm.algorithm"
_FORM = "algorithm.form"
_ABSENT = "absent"


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and task alone, as far as the comparison goes; at most one for each seed and task."""

    name: str
    runs: tuple[Run, ...]

    def on(self, task: str) -> list[Run]:
        """The runs on a task, by seed."""
        return sorted((run for run in self.runs if run.task == task), key=lambda run: run.seed)


@dataclass(frozen=True)
class Setting:
    """A setting in which runs differ: its name, and its values in each group ("-" where the group has no such one)."""

    name: str
    values: tuple[str, ...]


def find_named(specifications: Iterable[str]) -> dict[Path, str]:
    """The runs of specifications `NAME=GLOB`, with their names; raises ConfigError or DatasetError that name them."""
    named: dict[Path, str] = {}
    places: dict[Path, Path] = {}
    for specification in specifications:
        name, equals, pattern = (part.strip() for part in specification.partition("="))
        if not name or not equals or not pattern:
            raise ConfigError(f"group is {specification!r}, expected NAME=GLOB, e.g. --group qc='runs/qc-*'")
        directories = [path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if path.is_dir()]
        if not directories:
            raise ConfigError(f"group {name}: no directory is like {pattern!r}")
        for run in find_runs(directories):
            run = places.setdefault(run.resolve(), run)
            if named.setdefault(run, name) != name:
                raise ConfigError(f"{run}: is in the groups {named[run]} and {name}; expected one group for each run")
    return named


def make_groups(runs: Sequence[tuple[Run, str | None]]) -> list[Group]:
    """Group runs by the name that comes with them, or else by their settings.

    Named groups come first, in the order given; the others follow by their labels. Runs without a task are taken to be
    on the task of all others, where that is one. Raises ConfigError for two runs of a group on the same task with the
    same seed.
    """
    tasks = {run.task for run, _ in runs if run.task is not None}
    task = next(iter(tasks)) if len(tasks) == 1 else UNKNOWN_TASK
    placed = [(run if run.task is not None else replace(run, task=task), name) for run, name in runs]
    labels = iter(derive_labels([run for run, name in placed if name is None]))
    grouped: dict[str, dict[tuple[str | None, int], Run]] = {}
    for run, name in placed:
        label = next(labels) if name is None else name
        other = grouped.setdefault(label, {}).setdefault((run.task, run.seed), run)
        if other is not run:
            raise ConfigError(
                f"{other.path} and {run.path}: both are seed {run.seed} of {label} on {run.task}; "
                "name groups with --group NAME=GLOB, or leave one out"
            )
    names = list(dict.fromkeys(name for _, name in placed if name is not None))
    names += sorted(grouped.keys() - set(names), key=_in_order)
    return [Group(name, tuple(grouped[name].values())) for name in names]


def derive_labels(runs: Sequence[Run]) -> list[str]:
    """A label for each run: its algorithm, and of the settings in which runs of one algorithm differ as few as tell.

    What differs between tasks alone (a weight chosen for each task) does not make another group.
    """
    labels: dict[int, str] = {}
    for algorithm in dict.fromkeys(run.algorithm for run in runs):
        members = [index for index, run in enumerate(runs) if run.algorithm == algorithm]
        chosen: list[str] = []
        # The form first, as it says most.
        for key in sorted(_keys([runs[index] for index in members]), key=lambda key: key != _FORM):
            if _parts(runs, members, [*chosen, key]) > _parts(runs, members, chosen):
                chosen.append(key)
        for index in members:
            labels[index] = " ".join([algorithm, *(_named_value(key, runs[index].settings) for key in chosen)])
    return [labels[index] for index in range(len(runs))]


def differing_settings(groups: Sequence[Group]) -> list[Setting]:
    """The settings that have two values or more among the runs that have them at all."""
    runs = [run for group in groups for run in group.runs]
    settings = []
    for key in _keys(runs):
        values = [
            list(dict.fromkeys(show_value(run.settings[key]) for run in group.runs if key in run.settings))
            for group in groups
        ]
        if len({value for each in values for value in each}) > 1:
            settings.append(Setting(_short(key), tuple(", ".join(each) or "-" for each in values)))
    return settings


def show_value(value: Any) -> str:
    """A setting's value for a person: lists without blanks, null as what it means."""
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _parts(runs: Sequence[Run], members: Sequence[int], keys: Sequence[str]) -> int:
    """Into how many groups these settings part the runs, tasks counted apart."""
    return len({(runs[index].task, *(_comparable(runs[index].settings, key) for key in keys)) for index in members})


def _keys(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def _comparable(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], sort_keys=True) if key in settings else _ABSENT


def _named_value(key: str, settings: Mapping[str, Any]) -> str:
    value = show_value(settings[key]) if key in settings else _ABSENT
    return value if key == _FORM else f"{_short(key)}={value}"


def _in_order(label: str) -> list[tuple[float, str]]:
    """Sorts numbers within labels by their size: alpha=3 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if index % 2 else (-1.0, part) for index, part in enumerate(parts)]


def _short(key: str) -> str:
    return "algorithm" if key == _ALGORITHM else key.removeprefix("algorithm.")
