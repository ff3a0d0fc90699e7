"""What tests of the runner drive it with: a contract of one joint, a scripted actor, messages; ms after START."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionChunk, Contract
from rql_core.runtime.health import Health, health_of
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Guide, Plan
from rql_core.runtime.runner import PolicyRunner

MS = 1_000_000
# 2026-11-01 12:00 UTC, a whole number of control periods.
START = 1_793_534_400_000 * MS
NAN = float("nan")
CONTRACT = """
schema: 1
name: one_joint
description: A joint and a tool at 20 Hz, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joints
      type: sensor_msgs/msg/JointState
      align: {method: hold, max_age: 0.04}
      features: [{name: joint, unit: rad, fields: [position.elbow]}]
    - topic: /tool
      type: geometry_msgs/msg/PointStamped
      align: {method: hold, max_age: 0.04}
      features: [{name: tool, unit: m, fields: [point.x]}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{name: elbow, lower: -2.0, upper: 2.0}]
reward:
  success: {rule: within, feature: tool, target: [0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes: {boundary: {by: bag}, min_steps: 1, at_success: continue}
safety:  # wide enough to change nothing here, and a hold after a period and max_wait
  units: {acceleration: rad/s^2, jerk: rad/s^3}
  limits: [{name: elbow, acceleration: 400.0, jerk: 40000.0}]
  stale: {hold_after: 0.07, stop_after: 5.0, after_stop: recover}
"""
SAFE = [[0.0], [0.0]]  # this tick and the next, so that it is in force when it arrives
HOLD_LAST = [
    ("command: velocities", "command: positions"),
    ("unit: rad/s\n", "unit: rad\n"),
    ("hold: zero", "hold: last"),
    ("units: {acc", "measured: {position: joint}\n  units: {position: rad, velocity: rad/s, acc"),
    ("name: elbow, acc", "name: elbow, deviation: 4.0, velocity: 40.0, acc"),
]


class Script:
    """An actor that answers observation (joint, tool) with joint, joint + .01, ...; or with what it is told to say."""

    def __init__(self, horizon: int = 4) -> None:
        self.horizon = horizon
        self.seen: list[list[float]] = []
        self.seeds: list[int | None] = []
        self.says: npt.NDArray[np.float64] | None = None

    def reset(self, seed: int | None) -> None:
        self.seeds.append(seed)

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        assert observation.dtype == np.float32
        self.seen.append(observation.tolist())
        if self.says is not None:
            return self.says
        return float(observation[0]) + 0.01 * np.arange(self.horizon, dtype=np.float64)[:, None]

    def plan(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        return Plan(self.act(observation))


def make(contract: Contract, actor: Script | None = None, replan_every: int = 0) -> PolicyRunner:
    mode: Any = "receding" if replan_every else "open_loop"
    return PolicyRunner(contract, actor or Script(), Options(mode, replan_every))


def health(runner: PolicyRunner, at_ms: float = 0.0) -> Health:
    return health_of(runner, START + round(at_ms * MS))


def header(at_ms: float) -> SimpleNamespace:
    return header_at(START + round(at_ms * MS))


def header_at(stamp_ns: int) -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))


def joints(at_ms: float, value: float = 0.0, name: str = "elbow") -> SimpleNamespace:
    return SimpleNamespace(header=header(at_ms), name=[name], position=[value], velocity=[], effort=[])


def tool(at_ms: float, value: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(header=header(at_ms), point=SimpleNamespace(x=value))


def observe(runner: PolicyRunner, *times_ms: float, value: float = 0.0) -> list[ActionChunk]:
    """Messages of both topics at these times, without a clock: what a lockstep node does."""
    chunks = []
    for at in times_ms:
        runner.push("/joints", joints(at, value), START)
        runner.push("/tool", tool(at, value), START)
        chunks += runner.poll(None)
    return chunks


def seen(chunks: list[ActionChunk]) -> list[tuple[float, list[Any]]]:
    """(ms from START, actions)."""
    return [((chunk.stamp_ns - START) / MS, chunk.actions.tolist()) for chunk in chunks]


def stamps(chunks: list[ActionChunk]) -> list[float]:
    return [at for at, _ in seen(chunks)]
