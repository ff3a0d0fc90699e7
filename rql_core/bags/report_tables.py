"""The tables of a conversion's report: topics, features, actions, what was skipped or dropped, bags, episodes."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import PurePath

import numpy as np

from rql_core.bags.findings import drop_shares
from rql_core.bags.report import BagReport, ConversionReport, EpisodeReport, NumberReport
from rql_core.bags.report_html import counted, extent, folded, table
from rql_core.bags.report_pictures import histogram
from rql_core.bags.report_style import LEFT_OUT
from rql_core.contract.time import NANOSECONDS

# Dropped episodes are listed one by one up to here; beyond, only counted.
_LISTED = 200


def topics(report: ConversionReport) -> str:
    """Each topic over all bags and episodes."""
    drops = drop_shares(report)
    names = list(dict.fromkeys(topic.topic for bag in report.bags for topic in bag.topics))
    rows = []
    for name in names:
        in_bags = [topic for bag in report.bags for topic in bag.topics if topic.topic == name]
        timings = [
            timing
            for episode in report.each_episode
            for topic, timing in zip(report.bags[episode.bag].topics, episode.topics, strict=False)
            if topic.topic == name
        ]
        rates = [topic.rate_hz for topic in in_bags if topic.rate_hz is not None]
        gaps = [timing.longest_gap_s for timing in timings if timing.longest_gap_s is not None]
        offsets = [topic.offset_s for topic in in_bags if topic.offset_s is not None]
        spreads = [topic.offset_spread_s for topic in in_bags if topic.offset_spread_s is not None]
        middle = [topic.median_age_s for topic in in_bags if topic.median_age_s is not None]
        ages = [timing.p95_age_s for timing in timings if timing.p95_age_s is not None]
        rows.append(
            [
                f"<b>{escape(name)}</b>",
                f"{sum(topic.messages_used for topic in in_bags):,}",
                extent(rates, "{:.4g}"),
                extent(gaps, "{:.3g}"),
                f"{np.median(middle):.3g}" if middle else "-",
                extent(ages, "{:.3g}"),
                f"{100 * drops[name]:.2f} %" if name in drops else "-",
                extent(offsets, "{:+.3g}"),
                f"{max(spreads):.2g}" if spreads else "-",
            ]
        )
    head = [
        "topic",
        "messages",
        "rate, Hz",
        "longest pause, s",
        "age p50, s",
        "age p95, s",
        "missing",
        "clock offset, s",
    ]
    return (
        "<h2>Topics</h2><p class='soft'>Rates and offsets from bag to bag, pauses and ages from episode to episode: "
        "the least and the most where they differ.</p>" + table([*head, "its spread, s"], rows)
    )


def features(report: ConversionReport) -> str:
    """Each number of the observation."""
    rows = [
        [
            _name(number),
            histogram(number.histogram, f"{number.name} from {number.minimum:.4g} to {number.maximum:.4g}"),
            f"{number.minimum:.4g}",
            " to ".join(f"{value:.4g}" for value in (number.quantiles[0], number.quantiles[-1])),
            f"{number.maximum:.4g}",
            f"{number.mean:.4g} ± {number.std:.3g}",
            f"{100 * number.outliers:.2f} %" if number.outliers else "-",
            "<span class='no'>dead</span>" if number.dead else _stuck(number),
        ]
        for number in report.observations
    ]
    head = ["feature", "minimum … maximum", "minimum", "1 to 99 %", "maximum", "mean ± std", "outliers", "stuck in"]
    return (
        "<h2>Features</h2><p class='soft'>The numbers of the observation, in the contract's units. The height of a bar "
        "is the root of how many steps it has, so that rare values are seen.</p>" + table(head, rows)
    )


def _stuck(number: NumberReport) -> str:
    count = len(number.stuck_episodes)
    if not count:
        return "-"
    links = ", ".join(f'<a href="#e{index}">{index}</a>' for index in number.stuck_episodes[:5])
    return f"<span class='no'>{counted(count, 'episode')}</span> ({links}{', …' if count > 5 else ''})"


def actions(report: ConversionReport) -> str:
    """Each number of the action."""
    rows = []
    for action in report.actions:
        assert action.lower is not None
        assert action.upper is not None
        span = action.upper - action.lower
        at = action.largest_jump_at
        place = "" if at is None else f' (<a href="#e{at.episode}">episode {at.episode}</a>, step {at.step})'
        rows.append(
            [
                _name(action),
                f"{action.lower:g} to {action.upper:g}",
                histogram(action.histogram, f"{action.name} between its limits", limits=True),
                f"{action.minimum:.4g} to {action.maximum:.4g}",
                _share(action.share_at_limits or 0.0, 0.1),
                _share(action.share_outside_limits or 0.0, 0.0),
                f"{100 * (action.jump_p99 or 0.0) / span:.1f} %",
                f"{100 * (action.largest_jump or 0.0) / span:.0f} %{place}",
            ]
        )
    head = ["action", "limits", "between its limits", "commanded", "at a limit", "outside", "jump p99", "largest jump"]
    return (
        "<h2>Actions</h2><p class='soft'>As commanded, in physical units. A jump is the change from one step to the "
        "next, as a share of the range between the limits.</p>" + table(head, rows)
    )


def skipped(report: ConversionReport) -> str:
    """Each bag that could not be used, and why; nothing where all could."""
    if not report.skipped:
        return ""
    rows = [
        [
            escape(each.path),
            escape(each.error.removeprefix(f"{each.path}: ")),
            escape(", ".join(f"{name} {digest[:12]}" for name, digest in each.sha256.items())),
        ]
        for each in report.skipped
    ]
    listed = table(["bag", "what is wrong with it", "files, SHA-256"], rows)
    return (
        "<h2>Bags that were skipped</h2><p class='soft'>They are damaged or do not keep to the contract, and "
        "<code>bad_bags: skip</code> leaves such bags out. Mended, they are read by the next conversion.</p>"
        + folded(f"{counted(len(rows), 'bag')} of {len(rows) + len(report.bags)}", listed, len(rows))
    )


def dropped(report: ConversionReport) -> str:
    """What was recorded and is not in the dataset, and why."""
    reasons: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    rows = []
    for bag in report.bags:
        for episode in bag.dropped:
            why = f"{episode.why}, ended by: {episode.cut}"
            reasons[why] += 1
            steps[why] += episode.steps
            start = (episode.start_ns - bag.start_ns) / NANOSECONDS
            rows.append([escape(PurePath(bag.path).name), f"{start:.2f}", str(episode.steps), escape(why)])
    text = "<h2>What is not in the dataset</h2>"
    if rows:
        summary = [[escape(why), str(count), f"{steps[why]:,}"] for why, count in reasons.most_common()]
        text += "<h3>Episodes that were dropped</h3>" + table(["why", "episodes", "steps"], summary)
        more = f"<p>and {len(rows) - _LISTED} more</p>" if len(rows) > _LISTED else ""
        text += folded(
            f"each of the {len(rows)}", table(["bag", "begins at, s", "steps", "why"], rows[:_LISTED]) + more, len(rows)
        )
    else:
        text += "<p>No episode was dropped.</p>"
    left_out: Counter[str] = Counter()
    for bag in report.bags:
        left_out.update(bag.left_out)
    if left_out:
        counted = [
            [f"{count:,}", escape(name.replace("_", " ")), LEFT_OUT.get(name, "")]
            for name, count in left_out.most_common()
        ]
        text += "<h3>Messages and ticks that were not used</h3>" + table(["count", "what", "means"], counted)
    if any(bag.labels for bag in report.bags):
        text += "<h3>Messages that reward and success come from</h3>" + _labels(report)
    return text


def _labels(report: ConversionReport) -> str:
    messages: Counter[tuple[str, str]] = Counter()
    in_steps: Counter[tuple[str, str]] = Counter()
    for bag in report.bags:
        for use in bag.labels:
            messages[use.topic, use.says] += use.messages
            in_steps[use.topic, use.says] += use.in_steps
    rows = [
        [escape(topic), says, f"{count:,}", f"{in_steps[topic, says]:,}", f"{count - in_steps[topic, says]:,}"]
        for (topic, says), count in messages.items()
    ]
    return table(["topic", "says", "messages", "within a step", "outside all steps"], rows)


def bags(report: ConversionReport) -> str:
    """Each bag."""
    rows = [_bag_row(bag) for bag in report.bags]
    listed = table(["bag", "messages", "seconds", "episodes", "steps", "dropped", "episodes ended by", "notes"], rows)
    return f"<h2>Bags</h2>{folded(f'{len(rows)} bags', listed, len(rows))}"


def _bag_row(bag: BagReport) -> list[str]:
    return [
        escape(bag.path),
        f"{bag.messages:,}",
        f"{bag.seconds:.1f}",
        str(bag.episodes),
        f"{bag.steps:,}",
        str(len(bag.dropped)) if bag.dropped else "-",
        escape(", ".join(f"{why} {count}" for why, count in bag.cuts.items())),
        escape("; ".join(bag.notes)) or "-",
    ]


# What the table of all episodes says of an episode, and of each topic in it.
_OF_EPISODE = (
    "episode",
    "bag",
    "begins at, s",
    "steps",
    "return",
    "solved steps",
    "ended by",
    "at a limit",
    "largest jump",
)
_OF_TOPIC = ("Hz", "pause, s", "age p50, s", "age p95, s", "missing", "offset, s")


def every_episode(report: ConversionReport) -> str:
    """Each episode with each of its topics; other parts of the page lead here."""
    topics = list(dict.fromkeys(topic.topic for bag in report.bags for topic in bag.topics))
    first = "".join(f'<th scope="col" rowspan="2">{name}</th>' for name in _OF_EPISODE)
    first += "".join(
        f'<th scope="colgroup" colspan="{len(_OF_TOPIC)}" class="topic">{escape(topic)}</th>' for topic in topics
    )
    second = "".join(f'<th scope="col">{name}</th>' for _ in topics for name in _OF_TOPIC)
    body = ""
    for index, episode in enumerate(report.each_episode):
        cells = _episode_cells(episode, report.bags[episode.bag])
        body += (
            f'<tr id="e{index}"><th scope="row">{index}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        )
    listed = (
        f'<div class="wide tall" tabindex="0"><table class="dense"><thead><tr>{first}</tr><tr>{second}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return f"<h2>Every episode</h2>{folded(f'{report.episodes} episodes', listed, report.episodes)}"


def _episode_cells(episode: EpisodeReport, bag: BagReport) -> list[str]:
    cells = [
        escape(PurePath(bag.path).name),
        f"{(episode.start_ns - bag.start_ns) / NANOSECONDS:.2f}",
        str(episode.steps),
        f"{episode.total_reward:.4g}",
        str(episode.solved_steps) if episode.solved_steps else "-",
        escape(episode.cut) + (", terminal" if episode.terminal else ""),
        f"{100 * episode.saturated:.0f} %",
        f"{100 * episode.largest_jump:.0f} %",
    ]
    for timing in episode.topics:
        numbers = (timing.rate_hz, timing.longest_gap_s, timing.median_age_s, timing.p95_age_s)
        cells += ["-" if number is None else f"{number:.3g}" for number in numbers]
        cells.append("-" if timing.drops is None else str(timing.drops))
        cells.append("-" if timing.offset_s is None else f"{timing.offset_s:+.3g}")
    return cells


def _share(share: float, most: float) -> str:
    shown = f"{100 * share:.2f} %"
    return f"<span class='no'>{shown}</span>" if share > most else shown


def _name(number: NumberReport) -> str:
    return f"<b>{escape(number.name)}</b><br><span class='soft'>{escape(number.unit)}</span>"
