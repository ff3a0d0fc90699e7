"""Run directories as they are read to compare them: settings, evaluations and metrics, without loading any network.

    RUN/train.json        the settings, with the seed
    RUN/metrics.jsonl     a row every so many updates; those with evaluation/success_rate are evaluations
    RUN/evaluation.json   what `rql evaluate` wrote, where it was run
    RUN/checkpoint/       config.json and contract.yaml say which environment or robot it was

Read leniently: what a newer or older program wrote besides is carried along, and what is missing is unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rql_core.errors import DatasetError
from rql_core.strict_yaml import StrictYamlError, parse_mapping

# Settings that say how a run was done and kept; what it computes is the same whatever they are.
BOOKKEEPING = frozenset(
    {
        "compile",
        "cuda_graphs",
        "device",
        "log_every",
        "checkpoint_every",
        "evaluate_every",
        "keep_last",
        "keep_best",
        "best_metric",
        "best_is",
        "tensorboard",
    }
)
# Where a file may say which task a run is on, in the order in which they are believed.
_TASK_KEYS = ("environment", "task", "world")
# How an evaluation was run, besides where; runs that differ in it can be compared, but a reader must be told.
_HOW = ("over", "samples", "rho", "flow_steps", "replan_every", "first_seed")
# Keys of rows that are no curve. `seconds` is the time of all updates so far; rows of older runs lack it.
_NOT_CURVES = frozenset({"step", "partial", "seconds"})
_EVALUATION = "evaluation/"
_SCORE = ("success_rate", "success_low", "success_high", "episodes")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: the share of episodes that succeeded, in how many, after how many updates (None: unknown).

    `how` is what evaluation.json says of the way in which it was run: samples, steps between plans, ...
    """

    rate: float
    episodes: int | None
    step: int | None
    source: str
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What is known of one run. `curves`: by name of the metric, its steps and values, in the order of the file."""

    path: Path
    seed: int
    task: str | None
    settings: Mapping[str, Any]
    curve: tuple[Evaluated, ...] = ()
    evaluation: Evaluated | None = None
    curves: Mapping[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    step: int = 0
    seconds: tuple[tuple[int, float], ...] = ()
    """Updates, and the time that they had taken."""

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return str(self.settings.get("algorithm.algorithm", "unknown"))

    @property
    def planned(self) -> int | None:
        """Updates to make in all, where the settings say so."""
        updates = self.settings.get("updates")
        return updates if isinstance(updates, int) else None

    @property
    def unfinished(self) -> bool:
        """Whether fewer updates were made than planned."""
        return self.planned is not None and self.step < self.planned

    def score(self, at: int | None = None) -> Evaluated | None:
        """What counts: the evaluation during training at an update, or else evaluation.json, or else the last one."""
        if at is not None:
            return next((point for point in self.curve if point.step == at), None)
        return self.evaluation or (self.curve[-1] if self.curve else None)

    def seconds_to(self, step: int) -> float | None:
        """The time that so many updates took; None where no row tells."""
        return next((seconds for at, seconds in reversed(self.seconds) if at <= step), None)

    def scored_step(self, at: int | None = None) -> int:
        """The updates after which the score was taken; where the file does not say, all that were made."""
        score = self.score(at)
        return self.step if score is None or score.step is None else score.step


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The run directories among and below these; raises DatasetError for a path that holds none."""
    found: dict[Path, Path] = {}
    for path in paths:
        if (path / "train.json").exists():
            here = [path]
        elif path.is_dir():
            here = sorted(file.parent for file in path.rglob("train.json"))
        else:
            raise DatasetError(f"{path}: is no directory; expected a run, or a directory of runs")
        if not here:
            raise DatasetError(f"{path}: holds no run (train.json is missing); expected what `rql train` wrote")
        # A directory that was named twice, or by a link, is one run.
        for run in here:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_run(path: Path) -> Run:
    """Read one run; raises DatasetError in one line that names the file that is wrong."""
    settings = _flat(_read_object(path / "train.json"))
    seed = settings.pop("seed", None)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise DatasetError(f"{path / 'train.json'}: seed is {seed!r}, expected a whole number")
    if settings.get("precision") == "float32":
        # As in all runs from before this was a setting.
        del settings["precision"]
    rows = _rows(path / "metrics.jsonl")
    curves: dict[str, tuple[list[int], list[float]]] = {}
    curve: dict[int, Evaluated] = {}
    step, seconds = 0, []
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("step"), int):
            raise DatasetError(f"{path / 'metrics.jsonl'}, line {number}: has no step, expected one in every row")
        step = max(step, row["step"])
        taken = _number(row.get("seconds"))
        if taken is not None:
            seconds.append((row["step"], taken))
        rate = _number(row.get(_EVALUATION + "success_rate"))
        if rate is not None:
            place = f"{path / 'metrics.jsonl'}, line {number}"
            curve[row["step"]] = _evaluated(
                rate, row.get(_EVALUATION + "episodes"), row["step"], "metrics.jsonl", place
            )
        for key, value in row.items():
            number_of_row = _number(value)
            if number_of_row is not None and key not in _NOT_CURVES and key.removeprefix(_EVALUATION) not in _SCORE:
                steps, values = curves.setdefault(key, ([], []))
                steps.append(row["step"])
                values.append(number_of_row)
    evaluation, evaluation_task = _evaluation(path / "evaluation.json")
    task = next((settings[key] for key in _TASK_KEYS if settings.get(key)), None)
    task = task or _checkpoint_task(path / "checkpoint") or evaluation_task or settings.get("dataset")
    return Run(
        path=path,
        seed=seed,
        task=str(task) if task else None,
        settings={key: value for key, value in settings.items() if key not in BOOKKEEPING | set(_TASK_KEYS)},
        curve=tuple(curve[at] for at in sorted(curve)),
        evaluation=evaluation,
        curves=curves,
        step=step,
        seconds=tuple(seconds),
    )


