"""Node, planner and robot for tests of a runner beside a clock, and what may befall them. Times are ms after START."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from runner_script import CONTRACT, MS, START, Script, joints, tool

from rql_core.contract import ActionChunk, CommandSchedule, Contract, parse_contract
from rql_core.errors import ContractError
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Guide, Plan
from rql_core.runtime.runner import PolicyRunner, Request
from rql_core.runtime.schedule import Mode

PERIOD = 50
MODES: tuple[Mode, ...] = ("open_loop", "receding", "ensemble", "rtc")
ACCELERATION, JERK = 8.0, 160.0
LIMITS = f"""  limits: [{{name: elbow, acceleration: {ACCELERATION}, jerk: {JERK}}}]
  ramp: 0.2
  latch: {{not_finite: 3, window: 60.0}}
  stale: {{hold_after: 0.12, stop_after: 1.0, recover_after: 0.1, after_stop: rearm}}
"""


def strict() -> Contract:
    return parse_contract(CONTRACT.split("  limits:")[0] + LIMITS)


class Planner(Script):
    """A script with values, for the critic monitor."""

    values: Any = None
    takes_guide = True

    def plan(self, observation: Any, guide: Guide | None = None) -> Plan:
        return Plan(self.act(observation), self.values)


class Bench:
    def __init__(self, options: Options | None = None, horizon: int = 4, **more: Any) -> None:
        self.contract = strict()
        self.actor = Planner(horizon)
        self.runner = PolicyRunner(self.contract, self.actor, options or Options(lockstep=False), **more)
        self.schedule = CommandSchedule()
        self.published: list[tuple[float, ActionChunk]] = []
        self.executed: list[float] = []
        self.waiting: list[tuple[float, Request]] = []
        self.at = 0.0
        self.taken: float | None = None
        # What the next chunk takes from being made until it leaves, and how many times as long when it is made anew.
        self.stall, self.slower = 0.0, 1.0
        self.asks_again = True

    def now(self) -> int:
        return START + round(self.at * MS)

    def publish(self, chunks: list[ActionChunk] | ActionChunk | None) -> None:
        leaving = chunks if isinstance(chunks, list) else [] if chunks is None else [chunks]
        if leaving and self.stall:
            self.idle(self.at + self.stall)
            takes = self.stall * self.slower
            while self.asks_again and self.runner.late(self.now()):
                # To be made again takes as long, or longer once; then a plan is given up, and a stop is made once more.
                leaving = self.runner.again(self.now() + round(self.stall * MS))
                self.idle(self.at + takes)
                if self.runner.late(self.now()) and self.runner.withdraw():
                    leaving = []
                takes = self.stall
            self.stall, self.slower = 0.0, 1.0
        for chunk in leaving:
            self.published.append((self.at, chunk))
            self.schedule.add(chunk)

    def observe(self, value: float = 0.5, *, joint: bool = True, pose: bool = True, ahead: float = 0.0) -> None:
        if joint:
            self.runner.push("/joints", joints(self.at + ahead, value), self.now())
        if pose:
            self.runner.push("/tool", tool(self.at + ahead), self.now())
        self.publish(self.runner.poll(self.now()))

    def ask(self, delay: float) -> None:
        """Plan for what the runner wants, to be answered `delay` ms later; one at a time, as the node does."""
        request = self.runner.take_request()
        if request is not None and not self.waiting:
            self.waiting.append((self.at + delay, request))

    def pass_time(self, until: float) -> None:
        """Go on to a time, polling every 10 ms and answering what is due; notes the command at each period's end."""
        while self.at < until:
            following = min(self.at - self.at % 10 + 10, until)
            while self.waiting and self.waiting[0][0] <= following:
                answered, request = self.waiting.pop()
                self.idle(answered)
                answer: Plan | Exception
                try:
                    answer = self.actor.plan(request.observation, request.guide)
                except Exception as error:
                    answer = error
                self.publish(self.runner.answer(request, answer, self.now(), 1_000_000))
            self.idle(following)
            self.publish(self.runner.poll(self.now()))

    def idle(self, until: float) -> None:
        """Go on to a time in which nothing is heard or said."""
        while self.at < until:
            self.at = min(self.at - self.at % PERIOD + PERIOD, until)
            if self.at % PERIOD == 0:
                self.executed.append(self.command(self.now() - 1))
                # Where positions begin is known to float32.
                changed = 0.0 if self.taken is None else abs(self.executed[-1] - self.taken)
                assert changed < 1e-6, f"the command changed before {self.at} ms"
                self.taken = self.command(self.now())

    def command(self, time_ns: int) -> float:
        action = self.schedule.action_at(time_ns)
        return 0.0 if action is None else float(action[0])

    def run(self, periods: int, delay: float = 10, value: float = 0.5) -> None:
        for _ in range(periods):
            self.observe(value)
            self.ask(delay)
            self.pass_time(self.at + PERIOD)

    def befall(self, kind: str, value: float, delay: float) -> None:
        """One of `troubles`, and the period after it."""
        self.actor.says = None
        self.stall, self.slower = 0.0, 1.0
        size = self.actor.horizon
        if kind == "nan":
            self.actor.says = np.full((size, 1), np.nan)
        elif kind == "huge":
            self.actor.says = np.full((size, 1), 1e300 * value)
        elif kind == "raise":
            self.actor.says = np.full((7,), value)
        elif kind == "jump":
            self.actor.says = np.resize([[2.0], [-2.0]], (size, 1)) * np.sign(value)
        elif kind == "stalled":
            self.stall = round(abs(value) * 25, 1)
            self.slower = 1.0 if value > 0 else 4.0
        if kind == "estop":
            self.publish(self.runner.estop(self.now(), "test"))
        elif kind == "rearm":
            with suppress(ContractError):  # refused where positions begin, and nothing was observed since a reset
                self.runner.rearm(self.now())
        elif kind == "reset":
            self.publish(self.runner.stop(self.now()))
            self.runner.reset(1)
        elif kind == "mode":
            self.runner.set_options(replace(self.runner.options, mode=MODES[round(abs(value))]))
        elif kind == "policy":
            self.actor = Planner(round(2 + abs(value)))
            self.runner.set_actor(self.actor, None)
        if kind == "silent":
            self.pass_time(self.at + PERIOD * round(1 + abs(value) * 4))
        elif kind == "quiet":
            self.pass_time(self.at + PERIOD * round(1 + abs(value) * 15))
        elif kind == "starved":  # by plans that are over when they come
            self.run(round(1 + abs(value) * 10), delay=PERIOD * (size + 2), value=value)
        elif kind == "half":
            self.observe(value, pose=False)
            self.pass_time(self.at + PERIOD)
        elif kind == "ahead":
            self.observe(value, ahead=PERIOD * abs(value))
            self.ask(delay)
            self.pass_time(self.at + PERIOD)
        else:
            self.run(1, delay=delay * (3 if kind == "slow" else 1), value=value)

    def assert_safe(self) -> None:
        values = np.array([0.0, 0.0, *self.executed])
        period = PERIOD / 1000
        assert np.isfinite(values).all()
        assert np.abs(values).max() <= 2.0
        assert np.abs(np.diff(values)).max() <= ACCELERATION * period * (1 + 1e-9)
        assert np.abs(np.diff(values, 2)).max() <= JERK * period**2 * (1 + 1e-9)


@st.composite
def troubles(draw: st.DrawFn) -> list[tuple[str, float]]:
    kinds = (
        "good",
        "good",
        "good",
        "nan",
        "huge",
        "raise",
        "silent",
        "quiet",
        "starved",
        "half",
        "estop",
        "rearm",
        "reset",
        "slow",
        "jump",
        "mode",
        "policy",
        "ahead",
        "stalled",
        "stalled",
    )
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.floats(-3, 3)), min_size=5, max_size=60))
