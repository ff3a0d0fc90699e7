"""A control loop with a runner that is told what to do: what it publishes when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.node import Node

from rql_core.contract import ActionChunk, CommandSchedule, Contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.runtime.options import Options
from rql_ros.control_loop import ControlLoop
from rql_ros.controller import CommandPublisher

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
