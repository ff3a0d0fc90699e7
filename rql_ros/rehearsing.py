"""Rehearsals of a control loop: from the messages of an observation to the bytes of a chunk, but for DDS itself."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from rql_core.runtime.anticipation import Anticipation
from rql_core.runtime.rehearsal import Rehearsal
from rql_core.runtime.runner import PolicyRunner, Request
from rql_ros.controller import chunk_message


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
        self._began_ns = 0
        # The last request, when its plan had come, and the tick of the next; None once it was rehearsed.
        self._last: tuple[Request, int, int] | None = None
        # When to begin those that are still to be made; None until that was thought of.
        self._begins: list[int] | None = None
        # One for each, because a schedule refuses the chunk that it has: the last rehearsal is made with the first.
        self._twins: list[Rehearsal] = []

    def heard(self, topic: str, message: Any, receive_ns: int) -> None:
        """A message of an observation topic has come."""
        self._heard[topic] = message, receive_ns

    def asked(self, request: Request) -> None:
        """A plan is about to be made."""
        self._began_ns = perf_counter_ns()
        self._anticipation.observed(request.tick, self._began_ns)
        self._last = self._begins = None

    def answered(self, request: Request, arrived_ns: int, due: int | None) -> None:
        """What was planned has left, at the node's time `arrived_ns`; the next is due at the tick `due`, if any is."""
        self._anticipation.took(perf_counter_ns() - self._began_ns)
        self._last = None if due is None else (request, arrived_ns, max(due, request.tick + 1))

    def idle(self) -> float | None:
        """Nobody asks: s until it is time to rehearse, which is done then; None where it is not to be done."""
        if self._last is None:
            return None
        request, arrived_ns, tick = self._last
        if self._begins is None:
            if not self._twins or not all(twin.fits(self._runner, request.generation) for twin in self._twins):
                self._twins = [Rehearsal(self._runner, request.generation) for _ in range(self._most)]
            self._begins = self._anticipation.begins(tick, perf_counter_ns(), self._most)
        now = perf_counter_ns()
        if self._begins and now < self._begins[0]:
            return (self._begins[0] - now) / 1e9
        if not self._begins or now > self._begins.pop(0) + self._anticipation.margin_ns // 2:
            self._last = self._begins = None
            self.left_out += 1
            return None
        if self._rehearse(self._twins[len(self._begins)], request, arrived_ns) and self._begins:
            return 0.0  # a question that came meanwhile goes first
        self._last = self._begins = None
        return None

    def _rehearse(self, twin: Rehearsal, request: Request, arrived_ns: int) -> bool:
        """Whether it did not fail."""
        began = perf_counter_ns()
        self.made += 1
        try:
            self._go_through(twin, request, arrived_ns)
        except Exception as error:
            self._twins = []
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._anticipation.took(perf_counter_ns() - began)
        return bool(self._twins)

    def _go_through(self, twin: Rehearsal, request: Request, arrived_ns: int) -> None:
        heard = [
            (topic, deserialize_message(serialize_message(message), type(message)), receive_ns)
            for topic, (message, receive_ns) in list(self._heard.items())
        ]
        _, chunks = twin.make(request, heard, arrived_ns)
        for chunk in chunks:
            message = self._message(chunk)
            if not isinstance(message, bytes):
                serialize_message(message)

    def figures(self) -> dict[str, str]:
        """What became of rehearsals: those left out found no time, because the policy takes nearly a whole period."""
        figures = {"rehearsals": str(self.made), "rehearsals left out": str(self.left_out)}
        return figures | ({"last rehearsal that failed": self.failure} if self.failure else {})
