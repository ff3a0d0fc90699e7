"""Position commands beside a clock: a joint that follows, and hangs below what it is commanded."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from runner_bench import MODES, PERIOD, Bench, troubles
from runner_script import CONTRACT, HOLD_LAST

from rql_core.contract import parse_contract
from rql_core.runtime.options import Options
from rql_core.runtime.runner import PolicyRunner

VELOCITY, ACCELERATION, JERK = 1.0, 8.0, 160.0
SAFETY = f"""safety:
  units: {{position: rad, velocity: rad/s, acceleration: rad/s^2, jerk: rad/s^3}}
  measured: {{position: joint}}
  limits: [{{name: elbow, deviation: 0.5, velocity: {VELOCITY}, acceleration: {ACCELERATION}, jerk: {JERK}}}]
  ramp: 0.2
  latch: {{not_finite: 3, window: 60.0}}
  stale: {{hold_after: 0.12, stop_after: 1.0, recover_after: 0.1, after_stop: recover}}
"""


class Arm(Bench):
    """Goes to where it was last commanded, but for `sag`, within a period. Plans go to the value that is observed."""

    def __init__(self, options: Options, horizon: int = 5, *, sag: float = 0.0) -> None:
        super().__init__(options, horizon)
        text = CONTRACT.split("safety:")[0]
        for was, now in HOLD_LAST:
            text = text.replace(was, now)
        self.contract = parse_contract(text + SAFETY)
        self.runner = PolicyRunner(self.contract, self.actor, options)
        self.sag = sag
        self.own: Any = None
        self.start = 0.3
        self.executed = [self.start]

    def command(self, time_ns: int) -> float:
        action = self.schedule.action_at(time_ns)
        return self.executed[-1] if action is None else float(action[0])

    def observe(self, value: float = 0.5, *, joint: bool = True, pose: bool = True, ahead: float = 0.0) -> None:
        if self.actor.says is None:
            self.actor.says = self.own = np.full((self.actor.horizon, 1), value)
        super().observe(self.executed[-1] - self.sag, joint=joint, pose=pose, ahead=ahead)

    def run(self, periods: int, delay: float = 10, value: float = 0.5) -> None:
        if self.actor.says is self.own:
            self.actor.says = None
        super().run(periods, delay, value)

    def assert_safe(self) -> None:
        values = np.array([self.executed[0], self.executed[0], *self.executed])
        period = PERIOD / 1000
        assert np.isfinite(values).all()
        assert np.abs(values).max() <= 2.0 + 1e-6
        for order, limit in ((1, VELOCITY), (2, ACCELERATION), (3, JERK)):
            steps = np.abs(np.diff(values, order))
            at = int(steps.argmax())
            # Where the joints are is known to float32.
            assert steps.max() <= limit * period**order + 1e-6, (order, at, values[max(0, at - 4) : at + 6])


def test_after_a_hold_a_joint_goes_on_from_where_it_was_commanded_and_not_from_where_it_hangs() -> None:
    arm = Arm(Options(lockstep=False), sag=0.0)
    arm.run(20, value=1.0)
    arm.sag = 0.2
    arm.run(5, value=1.0)
    arm.pass_time(arm.at + 600)
    assert "holding" in str(arm.runner.reason(arm.now()))
    arm.run(20, value=1.0)
    assert arm.runner.commanding
    assert min(arm.executed[-15:]) > 0.9
    arm.assert_safe()


@given(troubles(), st.sampled_from(MODES), st.integers(0, 260))
def test_whatever_happens_positions_keep_to_the_limits(
    happening: list[tuple[str, float]], mode: Any, delay: int
) -> None:
    arm = Arm(Options(mode, lockstep=False))
    arm.run(3)
    for kind, value in happening:
        # Of a clock ahead a measured position is older than it says, and nobody can tell.
        arm.befall("good" if kind == "ahead" else kind, value, delay)
    arm.pass_time(arm.at + 2000)
    assert arm.executed[-1] == arm.executed[-2]
    arm.assert_safe()
