"""Table and curves of benchmarks/paper_tasks.py, from the results that there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper_tasks_plan import PUBLISHED_UPDATES, Group, Places, Plan, Task
from benchmarks.paper_tasks_state import reached_steps, step_of
from rql_core.evaluation.curve_pictures import mean_curve
from rql_core.evaluation.results import read_evaluation
from rql_core.evaluation.runs import Evaluated, Run
from rql_core.evaluation.statistics import SeedScore, mean_interval, mean_success

# Success in percent, mean of a domain's five tasks (Reversal Q-Learning, arXiv 2606.17551).
DOMAIN_MEANS = {
    "scene": 89,
    "puzzle-3x3": 100,
    "puzzle-4x4": 37,
    "cube-double": 23,
    "cube-triple": 4,
    "cube-quadruple": 51,
}
# The same of single tasks, where the paper's source gives them.
TASK_MEANS = {Task("puzzle-3x3", 1): 100, Task("cube-double", 1): 51, Task("scene", 1): 100}
# Other methods' means of cube-double's five tasks, in the same paper's table.
OTHERS_ON_CUBE_DOUBLE = {"QC": 67, "DSRL": 74}
# Of Okabe and Ito, who chose them for every kind of colour vision; and a mark each, for none at all.
LOOKS = (("#56b4e9", "D"), ("#0072b2", "o"), ("#d55e00", "^"), ("#009e73", "s"), ("#cc79a7", "v"), ("#e69f00", "P"))

# Success by seed and then by updates.
Scores = dict[int, dict[int, SeedScore]]


@dataclass(frozen=True)
class Row:
    """One line of the table: a group, acting by the best of so many samples."""

    group: Group
    samples: int
    scores: tuple[SeedScore, ...]
    steps: tuple[int, int]
    """Least and most updates of a seed's policy."""


def read_scores(plan: Plan, places: Places, group: Group, samples: int) -> Scores:
    """Every evaluation of a group's seeds with so many samples. Raises DatasetError for a file that is damaged."""
    scores: Scores = {}
    for seed in plan.seeds:
        for path in sorted(places.result(group, seed, 0, samples).parent.glob("step-*.json")):
            step = step_of(path)
            if path == places.result(group, seed, step, samples):
                evaluation = read_evaluation(path)
                episodes = len(evaluation.records)
                scores.setdefault(seed, {})[step] = SeedScore(evaluation.successes / episodes, episodes)
    return scores


def table_row(group: Group, samples: int, scores: Scores) -> Row | None:
    """The last updates after which every seed was evaluated; where there are none in common, each seed's last."""
    if not scores:
        return None
    common = set.intersection(*(set(each) for each in scores.values()))
    steps = [max(common) if common else max(each) for each in scores.values()]
    chosen = tuple(each[step] for each, step in zip(scores.values(), steps, strict=True))
    return Row(group, samples, chosen, (min(steps), max(steps)))


def all_rows(plan: Plan, places: Places) -> list[Row]:
    """The table's lines, a task's together."""
    tasks = list(dict.fromkeys(group.task for group in plan.groups))
    found = [
        table_row(group, samples, read_scores(plan, places, group, samples))
        for group in sorted(plan.groups, key=lambda group: tasks.index(group.task))
        for samples in (1, *plan.best_of)
    ]
    return [row for row in found if row is not None]


