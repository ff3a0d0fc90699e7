"""What benchmarks/paper_tasks.py is to do: tasks, ways of training, seeds, and the commands that do it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rql_core.errors import ConfigError

# The published protocol: success after so many updates, in so many episodes.
PUBLISHED_UPDATES, PUBLISHED_EPISODES = 1_000_000, 50
# Episodes of the official data sets; all others have 1,000.
OFFICIAL_EPISODES = {"cube-triple": 3000, "puzzle-4x5": 3000, "cube-quadruple": 5000, "puzzle-4x6": 5000}
FORMS = ("paper", "corrected")
# As many checkpoints as the presets make of a run: a point of the curve every 50,000 of 1,000,000 updates.
CHECKPOINTS_A_RUN = 20
# Rows of metrics tell how far training is; at some hundred updates a second this is a row every few seconds.
LOG_EVERY = 1000
# No checkpoint may go before it was evaluated, and only this program knows which were.
KEEP_ALL = 1_000_000


@dataclass(frozen=True)
class Task:
    """One of a domain's five tasks."""

    domain: str
    number: int

    @property
    def name(self) -> str:
        """As in the names of runs."""
        return f"{self.domain}-task{self.number}"

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.domain}, task {self.number}"


@dataclass(frozen=True)
class Group:
    """One way of training on one task, with several seeds: the runs NAME-seed0, NAME-seed1, ..."""

    task: Task
    form: str
    q_normalisation: bool = False
    # Only with Q-normalisation, whose critic term has another size; None: the preset's.
    alpha: float | None = None

    @property
    def name(self) -> str:
        """Tells groups apart; part of the names of directories."""
        return f"{self.task.name}-{self.form}{self._variant}"

    @property
    def way(self) -> str:
        """The way of training, for a person: the same for every task."""
        if not self.q_normalisation:
            return self.form
        return f"{self.form}, Q-normalised" + ("" if self.alpha is None else f", alpha {self.alpha:g}")

    @property
    def settings(self) -> tuple[str, ...]:
        """What `rql train --set` is given besides."""
        if not self.q_normalisation:
            return ()
        alpha = () if self.alpha is None else (f"algorithm.alpha={self.alpha:g}",)
        return ("algorithm.q_normalisation=true", *alpha)

    @property
    def _variant(self) -> str:
        if not self.q_normalisation:
            return ""
        return "+q_normalisation" + ("" if self.alpha is None else f"-alpha{self.alpha:g}")


@dataclass(frozen=True)
class DataSettings:
    """How data are played where they are missing; `episodes` None: as many as the official data set has."""

    episodes: int | None = None
    steps: int = 1000
    seed: int = 0

    def count(self, domain: str) -> int:
        """Episodes of a domain."""
        return OFFICIAL_EPISODES.get(domain, 1000) if self.episodes is None else self.episodes


@dataclass(frozen=True)
class Plan:
    """Everything to do; the groups in the order in which they are trained."""

    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    updates: int = PUBLISHED_UPDATES
    checkpoint_every: int = PUBLISHED_UPDATES // CHECKPOINTS_A_RUN
    # Best of so many, for the last checkpoint, besides the policy's own way of acting.
    best_of: tuple[int, ...] = ()
    episodes: int = PUBLISHED_EPISODES
    # Steps of such an episode where they are cut short, to try things out; None: the environment's own limit.
    episode_steps: int | None = None
    data: DataSettings = DataSettings()
    # Seeds that one process trains beside each other; None: all of them.
    at_once: int | None = None
    # Options of `rql train` that are passed on as they are.
    train_options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    out: Path
    data: Path

    @property
    def runs(self) -> Path:
        """The run directories."""
        return self.out / "runs"

    @property
    def results(self) -> Path:
        """A folder for each run, with a file for each evaluation."""
        return self.out / "results"

    @property
    def logs(self) -> Path:
        """What the commands printed, and on which machines they ran."""
        return self.out / "logs"

    def run(self, group: Group, seed: int) -> Path:
        """The directory of one run."""
        return self.runs / f"{group.name}-seed{seed}"

    def result(self, group: Group, seed: int, step: int, samples: int) -> Path:
        """The evaluation of one checkpoint, acting by the best of so many samples."""
        best = "" if samples == 1 else f"-best{samples}"
        return self.results / f"{group.name}-seed{seed}" / f"step-{step:08d}{best}.json"

    def dataset(self, domain: str) -> Path:
        """The data to train on."""
        return self.data / f"{domain}-play-v0.npz"

    def machines(self, group: Group) -> Path:
        """A row for each time that training began: on what, and with which data."""
        return self.logs / f"{group.name}.machines.jsonl"