def _evaluation(path: Path) -> tuple[Evaluated | None, str | None]:
    """What evaluation.json says, and of which task; its records count, or else its statistics."""
    if not path.exists():
        return None, None
    content = _read_object(path)
    several = content.get("evaluations")
    if isinstance(several, list):
        if len(several) != 1 or not isinstance(several[0], dict):
            raise DatasetError(f"{path}: holds {len(several)} evaluations, expected the one of this run")
        content = several[0]
    step = next((content[key] for key in ("step", "updates") if isinstance(content.get(key), int)), None)
    records, statistics = content.get("records"), content.get("statistics")
    if isinstance(records, list) and records and all(isinstance(each, dict) and "success" in each for each in records):
        rate: Any = sum(bool(each["success"]) for each in records) / len(records)
        episodes: Any = len(records)
    elif isinstance(statistics, dict) and "success" in statistics:
        rate, episodes = statistics["success"], statistics.get("episodes")
    else:
        raise DatasetError(f"{path}: has neither records with success nor statistics; run `rql evaluate` again")
    evaluated = _evaluated(rate, episodes, step, path.name, str(path))
    how = {key: content[key] for key in _HOW if content.get(key) is not None}
    return replace(evaluated, how=how), next((str(content[key]) for key in _TASK_KEYS if content.get(key)), None)


def _evaluated(rate: Any, episodes: Any, step: int | None, source: str, place: str) -> Evaluated:
    """Checked: a share in [0, 1], and at least one episode where their number is given."""
    share, count = _number(rate), _number(episodes)
    if share is None or not 0 <= share <= 1:
        raise DatasetError(f"{place}: the success rate is {rate!r}, expected a number from 0 to 1")
    if episodes is not None and (count is None or count < 1 or count != int(count)):
        raise DatasetError(f"{place}: the number of episodes is {episodes!r}, expected a whole number from 1")
    return Evaluated(share, int(count) if count is not None else None, step, source)


def _checkpoint_task(checkpoint: Path) -> str | None:
    """The environment or the contract of the newest checkpoint; None where there is none that says."""
    try:
        environment = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("environment")
        if environment:
            return str(environment)
        return str(parse_mapping((checkpoint / "contract.yaml").read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, AttributeError, KeyError, StrictYamlError):
        return None  # what is wrong with a checkpoint is said where it is loaded


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file: none where there is no file yet; a last row that was cut off is left out."""
    if not path.exists():
        return []
    text = _read_text(path)
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: is no JSON object, expected one in every line")
        rows.append(row)
    return rows


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path}: is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is no text in UTF-8") from None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path: {"algorithm": {"kappa": 0.9}} is {"algorithm.kappa": 0.9}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
