"""A conversion's report as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import PurePath

import numpy as np

from rql_core.bags.report import REPORT_FILE, ConversionReport, EpisodeReport
from rql_core.bags.report_html import FOLDED, counted, folded, table
from rql_core.bags.report_pictures import Row, bar_chart, episode_rows, group_size
from rql_core.bags.report_style import EXPLANATION, STYLE
from rql_core.bags.report_tables import actions, bags, dropped, every_episode, features, skipped, topics


def report_files(report: ConversionReport) -> dict[str, str]:
    """The report in its three forms, as they lie beside a dataset: name of the file -> its text."""
    return {
        REPORT_FILE: json.dumps(report.to_dict(), indent=1) + "\n",
        "report.txt": report.text(),
        "report.html": report_page(report),
    }


def report_page(report: ConversionReport) -> str:
    """The whole page."""
    title = f"{'Relabelling' if report.relabelled else 'Conversion'} of {escape(report.dataset)}"
    parts = [
        f"<h1>{title}</h1>",
        _lead(report),
        _verdict(report),
        _findings(report),
        _tiles(report),
        _bounds(report),
        _episodes(report),
        topics(report) if any(bag.topics for bag in report.bags) else "",
        features(report),
        actions(report),
        _labels(report),
        _relabelled(report),
        skipped(report),
        dropped(report),
        bags(report),
        every_episode(report),
        f"<h2>What the words mean</h2>{EXPLANATION}",
        _made_of(report),
    ]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{STYLE}</style></head>
<body>{"".join(parts)}</body></html>
"""


def _lead(report: ConversionReport) -> str:
    seconds = sum(episode.seconds for episode in report.each_episode)
    others = f" (of {len(report.bags) + len(report.skipped)})" if report.skipped else ""
    long = f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    made = ""
    if report.relabelled:
        made = (
            f"<p>Made of <b>{escape(report.relabelled.parent)}</b> without its bags: the reward is now "
            f"<code>{escape(report.relabelled.given)}</code>. Observations, actions and what is said of bags and "
            "topics are the original's; an episode that now ends earlier is shown with the timing of the whole.</p>"
        )
    return (
        f"{made}<p>{counted(report.episodes, 'episode')}, {report.steps:,} steps, {long} at {report.rate:g} Hz, from "
        f"{counted(len(report.bags), 'bag')}{others} by the contract <b>{escape(report.contract)}</b>.</p>"
    )


def _verdict(report: ConversionReport) -> str:
    if not report.bounds:
        return (
            "<p class='verdict none'><b>No bounds.</b> The contract's <code>quality</code> sets none, so nothing was "
            "tested; below is what stands out.</p>"
        )
    bounds = counted(len(report.bounds), "bound")
    if not report.broken:
        return f"<p class='verdict kept'><b>Within all {bounds}</b> that the contract sets for its data.</p>"
    broken = "".join(f"<li>{escape(each.text)}</li>" for each in report.findings if each.kind == "bound")
    return (
        f"<div class='verdict broken'><b>Past {len(report.broken)} of {bounds}</b> that the contract sets for its data:"
        f"<ul>{broken}</ul></div>"
    )


def _findings(report: ConversionReport) -> str:
    remarks = [each for each in report.findings if each.kind == "remark"]
    if not remarks:
        return "<h2>What to look at</h2><p>Nothing stands out.</p>"
    items = [
        f"<li>{escape(each.text)}"
        + (f' <a href="#e{each.episode}">see episode {each.episode}</a>' if each.episode is not None else "")
        + "</li>"
        for each in remarks
    ]
    listed = f'<ul class="remarks">{"".join(items[:FOLDED])}</ul>'
    if len(items) > FOLDED:
        listed += f"<details><summary>{len(items) - FOLDED} more</summary><ul>{''.join(items[FOLDED:])}</ul></details>"
    return f"<h2>What to look at</h2>{listed}"


def _tiles(report: ConversionReport) -> str:
    success = report.episodes_with_success / report.episodes
    dropped = [episode for bag in report.bags for episode in bag.dropped]
    tiles = [
        ("success", f"{100 * success:.0f} %", f"{report.episodes_with_success} of {report.episodes} episodes"),
        ("return", f"{report.mean_return:.4g}", f"{report.lowest_return:.4g} to {report.highest_return:.4g}"),
        (
            "steps an episode",
            f"{report.steps / report.episodes:.0f}",
            f"{report.shortest_episode} to {report.longest_episode}",
        ),
        (
            "terminal",
            f"{report.terminal_episodes}",
            f"the other {report.episodes - report.terminal_episodes} truncated",
        ),
        ("dropped", f"{100 * report.dropped_share:.1f} %", f"of the steps, {counted(len(dropped), 'episode')}"),
    ]
    cells = "".join(f"<div><span>{name}</span><b>{value}</b><span>{note}</span></div>" for name, value, note in tiles)
    return f'<div class="tiles">{cells}</div>'


def _bounds(report: ConversionReport) -> str:
    if not report.bounds:
        return ""
    rows = [
        [
            f'<span class="{"ok" if each.kept else "no"}">{"kept" if each.kept else "past"}</span>',
            f"<code>{each.name}</code>",
            f"{each.bound:g}",
            f"{each.value:.4g}",
            escape(each.where),
        ]
        for each in sorted(report.bounds, key=lambda bound: bound.kept)
    ]
    return "<h2>Bounds of the contract</h2>" + table(["", "bound", "set", "found", "where"], rows)


