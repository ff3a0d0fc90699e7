"""Single commands, read faster or slower than the control rate: what a controller that holds the last one would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_bench import ACCELERATION, MODES, PERIOD, Bench, troubles
from runner_script import MS, START

from rql_core.contract import ActionChunk
from rql_core.runtime.options import Options

EVERY = 10  # ms, as Bench polls


class Controller(Bench):
    """Reads a command after every poll, or after every `skip`-th, and holds it until there is another."""

    def __init__(self, options: Options, horizon: int = 4, *, skip: int = 1) -> None:
        super().__init__(options, horizon)
        self.skip = skip
        self.held = [0.0]
        self.read_at = [0.0]

    def publish(self, chunks: list[ActionChunk] | ActionChunk | None) -> None:
        super().publish(chunks)
        if self.at % (EVERY * self.skip) == 0 and self.at > self.read_at[-1]:
            command = self.runner.command_at(self.now())
            self.held.append(self.held[-1] if command is None else float(command[0]))
            self.read_at.append(self.at)

    def assert_smooth(self) -> None:
        """After a time without a command, which is held meanwhile, the next one may be further away by so much."""
        apart = EVERY if self.runner.options.interpolation == "linear" else PERIOD
        steps, gaps = np.abs(np.diff(self.held)), np.diff(self.read_at)
        allowed = ACCELERATION * np.maximum(apart, gaps + PERIOD * (gaps > EVERY)) / 1000
        at = int((steps - allowed).argmax())
        assert (steps <= allowed * (1 + 1e-6)).all(), (self.read_at[at], self.held[max(0, at - 3) : at + 4])


@pytest.mark.parametrize("interpolation", ["held", "linear"])
def test_a_chunk_that_answers_the_observation_at_which_a_stop_began_goes_on_where_that_is(interpolation: Any) -> None:
    """Both are stamped with the same time."""
    bench = Controller(Options("receding", 1, lockstep=False, interpolation=interpolation), horizon=6)
    bench.run(20, value=1.9)
    bench.actor.says = np.full((6, 1), np.nan)
    bench.run(1)
    bench.actor.says = None
    bench.run(12, value=1.9)
    bench.assert_smooth()
    bench.assert_safe()


@pytest.mark.parametrize("skip", [1, 7, 20])
def test_rest_is_told_however_seldom_anybody_asks_and_then_nothing(skip: int) -> None:
    for stops in (False, True):
        bench = Controller(Options(lockstep=False), skip=skip)
        bench.run(20, value=1.0)
        if stops:
            bench.publish(bench.runner.estop(bench.now(), "test"))
        bench.pass_time(bench.at + 3000)
        assert bench.held[-1] == 0.0
        assert bench.runner.command_at(bench.now()) is None


def test_rest_is_told_also_while_a_chunk_that_has_left_has_not_begun() -> None:
    """The node stood still, over the end of one chunk and until another had been made."""
    bench = Controller(Options("open_loop", lockstep=False, interpolation="linear"), horizon=5)
    bench.run(3)
    for kind in ("good", "good", "stalled"):
        bench.befall(kind, 2.0, 51)
    ended, left = bench.published[0][1], bench.published[-1]
    begins = PERIOD * (left[0] // PERIOD + 1)
    assert (ended.ends_ns[-1] - START) / MS < left[0] < begins - EVERY
    bench.pass_time(begins)
    after = [held for read_at, held in zip(bench.read_at, bench.held, strict=True) if left[0] < read_at < begins]
    assert after
    assert set(after) == {0.0}
    bench.assert_smooth()


def test_chunks_that_come_after_a_gap_and_overlap_are_followed_without_a_jump() -> None:
    """The stamp of the first was moved behind what the robot was told before; the next is not of a clock set back."""
    bench = Controller(Options("open_loop", lockstep=False, interpolation="linear"), horizon=5)
    bench.run(3)
    for value in (*(0.0,) * 9, 1.0, 0.0, 0.0):
        bench.befall("good", value, 99)
    bench.pass_time(bench.at + 500)
    bench.assert_smooth()


@pytest.mark.parametrize("happening", [("reset", "ahead", "good"), ("ahead", "good", "estop", "good", "good")], ids=str)
@pytest.mark.parametrize("interpolation", ["held", "linear"])
def test_a_stop_goes_on_whatever_is_planned_for_an_observation_of_a_clock_ahead(
    happening: tuple[str, ...], interpolation: Any
) -> None:
    bench = Controller(Options("receding", lockstep=False, interpolation=interpolation), horizon=5)
    bench.run(5)
    for kind in happening:
        bench.befall(kind, 2.0 if kind == "ahead" else 0.0, 0)
    bench.pass_time(bench.at + 2000)
    bench.assert_smooth()
    bench.assert_safe()


@given(
    troubles(),
    st.sampled_from(MODES),
    st.integers(0, 260),
    st.sampled_from(["held", "linear"]),
)
def test_whatever_happens_single_commands_keep_to_the_limits_between_the_ticks_too(
    happening: list[tuple[str, float]], mode: Any, delay: int, interpolation: Any
) -> None:
    bench = Controller(Options(mode, lockstep=False, interpolation=interpolation), horizon=5)
    bench.run(3)
    for kind, value in happening:
        bench.befall(kind, value, delay)
    bench.pass_time(bench.at + 2000)
    assert bench.held[-1] == 0.0
    bench.assert_smooth()
