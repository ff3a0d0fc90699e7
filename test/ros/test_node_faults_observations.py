"""Faulty observations against the running node: what it hears is wrong, what it commands must never be unsafe.

One node hears all of them in turn, each while the arm moves. After every test all that the arm was commanded is checked
against the contract's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arm import Arm
from console import Console
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from rql_core.contract import Contract
from rql_core.contract.time import NANOSECONDS, ns_to_stamp

JOINTS = ("shoulder_joint", "elbow_joint")
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def node(contract: Contract, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("node") / "log"
    with Arm(contract) as arm, Console(arm, log, checkpoint=checkpoint, seed=1) as node:
        node.wait_for_state("active")
        arm.start_moving()
        yield node


@pytest.fixture
def arm(node: Console) -> Iterator[Arm]:
    """At rest, and a node that waits for observations; afterwards what the arm was commanded is checked."""
    arm = node.arm
    arm.silent = True
    if node.state() == "active":
        assert node.change("deactivate")
    arm.come_to_rest()
    node.call("rearm")  # refused where nothing was observed, and then there is nothing to be re-armed
    assert node.change("activate")
    arm.forget()
    yield arm
    assert node.process.poll() is None
    arm.executed.assert_safe()


def silence(stamp: int) -> None:
    """Nothing is sent."""


def joints(arm: Arm, stamp: int, names: tuple[str, ...] = JOINTS, **arrays: tuple[float, ...]) -> Callable[[], None]:
    """Send these joint states as they are, and a sound pose."""
    sec, nanosec = ns_to_stamp(stamp)
    message = JointState(name=list(names), **{name: list(values) for name, values in arrays.items()})
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    arm.joints.publish(message)
    send_pose(arm, stamp)


def send_pose(arm: Arm, stamp: int, x: float = 0.25, y: float = 0.05, z: float = 0.06) -> None:
    message = PoseStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = ns_to_stamp(stamp)
    message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
    arm.pose.publish(message)


def recovers(arm: Arm) -> None:
    """Good observations make it move again by themselves."""
    before = len(arm.chunks)
    arm.silent = False
    arm.go_on(lambda: len(arm.chunks) > before and arm.moving, "the arm to move again")


def test_without_any_observation_it_waits_and_says_so(arm: Arm) -> None:
    arm.listen_anew()
    arm.go_on(lambda: arm.said("waiting for observations"), "words of waiting", silence)
    assert not arm.executed.moved


@pytest.mark.parametrize(
    ("silent", "sent"),
    [("/tool_pose", {"pose": False}), ("/joint_states", {})],
    ids=["no pose", "no joints"],
)
def test_with_one_of_two_topics_it_never_moves_and_names_the_other(
    node: Console, arm: Arm, silent: str, sent: dict[str, bool]
) -> None:
    def one(stamp: int) -> None:
        if sent:
            arm.publish(stamp, **sent)
        else:
            send_pose(arm, stamp)

    # What was sent until the reset is forgotten.
    arm.tick_for(4, one)
    assert node.call("reset").success
    arm.tick_for(4, one)
    arm.forget()
    arm.go_on(lambda: arm.said(silent) and "waiting" in arm.diagnostics[-1].message, f"words on {silent}", one)
    assert not arm.executed.moved


@pytest.mark.parametrize("silent", ["/tool_pose", "both"])
def test_silence_while_moving_brings_it_to_rest_and_it_recovers_by_itself(arm: Arm, silent: str) -> None:
    arm.start_moving()

    def send(stamp: int) -> None:
        if silent != "both":
            arm.publish(stamp, pose=False)

    arm.come_to_rest(send)
    recovers(arm)


def test_silence_beyond_stop_after_ends_commanding_until_it_is_rearmed(node: Console, arm: Arm) -> None:
    arm.start_moving()
    arm.listen_anew()
    arm.go_on(lambda: arm.said("stopped: no fresh observation"), "words of the stop", silence)
    before = len(arm.chunks)
    arm.listen_anew()
    arm.go_on(lambda: len(arm.diagnostics) >= 2, "two reports")
    assert len(arm.chunks) == before
    assert node.call("rearm").success
    recovers(arm)


def test_observations_that_come_late_and_out_of_order_do_not_move_it(node: Console, arm: Arm) -> None:
    arm.start_moving()
    held: list[int] = []

    def late(stamp: int) -> None:
        held.append(stamp)
        if len(held) >= 8:  # 0.4 s late, the newest of four first
            for old in held[3::-1]:
                arm.observe(old)
            del held[:4]

    arm.come_to_rest(late)
    arm.tick_for(20, late)
    assert not arm.moving
    arm.go_on(lambda: int(arm.figure("out_of_order") or 0) > 0, "messages counted as out of order", late)
    assert node.call("rearm").success  # it was longer than stop_after
    recovers(arm)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (None, "header.stamp is 0 ns"),
        (10 * NANOSECONDS, "ahead of this node's clock"),
        (-10 * NANOSECONDS, "clock_jump"),
    ],
    ids=["stamp 0", "future", "back"],
)
def test_wrong_stamps_bring_it_to_rest_and_are_said(node: Console, arm: Arm, shift: int | None, said: str) -> None:
    arm.start_moving()

    def send(stamp: int) -> None:
        arm.observe(0 if shift is None else stamp + shift)

    arm.listen_anew()
    arm.go_on(lambda: arm.said(said), f"words on {said}", send)
    arm.come_to_rest(send)
    assert node.call("rearm").success  # it may have been longer than stop_after
    recovers(arm)


def test_a_burst_after_a_stall_is_answered_once_and_by_its_newest(arm: Arm) -> None:
    arm.start_moving()
    held: list[int] = []
    arm.tick_for(16, held.append)
    before = len(arm.chunks)
    for stamp in held:
        arm.observe(stamp)
    recovers(arm)
    answered = [chunk.stamp_ns for chunk in arm.chunks[before:]]
    assert answered[0] >= held[-1] - 2 * arm.contract.period_ns


def test_messages_that_come_twice_change_nothing(arm: Arm) -> None:
    arm.start_moving()

    def twice(stamp: int) -> None:
        arm.observe(stamp)
        arm.observe(stamp)

    arm.listen_anew()
    arm.go_on(lambda: int(arm.figure("duplicate") or 0) > 10, "counted duplicates", twice)
    arm.go_on(lambda: arm.moving and arm.said("running"), "it to run on", twice)


def test_two_publishers_of_the_joints_that_differ_are_said(node: Console, arm: Arm) -> None:
    arm.start_moving()

    def both(stamp: int) -> None:
        arm.observe(stamp)
        arm.publish(stamp, (2.0, -2.0), pose=False)

    arm.listen_anew()
    arm.go_on(lambda: arm.said("is there a second publisher"), "words on two publishers", both)
    assert node.call("rearm").success  # it may have been longer than stop_after
    recovers(arm)


def test_permuted_and_extra_joints_are_the_same_observation(arm: Arm) -> None:
    def send(stamp: int) -> None:
        first, second = arm.position.tolist()
        names = ("gripper", "elbow_joint", "shoulder_joint")
        zero = (0.0, 0.0, 0.0)
        joints(arm, stamp, names, position=(0.5, second, first), velocity=zero, effort=zero)

    arm.go_on(lambda: arm.moving, "motion by permuted joints", send)
    assert not arm.said("last error")


@pytest.mark.parametrize(
    ("names", "arrays", "said"),
    [
        (("shoulder_joint",), {"position": (0.0,), "velocity": (0.0,)}, "elbow_joint"),
        ((), {}, "no joint"),
        ((*JOINTS, "elbow_joint"), {"position": (0.0, 0.0, 1.0), "velocity": (0.0,) * 3}, "2 times"),
        (JOINTS, {"position": (0.0,), "velocity": (0.0, 0.0)}, "position has 1 values for 2 joint names"),
        (JOINTS, {"position": (0.0, 0.0), "velocity": ()}, "velocity has 0 values for 2 joint names"),
        (JOINTS, {"position": (0.0,) * 3, "velocity": (0.0,) * 3}, "3 values for 2 joint names"),
        (("shoulder_joint", ""), {"position": (0.0, 0.0), "velocity": (0.0, 0.0)}, "elbow_joint"),
    ],
    ids=["missing", "empty", "doubled", "short positions", "no velocities", "long", "nameless"],
)
def test_joints_that_break_the_contract_bring_it_to_rest_and_are_said(
    arm: Arm, names: tuple[str, ...], arrays: dict[str, tuple[float, ...]], said: str
) -> None:
    arm.start_moving()
    arm.listen_anew()

    def send(stamp: int) -> None:
        joints(arm, stamp, names, **arrays)

    arm.go_on(lambda: arm.said(said), f"words on {said}", send)
    arm.come_to_rest(send)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e300], ids=["nan", "inf", "-inf", "beyond float32"])
@pytest.mark.parametrize(
    "field", ["position 0", "position 1", "velocity 0", "velocity 1", "pose x", "pose y", "pose z"]
)
def test_numbers_that_are_none_move_nothing(arm: Arm, field: str, value: float) -> None:
    kind, place = field.split()
    arm.start_moving()
    before = len(arm.chunks)

    def send(stamp: int) -> None:
        if kind == "pose":
            arm.publish(stamp, tuple(arm.position.tolist()), pose=False)
            send_pose(arm, stamp, **{place: value})
        else:
            arrays = {"position": list(arm.position), "velocity": [0.0, 0.0]}
            arrays[kind][int(place)] = value
            joints(arm, stamp, position=tuple(arrays["position"]), velocity=tuple(arrays["velocity"]))

    arm.come_to_rest(send)
    assert len(arm.chunks) <= before + 2  # what was under way, and the stop
