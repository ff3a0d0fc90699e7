"""The report of a conversion says what the recording was like: every fault that is put in is named where it is."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from synthetic import CONTRACT, PERIOD_NS, START_NS, Recording, action_message, contract_text, pose, record

from rql_core.bags import ConversionReport, convert, statistics
from rql_core.bags.episodes import Episode
from rql_core.bags.report import BagReport, Place
from rql_core.bags.statistics import DatasetStatistics, _Sample
from rql_core.cli import main
from rql_core.contract import parse_contract

MS = 1_000_000
QUALITY = (
    "quality: {max_gap: 0.2, max_saturation: 0.5, max_dead_features: 0, max_dropped_share: 0.05, min_episodes: 2}\n"
)


def converted(folder: Path, recording: Recording, text: str = CONTRACT) -> ConversionReport:
    (folder / "contract.yaml").write_text(text)
    recording.write(folder / "bag")
    return convert(folder / "bag", folder / "contract.yaml", folder / "arm-v0", progress=False)


def findings(report: ConversionReport) -> str:
    return "\n".join(each.text for each in report.findings)


def moved(recording: Recording, tool: dict[int, tuple[float, float, float]]) -> None:
    """Put the tool elsewhere at some ticks."""
    recording.drop("/tool_pose", list(tool))
    for tick, xyz in tool.items():
        recording.add("/tool_pose", recording.stamp(tick), pose(recording.stamp(tick), xyz))


def test_faults_of_a_recording_are_found_where_they_are(tmp_path: Path) -> None:
    recording = record(120, (0, 40, 80), seed=1)
    recording.tool[:] = np.random.default_rng(0).uniform(0.1, 0.3, (120, 3))
    recording.tool[60, 1] = 50.0
    recording.tool[:, 2] = 0.25
    recording.tool[80:, 0] = 0.2
    moved(recording, {tick: tuple(recording.tool[tick]) for tick in range(120)})
    report = converted(tmp_path, recording)
    text = findings(report)
    assert "No step solves the task" in text
    assert "Every step has the reward -1" in text
    assert "Never change in the whole dataset: tool_position.pose.position.z." in text
    assert "tool_position.pose.position.x is stuck at one value in 1 episode of 3" in text
    assert "tool_position.pose.position.y is 50 m in episode 1 at observation 20" in text
    numbers = {number.name: number for number in report.observations}
    assert numbers["tool_position.pose.position.z"].dead
    assert numbers["tool_position.pose.position.x"].stuck_episodes == [2]
    assert numbers["tool_position.pose.position.y"].maximum_at is not None
    assert sum(numbers["tool_position.pose.position.y"].histogram) == 120


def test_actions_at_and_past_their_limits_and_their_jumps_are_counted(tmp_path: Path) -> None:
    recording = record(40)
    actions = np.tile([0.0, 1.0], (40, 1))
    actions[10:20, 0] = 2.0  # a tenth of the range in one step, and a quarter of the steps at the limit
    actions[30, 1] = 5.0  # past its limit of 4
    recording.actions[:] = actions
    recording.messages = [message for message in recording.messages if message[0] != "/command"]
    for tick in range(40):
        message = action_message(recording.contract, recording.stamp(tick), actions[tick])
        recording.add("/command", recording.stamp(tick) + 3 * MS, message)
    report = converted(tmp_path, recording)
    shoulder, elbow = report.actions
    assert shoulder.share_at_limits == pytest.approx(10 / 39)
    assert (shoulder.lower, shoulder.upper, shoulder.largest_jump) == (-2.0, 2.0, 2.0)
    assert elbow.share_outside_limits == pytest.approx(1 / 39)
    assert elbow.largest_jump == pytest.approx(4.0)
    assert elbow.largest_jump_at is not None
    assert (elbow.largest_jump_at.episode, elbow.largest_jump_at.step) == (0, 30)
    assert report.each_episode[0].saturated == pytest.approx(11 / 39)
    assert "elbow_joint: 2.56 % of the commands are outside the contract's limits" in findings(report)
    assert "shoulder_joint is at a limit in 25.6 % of the steps" in findings(report)


def test_episodes_carry_their_origin_their_topics_and_what_was_dropped(tmp_path: Path) -> None:
    recording = record(60, (0, 30, 33))
    recording.drop("/tool_pose", [40])
    report = converted(
        tmp_path, recording, contract_text(("min_steps: 2", "min_steps: 5"), ("max_age: 0.1", "max_age: 0.12"))
    )
    assert [episode.steps for episode in report.each_episode] == [29, 26]
    assert [episode.cut for episode in report.each_episode] == ["marker", "end of bag"]
    assert [len(episode.topics) for episode in report.each_episode] == [3, 3]
    pauses = [[topic.longest_gap_s for topic in episode.topics] for episode in report.each_episode]
    assert pauses[0] == pytest.approx([0.05, 0.05, 0.05])
    assert pauses[1] == pytest.approx([0.05, 0.1, 0.05])
    (dropped,) = report.bags[0].dropped
    assert (dropped.steps, dropped.cut, dropped.why) == (2, "marker", "shorter than min_steps 5")
    assert dropped.start_ns == START_NS + 30 * PERIOD_NS
    assert report.dropped_share == pytest.approx(2 / 57)


def test_a_clock_offset_is_measured_and_remarked(tmp_path: Path) -> None:
    recording = record(40)
    recording.messages = [
        (topic, stamp + (250 * MS if topic == "/tool_pose" else 0), message)
        for topic, stamp, message in recording.messages
    ]
    report = converted(tmp_path, recording)
    offsets = {topic.topic: topic.offset_s for topic in report.bags[0].topics}
    assert offsets == pytest.approx({"/joint_states": 0.0, "/tool_pose": 0.25, "/command": 0.003})
    assert "/tool_pose: received 0.25 s after its stamps say" in findings(report)


def test_by_the_receive_clock_there_is_no_offset_to_report(tmp_path: Path) -> None:
    report = converted(tmp_path, record(40), contract_text(("clock: header", "clock: receive")))
    assert [topic.offset_s for topic in report.bags[0].topics] == [None, None, None]


def test_bounds_of_the_contract_are_compared_and_strict_fails_past_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = record(60, (0, 30))
    recording.tool[:, 2] = 0.25
    moved(recording, {tick: tuple(recording.tool[tick]) for tick in range(60)})
    report = converted(tmp_path, recording, CONTRACT + QUALITY)
    assert {bound.name: bound.kept for bound in report.bounds} == {
        "max_gap": True,
        "max_saturation": True,
        "max_dead_features": False,
        "max_dropped_share": True,
        "min_episodes": True,
    }
    assert "PAST BOUND: max_dead_features is 1, its bound is 0: tool_position.pose.position.z" in report.text()
    command = ["convert", str(tmp_path / "bag"), "--contract", str(tmp_path / "contract.yaml"), "--overwrite"]
    assert main([*command, "--out", str(tmp_path / "arm-v1")]) == 0
    assert main([*command, "--out", str(tmp_path / "arm-v2"), "--strict"]) == 1
    assert "past the contract's bounds: max_dead_features is 1, set 0 (tool_position" in capsys.readouterr().err
    # The data and the report are there to be looked at.
    assert (tmp_path / "arm-v2" / "report.html").is_file()
    (tmp_path / "contract.yaml").write_text(CONTRACT + QUALITY.replace("max_dead_features: 0", "max_dead_features: 1"))
    assert main([*command, "--out", str(tmp_path / "arm-v3"), "--strict"]) == 0


@pytest.mark.parametrize(
    ("bound", "kept"),
    [
        ("max_gap: 0.06", True),
        ("max_gap: 0.04", False),
        ("max_age_p95: 0.001", True),
        ("max_drops: 0.0", True),
        ("max_clock_offset: 0.0031", True),
        ("max_clock_offset: 0.0029", False),
        ("max_outside_limits: 0.0", True),
        ("max_jump: 0.001", False),
        ("max_jump: 1.0", True),
        ("max_outliers: 0.0", True),
        ("min_episodes: 3", False),
    ],
)
def test_each_bound_can_be_kept_and_broken(tmp_path: Path, bound: str, kept: bool) -> None:
    report = converted(tmp_path, record(60, (0, 30)), f"{CONTRACT}quality: {{{bound}}}\n")
    assert [each.kept for each in report.bounds] == [kept]
    assert [each.kind for each in report.findings].count("bound") == (not kept)


def test_the_report_survives_json_whole(tmp_path: Path) -> None:
    report = converted(tmp_path, record(60, (0, 30)), CONTRACT + QUALITY)
    written = (tmp_path / "arm-v0" / "report.json").read_text()
    assert TypeAdapter(ConversionReport).validate_json(written) == report
    assert "NaN" not in written
    assert json.loads(written) == report.to_dict()


@pytest.mark.parametrize("size", [1, 7, 999, 20_000, 40_001])
def test_the_sample_is_even_and_bounded(size: int) -> None:
    sample = _Sample(1)
    total = 130_000
    for first in range(0, total, size):
        sample.add(np.arange(first, min(first + size, total), dtype=np.float64)[:, None])
        assert len(sample.rows) <= 40_000
    rows = sample.rows[:, 0]
    steps = np.diff(rows)
    assert rows[0] == 0
    assert set(steps.tolist()) == {4.0}
    assert len(rows) == 32_500


@pytest.mark.parametrize("rows", [20_000, 7])
def test_numbers_do_not_depend_on_how_episodes_are_cut(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on how many rows are looked at together."""
    monkeypatch.setattr(statistics, "_BLOCK_ROWS", rows)
    rng = np.random.default_rng(0)
    contract = parse_contract(CONTRACT)
    values: Any = rng.normal(size=(401, 7)).astype(np.float32)
    actions = rng.uniform(-1, 1, (400, 2))

    def gathered(cuts: list[int]) -> ConversionReport:
        made = DatasetStatistics(contract)
        for first, last in pairwise(cuts):
            steps = last - first
            rewards, masks = np.full(steps, -1, np.float32), np.ones(steps, np.float32)
            span = (first * PERIOD_NS, last * PERIOD_NS)
            part = values[first : last + 1], actions[first:last], rewards, masks
            made.add(Episode(*part, False, *span, "marker", 0))
        bag = BagReport("bag", {}, [], 0, 0.0, len(cuts) - 1, 400, {}, {}, [])
        return made.report("arm-v0", "", "", [bag], {})

    whole, pieces = gathered([0, 400]), gathered([0, 13, 200, 201, 400])
    for one, other in zip(whole.actions, pieces.actions, strict=True):
        assert one.mean == pytest.approx(other.mean)
        assert one.std == pytest.approx(other.std)
        assert (one.minimum, one.maximum, one.histogram) == (other.minimum, other.maximum, other.histogram)
    assert [each.mean for each in whole.observations] == pytest.approx(values.mean(axis=0).tolist(), abs=1e-6)
    assert whole.mean_reward == pieces.mean_reward == -1.0
    assert whole.rewards == pieces.rewards == {"-1": 400}
    jumps = np.abs(np.diff(actions, axis=0))
    for column, action in enumerate(whole.actions):
        assert action.largest_jump == jumps[:, column].max()
        assert action.largest_jump_at == Place(0, int(jumps[:, column].argmax()) + 1)
        assert action.maximum_at == Place(0, int(actions[:, column].argmax()))
    for column, number in enumerate(whole.observations):
        assert number.minimum_at == Place(0, int(values[:, column].argmin()))
    low, high = np.array([-2.0, -2.0]), np.array([2.0, 4.0])
    assert whole.each_episode[0].largest_jump == (jumps / (high - low)).max()


def test_rewards_without_number_are_not_listed() -> None:
    contract = parse_contract(CONTRACT)
    few, many = DatasetStatistics(contract), DatasetStatistics(contract)
    for gathered, kinds in ((few, 12), (many, 13)):
        steps = 39
        rewards = (np.arange(steps) % kinds).astype(np.float32)
        arrays = np.zeros((steps + 1, 7), np.float32), np.zeros((steps, 2)), rewards, np.ones(steps, np.float32)
        gathered.add(Episode(*arrays, False, 0, steps * PERIOD_NS, "marker", 0))
        bag = BagReport("bag", {}, [], 0, 0.0, 1, steps, {}, {}, [])
        found = gathered.report("arm-v0", "", "", [bag], {}).rewards
        assert len(found) == (12 if kinds == 12 else 0)
