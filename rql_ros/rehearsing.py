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
    """Makes one rehearsal for each answer, when the next observation is about to come.

    `heard` and `figures` are for any thread, everything else is for the one that plans.
    """

    def __init__(self, runner: PolicyRunner) -> None:
        self.made = self.left_out = 0
        # Why the last one failed, which nobody has to wait for: the plan that counts may fail as well, or not.
        self.failure = ""
        self._runner = runner
        self._anticipation = Anticipation(runner.contract.rate_fraction)
        self._message = chunk_message(runner.contract)
        self._heard: dict[str, tuple[Any, int]] = {}
        self._began_ns = 0
        # The last request, when its plan had come, and the tick of the next; None once it was rehearsed.
        self._last: tuple[Request, int, int] | None = None
        self._begin_ns: int | None = None
        self._twin: Rehearsal | None = None

    def heard(self, topic: str, message: Any, receive_ns: int) -> None:
        """A message of an observation topic has come."""
        self._heard[topic] = message, receive_ns

    def asked(self, request: Request) -> None:
        """A plan is about to be made."""
        self._began_ns = perf_counter_ns()
        self._anticipation.observed(request.tick, self._began_ns)
        self._last = self._begin_ns = None

    def answered(self, request: Request, arrived_ns: int, due: int | None) -> None:
        """What was planned has left, at the node's time `arrived_ns`; the next is due at the tick `due`, if any is."""
        self._anticipation.took(perf_counter_ns() - self._began_ns)
        self._last = None if due is None else (request, arrived_ns, max(due, request.tick + 1))

    def idle(self) -> float | None:
        """Nobody asks: s until it is time for a rehearsal, which is made then; None where none is to be made."""
        if self._last is None:
            return None
        request, arrived_ns, tick = self._last
        if self._begin_ns is None:
            if self._twin is None or not self._twin.fits(self._runner, request.generation):
                self._twin = Rehearsal(self._runner, request.generation)
            self._begin_ns = self._anticipation.begin_ns(tick)
            late_ns = 0
        else:
            late_ns = self._anticipation.margin_ns // 2
        now = perf_counter_ns()
        if self._begin_ns is not None and now < self._begin_ns:
            return (self._begin_ns - now) / 1e9
        self._last, begin_ns, self._begin_ns = None, self._begin_ns, None
        if begin_ns is None:
            return None
        if now > begin_ns + late_ns:
            self.left_out += 1
            return None
        try:
            self._rehearse(request, arrived_ns)
        except Exception as error:
            self._twin = None
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self.made += 1
        self._anticipation.took(perf_counter_ns() - now)
        return None

    def _rehearse(self, request: Request, arrived_ns: int) -> None:
        assert self._twin is not None
        heard = [
            (topic, deserialize_message(serialize_message(message), type(message)), receive_ns)
            for topic, (message, receive_ns) in list(self._heard.items())
        ]
        _, chunks = self._twin.make(request, heard, arrived_ns)
        for chunk in chunks:
            serialize_message(self._message(chunk))

    def figures(self) -> dict[str, str]:
        """What became of rehearsals: those left out found no time, because the policy takes nearly a whole period."""
        figures = {"rehearsals": str(self.made), "rehearsals left out": str(self.left_out)}
        return figures | ({"last rehearsal that failed": self.failure} if self.failure else {})
