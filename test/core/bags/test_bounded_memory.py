"""A conversion's memory does not grow with the messages, also where one topic is silent while the others go on.

What is let go for that changes no result where messages come in order, and is counted where they come too late.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import merge
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_stream import COMMAND, HOLD, JOINT_STATES, POSE, Cut, Sent, cut, message, regular, stream_contract
from synthetic import START_NS

from rql_core.bags import distribution, episodes
from rql_core.bags.episodes import EpisodeCutter

MS = 1_000_000
LIMITS = ("_TIDY_MESSAGES", "_MOST_TICKS", "_MOST_SAMPLES", "_MOST_CHUNKS")
NONE = (2**40,) * 4
PERIODS_MS = {JOINT_STATES: 10.0, POSE: 25.0, COMMAND: 50.0}
ALWAYS = [(0, 20_000)]


def stream(spans: dict[str, list[tuple[int, int]]], late_ms: Iterable[float] = (0.0, 0.0, 0.0)) -> list[Sent]:
    """Topics that speak only within their spans (ms), each so late, by time of receipt."""
    return sorted(
        chain.from_iterable(
            regular(topic, PERIODS_MS[topic], begin, end, late)
            for (topic, each), late in zip(spans.items(), late_ms, strict=True)
            for begin, end in each
        )
    )


def cut_with(limits: tuple[int, ...], contract: Any, sent: list[Sent], markers: Iterable[int] = ()) -> Cut:
    """What is cut where no more than this is kept: messages until it is looked after, ticks, samples, chunks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(LIMITS, limits, strict=True):
            patch.setattr(episodes, name, value)
        return cut(contract, sent, markers)


def all_of(made: Cut) -> list[Any]:
    cutter = made.cutter
    timing = cutter.timing
    return [made.facts(), cutter.counts, cutter.cuts, cutter.too_short, timing.topics(), timing.episodes()]


def spans() -> st.SearchStrategy[list[tuple[int, int]]]:
    """When a topic speaks: up to four times within 20 s, or always."""
    times = st.lists(st.integers(0, 80), min_size=2, max_size=8, unique=True).map(sorted)
    return st.one_of(
        st.just(ALWAYS), times.map(lambda each: [(250 * a, 250 * b) for a, b in list(pairwise(each))[::2]])
    )


alignments = st.sampled_from(
    [HOLD, "{method: nearest, tolerance: 0.06}", "{method: linear, tolerance: 0.3}", "{method: hold, max_age: 0.4}"]
)


@given(
    spoken=st.fixed_dictionaries({topic: spans() for topic in PERIODS_MS}),
    late=st.tuples(*[st.integers(0, 100)] * 3),
    joints=alignments,
    pose=alignments,
    cuts=st.sampled_from(["", "{by: gap, seconds: 1.0, end: terminal}"]),
    bag_end=st.sampled_from(["truncation", "terminal"]),
    markers=st.lists(st.integers(0, 20_000), max_size=5),
    limits=st.tuples(st.integers(1, 50), st.integers(14, 40), st.integers(150, 600), st.integers(16, 60)),
)
@settings(max_examples=60, deadline=None)
def test_what_is_let_go_changes_nothing_where_messages_come_in_order(
    spoken: dict[str, list[tuple[int, int]]],
    late: tuple[int, ...],
    joints: str,
    pose: str,
    cuts: str,
    bag_end: str,
    markers: list[int],
    limits: tuple[int, ...],
) -> None:
    cut_at = "cuts: [{by: time_limit, seconds: 5.0, end: truncation}]"
    changes = ("{by: bag}", f"{{by: bag, end: {bag_end}}}"), (cut_at, f"cuts: [{cuts}]")
    contract = stream_contract(*changes, joints=joints, pose=pose)
    sent = stream(spoken, late)
    times = [START_NS + at * MS for at in markers]
    assert all_of(cut_with(limits, contract, sent, times)) == all_of(cut_with(NONE, contract, sent, times))


