"""A rehearsal does what is done for an observation, and nothing that leaves depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from runner_bench import PERIOD, strict
from runner_script import MS, START, Script, joints, tool

from rql_core.contract import ActionChunk
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Guide, Plan
from rql_core.runtime.rehearsal import Rehearsal
from rql_core.runtime.runner import PolicyRunner, Request

MODES = ("open_loop", "receding", "ensemble", "rtc")


class Rehearsable(Script):
    """Chunks that break limits now and then, the same for the same observation and guide, in vain or not."""

    takes_guide = True
    rehearsed = 0

    def plan(self, observation: Any, guide: Guide | None = None) -> Plan:
        wave = 3.0 * np.sin(observation.sum() + np.arange(self.horizon))[:, None]
        return Plan(wave if guide is None else 0.5 * (wave + guide.previous))

    def rehearse(self, observation: Any, guide: Guide | None = None) -> Plan:
        self.rehearsed += 1
        return self.plan(observation, guide)


def run(
    options: Options, rehearse: bool, ticks: int = 40, *, partial: bool = False
) -> tuple[list[ActionChunk], list[ActionChunk], Rehearsable]:
    """What left, and what left in vain, of a robot that is observed at every tick and answered 10 ms later.

    `partial`: the actor is left out of rehearsals.
    """
    actor = Rehearsable()
    runner = PolicyRunner(strict(), actor, options)
    runner.start(None, START)
    left: list[ActionChunk] = []
    in_vain: list[ActionChunk] = []
    twin: Rehearsal | None = None
    for tick in range(ticks):
        at = float(tick * PERIOD)
        value = 0.1 * np.sin(0.3 * tick)
        now = START + round(at * MS)
        heard = [("/joints", joints(at, value), now), ("/tool", tool(at, value), now)]
        for topic, message, receive_ns in heard:
            runner.push(topic, message, receive_ns)
        left += runner.poll(now)
        request = runner.take_request()
        if request is None:
            continue
        arrived = now + 10 * MS
        answer = actor.plan(request.observation, request.guide)
        left += runner.answer(request, answer, arrived, 10 * MS)
        if rehearse:
            if twin is None or not twin.fits(runner, request.generation):
                twin = Rehearsal(runner, request.generation)
            plan, chunks = twin.make(request, heard, arrived, answer if partial else None)
            assert plan is not None
            in_vain += chunks
    return left, in_vain, actor


def same(one: list[ActionChunk], other: list[ActionChunk]) -> bool:
    return len(one) == len(other) and all(
        a.stamp_ns == b.stamp_ns and np.array_equal(a.ends_ns, b.ends_ns) and np.array_equal(a.actions, b.actions)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_leaves_in_vain_is_what_leaves_and_changes_nothing_of_it(mode: Any, partial: bool) -> None:
    options = Options(mode, lockstep=False)
    left, in_vain, actor = run(options, rehearse=True, partial=partial)
    assert len(left) >= 8
    assert actor.rehearsed == (0 if partial else len(left))
    assert same(in_vain, left)
    assert same(run(options, rehearse=False)[0], left)


def test_in_shadow_nothing_leaves_in_vain_either() -> None:
    left, in_vain, actor = run(Options("receding", lockstep=False, shadow=True), rehearse=True)
    assert (left, in_vain) == ([], [])
    assert actor.rehearsed > 8


def test_another_policy_another_option_and_an_interruption_need_another_twin() -> None:
    runner = PolicyRunner(strict(), Rehearsable(), Options("receding", lockstep=False))
    assert Rehearsal(runner, 3).fits(runner, 3)
    assert not Rehearsal(runner, 3).fits(runner, 4)
    twin = Rehearsal(runner, 3)
    runner.set_options(Options("rtc", lockstep=False))
    assert not twin.fits(runner, 3)
    twin = Rehearsal(runner, 3)
    runner.set_actor(Rehearsable(), None)
    assert not twin.fits(runner, 3)


def test_an_actor_that_cannot_rehearse_is_left_alone() -> None:
    runner = PolicyRunner(strict(), Script(), Options("receding", lockstep=False))
    request = Request(0, 1, START, np.zeros(2, dtype=np.float32), None)
    assert Rehearsal(runner, 0).make(request, [], START) == (None, [])
