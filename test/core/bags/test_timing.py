"""Rates, pauses, ages and offsets are what numpy says of all stamps at once, though the stamps are not kept."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_stream import COMMAND, JOINT_STATES, MS, POSE, TOPICS, Cut, Sent, cut, stream_contract
from synthetic import PERIOD_NS, START_NS

from rql_core.bags import distribution, episodes, timing
from rql_core.bags.distribution import Distribution
from rql_core.bags.timing import BagTiming, EpisodeTopic, TopicReport

Int64 = npt.NDArray[np.int64]
MAX_AGE_NS = 100 * MS


@pytest.fixture(params=["as they come", "in small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether much is summed up at once or little."""
    if request.param == "in small pieces":
        monkeypatch.setattr(episodes, "_TIDY_MESSAGES", 37)


def jittered(seconds: float, seed: int, losses: float = 0.02) -> list[Sent]:
    """Three topics of 100, 40 and 20 Hz with jitter, delays and losses, by time of receipt."""
    rng = np.random.default_rng(seed)
    messages = []
    for topic, period, late in ((JOINT_STATES, 10 * MS, 2), (POSE, 25 * MS, 30), (COMMAND, 50 * MS, 3)):
        stamps = START_NS + np.arange(0, round(seconds * 1e9), period)
        stamps = stamps + rng.integers(0, period // 3, len(stamps))
        delays = np.sort(rng.gamma(2.0, late * MS / 2, len(stamps)).astype(np.int64).clip(0, period // 2))
        kept = rng.random(len(stamps)) >= (0.0 if topic == COMMAND else losses)
        messages += [
            Sent(int(s + d), int(s), topic) for s, d in zip(stamps[kept], rng.permutation(delays)[kept], strict=True)
        ]
    return sorted(messages)


def percentile(values: Int64, which: float) -> float | None:
    return float(np.percentile(values, which)) / 1e9 if len(values) else None


def drops(periods: Int64, usual: float) -> int:
    long = periods[periods > 1.5 * usual]
    return int((np.rint(long / usual) - 1).sum())


def of(sent: list[Sent], topic: str) -> tuple[Int64, Int64]:
    """Stamps and delays of a topic, as they came."""
    mine = [each for each in sent if each.topic == topic]
    stamps = np.array([each.stamp_ns for each in mine], dtype=np.int64)
    return stamps, np.array([each.receive_ns for each in mine], dtype=np.int64) - stamps


def ages_at_ticks(sent: list[Sent], starts: Sequence[int]) -> tuple[Int64, dict[str, Int64]]:
    """The ticks at which both observation topics are there, since the last start, and how old they are."""
    stamps = {topic: of(sent, topic)[0] for topic in (JOINT_STATES, POSE)}
    first = -(-min(int(each[0]) for each in stamps.values()) // PERIOD_NS) * PERIOD_NS
    ticks = np.arange(first, min(int(each[-1]) for each in stamps.values()) + 1, PERIOD_NS)
    ages = {}
    for topic, each in stamps.items():
        at = np.searchsorted(each, ticks, side="right") - 1
        since = np.searchsorted(sorted(starts), each[at], side="right") == np.searchsorted(
            sorted(starts), ticks, side="right"
        )
        ages[topic] = np.where((at >= 0) & since, ticks - each[at], 10 * MAX_AGE_NS)
    there = np.all([each <= MAX_AGE_NS for each in ages.values()], axis=0)
    return ticks[there], {topic: each[there] for topic, each in ages.items()}


def expected_topic(sent: list[Sent], topic: str, starts: Sequence[int] = ()) -> TopicReport:
    stamps, delays = of(sent, topic)
    periods = np.diff(stamps)
    periods = periods[periods > 0]
    ages = ages_at_ticks(sent, starts)[1].get(topic)
    low, high = np.percentile(delays, [5, 95])
    usual = float(np.median(periods))
    return TopicReport(
        topic,
        len(stamps),
        1e9 / usual,
        periods.max() / 1e9,
        None if ages is None else percentile(ages, 50),
        None if ages is None else percentile(ages, 100),
        None if ages is None else percentile(ages, 95),
        None if ages is None else drops(periods, usual),
        percentile(delays, 50),
        (high - low) / 1e9,
    )


def expected_episode(
    sent: list[Sent], topic: str, start_ns: int, end_ns: int, starts: Sequence[int] = ()
) -> EpisodeTopic:
    stamps, delays = of(sent, topic)
    whole = np.diff(stamps)
    order = np.argsort(stamps, kind="stable")
    stamps, delays = stamps[order], delays[order]
    in_force = max(int((stamps <= start_ns).sum()) - 1, 0)
    last = int((stamps <= end_ns).sum())
    periods = np.diff(stamps[in_force:last])
    periods = periods[periods > 0]
    ticks, ages = ages_at_ticks(sent, starts)
    mine = ages[topic][(ticks >= start_ns) & (ticks <= end_ns)] if topic in ages else None
    return EpisodeTopic(
        last - in_force,
        1e9 / float(np.median(periods)) if len(periods) else None,
        periods.max() / 1e9 if len(periods) else None,
        None if mine is None else drops(periods, float(np.median(whole[whole > 0]))),
        None if mine is None else percentile(mine, 50),
        None if mine is None else percentile(mine, 95),
        percentile(delays[in_force:last], 50),
    )


def same(found: TopicReport | EpisodeTopic, expected: TopicReport | EpisodeTopic) -> None:
    for name, value in vars(expected).items():
        if value is None or name == "topic":
            assert getattr(found, name) == value, (name, expected)
        else:
            assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-12), (name, expected)


def check(made: Cut, sent: list[Sent], starts: Sequence[int] = ()) -> None:
    """All figures of the bag and of each episode."""
    for topic, report in zip(TOPICS, made.cutter.timing.topics(), strict=True):
        same(report, expected_topic(sent, topic, starts))
    reports = made.cutter.timing.episodes()
    assert len(reports) == len(made.episodes)
    for episode, topics in zip(made.episodes, reports, strict=True):
        for topic, found in zip(TOPICS, topics, strict=True):
            same(found, expected_episode(sent, topic, episode.start_ns, episode.end_ns, starts))


def test_figures_are_those_of_all_stamps_at_once(pieces: None) -> None:
    sent = jittered(60, seed=0, losses=0.25)
    made = cut(stream_contract(), sent)
    assert len(made.episodes) > 12
    assert {episode.cut for episode in made.episodes} >= {"time limit", "no /tool_pose"}
    assert made.cutter.timing.topics()[0].drops > 50  # type: ignore[operator]
    check(made, sent)


def test_figures_of_more_than_is_kept_are_near(pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "EXACT", 100)
    sent = jittered(60, seed=0, losses=0.1)
    made = cut(stream_contract(("seconds: 5.0", "seconds: 500")), sent)
    assert max(episode.steps for episode in made.episodes) > 400
    found = [(report, expected_topic(sent, report.topic)) for report in made.cutter.timing.topics()]
    for episode, topics in zip(made.episodes, made.cutter.timing.episodes(), strict=True):
        span = episode.start_ns, episode.end_ns
        found += [
            (topic, expected_episode(sent, name, *span))  # type: ignore[misc]
            for name, topic in zip(TOPICS, topics, strict=True)
        ]
    inexact = 0
    for report, expected in found:
        for name, value in vars(expected).items():
            near = getattr(report, name)
            if name in ("messages", "messages_used", "longest_period_s", "longest_gap_s", "longest_age_s"):
                assert near == value
            elif name != "topic" and value is not None:
                # No number here is further from the median than ten times itself, plus a delay of some ms.
                assert near == pytest.approx(value, rel=0.01, abs=1e-4), (name, expected)
                inexact += near != pytest.approx(value, rel=1e-9, abs=1e-12)
    assert inexact > 0


@pytest.mark.parametrize("seed", range(5))
def test_figures_hold_for_one_long_episode_and_for_many_markers(pieces: None, seed: int) -> None:
    sent = jittered(20, seed=seed, losses=0.0)
    contract = stream_contract(("seconds: 5.0", "seconds: 500"))
    check(cut(contract, sent), sent)
    markers = [START_NS + round(at * 1e9) for at in np.random.default_rng(seed).uniform(0, 20, 30)]
    made = cut(contract, sent, markers)
    assert len(made.episodes) > 10
    check(made, sent, markers)


def test_what_lies_between_two_episodes_is_charged_to_none(pieces: None) -> None:
    sent = jittered(30, seed=3, losses=0.0)
    # Ten seconds without a pose, and without a command before that: no episode, though the joints go on.
    silent = [s for s in sent if s.topic == JOINT_STATES or not 8e9 < s.stamp_ns - START_NS < 18e9]
    made = cut(stream_contract(), silent)
    assert not any(8.2e9 < e.end_ns - START_NS < 18e9 for e in made.episodes)
    check(made, silent)


def test_topics_are_summed_up_by_their_stamps() -> None:
    # 100 ms apart, but for one that is 300 ms after the one before it: two are missing.
    report = summed([0, 100, 200, 500, 600, 700], [5, 5, 5, 5, 5, 25], [0, 10, 20, 30]).topics()[0]
    assert report.rate_hz == pytest.approx(10.0)
    assert report.longest_period_s == pytest.approx(0.3)
    assert report.drops == 2
    assert report.median_age_s == pytest.approx(0.015)
    assert report.longest_age_s == pytest.approx(0.03)
    assert report.p95_age_s == pytest.approx(0.0285)
    assert report.offset_s == pytest.approx(0.005)
    assert report.offset_spread_s == pytest.approx(0.015)
    silent = BagTiming(["/t"], []).topics()[0]
    assert (silent.messages_used, silent.rate_hz, silent.drops, silent.offset_s) == (0, None, None, None)


def summed(stamps_ms: list[int], delays_ms: list[int], ages_ms: list[int]) -> BagTiming:
    made = BagTiming(["/t"], ["/t"])
    made.stamps["/t"] += array("q", [t * MS for t in stamps_ms])
    made.delays["/t"] += array("q", [t * MS for t in delays_ms])
    made.ticks += array("q", [t * 100 * MS for t in range(len(ages_ms))])
    made.ages["/t"] += array("q", [t * MS for t in ages_ms])
    return made


def test_an_episode_is_charged_with_its_own_pauses_and_ages_alone() -> None:
    made = summed([0, 100, 200, 500, 600, 700, 1500, 1600], [1, 1, 1, 9, 9, 9, 9, 9], [0, 1, 2, 3, 4, 5, 6, 7])
    made.close((100 * MS, 200 * MS))
    made.close((210 * MS, 700 * MS))
    ((first,), (second,)) = made.episodes()
    assert (first.messages, first.drops, first.longest_gap_s, first.median_age_s) == (2, 0, 0.1, 0.0015)
    # The pause begins with the message in force at the episode's start.
    assert (second.messages, second.drops, second.longest_gap_s) == (4, 2, 0.3)
    assert second.median_age_s == pytest.approx(0.005)
    assert second.offset_s == pytest.approx(0.009)


def test_after_the_clock_was_set_back_an_episode_has_none_of_the_messages_before() -> None:
    sent = jittered(10, seed=1, losses=0.0)
    back = [Sent(s.receive_ns + 10**10, s.stamp_ns, s.topic) for s in sent]
    made = cut(stream_contract(), [*sent, *back])
    topics = made.cutter.timing.episodes()
    half = len(topics) // 2
    assert half > 1
    assert "clock_jump" in made.cutter.counts
    assert [e.messages for e in topics[0]] == [e.messages for e in topics[half]]


@pytest.mark.parametrize("rate_change", [1.0, 3.0])
def test_drops_go_by_the_rate_of_the_whole_bag(rate_change: float) -> None:
    """Also where an episode is so much slower than the others that all its messages but every third are missing."""
    made = BagTiming(["/t"], ["/t"])
    rng = np.random.default_rng(0)
    stamps = np.cumsum(
        np.concatenate([[0], rng.integers(99, 102, 300) * MS, rng.integers(99, 102, 100) * rate_change * MS])
    )
    stamps = stamps.astype(np.int64)
    made.stamps["/t"].frombytes(stamps.tobytes())
    made.delays["/t"].frombytes(np.zeros(401, dtype=np.int64).tobytes())
    made.close((int(stamps[0]), int(stamps[300])))
    made.close((int(stamps[300]), int(stamps[400])))
    usual = float(np.median(np.diff(stamps)))
    assert [topic.drops for (topic,) in made.episodes()] == [0, drops(np.diff(stamps[300:]), usual)]
    assert made.episodes()[1][0].drops == (0 if rate_change == 1.0 else 200)


def test_pauses_without_number_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_MOST_PAUSES", 50)
    made = BagTiming(["/t"], ["/t"])
    rng = np.random.default_rng(0)
    periods = np.where(rng.random(9000) < 0.3, rng.uniform(1.3, 9, 9000), rng.uniform(0.98, 1.02, 9000)) * 10 * MS
    stamps = np.concatenate([[0], np.cumsum(periods)]).astype(np.int64)
    made.stamps["/t"].frombytes(stamps.tobytes())
    made.delays["/t"].frombytes(np.zeros(len(stamps), dtype=np.int64).tobytes())
    made.close((0, int(stamps[-1])))
    ((topic,),) = made.episodes()
    assert topic.drops == pytest.approx(drops(np.diff(stamps), float(np.median(np.diff(stamps)))), rel=0.02)


@given(
    shape=st.sampled_from(["normal", "gamma", "two rates", "constant", "wild", "negative"]),
    size=st.integers(1, 5000),
    piece=st.integers(1, 3000),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_percentiles_of_many_are_near_and_do_not_depend_on_the_pieces(
    shape: str, size: int, piece: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.normal(2e6, 1e5, size),
        "gamma": rng.gamma(0.7, 3e6, size),
        "two rates": rng.choice([1e6, 9e6], size) + rng.normal(0, 1e4, size),
        "constant": np.full(size, 2e6),
        "wild": np.exp(rng.uniform(0, 40, size)),
        "negative": -np.abs(rng.normal(4e11, 1e6, size)),
    }[shape].astype(np.int64)
    few = 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "EXACT", few)
        found, whole = Distribution(), Distribution()
        whole.add(values)
        for begin in range(0, size, piece):
            found.add(values[begin : begin + piece])
    which = [0, 1, 5, 25, 50, 95, 99, 100]
    assert found.percentiles(*which) == whole.percentiles(*which)
    assert (found.count, found.lowest, found.highest) == (size, values.min(), values.max())
    expected = np.percentile(values, which)
    off = np.abs(np.array(found.percentiles(*which)) - expected)
    # At most 1/256 of the distance to the median of the first, of the next number on either side.
    ordered, ranks = np.sort(values), np.array(which) / 100 * (size - 1)
    middle = np.median(values[:few])
    ends = ordered[np.floor(ranks).astype(int)], ordered[np.ceil(ranks).astype(int)]
    reach = np.max(np.abs(np.array(ends) - middle), axis=0)
    assert (off <= (0 if size <= few else reach / 256) + 1e-12 * np.abs(expected)).all()
    assert found.weighted()[1].sum() == size


def test_many_numbers_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    found = Distribution()
    for _ in range(40):
        found.add(np.exp(rng.normal(14, 3, 50_000)).astype(np.int64))
    assert found.count == 2_000_000
    assert len(found.weighted()[0]) < 20_000