def parse_tasks(text: Iterable[str]) -> tuple[Task, ...]:
    """Tasks such as puzzle-3x3:1, separated by blanks. Raises ConfigError."""
    tasks = []
    for word in " ".join(text).split():
        found = re.fullmatch(r"([a-z0-9-]+):([1-5])", word)
        if found is None:
            raise ConfigError(f"tasks has {word!r}, expected DOMAIN:N with N from 1 to 5, such as puzzle-3x3:1")
        tasks.append(Task(found[1], int(found[2])))
    if not tasks:
        raise ConfigError("tasks is empty, expected DOMAIN:N, such as puzzle-3x3:1")
    return tuple(dict.fromkeys(tasks))


def parse_forms(text: Iterable[str]) -> tuple[str, ...]:
    """Forms, separated by blanks. Raises ConfigError."""
    forms = tuple(dict.fromkeys(" ".join(text).split()))
    if not forms or set(forms) - set(FORMS):
        raise ConfigError(f"forms is {' '.join(forms)!r}, expected {' or '.join(FORMS)}, or both")
    return forms


def make_groups(tasks: Sequence[Task], forms: Sequence[str], q_alphas: Sequence[float | None]) -> tuple[Group, ...]:
    """The groups in order: each task in each form, and then the same with Q-normalisation for each of these alphas."""
    plain = [Group(task, form) for task in tasks for form in forms]
    normalised = [Group(task, form, True, alpha) for task in tasks for form in forms for alpha in q_alphas]
    return (*plain, *normalised)


def train_command(plan: Plan, places: Places, group: Group, seeds: Sequence[int], resume: bool) -> list[str]:
    """The arguments of `rql` that train these seeds of a group, or go on with them."""
    base = places.runs / group.name
    which = (
        ["--seed", str(seeds[0]), "--out", f"{base}-seed{seeds[0]}"]
        if len(seeds) == 1
        else ["--seeds", ",".join(map(str, seeds)), "--out", str(base)]
    )
    settings = {
        "evaluate_every": "0",
        "checkpoint_every": str(plan.checkpoint_every),
        "keep_last": str(KEEP_ALL),
        "log_every": str(min(LOG_EVERY, plan.checkpoint_every)),
        "tensorboard": "false",
    }
    # A setting may be given once; what was asked for goes before what is chosen here.
    settings |= dict(setting.split("=", 1) for setting in (*group.settings, *plan.settings))
    return [
        *("train", str(places.dataset(group.task.domain))),
        *("--preset", group.task.domain, "--task", str(group.task.number), "--form", group.form),
        *which,
        *("--updates", str(plan.updates)),
        *plan.train_options,
        *(["--resume"] if resume else []),
        *("--set", *(f"{key}={value}" for key, value in settings.items())),
    ]


def generate_command(plan: Plan, places: Places, domain: str, workers: int) -> list[str]:
    """The arguments of `rql` that play a domain's data, or go on with that."""
    return [
        *("generate", domain, "--out", str(places.data), "--episodes", str(plan.data.count(domain))),
        *("--steps", str(plan.data.steps), "--seed", str(plan.data.seed), "--workers", str(workers), "--no-minari"),
    ]
