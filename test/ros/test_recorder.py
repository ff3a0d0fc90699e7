"""The recorder as a process: what is on the wire is in the bag, also when it is killed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from robot import Robot
from std_srvs.srv import SetBool

from rql_core.bags.reader import BagReader, read_bag
from rql_core.contract import Contract
from rql_core.contract.time import stamp_to_ns
from rql_core.demo.processes import ProcessGroup, node_command

COUNT = 200
TYPES = {"/joint_states": "sensor_msgs/msg/JointState", "/tool_pose": "geometry_msgs/msg/PoseStamped"}


@pytest.fixture
def robot(contract: Contract) -> Iterator[Robot]:
    with Robot(contract) as robot:
        yield robot


def wait_for_recorder(robot: Robot) -> None:
    robot.wait(
        lambda: min(robot.joints.get_subscription_count(), robot.pose.get_subscription_count()) >= 1,
        "the recorder to subscribe",
    )
    # The recorder's side of the match may come later: publish until something is on disk is not needed, its service
    # answers only once its node is up, and discovery goes both ways in the same exchange.
    robot.call("/recorder/record", SetBool.Request(data=True))


def publish(robot: Robot, count: int = COUNT) -> list[tuple[int, float]]:
    sent = []
    for step in range(count):
        stamp = (step + 1) * robot.contract.period_ns
        robot.publish(stamp, position=(0.001 * step, 1.0 / (step + 1)))
        sent.append((stamp, 1.0 / (step + 1)))
        robot.executor.spin_once(timeout_sec=0.0)
    return sent


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_message_is_in_the_bag_with_its_header_and_a_receive_time(
    robot: Robot, group: ProcessGroup, contract_path: Path, tmp_path: Path, storage: str
) -> None:
    bags = tmp_path / "bags"
    group.start("recorder", node_command("recorder_node", contract=contract_path, output=bags, storage=storage))
    wait_for_recorder(robot)
    before = robot.node.get_clock().now().nanoseconds
    sent = publish(robot)
    robot.call("/recorder/record", SetBool.Request(data=False))
    with BagReader(bags / "run_0001") as bag:
        assert {topic: bag.topics[topic].type for topic in TYPES} == TYPES
    messages = [item for item in read_bag(bags / "run_0001", TYPES) if item[0] == "/joint_states"]
    assert [(stamp_to_ns(m.header.stamp), m.position[1]) for _, _, m in messages] == sent
    receive = [time for _, time, _ in messages]
    assert receive == sorted(receive)
    assert receive[0] > before
    metadata = (bags / "run_0001" / "metadata.yaml").read_text()
    assert "reliability: reliable" in metadata
    assert "durability: transient_local" in metadata  # the episode marker's
    group.stop("recorder")


def test_a_killed_recorder_leaves_a_bag_that_can_be_read(robot: Robot, contract_path: Path, tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    process = subprocess.Popen(node_command("recorder_node", contract=contract_path, output=bags))
    try:
        wait_for_recorder(robot)
        sent = publish(robot)
        file = bags / "run_0001" / "run_0001.mcap"
        size = -1

        def written() -> bool:
            """More than most of it is on disk, and nothing more comes."""
            nonlocal size
            before, size = size, file.stat().st_size if file.exists() else 0
            publish(robot, 1)
            return size > 20_000 and size > before > 0

        robot.wait(written, "messages on disk")
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    messages = [item for item in read_bag(bags / "run_0001", TYPES) if item[0] == "/joint_states"]
    read = [(stamp_to_ns(m.header.stamp), m.position[1]) for _, _, m in messages]
    assert len(read) > 50
    assert read[:COUNT] == sent[: len(read)]


def test_the_service_starts_a_new_bag_and_says_so(
    robot: Robot, group: ProcessGroup, contract_path: Path, tmp_path: Path
) -> None:
    bags = tmp_path / "bags"
    group.start("recorder", node_command("recorder_node", contract=contract_path, output=bags, autostart=False))
    assert robot.call("/recorder/record", SetBool.Request(data=False)).message == "not recording"
    for number in (1, 2):
        answer = robot.call("/recorder/record", SetBool.Request(data=True)).message
        assert answer.endswith(f"run_{number:04d}")
        robot.call("/recorder/record", SetBool.Request(data=False))
    assert sorted(path.name for path in bags.iterdir()) == ["run_0001", "run_0002"]
