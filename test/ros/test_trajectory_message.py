"""The message that is filled again says what a message that is made anew says."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from rql_core.contract import ActionChunk, Contract, encode_chunk, parse_contract
from rql_core.errors import ContractError
from rql_ros.messages import fill, message_class
from rql_ros.trajectory_message import TrajectoryMessage

COMMANDS = [("velocities", "rad/s"), ("positions", "rad"), ("accelerations", "rad/s^2"), ("effort", "N m")]


def commanding(contract_text: str, command: str, unit: str) -> Contract:
    assert "command: velocities" in contract_text
    text = contract_text.replace("command: velocities", f"command: {command}").replace("hold: zero", "hold: last")
    text = text if command == "positions" else contract_text.replace("command: velocities", f"command: {command}")
    head, _, action = text.partition("\naction:")
    action = action.replace("unit: rad/s", f"unit: {unit}", 1)
    return parse_contract(f"{head}\naction:{action}")


@pytest.mark.parametrize(("command", "unit"), COMMANDS)
def test_every_chunk_gives_the_message_that_encode_chunk_gives(contract_text: str, command: str, unit: str) -> None:
    contract = commanding(contract_text, command, unit)
    message = TrajectoryMessage(contract)
    random = np.random.default_rng(0)
    # Longer and shorter again: what a longer chunk left behind must not be sent.
    for horizon in (1, 7, 3, 60, 2):
        stamp = int(random.integers(1, 2 * 10**9)) * 10**9 + 7
        ends = stamp + np.cumsum(random.integers(1, 3 * 10**9, horizon))
        chunk = ActionChunk(stamp, ends, random.normal(size=(horizon, contract.action_dim)))
        expected = fill(message_class(contract.action.type)(), encode_chunk(contract, chunk))
        found = message.of(chunk)
        assert found == expected
        assert deserialize_message(serialize_message(found), type(expected)) == expected


def test_rows_that_do_not_lie_together_are_sent_as_they_are(contract: Contract) -> None:
    actions = np.arange(12.0).reshape(2, 6).T[::2, :]
    chunk = ActionChunk.regular(contract, 10**9, actions)
    sent = TrajectoryMessage(contract).of(chunk)
    assert [list(point.velocities) for point in sent.points] == actions.tolist()


def test_a_chunk_of_another_width_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match="chunk has 3 numbers, expected 2"):
        TrajectoryMessage(contract).of(ActionChunk.regular(contract, 10**9, np.zeros((4, 3))))
