"""Rehearsals of a control loop: from the messages of an observation to the bytes of a chunk, but for DDS itself."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from rql_core.runtime.anticipation import Anticipation, Begin
from rql_core.runtime.plan import Plan
from rql_core.runtime.rehearsal import Rehearsal
from rql_core.runtime.runner import PolicyRunner, Request
from rql_ros.controller import chunk_message


@dataclass(frozen=True)
class _Last:
    """What was asked and answered last, when the answer came, and the tick of the next question."""

    request: Request
    plan: Plan
    arrived_ns: int
    next_tick: int


class Rehearsing:
    """Rehearses after each answer, when the next observation is about to come.

    `heard` and `figures` are for any thread, everything else is for the one that plans.
    """

    def __init__(self, runner: PolicyRunner, most: int) -> None:
        """`most`: rehearsals before an observation; what is used more than once stays in the caches for longer."""
        self.made = self.left_out = 0
        # Why the last one failed, which nobody has to wait for: the plan that counts may fail as well, or not.
        self.failure = ""
        self._runner = runner
        self._most = most
        self._anticipation = Anticipation(runner.contract.rate_fraction)
        self._message = chunk_message(runner.contract)
        self._heard: dict[str, tuple[Any, int]] = {}
        self._heard_ns = self._began_ns = 0
        self._last: _Last | None = None  # None once it was rehearsed
        # When to begin those that are still to be made; None until that was thought of.
        self._begins: list[Begin] | None = None
        self._first = True
        # One for each, because a schedule refuses the chunk that it has: the last rehearsal is made with the first.
        self._twins: list[Rehearsal] = []

    def heard(self, topic: str, message: Any, receive_ns: int) -> None:
        """A message of an observation topic has come."""
        self._heard_ns = perf_counter_ns()
        self._heard[topic] = message, receive_ns

    def asked(self, request: Request) -> None:
        """A plan is about to be made."""
        self._began_ns = self._heard_ns
        self._anticipation.observed(request.tick, self._began_ns)
        self._last = self._begins = None

    def answered(self, request: Request, answer: Plan | Exception, arrived_ns: int, due: int | None) -> None:
        """What was planned has left, at the node's time `arrived_ns`; the next is due at the tick `due`, if any is."""
        self._anticipation.answered(perf_counter_ns() - self._began_ns)
        if due is not None and isinstance(answer, Plan):
            self._last = _Last(request, answer, arrived_ns, max(due, request.tick + 1))

    def idle(self) -> float | None:
        """Nobody asks: s until it is time to rehearse, which is done then; None where it is not to be done."""
        last = self._last
        if last is None:
            return None
        now = perf_counter_ns()
        if self._begins is None:
            if not self._twins or not all(twin.fits(self._runner, last.request.generation) for twin in self._twins):
                self._twins = [Rehearsal(self._runner, last.request.generation) for _ in range(self._most)]
            self._begins = self._anticipation.begins(last.next_tick, now, self._most)
            self._first = True
        # Whoever was woken too late for one may be in time for the next.
        while self._begins and now > self._begins[0].time_ns + self._anticipation.margin_ns // 2:
            self._begins.pop(0)
        if not self._begins:
            self.left_out += self._first
            self._last = self._begins = None
            return None
        if now < self._begins[0].time_ns:
            return (self._begins[0].time_ns - now) / 1e9
        begin = self._begins.pop(0)
        if self._rehearse(self._twins[len(self._begins)], last, whole=begin.whole) and self._begins:
            return 0.0  # a question that came meanwhile goes first
        self._last = self._begins = None
        return None

    def _rehearse(self, twin: Rehearsal, last: _Last, *, whole: bool) -> bool:
        """Whether it did not fail."""
        began = perf_counter_ns()
        self.made += 1
        try:
            self._go_through(twin, last, None if whole else last.plan)
        except Exception as error:
            self._twins = []
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return False
        now = perf_counter_ns()
        self._anticipation.rehearsed(now, now - began, first=self._first, whole=whole)
        self._first = False
        return True

    def _go_through(self, twin: Rehearsal, last: _Last, known: Plan | None) -> None:
        heard = [
            (topic, deserialize_message(serialize_message(message), type(message)), receive_ns)
            for topic, (message, receive_ns) in list(self._heard.items())
        ]
        _, chunks = twin.make(last.request, heard, last.arrived_ns, known)
        for chunk in chunks:
            message = self._message(chunk)
            if not isinstance(message, bytes):
                serialize_message(message)

    def figures(self) -> dict[str, str]:
        """What became of rehearsals: those left out found no time, because the policy takes nearly a whole period."""
        figures = {"rehearsals": str(self.made), "rehearsals left out": str(self.left_out)}
        return figures | ({"last rehearsal that failed": self.failure} if self.failure else {})
