"""A planar arm that does what it is commanded, while a test spoils what the node hears."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
from executed import Executed
from robot import Robot
from trajectory_msgs.msg import JointTrajectory

from rql_core.contract import Contract, decode_chunk

# As float32 too, which is what observations are.
START = (-0.875, 1.875)
# Every wait here is for something that comes within a second or two on an idle machine, or not at all.
PATIENCE_S = 20.0


class Arm(Robot):
    """Joints that move as the chunks say; `executed` has the commands. `sim_ns` replaces the wall clock if not None.

    While `silent` nothing is observed, but by who says what is to be sent.
    """

    def __init__(self, contract: Contract, *remaps: str) -> None:
        self.executed = Executed(contract, START)
        self.position = np.array(START)
        self.sim_ns: int | None = None
        self.silent = False
        self._missed_at = 0
        self._last_tick = 0
        self._diagnosed = 0
        super().__init__(contract, *remaps)

    def _receive(self, message: JointTrajectory, info: Any) -> None:  # type: ignore[override]
        chunk = decode_chunk(self.contract, message, 1)
        self.chunks.append(chunk)
        left = info["source_timestamp"] if self.sim_ns is None else self.sim_ns
        self.executed.add(chunk, left)

    def now_ns(self) -> int:
        """The clock that the observations are stamped by."""
        return int(self.node.get_clock().now().nanoseconds) if self.sim_ns is None else self.sim_ns

    def forget(self) -> None:
        """Begin a new record, where the arm is at rest."""
        self.executed.clear()
        self.chunks.clear()
        self.diagnostics.clear()

    @property
    def moving(self) -> bool:
        """Whether a command that is not rest is in force."""
        return self.executed.moving(self.now_ns())

    def step(self, send: Callable[[int], None] | None = None) -> None:
        """Serve callbacks; at the next tick move the joints, and `send(stamp)` what the node is to hear."""
        period = self.contract.period_ns
        tick = self.now_ns() // period
        if tick > self._last_tick:
            if self._last_tick and tick > self._last_tick + 1:
                self._missed_at = tick
            self._last_tick = tick
            command = self.executed.at(tick * period)
            positions = self.contract.action.command == "positions"
            self.position = command if positions else self.position + command * period / 1e9
            if send is not None:
                send(tick * period)
            elif not self.silent:
                self.observe(tick * period)
        self.executor.spin_once(timeout_sec=0.005)

    def observe(self, stamp_ns: int) -> None:
        """What the arm's sensors say."""
        velocity = self.executed.at(stamp_ns)
        if self.contract.action.command == "positions":
            velocity = (velocity - self.executed.at(stamp_ns - self.contract.period_ns)) * self.contract.rate
        self.publish(stamp_ns, tuple(self.position.tolist()), velocity=tuple(velocity.tolist()))

    def go_on(
        self,
        done: Callable[[], bool],
        what: str | Callable[[], str],
        send: Callable[[int], None] | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        """Tick by tick until `done()`."""
        deadline = monotonic() + patience
        while not done():
            if monotonic() > deadline:
                said = what if isinstance(what, str) else what()
                raise AssertionError(f"waited {patience:g} s for {said}; last: {self.last_words()}")
            self.step(send)

    def tick_for(self, ticks: int, send: Callable[[int], None] | None = None) -> None:
        """So many ticks of the arm's clock."""
        until = self.now_ns() + ticks * self.contract.period_ns
        self.go_on(lambda: self.now_ns() >= until, f"{ticks} ticks", send)

    def start_moving(self) -> None:
        """Until commands that are not rest are executed."""
        self.silent = False
        self.go_on(lambda: self.moving, "the arm to move")

    def move_steadily(self) -> None:
        """Until it moves and no tick was missed for a while: a test that was busy elsewhere is rightly stopped for."""
        self.silent = False
        self.go_on(lambda: self.moving and self._last_tick - self._missed_at > 8, "the arm to move steadily")

    def come_to_rest(self, send: Callable[[int], None] | None = None) -> None:
        """Until nothing but rest is to come."""
        self.go_on(lambda: not self.moving and self.executed.ends_ns <= self.now_ns(), "the arm to come to rest", send)

    # What the node says

    def said(self, text: str) -> bool:
        """Whether the node has said so on /diagnostics since `forget` or `listen_anew`."""
        return any(
            text in line
            for status in self.diagnostics
            for line in (status.message, *(f"{value.key}: {value.value}" for value in status.values))
        )

    def listen_anew(self) -> None:
        """What was said until now does not count."""
        self.diagnostics.clear()

    def last_words(self) -> str:
        """The last message on /diagnostics."""
        if not self.diagnostics:
            return "nothing was said"
        last = self.diagnostics[-1]
        values = {value.key: value.value for value in last.values}
        return f"{last.message!r} {values}"

    def figure(self, name: str) -> str:
        """A value of the last message on /diagnostics; "" where it is not there."""
        values = self.diagnostics[-1].values if self.diagnostics else []
        return next((value.value for value in values if value.key == name), "")