def _episodes(report: ConversionReport) -> str:
    each = report.each_episode
    set_bounds = {bound.name: bound.bound for bound in report.bounds}
    gaps, ages = [_worst(e, report, "longest_gap_s") for e in each], [_worst(e, report, "p95_age_s") for e in each]
    stuck = Counter(episode for number in report.observations for episode in number.stuck_episodes)
    rows = [
        Row(
            "return",
            "amber: not solved",
            [e.total_reward for e in each],
            [not e.solved_steps for e in each],
            worse="low",
        ),
        Row("steps", "", [float(e.steps) for e in each], [False] * len(each), worse="low"),
        _timing_row("longest pause", gaps, set_bounds.get("max_gap")),
        _timing_row("age p95", ages, set_bounds.get("max_age_p95")),
        Row("at a limit", "share of steps", [e.saturated for e in each], [False] * len(each)),
        Row("largest jump", "share of range", [e.largest_jump for e in each], [e.largest_jump > 0.9 for e in each]),
        Row("stuck", "features", [float(stuck[i]) for i in range(len(each))], [stuck[i] > 0 for i in range(len(each))]),
    ]
    starts, seen = [], -1
    for index, episode in enumerate(each):
        if episode.bag != seen:
            starts.append((index, PurePath(report.bags[episode.bag].path).name))
            seen = episode.bag
    titles = [_title(index, episode, gap) for index, (episode, gap) in enumerate(zip(each, gaps, strict=True))]
    group = group_size(len(each))
    grouped = f" Each bar stands for {group} episodes and shows the worst of them." if group > 1 else ""
    return (
        "<h2>Episodes</h2><p class='soft'>One bar an episode, in the order of the dataset; vertical lines are where a "
        f"bag begins. Amber is what to look at, a red line is a bound.{grouped} A click leads to the episode's "
        "numbers.</p>"
        f'<div class="wide" tabindex="0">{episode_rows(rows, starts, titles)}</div>'
    )


def _timing_row(name: str, values: Sequence[float | None], bound: float | None) -> Row:
    bad = [value is not None and bound is not None and value > bound for value in values]
    return Row(name, "s, worst topic", values, bad, bound)


def _title(index: int, episode: EpisodeReport, gap: float | None) -> str:
    pause = "" if gap is None else f", longest pause {gap:.3g} s"
    solved = "solved" if episode.solved_steps else "not solved"
    return f"episode {index}: {episode.steps} steps, return {episode.total_reward:.4g}, {solved}{pause}"


def _labels(report: ConversionReport) -> str:
    returns = [episode.total_reward for episode in report.each_episode]
    lengths = [float(episode.steps) for episode in report.each_episode]
    figures = [
        ("Returns: sum of an episode's rewards", _spread_of(returns)),
        ("Steps an episode", _spread_of(lengths)),
    ]
    if report.rewards:
        bars = [(name, float(count)) for name, count in report.rewards.items()]
        figures.insert(0, ("Steps with each reward", bar_chart(bars, "Steps with each reward")))
    shown = "".join(f"<figure><figcaption>{name}</figcaption>{svg}</figure>" for name, svg in figures)
    return (
        f"<h2>Rewards and returns</h2><p class='soft'>Reward {report.mean_reward:.4g} a step on average; "
        f"{report.solved_steps:,} steps arrive where the task is solved.</p><div class='plots'>{shown}</div>"
    )


def _relabelled(report: ConversionReport) -> str:
    made = report.relabelled
    if made is None:
        return ""
    rows = [
        ["steps with another reward or mask", f"{made.changed_steps:,} of {report.steps:,}"],
        ["mean return", f"{made.mean_return_before:.4g} before, {made.mean_return:.4g} now"],
        ["episodes dropped", f"{made.dropped_episodes:,}"],
        ["steps left out", f"{made.dropped_steps:,}"],
        ["numbers of the original, SHA-256", escape(made.parent_content_sha256)],
    ]
    return "<h3>What the new reward changed</h3>" + table(["", ""], rows)


def _spread_of(values: Sequence[float]) -> str:
    counts, edges = np.histogram(values, bins=min(12, max(len(set(values)), 1)))
    bars = [(f"{(low + high) / 2:.3g}", float(n)) for n, low, high in zip(counts, edges, edges[1:], strict=False)]
    return bar_chart(bars, "How many episodes have which value")


def _made_of(report: ConversionReport) -> str:
    rows = [["contract", report.contract_sha256], ["numbers of the dataset", report.content_sha256]]
    rows += [[escape(name), escape(str(version))] for name, version in report.software.items()]
    return "<h2>Made of</h2>" + folded(
        "hashes (SHA-256) and software", table(["what", "hash or version"], rows), len(rows)
    )


def _worst(episode: EpisodeReport, report: ConversionReport, name: str) -> float | None:
    """The worst of the observation topics; those have ages."""
    values = [getattr(timing, name) for timing in episode.topics if timing.median_age_s is not None]
    return max((value for value in values if value is not None), default=None)
