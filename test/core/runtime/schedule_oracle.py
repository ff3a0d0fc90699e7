"""What a chunk schedule has to answer, by looking at every chunk at every question; shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp

from rql_core.contract import ActionChunk, Contract, parse_contract

CONTRACT = """
schema: 1
name: two_joints
description: Two joints, for tests.
rate: {rate}
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {{method: hold, max_age: 0.1}}
      features: [{{name: q, unit: rad, fields: [position.elbow]}}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: {command}
  unit: rad
  hold: {hold}
  max_age: {max_age}
  features: [{{name: elbow, lower: -2.0, upper: 2.0}}, {{name: wrist, lower: -1.0, upper: 0.0}}]
reward:
  success: {{rule: within, feature: q, target: [0.0], tolerance: 0.1}}
  at_success: 0.0
  otherwise: -1.0
episodes: {{boundary: {{by: bag}}, min_steps: 1, at_success: continue}}
"""


def contract_of(rate: float = 20, max_age: float = 0.0, command: str = "positions") -> Contract:
    hold = "last" if command == "positions" else "zero"
    return parse_contract(CONTRACT.format(rate=rate, max_age=max_age, command=command, hold=hold))


@dataclass
class Oracle:
    """Keeps everything for ever."""

    mode: str
    max_age_ns: int
    period_ns: int
    decay: float = 0.01
    taken: list[tuple[ActionChunk, int]] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)

    def add(self, chunk: ActionChunk, arrived_ns: int) -> bool:
        begins = max(arrived_ns, chunk.stamp_ns)
        if self.taken:
            before, before_begins = self.taken[-1]
            if chunk.stamp_ns <= before.stamp_ns:
                return False
            begins = max(begins, before_begins)
            if self.mode == "open_loop":
                begins = max(begins, before.ends_ns[-1])
        if begins >= chunk.ends_ns[-1]:
            return False
        if self.taken and begins > self.covered_until():
            self.gaps.append(int(begins) - self.covered_until())
        self.taken.append((chunk, int(begins)))
        return True

    def covered_until(self) -> int:
        ends = [int(chunk.ends_ns[-1]) for chunk, _ in self.taken]
        return (max(ends) if self.mode == "ensemble" else ends[-1]) + self.max_age_ns

    def running(self, time_ns: int) -> list[float] | None:
        says = []
        begun = [chunk for chunk, begins in self.taken if begins <= time_ns]
        for chunk in begun if self.mode == "ensemble" else begun[-1:]:
            start = chunk.stamp_ns
            for end, action in zip(chunk.ends_ns, chunk.actions, strict=True):
                if start <= time_ns < end:
                    says.append((chunk.stamp_ns, action))
                start = end
        if not says:
            return None
        oldest = says[0][0]
        weights = [exp(-self.decay * (stamp - oldest) / self.period_ns) for stamp, _ in says]
        return [
            sum(weight * action[joint] for weight, (_, action) in zip(weights, says, strict=True)) / sum(weights)
            for joint in range(2)
        ]

    def action_at(self, time_ns: int) -> list[float] | None:
        now = self.running(time_ns)
        if now is not None:
            return now
        ends = [int(chunk.ends_ns[-1]) for chunk, begins in self.taken if begins <= time_ns]
        if not ends:
            return None
        end = max(ends) if self.mode == "ensemble" else ends[-1]
        return self.running(end - 1) if time_ns < end + self.max_age_ns else None
