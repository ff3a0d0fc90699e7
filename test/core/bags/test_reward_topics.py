"""Rewards that a bag's topics or an expression give arrive at the step they belong to, or the bag says why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import CONTRACT, PERIOD_NS, TYPES, Recording, contract_text, fill, pose, record

from rql_core.bags import BagWriter, convert
from rql_core.bags.relabel import relabel
from rql_core.contract import parse_contract
from rql_core.data.minari_io import load_dataset
from rql_core.errors import BagError

RULE = CONTRACT[CONTRACT.index("  success:") : CONTRACT.index("episodes:")].rstrip()
REWARD = (
    "{rule: topic, topic: /reward, type: std_msgs/msg/Float64, field: data, clock: receive, in_step: sum, missing: cut}"
)
SUCCESS = (
    "{rule: topic, topic: /success, type: std_msgs/msg/Bool, field: data, clock: receive, "
    "in_step: any, missing: unsolved}"
)
Said = Sequence[tuple[str, float, Any]]


def written(folder: Path, recording: Recording, said: Said) -> Path:
    """A bag with messages of /reward and /success, each at a time in ticks from the recording's start."""
    with BagWriter(folder / "bag", "mcap") as writer:
        kinds = {"/reward": "std_msgs/msg/Float64", "/success": "std_msgs/msg/Bool"}
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind)
        for topic, tick, value in said:
            message = TYPES.types[kinds[topic]](value)
            stamp = recording.stamp(0) + round(tick * PERIOD_NS)
            writer.write(topic, stamp, TYPES.serialize_cdr(message, kinds[topic]))
        fill(writer, recording)
    return folder / "bag"


def converted(folder: Path, reward: str, said: Said, *changes: tuple[str, str], ticks: int = 12) -> Any:
    text = contract_text((RULE, reward), *changes)
    (folder / "contract.yaml").write_text(text)
    bag = written(folder, record(ticks, contract=parse_contract(text)), said)
    report = convert(bag, folder / "contract.yaml", folder / "arm-v0", progress=False)
    return load_dataset(folder / "arm-v0")[0], report


def test_a_sum_and_a_success_reach_their_steps(tmp_path: Path) -> None:
    said = [("/reward", tick - 0.5, float(tick)) for tick in range(1, 12)]
    # A second message on tick 4 itself belongs to step 3, which ends there; one just after it to step 4.
    said += [("/reward", 4, 100.0), ("/reward", 4.001, 1000.0), ("/success", 6.0, True), ("/success", 8.2, False)]
    data, report = converted(tmp_path, f"  success: {SUCCESS}\n  value: {REWARD}", said)
    expected = np.arange(1.0, 12.0)
    expected[3] += 100
    expected[4] += 1000
    assert data.lengths.tolist() == [11]
    np.testing.assert_array_equal(data.rewards, expected.astype(np.float32))
    assert np.flatnonzero(data.masks == 0).tolist() == [5]
    assert report.solved_steps == 1


def test_a_step_without_a_reward_message_breaks_the_episode_there_and_is_counted(tmp_path: Path) -> None:
    said = [("/reward", tick - 0.5, float(tick)) for tick in range(1, 12) if tick != 5]
    data, report = converted(tmp_path, f"  success: {{rule: never}}\n  value: {REWARD}", said)
    # Steps 0 to 3 end at tick 4, the step from tick 4 to 5 has no reward, and the next episode starts at tick 5.
    assert data.lengths.tolist() == [4, 6]
    assert data.rewards.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert report.bags[0].cuts == {"end of bag": 1, "no /reward": 1}
    assert report.bags[0].left_out["steps_without_reward_message"] == 1


def test_a_success_topic_ends_episodes_where_the_contract_says_so(tmp_path: Path) -> None:
    said = [("/reward", tick - 0.5, 1.0) for tick in range(1, 6)] + [("/success", 4.5, True)]
    changes = ("at_success: continue", "at_success: end")
    data, report = converted(tmp_path, f"  success: {SUCCESS}\n  value: {REWARD}", said, changes)
    assert data.lengths.tolist() == [5]
    assert data.masks.tolist() == [1, 1, 1, 1, 0]
    assert report.terminal_episodes == 1
    # What follows the success is left out; that it has no reward messages begins no new episode.
    assert report.bags[0].cuts == {"success": 1}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([("/success", 1, True)], r"bag: no messages on /reward, which reward or success comes from"),
        (
            [("/reward", 0.5, 1.0), ("/reward", 2.5, float("nan"))],
            r"bag: 0\.125 s from the bag's start .*: /reward: field 'data' is nan, expected a finite number",
        ),
    ],
)
def test_a_bag_whose_rewards_cannot_be_used_says_why(tmp_path: Path, said: Said, words: str) -> None:
    with pytest.raises(BagError, match=words):
        converted(tmp_path, f"  success: {SUCCESS}\n  value: {REWARD}", said)
    assert not (tmp_path / "arm-v0").exists()


ZERO = f"  success: {SUCCESS}\n  value: {REWARD.replace('missing: cut', 'missing: zero')}"


