"""Where episodes end, and what it means: what the contract says, and a truncation where something was missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import synthetic

from rql_core.bags import BagWriter, convert
from rql_core.bags.episodes import Episode, EpisodeCutter
from rql_core.contract import parse_contract
from rql_core.contract.episode_schema import End
from rql_core.data.minari_io import load_dataset
from rql_core.errors import BagError

MARKER = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
POSE, COMMAND = "/tool_pose", "/command"
GAP = "{by: gap, seconds: 0.5, end: terminal}"
RESET = "{by: reset, topic: /reset, type: std_msgs/msg/Empty, clock: receive, end: terminal}"
LIMIT = "{by: time_limit, seconds: 0.5, end: truncation}"


def text_of(*cuts: str, boundary: str = "{by: bag}", changes: Sequence[tuple[str, str]] = ()) -> str:
    listed = f"boundary: {boundary}\n  cuts: [{', '.join(cuts)}]"
    return synthetic.contract_text((MARKER, listed), *changes)


def cut(
    text: str,
    recording: synthetic.Recording,
    *,
    markers: Sequence[int] = (),
    resets: Sequence[tuple[int, End]] = (),
) -> list[Episode]:
    """The episodes of a recording; markers and resets as ns after its start."""
    cutter = EpisodeCutter(
        parse_contract(text),
        [synthetic.START_NS + at for at in markers],
        [(synthetic.START_NS + at, end) for at, end in resets],
    )
    for topic, stamp, message in sorted(recording.messages, key=lambda m: m[1]):
        if topic != "/episode":
            cutter.push(topic, message, stamp)
    cutter.finish()
    return cutter.take()


def ends(episodes: Sequence[Episode]) -> list[tuple[int, str, bool]]:
    """(steps, why, terminal) of each; the masks say the same as `terminal`."""
    for episode in episodes:
        assert episode.masks[:-1].all()
        assert (episode.masks[-1] == 0) == episode.terminal
    return [(episode.steps, episode.cut, episode.terminal) for episode in episodes]


def ticks(number: float) -> int:
    """So many control periods, in ns."""
    return round(number * synthetic.PERIOD_NS)


@pytest.mark.parametrize("end", ["terminal", "truncation"])
def test_the_end_of_a_bag_means_what_the_contract_says(end: str) -> None:
    recording = synthetic.record(20)
    assert ends(cut(text_of(boundary=f"{{by: bag, end: {end}}}"), recording)) == [(19, "end of bag", end == "terminal")]


def test_without_a_word_about_it_every_end_truncates() -> None:
    recording = synthetic.record(20)
    marker = "{by: marker, topic: /episode, type: std_msgs/msg/Header}"
    episodes = cut(text_of(boundary=marker), recording, markers=[0, ticks(10)])
    assert ends(episodes) == [(9, "marker", False), (9, "end of bag", False)]


def test_an_episode_may_end_in_a_terminal_at_the_next_marker_but_not_where_the_bag_does() -> None:
    marker = "{by: marker, topic: /episode, type: std_msgs/msg/Header, end: terminal}"
    episodes = cut(text_of(boundary=marker), synthetic.record(20), markers=[0, ticks(10)])
    assert ends(episodes) == [(9, "marker", True), (9, "end of bag", False)]


@pytest.mark.parametrize("end", ["terminal", "truncation"])
def test_a_reset_ends_an_episode_before_the_tick_that_it_falls_on(end: End) -> None:
    recording = synthetic.record(30)
    for at in (ticks(9.01), ticks(10)):
        episodes = cut(text_of(RESET), recording, resets=[(at, end)])
        assert ends(episodes) == [(9, "reset", end == "terminal"), (19, "end of bag", False)]
        np.testing.assert_array_equal(episodes[0].observations, recording.observations[:10])
        np.testing.assert_array_equal(episodes[1].observations, recording.observations[10:])


def test_of_several_events_the_first_after_the_last_observation_ends_the_episode() -> None:
    marker = "{by: marker, topic: /episode, type: std_msgs/msg/Header, end: truncation}"
    text = text_of(RESET, boundary=marker)
    for reset, marked, why, terminal in ((9.2, 9.4, "reset", True), (9.4, 9.2, "marker", False), (9, 9, "reset", True)):
        episodes = cut(text, synthetic.record(20), markers=[0, ticks(marked)], resets=[(ticks(reset), "terminal")])
        assert ends(episodes)[0] == (9 if reset != 9 else 8, why, terminal)


def without(recording: synthetic.Recording, first: int, last: int) -> synthetic.Recording:
    """The recording without tool poses at these ticks; max_age lets the last one before serve two ticks more."""
    recording.drop(POSE, range(first, last + 1))
    return recording


@pytest.mark.parametrize(
    ("last_missing", "expected"),
    [
        # The tool is seen at tick 9, is old enough to serve 10 and 11, and comes back the tick after the last missing.
        (19, (11, "no /tool_pose", False)),
        (20, (11, "gap", True)),
        (25, (11, "gap", True)),
    ],
)
def test_a_gap_ends_an_episode_as_the_contract_says_only_where_it_is_long(
    last_missing: int, expected: tuple[int, str, bool]
) -> None:
    episodes = cut(text_of(GAP), without(synthetic.record(40), 10, last_missing))
    assert ends(episodes)[0] == expected
    assert ends(episodes)[1] == (40 - last_missing - 2, "end of bag", False)
    assert episodes[1].start_ns == synthetic.START_NS + ticks(last_missing + 1)


def test_a_gap_that_nothing_is_seen_after_truncates() -> None:
    recording = without(synthetic.record(40), 10, 24)
    recording.drop("/joint_states", range(25, 40))
    text = text_of(GAP, boundary="{by: bag, end: terminal}")
    assert ends(cut(text, recording)) == [(11, "no /tool_pose", False)]


def test_a_reset_counts_only_if_nothing_was_missed_before_it() -> None:
    text = text_of(RESET)
    recording = without(synthetic.record(40), 10, 20)
    # The last observation is that of tick 11: a reset before tick 12 ended it, one after 12 came when nobody looked.
    assert ends(cut(text, recording, resets=[(ticks(11.5), "terminal")]))[0] == (11, "reset", True)
    assert ends(cut(text, recording, resets=[(ticks(12.5), "terminal")]))[0] == (11, "no /tool_pose", False)
    assert ends(cut(text, recording, resets=[(ticks(11.5), "truncation")]))[0] == (11, "reset", False)


def test_an_event_after_the_last_observation_of_a_bag_ends_the_episode() -> None:
    for reset, boundary in (("terminal", "truncation"), ("truncation", "terminal")):
        text = text_of(RESET, boundary=f"{{by: bag, end: {boundary}}}")
        for at, expected in (
            (19.5, ("reset", reset == "terminal")),
            (20.5, ("end of bag", boundary == "terminal")),  # tick 20 would have come before it
        ):
            episodes = cut(text, synthetic.record(20), resets=[(ticks(at), reset)])
            assert ends(episodes) == [(19, *expected)]


def test_of_an_event_and_a_gap_after_it_the_event_ends_the_episode() -> None:
    marker = "{by: marker, topic: /episode, type: std_msgs/msg/Header, end: truncation}"
    # The last observation is that of tick 11; the gap, which would be a terminal, begins after the marker.
    episodes = cut(text_of(GAP, boundary=marker), without(synthetic.record(60), 10, 39), markers=[0, ticks(11.5)])
    assert ends(episodes) == [(11, "marker", False), (19, "end of bag", False)]


def test_a_message_from_before_a_reset_is_not_held_after_it() -> None:
    recording = synthetic.record(40)
    recording.drop(POSE, range(1, 40, 2))
    episodes = cut(text_of(RESET), recording, resets=[(ticks(10.5), "truncation")])
    # At tick 11 the newest pose is that of tick 10: where the tool was before the robot was put somewhere else.
    assert ends(episodes) == [(10, "reset", False), (26, "end of bag", False)]
    assert episodes[1].start_ns == recording.stamp(12)
    np.testing.assert_array_equal(episodes[1].observations[0], recording.observations[12])


def test_a_time_limit_cuts_and_the_next_episode_begins_with_the_last_observation() -> None:
    recording = synthetic.record(25)
    episodes = cut(text_of(LIMIT), recording)
    assert ends(episodes) == [(10, "time limit", False), (10, "time limit", False), (4, "end of bag", False)]
    for number, episode in enumerate(episodes):
        first = 10 * number
        np.testing.assert_array_equal(episode.observations, recording.observations[first : first + episode.steps + 1])
        np.testing.assert_allclose(episode.actions, recording.actions[first : first + episode.steps])
        assert episode.start_ns == recording.stamp(first)
        assert episode.end_ns == recording.stamp(first + episode.steps)
    assert ends(cut(text_of(LIMIT.replace("truncation", "terminal")), recording))[0] == (10, "time limit", True)


def test_a_time_limit_counts_from_the_start_of_each_episode() -> None:
    marker = "{by: marker, topic: /episode, type: std_msgs/msg/Header, end: truncation}"
    episodes = cut(text_of(LIMIT, boundary=marker), synthetic.record(30), markers=[0, ticks(7)])
    assert [(steps, why) for steps, why, _ in ends(episodes)] == [
        *((6, "marker"), (10, "time limit"), (10, "time limit"), (2, "end of bag"))
    ]


def test_commands_that_stop_truncate_even_where_the_end_of_the_bag_is_a_terminal() -> None:
    recording = synthetic.record(20)
    recording.drop(COMMAND, range(15, 20))
    text = text_of(boundary="{by: bag, end: terminal}")
    assert ends(cut(text, recording)) == [(15, "no action in force", False)]


@pytest.mark.parametrize("topics", [[POSE], [POSE, "/joint_states"]])
def test_a_topic_that_falls_silent_before_the_end_of_the_bag_truncates(topics: list[str]) -> None:
    recording = synthetic.record(40)
    for topic in topics:
        recording.drop(topic, range(20, 40))
    text = text_of(boundary="{by: bag, end: terminal}")
    assert ends(cut(text, recording)) == [(19, "no " + ", ".join(reversed(topics)), False)]
    # Topics do not end at the same moment: what max_age allows is no silence.
    recording = synthetic.record(22)
    for topic in topics:
        recording.drop(topic, range(20, 22))
    assert ends(cut(text, recording))[0][1:] == ("end of bag", True)


def test_differences_do_not_reach_across_a_reset() -> None:
    feature = "fields: [pose.position.x, pose.position.y, pose.position.z]}"
    moved = "\n        - {name: moved, unit: m, fields: [pose.position.x], difference: true}"
    text = text_of(RESET, changes=[(feature, feature + moved)])
    recording = synthetic.record(20)
    episodes = cut(text, recording, resets=[(ticks(10), "truncation")])
    assert ends(episodes) == [(8, "reset", False), (8, "end of bag", False)]
    x = recording.tool[:, 0]
    for episode, first in zip(episodes, (1, 11), strict=True):
        np.testing.assert_allclose(episode.observations[:, 7], np.diff(x)[first - 1 : first + 8], atol=1e-6)


def test_resets_in_a_bag_are_found_by_the_conversion(tmp_path: Path) -> None:
    recording = synthetic.record(30, markers=())
    empty = synthetic.TYPES.types["std_msgs/msg/Empty"]()
    contract = tmp_path / "contract.yaml"
    contract.write_text(text_of(RESET, GAP))
    with BagWriter(tmp_path / "bag", "mcap") as writer:
        writer.add_topic("/reset", "std_msgs/msg/Empty")
        synthetic.fill(writer, recording)
        writer.write("/reset", recording.stamp(12) - 1000, synthetic.TYPES.serialize_cdr(empty, "std_msgs/msg/Empty"))
    report = convert(tmp_path / "bag", contract, tmp_path / "arm-v0", progress=False)
    data = load_dataset(tmp_path / "arm-v0")[0]
    assert data.lengths.tolist() == [11, 17]
    assert np.flatnonzero(data.masks == 0).tolist() == [10]
    assert (report.terminal_episodes, report.bags[0].cuts) == (1, {"end of bag": 1, "reset": 1})
    synthetic.record(30).write(tmp_path / "other")
    with pytest.raises(BagError, match=r"topic /reset \(std_msgs/msg/Empty\) is not in the bag"):
        convert(tmp_path / "other", contract, tmp_path / "other-v0", progress=False)


def test_an_end_that_is_terminal_is_no_success(tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text(text_of(boundary="{by: bag, end: terminal}"))
    bag = synthetic.record(20, markers=()).write(tmp_path / "bag", leave_out=["/episode"])
    report = convert(bag, contract, tmp_path / "arm-v0", progress=False)
    assert load_dataset(tmp_path / "arm-v0")[0].masks[-1] == 0
    assert (report.terminal_episodes, report.episodes_with_success, report.solved_steps) == (1, 0, 0)
    assert "No step solves the task" in report.text()


def test_a_reset_without_a_stamp_is_refused(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    reset = RESET.replace("std_msgs/msg/Empty, clock: receive", "std_msgs/msg/Header, clock: header")
    contract = tmp_path / "contract.yaml"
    contract.write_text(text_of(reset.replace("/reset", "/episode")))
    recording.add("/episode", recording.stamp(3), synthetic.header(0))
    recording.write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"0\.150 s from the bag's start .*/episode: stamp is 0 ns"):
        convert(tmp_path / "bag", contract, tmp_path / "arm-v0", progress=False)


def test_a_clock_that_is_set_back_before_a_reset_and_begins_with_a_gap_is_no_error() -> None:
    recording, again = synthetic.record(40), synthetic.record(40)
    again.drop(POSE, [0, 1, 2, 3, 4, 5, 6])
    cutter = EpisodeCutter(parse_contract(text_of(RESET)), (), [(synthetic.START_NS + ticks(10), "terminal")])
    for messages in (recording.messages, again.messages):
        for topic, stamp, message in sorted(messages, key=lambda m: m[1]):
            if topic != "/episode":
                cutter.push(topic, message, stamp)
    cutter.finish()
    assert ends(cutter.take())[:2] == [(9, "reset", True), (29, "clock jump", False)]
    assert cutter.counts["clock_jump"] > 0
