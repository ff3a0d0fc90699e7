"""Rewards that a bag's topics or an expression give arrive at the step they belong to, or the bag says why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import CONTRACT, PERIOD_NS, TYPES, Recording, contract_text, fill, pose, record

from rql_core.bags import BagWriter, convert
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
