"""What the critics say of a chunk comes after the chunk, and does come."""

from __future__ import annotations

from pathlib import Path

import pytest
from robot import Robot
from std_msgs.msg import Float64MultiArray

from rql_core.contract import Contract
from rql_core.demo.processes import ProcessGroup, node_command


@pytest.mark.parametrize("options", [{}, {"monitor": "hold"}], ids=["warn", "hold"])
def test_the_values_of_chunks_are_published(
    options: dict[str, object], contract: Contract, group: ProcessGroup, checkpoint: Path
) -> None:
    with Robot(contract) as robot:
        values: list[list[float]] = []
        robot.node.create_subscription(
            Float64MultiArray, "/policy_node/value", lambda message: values.append(list(message.data)), 10
        )
        group.start("policy", node_command("policy_node", checkpoint=checkpoint, **options))
        robot.wait_until_heard()
        robot.stream(lambda: bool(robot.chunks) and len(values) >= 3)
        assert all(len(value) == 2 and value[1] >= 0.0 for value in values)
