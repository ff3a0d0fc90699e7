"""The bytes that are published say what the message says that is published otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rclpy._rclpy_pybind11 import RMWError
from rclpy.serialization import deserialize_message, serialize_message
from test_trajectory_message import COMMANDS, commanding
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import ActionChunk, Contract, parse_contract
from rql_core.errors import ContractError
from rql_ros.trajectory_bytes import POINTS, TrajectoryBytes, trajectory_writer
from rql_ros.trajectory_message import TrajectoryMessage


def random_chunk(contract: Contract, horizon: int, random: np.random.Generator) -> ActionChunk:
    stamp = int(random.integers(1, 2 * 10**9)) * 10**9 + int(random.integers(10**9))
    ends = stamp + np.cumsum(random.integers(1, 3 * 10**9, horizon))
    return ActionChunk(stamp, ends, random.normal(size=(horizon, contract.action_dim)))


@pytest.mark.parametrize(("command", "unit"), COMMANDS)
def test_every_chunk_reads_as_the_message(contract_text: str, command: str, unit: str) -> None:
    contract = commanding(contract_text, command, unit)
    message, data = TrajectoryMessage(contract), TrajectoryBytes(contract)
    random = np.random.default_rng(0)
    # Longer and shorter again, and longer than there is room for: what another chunk left behind must not be sent.
    for horizon in (1, 7, 3, POINTS, 2, POINTS + 1, 5, 5 * POINTS, 1):
        chunk = random_chunk(contract, horizon, random)
        expected = message.of(chunk)
        found = data.of(chunk)
        assert deserialize_message(found, JointTrajectory) == expected
        # What serialises messages leaves room behind them; here no byte is too many.
        assert len(found) <= len(serialize_message(expected))
        with pytest.raises(RMWError):
            deserialize_message(found[:-4], JointTrajectory)


@pytest.mark.parametrize(
    "names", [("a", "b"), ("abc", "abcd"), ("é", "a_rather_long_joint_name"), ("abcde", "abcdefg")]
)
def test_names_of_any_length_leave_the_numbers_in_their_places(contract_text: str, names: tuple[str, str]) -> None:
    text = contract_text
    for was, now in zip(("shoulder_joint", "elbow_joint"), names, strict=True):
        text = text.replace(was, now)
    contract = parse_contract(text)
    assert contract.action.names == names
    chunk = random_chunk(contract, 5, np.random.default_rng(1))
    assert deserialize_message(TrajectoryBytes(contract).of(chunk), JointTrajectory) == TrajectoryMessage(contract).of(
        chunk
    )


def test_bytes_are_written_unless_the_middleware_reads_something_else_of_them(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = random_chunk(contract, 5, np.random.default_rng(2))
    assert isinstance(trajectory_writer(contract)(chunk), bytes)

    def other(data: bytes, kind: type) -> Any:
        message = deserialize_message(data, kind)
        message.points[-1].time_from_start.nanosec += 1
        return message

    def none(data: bytes, kind: type) -> Any:
        return deserialize_message(data[:-4], kind)

    for reads in (other, none):
        monkeypatch.setattr("rql_ros.trajectory_bytes.deserialize_message", reads)
        assert trajectory_writer(contract)(chunk) == TrajectoryMessage(contract).of(chunk)


def test_bytes_once_given_do_not_change(contract: Contract) -> None:
    data = TrajectoryBytes(contract)
    random = np.random.default_rng(3)
    first = random_chunk(contract, 5, random)
    given = data.of(first)
    data.of(random_chunk(contract, 5, random))
    assert deserialize_message(given, JointTrajectory) == TrajectoryMessage(contract).of(first)


def test_rows_that_do_not_lie_together_are_sent_as_they_are(contract: Contract) -> None:
    actions = np.arange(12.0).reshape(2, 6).T[::2, :]
    chunk = ActionChunk.regular(contract, 10**9, actions)
    sent = deserialize_message(TrajectoryBytes(contract).of(chunk), JointTrajectory)
    assert [list(point.velocities) for point in sent.points] == actions.tolist()


def test_a_chunk_of_another_width_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match="chunk has 3 numbers, expected 2"):
        TrajectoryBytes(contract).of(ActionChunk.regular(contract, 10**9, np.zeros((4, 3))))