def test_messages_outside_all_steps_are_counted_and_past_a_tenth_remarked(tmp_path: Path) -> None:
    # The steps are between ticks 0 and 11; half a tick before, and four after, nothing is a step.
    said = [("/reward", tick - 0.5, 1.0) for tick in range(16)] + [("/success", 3.0, True)]
    data, report = converted(tmp_path, ZERO, said)
    assert data.rewards.tolist() == [1.0] * 11
    (bag,) = report.bags
    assert [(use.topic, use.says, use.messages, use.in_steps) for use in bag.labels] == [
        ("/success", "success", 1, 1),
        ("/reward", "reward", 16, 11),
    ]
    assert report.findings[0].text == "5 of 16 messages of /reward lie outside all steps."
    assert "/reward: 11 of 16 messages give steps their reward" in report.text()
    page = (tmp_path / "arm-v0" / "report.html").read_text()
    assert "outside all steps</th>" in page


def test_few_messages_outside_all_steps_are_nothing_to_remark(tmp_path: Path) -> None:
    said = [("/reward", tick - 0.5, 1.0) for tick in range(12)] + [("/success", 3.0, True)]
    _, report = converted(tmp_path, ZERO, said)
    assert report.bags[0].labels[1].in_steps == 11
    assert not [finding for finding in report.findings if "/reward" in finding.text]


def test_rewards_by_another_clock_than_the_observations_are_remarked_before_everything_else(tmp_path: Path) -> None:
    # As in a simulation whose observations are stamped by its own clock, and whose rewards have no stamp.
    hour = 3600 * 20
    said = [("/reward", hour + tick, 1.0) for tick in range(12)] + [("/success", hour + 3.0, True)]
    data, report = converted(tmp_path, ZERO, said)
    assert set(data.rewards.tolist()) == {0.0}
    texts = [finding.text for finding in report.findings]
    path = report.bags[0].path
    assert texts[0].startswith(f"NONE of the messages of /success lies in a step in {path}, so that all steps are not")
    assert texts[0].endswith("Is that the same clock?")
    assert texts[1].startswith(f"NONE of the messages of /reward lies in a step in {path}, so that all rewards are 0 ")
    assert "by clock receive they are from 1793538000.000 to 1793538000.550 s" in texts[1]
    assert "the observations begin at 1793534400.000 s" in texts[1]
    # Beside a bag that has them in its steps it is said of how many bags it is so.
    good = tmp_path / "good"
    written(good, record(12), [("/reward", tick - 0.5, 1.0) for tick in range(12)])
    both = convert([tmp_path / "bag", good / "bag"], tmp_path / "contract.yaml", tmp_path / "both-v0", progress=False)
    assert [finding.text.split(",")[0] for finding in both.findings[:3]] == [
        "NONE of the messages of /success lies in a step in 1 of 2 bags",
        "No message of /success",
        "NONE of the messages of /reward lies in a step in 1 of 2 bags",
    ]
    # A dataset whose reward no longer comes from there has nothing of it to say.
    made = relabel(tmp_path / "arm-v0", "1", tmp_path / "arm-v1", success="tool_position.x > 2.9")
    text = (made.path / "report.txt").read_text()
    assert "/reward" not in text
    assert "/success" not in text


def test_a_bag_without_a_message_of_the_reward_is_remarked(tmp_path: Path) -> None:
    _, report = converted(tmp_path, ZERO, [])
    assert [finding.text for finding in report.findings[:2]] == [
        f"No message of /success, which success comes from, in {report.bags[0].path}.",
        f"No message of /reward, which reward comes from, in {report.bags[0].path}.",
    ]


def test_where_no_step_has_the_reward_it_must_have_the_bag_says_so(tmp_path: Path) -> None:
    said = [("/reward", 72_000 + tick, 1.0) for tick in range(12)]
    with pytest.raises(BagError, match="no usable step: 11 steps without a message of /reward; compare its clock"):
        converted(tmp_path, f"  success: {SUCCESS}\n  value: {REWARD}", said)


@pytest.mark.parametrize("at_success", ["continue", "end"])
def test_a_reward_that_is_nan_names_bag_episode_and_step(tmp_path: Path, at_success: str) -> None:
    text = contract_text(
        (
            RULE,
            "  success: {rule: expression, expression: sqrt(tool_position.x - 2) < 0}\n  at_success: 0\n  otherwise: 1",
        ),
        ("at_success: continue", f"at_success: {at_success}"),
    )
    (tmp_path / "contract.yaml").write_text(text)
    contract = parse_contract(text)
    recording = record(20, (0, 8), contract)
    # Tick 12 is the fifth observation of the second episode, where its step 3 arrives.
    recording.drop("/tool_pose", [12])
    recording.add("/tool_pose", recording.stamp(12), pose(recording.stamp(12), (1.0, 0.0, 0.0)))
    bag = recording.write(tmp_path / "bag")
    with pytest.raises(
        BagError,
        match=r"bag: .*episode 1 of the bag \(starts at \d+\.400 s\), step 3: expression .* is nan, because "
        r"sqrt\(tool_position\.x - 2\) is \(where tool_position\.pose\.position\.x = 1\)",
    ):
        convert(bag, tmp_path / "contract.yaml", tmp_path / "arm-v0", progress=False)
    assert not (tmp_path / "arm-v0").exists()