@pytest.mark.parametrize("silent", PERIODS_MS)
def test_a_silent_topic_is_waited_for_within_the_bound(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case that the property above is about, where it is known that something was let go."""
    spoken = {topic: [(0, 2_000), (15_000, 20_000)] if topic == silent else ALWAYS for topic in PERIODS_MS}
    limits = (20, 20, 200, 20)
    for name, value in zip(LIMITS, limits, strict=True):
        monkeypatch.setattr(episodes, name, value)
    cutter = EpisodeCutter(stream_contract())
    kept = 0
    for sent in stream(spoken):
        cutter.push(sent.topic, message(sent), sent.receive_ns)
        kept = max(kept, len(cutter._pending), cutter._assembler.waiting()[0], cutter._schedule.waiting()[0])
    assert 20 < kept <= 200 + 20 + 20
    assert all_of(cut_with(limits, stream_contract(), stream(spoken))) == all_of(
        cut_with(NONE, stream_contract(), stream(spoken))
    )


def test_an_observation_that_comes_too_late_is_counted_and_its_ticks_are_missing() -> None:
    # The poses of ten seconds are all received after those of the joints.
    spoken = {topic: [(0, 12_000)] for topic in PERIODS_MS}
    late = delayed(stream(spoken), POSE, 10)
    patient, bounded = cut_with(NONE, stream_contract(), late), cut_with((20, 20, 200, 20), stream_contract(), late)
    assert sum(e.steps for e in patient.episodes) == 12 * 20 - 1
    assert "late" not in patient.cutter.counts
    assert bounded.cutter.counts["late"] > 300
    assert 20 <= sum(e.steps for e in bounded.episodes) < 12 * 20 - 1
    # What is there is as it was: no tick took another message than it would have.
    rows = {row.tobytes() for e in patient.episodes for row in e.observations}
    assert {row.tobytes() for e in bounded.episodes for row in e.observations} <= rows


def test_an_action_that_comes_too_late_is_counted_and_its_steps_are_missing() -> None:
    late = delayed(stream({topic: [(0, 12_000)] for topic in PERIODS_MS}), COMMAND, 10)
    bounded = cut_with((20, 20, 200, 20), stream_contract(), late)
    assert bounded.cutter.counts["action_late"] > 50
    assert bounded.cutter.counts["ticks_without_action"] > 50


def delayed(sent: list[Sent], topic: str, seconds: int) -> list[Sent]:
    """All messages of a topic but those of the first second are received so much later."""
    late = seconds * 10**9
    return sorted(
        replace(each, receive_ns=each.receive_ns + late)
        if each.topic == topic and each.stamp_ns > START_NS + 10**9
        else each
        for each in sent
    )


def endless(silent: str | None, seconds: int) -> Iterator[Sent]:
    """Three topics of 100, 40 and 20 Hz, one of which stops after a second."""
    return merge(
        *(regular(topic, PERIODS_MS[topic], 0, 1000 if topic == silent else 1000 * seconds) for topic in PERIODS_MS)
    )


@pytest.mark.parametrize("silent", [None, *PERIODS_MS])
def test_memory_does_not_grow_with_the_messages(silent: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LIMITS, (1000, 1000, 3000, 1000), strict=True):
        monkeypatch.setattr(episodes, name, value, raising=False)
    monkeypatch.setattr(distribution, "EXACT", 1000)
    cutter = EpisodeCutter(stream_contract(("seconds: 5.0", "seconds: 50")))
    kept = []
    tracemalloc.start()
    try:
        for number, sent in enumerate(endless(silent, 250)):
            cutter.push(sent.topic, message(sent), sent.receive_ns)
            cutter.take()
            if number % 1_499 == 0:
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
        cutter.finish()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        cutter.timing.topics()
        cutter.timing.episodes()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    half = len(kept) // 2
    assert half >= 5
    # What waits goes up and down within its bound; in twice the time it is not more.
    assert max(kept[half:]) < 1.1 * max(kept[:half]) + 50_000, kept
    assert peak - before < 300_000