def table_text(rows: Sequence[Row]) -> str:
    """The table in Markdown; success in percent."""
    header = ("task", "form", "acting", "published, mean of 5 tasks", "published, this task", "success here")
    lines: list[tuple[str, ...]] = [(*header, "95 % interval", "seeds", "episodes", "updates")]
    for row in rows:
        score = {row.group.task.name: row.scores}
        interval = mean_interval(score)
        lines.append(
            (
                row.group.task.words,
                row.group.way,
                "one sample" if row.samples == 1 else f"best of {row.samples}",
                _known(DOMAIN_MEANS.get(row.group.task.domain)),
                _known(TASK_MEANS.get(row.group.task)),
                f"{100 * mean_success(score):.1f}",
                "-" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                str(len(row.scores)),
                str(sum(each.episodes or 0 for each in row.scores)),
                " to ".join(f"{step:,}" for step in dict.fromkeys(row.steps)),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def not_done(plan: Plan, places: Places, missing: Mapping[Group, int]) -> list[str]:
    """A line for each group that has not all updates or evaluations; `missing`: evaluations that are missing."""
    lines = []
    for group in plan.groups:
        steps = reached_steps(places, group, plan.seeds)
        short = {seed: step for seed, step in steps.items() if step < plan.updates}
        if short and not any(short.values()) and len(short) == len(steps):
            lines.append(f"{group.name}: not trained")
        elif short:
            made = ", ".join(f"seed {seed} {step:,}" for seed, step in short.items())
            lines.append(f"{group.name}: of {plan.updates:,} updates only made: {made}")
        if missing.get(group):
            lines.append(f"{group.name}: {missing[group]} checkpoints not evaluated")
    return lines


def report_text(plan: Plan, places: Places, remarks: Sequence[str]) -> str:
    """table.md: the table, what its numbers are and are not, and what was not done."""
    rows = all_rows(plan, places)
    parts = ["# The paper's tasks, trained again", "", table_text(rows) if rows else "Nothing was evaluated yet.", ""]
    machines = _machines(plan, places)
    done = max((row.steps[1] for row in rows), default=0)
    where = "; ".join(dict.fromkeys(f"{each['device']} ({each['cpu']}, torch {each['torch']})" for each in machines))
    data = "; ".join(dict.fromkeys(str(each["data"]) for each in machines))
    cut = "" if plan.episode_steps is None else f", cut off after {plan.episode_steps} steps (not the protocol)"
    parts += [
        "Success in percent of episodes. Published: Reversal Q-Learning, arXiv 2606.17551, after 1,000,000 updates on "
        "OGBench's official files.",
        "",
        f"- **Data are not the official files** but played again by OGBench's oracles: {data or 'none yet'}.",
        f"- **Updates:** {done:,} of the published {PUBLISHED_UPDATES:,} at most; each line says its own. A line is of "
        "the last updates after which every seed was evaluated.",
        f"- **Episodes:** {plan.episodes} a seed{cut}; OGBench's single-task success at the last step.",
        f"- **Machine:** {where or 'nothing was trained yet'}.",
        "- **Interval:** 95 %, from a bootstrap over seeds and their episodes; Wilson's where all episodes ended "
        "alike. It knows nothing of seeds that were not trained.",
    ]
    if any(group.task.domain == "cube-double" for group in plan.groups):
        others = ", ".join(f"{name} {mean}" for name, mean in OTHERS_ON_CUBE_DOUBLE.items())
        parts.append(f"- **Others on cube-double**, means of its five tasks as published: {others}.")
    if remarks:
        parts += ["", "## Not done", "", *(f"- {remark}" for remark in remarks)]
    return "\n".join(parts) + "\n"


def curves(plan: Plan, places: Places) -> Any:
    """Success against updates as a figure, a panel a task; None where nothing was evaluated.

    Lines are means over seeds with their 95 % interval, at the updates after which every seed was evaluated; points
    are seeds; stars are the best of N samples.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    ways = {way: LOOKS[place % len(LOOKS)] for place, way in enumerate(dict.fromkeys(g.way for g in plan.groups))}
    drawn = {group: read_scores(plan, places, group, 1) for group in plan.groups}
    tasks = list(dict.fromkeys(group.task for group, scores in drawn.items() if scores))
    if not tasks:
        return None
    figure = Figure(figsize=(1.4 + 3.9 * len(tasks), 4.2), layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for group, scores in drawn.items():
            if group.task == task and scores:
                _draw_group(axis, group, scores, *ways[group.way])
                for samples in plan.best_of:
                    _draw_best(axis, group, table_row(group, samples, read_scores(plan, places, group, samples)), ways)
        for published, style, label in (
            (TASK_MEANS.get(task), "--", "published, this task"),
            (DOMAIN_MEANS.get(task.domain), ":", "published, mean of 5 tasks"),
        ):
            if published is not None:
                axis.axhline(published, color="0.35", ls=style, lw=1.3, label=label, zorder=1)
        axis.set(title=task.words, xlabel="updates", ylim=(-3, 103))
        axis.set_xlim(left=0)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_axisbelow(True)
        axis.grid(color="0.92", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("success, %")
    known: dict[str, Any] = {}
    for axis in axes:
        known = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True)) | known
    # A label takes so many inches of text and of its sign; as many stand side by side as fit.
    columns = figure.get_figwidth() / (0.7 + 0.085 * max(map(len, known)))
    figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=max(1, int(columns)), frameon=False)
    return figure


def _draw_group(axis: Any, group: Group, scores: Scores, colour: str, mark: str) -> None:
    runs = [
        Run(
            Path(f"{group.name}-seed{seed}"),
            seed,
            group.task.name,
            {},
            tuple(Evaluated(each.rate, each.episodes, step, "results") for step, each in sorted(by_step.items())),
        )
        for seed, by_step in scores.items()
    ]
    line, band = mean_curve(runs)
    percent = [(step, 100 * rate) for step, rate in line]
    if percent:
        axis.plot(*zip(*percent, strict=True), color=colour, marker=mark, ms=5, lw=1.7, label=group.way, zorder=3)
    if band:
        steps, low, high = zip(*band, strict=True)
        axis.fill_between(steps, [100 * each for each in low], [100 * each for each in high], color=colour, alpha=0.12)
    points = [(step, 100 * each.rate) for by_step in scores.values() for step, each in by_step.items()]
    # Without a mean the points have to say whose they are.
    label = None if percent else group.way
    axis.plot(*zip(*points, strict=True), color=colour, marker=mark, ms=3, ls="", alpha=0.45, label=label, zorder=2)


def _draw_best(axis: Any, group: Group, row: Row | None, ways: Mapping[str, tuple[str, str]]) -> None:
    if row is None:
        return
    success = 100 * mean_success({group.task.name: row.scores})
    label = f"{group.way}, best of {row.samples}"
    axis.plot([row.steps[1]], [success], color=ways[group.way][0], marker="*", ms=13, ls="", mec="k", label=label)


def _machines(plan: Plan, places: Places) -> list[dict[str, Any]]:
    """Where the groups were trained; a last row that a kill cut off is left out."""
    rows = []
    for group in plan.groups:
        path = places.machines(group)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return rows


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)


def _short(updates: float) -> str:
    """1,000,000 as 1M and 50,000 as 50k; fewer as they are."""
    if updates >= 1_000_000:
        return f"{updates / 1e6:g}M"
    return f"{updates / 1e3:g}k" if updates >= 10_000 else f"{updates:,.0f}"
