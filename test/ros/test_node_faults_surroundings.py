"""What else is on the topics: other publishers, other qualities of service, other nodes, latecomers, nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from arm import Arm
from console import Console
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import ActionChunk, Contract, encode_chunk
from rql_ros.messages import fill

KEPT = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def test_a_second_publisher_is_warned_of_and_what_does_not_fit_is_reported(
    contract: Contract, checkpoint: Path, tmp_path: Path
) -> None:
    with Arm(contract) as arm, Console(arm, tmp_path / "log", checkpoint=checkpoint) as node:
        arm.start_moving()
        topic = contract.action.topic
        other = arm.node.create_publisher(JointTrajectory, topic, 10)
        arm.go_on(lambda: arm.said(f"1 other publisher on {topic}"), "a warning of the other publisher")
        arm.node.destroy_publisher(other)
        arm.listen_anew()
        arm.go_on(lambda: arm.diagnostics and arm.diagnostics[-1].message == "running", "the warning to end")

        best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        unheard = arm.node.create_publisher(JointState, "/joint_states", best_effort)
        arm.go_on(
            lambda: arm.said(
                "/joint_states: a publisher has an incompatible quality of service (RMW_QOS_POLICY_RELIABILITY)"
            ),
            "words on the publisher's quality of service",
        )
        arm.node.destroy_publisher(unheard)
        deaf = arm.node.create_subscription(JointTrajectory, topic, lambda message: None, KEPT)
        arm.go_on(
            lambda: arm.said(
                f"{topic}: a subscriber has an incompatible quality of service (RMW_QOS_POLICY_DURABILITY)"
            ),
            "words on the subscriber's quality of service",
        )
        arm.node.destroy_subscription(deaf)
        # A participant may have one type a topic, so this is another.
        context = rclpy.Context()
        rclpy.init(context=context)
        stranger = rclpy.create_node("stranger", context=context)
        wrong = stranger.create_publisher(String, "/tool_pose", 10)
        for _ in range(5):
            wrong.publish(String(data="no pose"))
            arm.tick_for(1)
        arm.go_on(lambda: arm.said("/tool_pose: a publisher has another type"), "words on the type")
        stranger.destroy_node()
        rclpy.shutdown(context=context)
        arm.start_moving()
        assert node.process.poll() is None
        arm.executed.assert_safe()


def test_a_latecomer_hears_the_status_and_whoever_listens_the_value(
    contract: Contract, checkpoint: Path, tmp_path: Path
) -> None:
    with Arm(contract) as arm, Console(arm, tmp_path / "log", checkpoint=checkpoint):
        values: list[Any] = []
        arm.node.create_subscription(Float64MultiArray, "/policy_node/value", values.append, 10)
        arm.start_moving()
        arm.go_on(lambda: bool(values), "values")
        assert np.isfinite(values[0].data).all()
        assert values[0].layout.dim[0].label.split(",")[:2] == ["mean", "std"]
        status: list[Any] = []
        arm.node.create_subscription(DiagnosticArray, "/policy_node/status", status.append, KEPT)
        arm.go_on(lambda: bool(status), "the status of before")
        facts = {value.key: value.value for value in status[0].status[0].values}
        assert facts["checkpoint"] == str(checkpoint)
        assert len(facts["sha256"]) == 64
        assert (facts["algorithm"], facts["contract"], facts["mode"]) == ("rql", "planar_arm", "open_loop")
        arm.executed.assert_safe()


def test_in_the_shadow_nothing_is_published_but_the_comparison(
    contract: Contract, checkpoint: Path, tmp_path: Path
) -> None:
    with Arm(contract) as arm, Console(arm, tmp_path / "log", checkpoint=checkpoint, shadow=True) as node:
        controller = arm.node.create_publisher(JointTrajectory, contract.action.topic, 10)
        node.wait_for_state("active")
        published = arm.node.get_publisher_names_and_types_by_node("policy_node", "/")
        assert contract.action.topic not in {name for name, _ in published}

        def send(stamp: int) -> None:
            arm.observe(stamp)
            chunk = ActionChunk.regular(contract, stamp, np.full((2, 2), 0.0))
            controller.publish(fill(JointTrajectory(), encode_chunk(contract, chunk)))

        arm.go_on(lambda: int(arm.figure("compared") or 0) > 10, "a comparison", send)
        assert arm.said("in the shadow: nothing is published")
        assert arm.node.count_publishers(contract.action.topic) == 1
        for service in ("estop", "rearm", "reset"):
            assert node.call(service).success
        arm.tick_for(4, send)
        assert not arm.executed.moved  # only the controller's own rest was heard


def test_on_trigger_it_moves_for_its_time_and_no_longer(contract: Contract, checkpoint: Path, tmp_path: Path) -> None:
    with (
        Arm(contract) as arm,
        Console(arm, tmp_path / "log", checkpoint=checkpoint, on_trigger=True, run_limit=0.5) as node,
    ):
        node.wait_for_state("active")
        arm.go_on(lambda: arm.said("waiting for run"), "words of waiting")
        assert arm.chunks == []
        for _ in range(2):
            assert node.call("run").success
            arm.start_moving()
            began = arm.now_ns()
            # Where an observation is late it may rest before its time is over, and go on.
            arm.go_on(lambda began=began: arm.now_ns() - began > 600_000_000, "the time that it may move")
            arm.come_to_rest()
            assert arm.now_ns() - began < 2_000_000_000
            count = len(arm.chunks)
            arm.tick_for(4)
            assert len(arm.chunks) == count
        arm.executed.assert_safe()


@pytest.mark.parametrize("output", ["command", "both"])
def test_single_commands_are_smooth_from_rest_to_rest(
    contract: Contract, checkpoint: Path, tmp_path: Path, output: str
) -> None:
    # Three a tick: wherever the timer is beside the ticks, one of them at least is well inside.
    rate = 3.0 * contract.rate
    with (
        Arm(contract) as arm,
        Console(arm, tmp_path / "log", checkpoint=checkpoint, output=output, command_rate=rate) as node,
    ):
        commands: list[tuple[int, list[float]]] = []

        def hear(message: Float64MultiArray, info: Any) -> None:
            commands.append((info["source_timestamp"], message.data.tolist()))

        arm.node.create_subscription(Float64MultiArray, "/policy_node/command", hear, 1000)
        node.wait_for_state("active")
        arm.go_on(lambda: len(commands) > 90, "commands")
        assert bool(arm.chunks) == (output == "both")
        assert node.change("deactivate")
        ended = arm.now_ns()
        arm.tick_for(4)
        assert commands[-1][1] == [0.0, 0.0]
        assert commands[-1][0] < ended
        assert_smooth(contract, commands)
        count = len(commands)
        assert node.change("activate")
        arm.go_on(lambda: len(commands) > count + 60, "commands")
        assert node.end() == 0
        arm.tick_for(2)
        assert_smooth(contract, commands)


def assert_smooth(contract: Contract, commands: list[tuple[int, list[float]]]) -> None:
    """From rest to rest, and within acceleration and jerk from tick to tick, where one came in each: a busy machine may
    not let it. What came about when a tick began may be of the one before, and is left out.
    """
    period_ns, period = contract.period_ns, 1.0 / contract.rate
    rows = np.array([command for _, command in commands])
    assert np.isfinite(rows).all()
    assert (rows[-1] == 0).all()
    limits = contract.safety_in_force.limits
    acceleration, jerk = (np.array([getattr(each, name) for each in limits]) for name in ("acceleration", "jerk"))
    assert (np.abs(rows[0]) <= jerk * period**2).all()
    by_tick = {time // period_ns: row for (time, _), row in zip(commands, rows, strict=True) if inside(time, period_ns)}
    three = [tick for tick in by_tick if tick + 1 in by_tick and tick + 2 in by_tick]
    assert len(three) > 5
    for tick in three:
        first, second, third = by_tick[tick], by_tick[tick + 1], by_tick[tick + 2]
        assert (np.abs(second - first) <= 1.000001 * acceleration * period).all()
        assert (np.abs(third - 2 * second + first) <= 1.000001 * jerk * period**2).all()


def inside(time_ns: int, period_ns: int) -> bool:
    """Whether it is well inside a tick."""
    return 2_000_000 < time_ns % period_ns < period_ns - 2_000_000


def test_two_nodes_side_by_side_in_namespaces_and_remapped_do_not_disturb_each_other(
    contract: Contract, checkpoint: Path, tmp_path: Path
) -> None:
    def remaps(side: str) -> tuple[str, ...]:
        topics = ("/joint_states", "/tool_pose", contract.action.topic, "/diagnostics")
        return tuple(f"{topic}:=/{side}{topic}" for topic in topics)

    def arguments(side: str) -> tuple[str, ...]:
        return tuple(word for remap in (*remaps(side), f"__ns:=/{side}") for word in ("-r", remap))

    def start(arm: Arm, side: str) -> Console:
        log = tmp_path / side
        return Console(arm, log, name=f"/{side}/policy_node", arguments=arguments(side), checkpoint=checkpoint)

    with Arm(contract, *remaps("left")) as left, Arm(contract, *remaps("right")) as right:
        with start(left, "left") as first, start(right, "right") as second:
            left.start_moving()
            assert right.chunks == []
            right.start_moving()
            assert not left.said("other publisher")
            assert first.call("estop").success
            left.come_to_rest()
            right.start_moving()
            assert first.end() == 0
            right.start_moving()
            assert second.end() == 0
        left.executed.assert_safe()
        right.executed.assert_safe()


def test_a_robots_limits_that_are_none_are_refused_at_the_start(
    checkpoint: Path, contract_path: Path, tmp_path: Path, contract: Contract
) -> None:
    contract_text = contract_path.read_text()
    faults: tuple[tuple[str, str], ...] = (
        ("acceleration: 20", "acceleration: .nan"),
        ("acceleration: 20", "acceleration: -1"),
        ("position: [-2.25, 1.85]", "position: [1.85, -2.25]"),
        ("lower: -1.0, upper: 1.0", "lower: 1.0, upper: -1.0"),
        ("jerk: 400", "jerk: [400]"),
    )
    with Arm(contract) as arm:
        nodes: list[Console] = []
        for number, (old, new) in enumerate(faults):
            assert old in contract_text
            path = tmp_path / f"{number}.yaml"
            path.write_text(contract_text.replace(old, new, 1))
            log = tmp_path / f"{number}.log"
            nodes.append(
                Console(arm, log, checkpoint=checkpoint, contract=path, arguments=("-r", f"__node:=n{number}"))
            )
        arm.go_on(lambda: all(node.process.poll() is not None for node in nodes), "all to end")
        for (_, new), node in zip(faults, nodes, strict=True):
            assert node.process.returncode == 1
            assert new.split(":")[0] in node.logged(), node.logged()
            assert "Traceback" not in node.logged()
            node.close()
        assert arm.chunks == []
