"""A rehearsal: all that the next observation will ask for, done with the last one and in vain.

It runs the same code over objects of its own, so that the processor's caches hold that code, the network's weights and
the tables of both when they are needed. Nothing that leaves depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rql_core.contract import ActionChunk, TickAssembler
from rql_core.runtime.commander import Commander, Request
from rql_core.runtime.plan import Plan, Rehearsing
from rql_core.runtime.runner import PolicyRunner


class Rehearsal:
    """A twin of a runner, which follows it with the requests that it was given. Owned by one thread."""

    def __init__(self, runner: PolicyRunner, generation: int) -> None:
        """`generation`: of the requests that it will be given; after another one everything is to begin anew."""
        self._actor, self._options, self._generation = runner.actor, runner.options, generation
        self._assembler = TickAssembler(runner.contract)
        self._commander = Commander(runner.contract, runner.actor.horizon, runner.options, Counter())

    def fits(self, runner: PolicyRunner, generation: int) -> bool:
        """Whether the runner still is what this is a twin of."""
        alike = runner.actor is self._actor and runner.options == self._options
        return alike and generation == self._generation and self._commander.filter.latched is None

    def make(
        self,
        request: Request,
        heard: Iterable[tuple[str, Any, int]],
        arrived_ns: int,
        known: Plan | None = None,
    ) -> tuple[Plan | None, list[ActionChunk]]:
        """The plan and the chunks that would leave, for a request whose plan arrived at `arrived_ns`.

        `heard`: the topics, messages and times of reception that the request came of. `known`: the plan, where the
        actor is to be left out. No plan where the actor cannot rehearse. Raises what the actor raises, and
        ContractError.
        """
        for topic, message, receive_ns in heard:
            self._assembler.push(topic, message, receive_ns)
        self._assembler.take(arrived_ns)
        if not isinstance(self._actor, Rehearsing):
            return None, []
        plan = known or self._actor.rehearse(request.observation, request.guide)
        return plan, self._commander.leave(request, plan.actions, arrived_ns, arrived_ns)
