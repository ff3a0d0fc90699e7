"""What of a conversion deserves a look: what is past the contract's bounds, and what is out of the ordinary anyway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rql_core.bags.report import BagReport, Bound, ConversionReport, Finding, NumberReport
from rql_core.bags.timing import EpisodeTopic
from rql_core.contract.quality_schema import Quality
from rql_core.contract.reward_signals import SignalUse
from rql_core.contract.time import NANOSECONDS

# Remarks are made from here on. They fail nothing, so each is where a person who knows the robot would begin to ask.
_SATURATED = 0.1  # a tenth of the steps at a limit: the limit, and not the task, shapes the actions
_DROPS = 0.01  # one message in a hundred is past what a sound network loses
_OFFSET_S = 0.1  # clocks that are kept in step differ by milliseconds, and a message travels in some more
_UNHEARD = 0.1  # a tenth of a topic's rewards is no longer what lies before, between and behind episodes
_DROPPED = 0.1  # a tenth of the recording not used
_WHOLE_RANGE = 0.9  # from one limit to nearly the other within one step
_SPIKE = 5.0  # times the width of the middle 98 %, outside it: no motion of the same robot looks like that
_RATES_APART = 0.1  # rates of one topic in two bags differ by a tenth: other settings, or a slower machine


@dataclass(frozen=True)
class _Worst:
    """The worst value of something, and where it was."""

    value: float
    where: str
    episode: int | None = None


def check_bounds(quality: Quality | None, action_topic: str, report: ConversionReport) -> list[Bound]:
    """Each bound that the contract sets, beside what the data came to."""
    if quality is None:
        return []
    found = {
        "max_gap": _worst_timing(report, action_topic, "longest_gap_s"),
        "max_age_p95": _worst_timing(report, action_topic, "p95_age_s"),
        "max_drops": _worst(
            _Worst(share, topic) for topic, share in drop_shares(report).items() if topic != action_topic
        ),
        "max_clock_offset": _worst(
            _Worst(abs(topic.offset_s), f"{topic.topic} in {bag.path}")
            for bag in report.bags
            for topic in bag.topics
            if topic.offset_s is not None
        ),
        "max_saturation": _worst(_Worst(action.share_at_limits or 0.0, action.name) for action in report.actions),
        "max_outside_limits": _worst(
            _Worst(action.share_outside_limits or 0.0, action.name) for action in report.actions
        ),
        "max_jump": _worst(_jump(action) for action in report.actions),
        "max_outliers": _worst(_Worst(number.outliers, number.name) for number in report.observations),
        "max_dead_features": _Worst(len(dead := _dead(report)), ", ".join(dead) or "none"),
        "max_dropped_share": _Worst(report.dropped_share, "steps in dropped episodes"),
        "max_skipped_bags": _Worst(len(report.skipped), ", ".join(each.path for each in report.skipped) or "none"),
        "min_episodes": _Worst(report.episodes, "episodes in the dataset"),
    }
    bounds = []
    for name, worst in found.items():
        bound = getattr(quality, name)
        if bound is not None:
            kept = worst.value >= bound if name.startswith("min_") else worst.value <= bound
            bounds.append(Bound(name, float(bound), worst.value, worst.where, kept))
    return bounds


def find_remarks(report: ConversionReport) -> list[Finding]:
    """Bounds that are not kept, then what is out of the ordinary, what concerns all the data before single places."""
    broken = [
        Finding("bound", f"{each.name} is {each.value:.4g}, its bound is {each.bound:g}: {each.where}")
        for each in report.broken
    ]
    return [
        *broken,
        *_about_label_topics(report),
        *_about_bags(report),
        *_about_labels(report),
        *_about_topics(report),
        *_about_numbers(report),
        *_about_actions(report),
    ]


def drop_shares(report: ConversionReport) -> dict[str, float]:
    """Topic -> share of its messages within episodes that its own rate says are missing."""
    came: dict[str, int] = {}
    missing: dict[str, int] = {}
    for _, topic, timing in timings(report):
        if timing.drops is not None:
            came[topic] = came.get(topic, 0) + timing.messages
            missing[topic] = missing.get(topic, 0) + timing.drops
    return {topic: missing[topic] / max(missing[topic] + came[topic], 1) for topic in came}


def timings(report: ConversionReport) -> Iterator[tuple[int, str, EpisodeTopic]]:
    """Each topic of each episode: (episode, topic, when its messages came)."""
    for index, episode in enumerate(report.each_episode):
        for topic, timing in zip(report.bags[episode.bag].topics, episode.topics, strict=False):
            yield index, topic.topic, timing


def _worst(values: Iterable[_Worst]) -> _Worst:
    return max(values, key=lambda worst: worst.value, default=_Worst(0.0, "nothing to measure"))


def _worst_timing(report: ConversionReport, action_topic: str, name: str) -> _Worst:
    return _worst(
        _Worst(value, f"{topic} in episode {index}", index)
        for index, topic, timing in timings(report)
        if topic != action_topic and (value := getattr(timing, name)) is not None
    )


def _jump(action: NumberReport) -> _Worst:
    assert action.lower is not None
    assert action.upper is not None
    at = action.largest_jump_at
    place = "" if at is None else f", episode {at.episode}, step {at.step}"
    return _Worst((action.largest_jump or 0.0) / (action.upper - action.lower), f"{action.name}{place}")


def _dead(report: ConversionReport) -> list[str]:
    return [number.name for number in report.observations if number.dead]


def _about_bags(report: ConversionReport) -> Iterator[Finding]:
    if report.skipped:
        read = len(report.bags) + len(report.skipped)
        yield Finding("remark", f"{len(report.skipped)} of {read} bags cannot be used and were skipped; see below why.")


def _about_label_topics(report: ConversionReport) -> Iterator[Finding]:
    """Of the topics that reward or success comes from, those first whose messages lie in no step of a bag."""
    uses: dict[tuple[str, str], list[tuple[BagReport, SignalUse]]] = {}
    for bag in report.bags:
        for use in bag.labels:
            uses.setdefault((use.topic, use.says), []).append((bag, use))
    for (topic, says), each in uses.items():
        if unheard := [(bag, use) for bag, use in each if use.messages and not use.in_steps]:
            (bag, use), what = unheard[0], "rewards are 0" if says == "reward" else "steps are not solved"
            yield Finding(
                "remark",
                f"NONE of the messages of {topic} lies in a step in {_of_bags(unheard, each)}, so that all {what} "
                f"there: by clock {use.clock} they are from {use.start_ns / NANOSECONDS:.3f} to "
                f"{use.end_ns / NANOSECONDS:.3f} s, and the observations begin at {bag.start_ns / NANOSECONDS:.3f} s. "
                "Is that the same clock?",
            )
        if empty := [(bag, use) for bag, use in each if not use.messages]:
            yield Finding("remark", f"No message of {topic}, which {says} comes from, in {_of_bags(empty, each)}.")
    for (topic, _), each in uses.items():
        heard = [use for _, use in each if use.in_steps]
        messages, outside = sum(use.messages for use in heard), sum(use.messages - use.in_steps for use in heard)
        if outside > _UNHEARD * messages:
            yield Finding("remark", f"{outside} of {messages} messages of {topic} lie outside all steps.")


def _of_bags(some: Sequence[tuple[BagReport, SignalUse]], all_bags: Sequence[tuple[BagReport, SignalUse]]) -> str:
    first = some[0][0].path
    return first if len(all_bags) == 1 else f"{len(some)} of {_count(len(all_bags), 'bag')}, the first is {first}"


def _about_labels(report: ConversionReport) -> Iterator[Finding]:
    if report.solved_steps == 0:
        yield Finding("remark", "No step solves the task: is the success rule right, and in the data's units?")
    elif all(episode.solved_steps == episode.steps for episode in report.each_episode):
        yield Finding("remark", "Every step solves the task: is the success rule right?")
    if len(report.rewards) == 1:
        yield Finding("remark", f"Every step has the reward {next(iter(report.rewards))}: nothing tells good from bad.")
    if report.dropped_share > _DROPPED:
        yield Finding(
            "remark", f"{_percent(report.dropped_share)} of the steps lie in episodes that were dropped; see below why."
        )
    for bag in report.bags:
        if bag.episodes == 0:
            yield Finding("remark", f"{bag.path} gave no episode.")


def _about_topics(report: ConversionReport) -> Iterator[Finding]:
    for topic, share in drop_shares(report).items():
        if share > _DROPS:
            yield Finding("remark", f"{topic}: {_percent(share)} of its messages are missing, going by its own rate.")
    offsets: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for bag in report.bags:
        for seen in bag.topics:
            if seen.offset_s is not None:
                offsets.setdefault(seen.topic, []).append(seen.offset_s)
            if seen.rate_hz is not None and seen.median_age_s is not None:
                rates.setdefault(seen.topic, []).append(seen.rate_hz)
    for topic, values in offsets.items():
        worst = max(values, key=abs)
        if abs(worst) > _OFFSET_S:
            when = "after" if worst > 0 else "before"
            yield Finding(
                "remark",
                f"{topic}: received {abs(worst):.3g} s {when} its stamps say: do the clocks of its driver and of the "
                "recorder agree?",
            )
    for topic, values in rates.items():
        if max(values) > (1 + _RATES_APART) * min(values):
            yield Finding("remark", f"{topic}: {min(values):.4g} Hz in one bag and {max(values):.4g} Hz in another.")


def _about_numbers(report: ConversionReport) -> Iterator[Finding]:
    if dead := _dead(report):
        yield Finding("remark", f"Never change in the whole dataset: {', '.join(dead)}. Dead, or not needed?")
    for number in report.observations:
        if number.stuck_episodes:
            count = len(number.stuck_episodes)
            yield Finding(
                "remark",
                f"{number.name} is stuck at one value in {_count(count, 'episode')} of {report.episodes}, and moves in "
                f"the others; the first is episode {number.stuck_episodes[0]}.",
                number.stuck_episodes[0],
            )
        low, high = number.quantiles[0], number.quantiles[-1]
        reach = _SPIKE * (high - low)
        for value, at in ((number.minimum, number.minimum_at), (number.maximum, number.maximum_at)):
            if at is not None and high > low and not low - reach <= value <= high + reach:
                yield Finding(
                    "remark",
                    f"{number.name} is {value:.4g} {number.unit} in episode {at.episode} at observation {at.step}, and "
                    f"mostly between {low:.4g} and {high:.4g}: a spike?",
                    at.episode,
                )


def _about_actions(report: ConversionReport) -> Iterator[Finding]:
    for action in report.actions:
        if (action.share_outside_limits or 0.0) > 0:
            yield Finding(
                "remark",
                f"{action.name}: {_percent(action.share_outside_limits or 0.0)} of the commands are outside the "
                f"contract's limits ({action.minimum:.4g} to {action.maximum:.4g}, limits {action.lower:g} to "
                f"{action.upper:g}); training clips them.",
            )
        elif (action.share_at_limits or 0.0) > _SATURATED:
            yield Finding(
                "remark", f"{action.name} is at a limit in {_percent(action.share_at_limits or 0.0)} of the steps."
            )
        jump = _jump(action)
        if jump.value > _WHOLE_RANGE and action.largest_jump_at is not None:
            at = action.largest_jump_at
            yield Finding(
                "remark",
                f"{action.name} changes by {_percent(jump.value)} of its range within one step (episode {at.episode}, "
                f"step {at.step}).",
                at.episode,
            )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
