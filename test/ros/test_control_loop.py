"""A control loop with a runner that is told what to do: what it publishes when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from rql_core.contract import ActionChunk, CommandSchedule, Contract, parse_contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Plan
from rql_core.runtime.runner import PolicyRunner
from rql_ros.control_loop import ControlLoop
from rql_ros.controller import ChunkPublisher, CommandPublisher

PATIENCE_S = 10.0
BRAKING = [0.8, 0.6, 0.4, 0.2, 0.0]


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("control_loop_test", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_the_stop_goes_out_step_by_step_to_whoever_takes_single_commands(
    node: Node, contract: Contract, monkeypatch: pytest.MonkeyPatch, set_back_s: int
) -> None:
    """As long as it takes and no longer, also where the clock was set back since the last command."""
    published: list[float] = []
    slept: list[float] = []
    monkeypatch.setattr("rql_ros.control_loop.sleep", slept.append)
    monkeypatch.setattr("rql_ros.control_loop.perf_counter_ns", lambda: round(sum(slept) * NANOSECONDS))
    monkeypatch.setattr(CommandPublisher, "publish", lambda self, command: published.append(float(command[0])))
    schedule = CommandSchedule()

    def leave(time_ns: int, rows: list[float]) -> ActionChunk:
        tick = tick_time(tick_at_or_after(time_ns, contract.rate_fraction), contract.rate_fraction)
        actions = np.tile(np.array(rows)[:, None], (1, contract.action_dim))
        chunk = ActionChunk.regular(contract, tick, actions)
        schedule.add(chunk)
        return chunk

    runner: Any = SimpleNamespace(
        contract=contract,
        options=Options(lockstep=False),
        start=lambda seed, now_ns: leave(now_ns - 2 * contract.period_ns, [1.0] * 100),
        stop=lambda now_ns: leave(now_ns, BRAKING),
        command_at=schedule.action_at,
        late=lambda now_ns: False,
    )
    loop = ControlLoop(node, runner, output="command", command_rate=0.0, remark=lambda *_: None, report=lambda _: None)
    loop.start(None)
    loop._command()
    loop._commanded_ns += set_back_s * NANOSECONDS
    loop.stop()
    assert sum(slept) < 2 * len(BRAKING) / contract.rate
    assert published[-1] == 0.0
    assert np.abs(np.diff([1.0, *published])).max() < 0.3
    assert len(published) >= len(BRAKING)
    assert loop.close()


@pytest.mark.parametrize("interpolation", ["held", "linear"])
def test_a_simulation_that_waits_gets_one_command_for_each_tick_and_all_of_a_chunk(
    node: Node, contract: Contract, monkeypatch: pytest.MonkeyPatch, interpolation: Any
) -> None:
    published: list[float] = []
    monkeypatch.setattr(CommandPublisher, "publish", lambda self, command: published.append(float(command[0])))
    steps = np.array([0.01, 0.03, 0.04, 0.03])
    planned: list[float] = []

    class Steps:
        """Says the same chunk at each plan, in open loop at every fourth tick."""

        horizon = len(steps)

        def reset(self, seed: int | None) -> None:
            planned.clear()

        def plan(self, observation: Any, guide: Any = None) -> Plan:
            planned.append(float(observation[0]))
            return Plan(np.tile(steps[:, None], (1, contract.action_dim)))

    runner = PolicyRunner(contract, Steps(), Options("open_loop", interpolation=interpolation))  # type: ignore[arg-type]
    loop = ControlLoop(node, runner, output="command", command_rate=0.0, remark=lambda *_: None, report=lambda _: None)
    loop.start(None)
    rate = contract.rate_fraction
    names = list(contract.action.names)
    for tick in range(1000, 1008):
        sec, nanosec = divmod(tick_time(tick, rate), NANOSECONDS)
        joints = JointState(name=names, position=[-0.9, 1.9], velocity=[0.0, 0.0])
        pose = PoseStamped()
        for topic, message in (("/joint_states", joints), ("/tool_pose", pose)):
            message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
            loop._observe(topic, message)
            loop._observe(topic, message)  # that nothing new came must not command twice
    assert len(planned) == 2
    np.testing.assert_allclose(published, [*steps, *steps], atol=1e-12)
    loop.stop()
    assert published[-1] == 0.0
    assert loop.close()


@pytest.mark.parametrize(("fresh_periods", "plans", "refused"), [(100.0, 2, 0), (0.0, 1, 1)])
def test_what_was_observed_during_a_plan_is_planned_for_next_unless_it_has_grown_old(
    node: Node, contract_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_periods: float, plans: int, refused: int
) -> None:
    """As two observations at once, of a robot that was held up."""
    monkeypatch.setattr("rql_ros.control_loop.FRESH_PERIODS", fresh_periods)
    stale = "hold_after: 0.1, stop_after: 1.0"
    text = contract_path.read_text()
    assert stale in text
    contract = parse_contract(text.replace(stale, "hold_after: 5.0, stop_after: 9.0"))
    go, planned, published = Event(), SimpleQueue[float](), SimpleQueue[ActionChunk]()
    monkeypatch.setattr(ChunkPublisher, "publish", lambda self, chunk: published.put(chunk))

    class Waiting:
        """Plans when it is told to go, what rest is."""

        horizon, takes_guide = 20, False

        def reset(self, seed: int | None) -> None:
            """Nothing to forget."""

        def plan(self, observation: Any, guide: Any = None) -> Plan:
            planned.put(float(observation[0]))
            assert go.wait(PATIENCE_S)
            return Plan(np.zeros((self.horizon, contract.action_dim)))

    runner = PolicyRunner(contract, Waiting(), Options("receding", 1, lockstep=False))  # type: ignore[arg-type]
    loop = ControlLoop(node, runner, output="chunk", command_rate=0.0, remark=lambda *_: None, report=lambda _: None)
    loop.start(None)

    def observe_next(position: float) -> None:
        stamp = tick_time(tick_at_or_after(loop.now(), contract.rate_fraction), contract.rate_fraction)
        sleep((stamp - loop.now()) / 1e9)
        sec, nanosec = divmod(stamp, NANOSECONDS)
        joints = JointState(name=list(contract.action.names), position=[position, 1.9], velocity=[0.0, 0.0])
        pose = PoseStamped()
        for topic, message in (("/joint_states", joints), ("/tool_pose", pose)):
            message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
            loop._observe(topic, message)

    observe_next(-0.9)
    found = [planned.get(timeout=PATIENCE_S)]
    observe_next(-0.8)
    go.set()
    left = [published.get(timeout=PATIENCE_S) for _ in range(plans)]
    found += [planned.get(timeout=PATIENCE_S) for _ in range(plans - 1)]
    assert found == pytest.approx([-0.9, -0.8][:plans])
    assert len({chunk.stamp_ns for chunk in left}) == plans
    # What is refused is counted when the chunk has left.
    deadline = monotonic() + PATIENCE_S
    while loop.figures()["plans refused while planning"] != str(refused) and monotonic() < deadline:
        sleep(0.01)
    assert loop.figures()["plans refused while planning"] == str(refused)
    assert planned.empty()
    assert loop.close()


@pytest.mark.parametrize(
    ("took_ms", "planned", "left", "late"), [(0, False, 1, 0), (30, True, 2, 0), (60, False, 3, 1), (60, True, None, 0)]
)
def test_what_took_too_long_to_make_is_made_anew_in_time_for_the_next_tick(
    node: Node,
    contract: Contract,
    monkeypatch: pytest.MonkeyPatch,
    took_ms: int,
    planned: bool,
    left: int | None,
    late: int,
) -> None:
    """Each making takes so long; what leaves says how often it was made. What was planned is given up in the end."""
    ms = 1_000_000
    clock = [tick_time(1000, contract.rate_fraction) + 25 * ms]
    period = contract.period_ns
    published: list[ActionChunk] = []
    monkeypatch.setattr(ControlLoop, "now", lambda self: clock[0])
    monkeypatch.setattr(ChunkPublisher, "publish", lambda self, chunk: published.append(chunk))
    counts_from: list[int] = []

    def make(now_ns: int) -> list[ActionChunk]:
        tick = tick_at_or_after(now_ns, contract.rate_fraction)
        counts_from.append(tick_time(tick, contract.rate_fraction))
        clock[0] += took_ms * ms
        if late or left is None:
            took = 2 * period // ms  # longer each time: this machine cannot keep up
            clock[0] += took * ms * len(counts_from)
        rows = np.full((2, contract.action_dim), float(len(counts_from)))
        return [ActionChunk.regular(contract, counts_from[-1], rows)]

    runner: Any = SimpleNamespace(
        contract=contract,
        options=Options(lockstep=False),
        start=lambda seed, now_ns: None,
        stop=lambda now_ns: make(now_ns)[0],
        again=make,
        late=lambda now_ns: now_ns > counts_from[-1],
        withdraw=lambda: planned,
    )
    loop = ControlLoop(node, runner, output="chunk", command_rate=0.0, remark=lambda *_: None, report=lambda _: None)
    loop.interrupt()
    assert [float(chunk.actions[0, 0]) for chunk in published] == ([] if left is None else [left])
    assert all(chunk.stamp_ns == counts_from[-1] for chunk in published)
    assert len(counts_from) == (left or 3)
    assert loop.figures()["chunks that left late"] == str(late)
    assert loop.close()
