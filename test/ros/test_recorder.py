"""The recorder as a process: what is on the wire is in the bag, also when it is killed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from robot import Robot
from std_srvs.srv import SetBool

from rql_core.bags.reader import BagReader, read_bag
from rql_core.contract import ActionChunk, Contract, encode_chunk, parse_contract
from rql_core.contract.time import stamp_to_ns
from rql_core.demo.processes import ProcessGroup, node_command
from rql_ros.messages import fill, message_class, qos_profile

COUNT = 200
SETTLE_S = 0.5
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
    robot.call("/recorder/record", SetBool.Request(data=True))
    # The recorder's side of the match comes a little later, and nothing on this side tells of it.
    settled = monotonic() + SETTLE_S
    robot.wait(lambda: monotonic() > settled, "discovery to settle")


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


def everything_named(contract_text: str) -> str:
    """The planar arm's contract with every kind of topic that says something about episodes and rewards."""
    start = contract_text.index("reward:")
    return (
        contract_text[:start]
        + """
reward:
  success: {rule: topic, topic: /solved, type: std_msgs/msg/Bool, field: data, clock: receive, in_step: any,
            missing: unsolved}
  value: {rule: topic, topic: /judge/reward, type: std_msgs/msg/Float64, field: data, clock: receive, in_step: sum,
          missing: zero, qos: {durability: transient_local, depth: 10}}
episodes:
  boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header, qos: {durability: transient_local, depth: 10}}
  cuts:
    - {by: reset, topic: /reset, type: std_msgs/msg/Empty, clock: receive, end: truncation}
    - {by: reset, topic: /picked_up, type: geometry_msgs/msg/PointStamped, clock: header, end: terminal}
  min_steps: 1
  at_success: continue
"""
    )


def test_every_topic_that_the_contract_names_is_recorded(
    robot: Robot, group: ProcessGroup, contract_text: str, tmp_path: Path
) -> None:
    text = everything_named(contract_text)
    (tmp_path / "contract.yaml").write_text(text)
    contract = parse_contract(text)
    bags = tmp_path / "bags"
    group.start("recorder", node_command("recorder_node", contract=tmp_path / "contract.yaml", output=bags))
    named = {event.topic: (event.type, event.qos) for event in contract.episodes.events}
    named |= {rule.topic: (rule.type, rule.qos) for rule in contract.reward.topics}
    assert sorted(named) == ["/episode", "/judge/reward", "/picked_up", "/reset", "/solved"]
    named[contract.action.topic] = (contract.action.type, contract.action.qos)
    publishers = {
        topic: robot.node.create_publisher(message_class(kind), topic, qos_profile(qos))
        for topic, (kind, qos) in named.items()
    }
    robot.wait(lambda: all(p.get_subscription_count() >= 1 for p in publishers.values()), "the recorder to subscribe")
    wait_for_recorder(robot)
    for count in range(3):
        publish(robot, 1)
        for topic, (kind, _) in named.items():
            message = message_class(kind)()
            if topic == contract.action.topic:
                fill(message, encode_chunk(contract, ActionChunk.regular(contract, count * 10**9, np.zeros((4, 2)))))
            if topic in ("/solved", "/judge/reward"):
                message.data = type(message.data)(count % 2)
            publishers[topic].publish(message)
    robot.call("/recorder/record", SetBool.Request(data=False))
    types = {topic: kind for topic, (kind, _) in named.items()} | TYPES
    recorded = list(read_bag(bags / "run_0001", types))
    assert {topic: sum(item[0] == topic for item in recorded) for topic in types} == dict.fromkeys(types, 3)
    said = {topic: [item[2].data for item in recorded if item[0] == topic] for topic in ("/solved", "/judge/reward")}
    assert said == {"/solved": [False, True, False], "/judge/reward": [0.0, 1.0, 0.0]}


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
