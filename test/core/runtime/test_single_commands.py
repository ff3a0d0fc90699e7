"""Single commands between the ticks of what has left: held or on a line, and at rest when it is over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import contract_of

from rql_core.contract.time import tick_time
from rql_core.errors import ConfigError
from rql_core.runtime.options import Interpolation, Options
from rql_core.runtime.sent import Outgoing, SentCommands

TICK = 10**9
PERIOD_MS = 50
CONTRACTS = {command: contract_of(command=command) for command in ("positions", "velocities")}
RATE = CONTRACTS["velocities"].rate_fraction


def outgoing(interpolation: Interpolation | None, command: str = "velocities") -> Outgoing:
    return Outgoing(CONTRACTS[command], 4, interpolation)


def leave(out: Outgoing, tick: int, *values: float) -> None:
    out.leave(TICK + tick, tick_time(TICK + tick, RATE), np.tile(np.array(values)[:, None], (1, 2)))


def at(out: Outgoing, *times_ms: float) -> list[float | None]:
    begin = tick_time(TICK, RATE)
    found = [out.command_at(begin + round(time * 1e6)) for time in times_ms]
    return [None if command is None else float(command[0]) for command in found]


def test_a_line_reaches_each_ticks_command_at_its_end_and_begins_with_the_first() -> None:
    out = outgoing("linear")
    leave(out, 0, 0.0, 0.1, 0.2, 0.3)
    assert at(out, -1) == [None]
    # Nothing was before: velocities come from rest.
    assert at(out, 0, 25, 50, 75, 100, 110, 199.999) == pytest.approx([0, 0, 0, 0.05, 0.1, 0.12, 0.3], abs=1e-4)


def test_what_takes_over_goes_on_from_the_command_of_the_tick_before() -> None:
    out = outgoing("linear")
    leave(out, 0, 0.0, 0.1, 0.2, 0.3)
    leave(out, 2, 1.0, 1.2)
    assert at(out, 75, 100, 125, 149.9999, 150, 175) == pytest.approx([0.05, 0.1, 0.55, 1.0, 1.0, 1.1], abs=1e-4)


def test_a_held_command_stays_as_it_is_for_the_whole_tick() -> None:
    out = outgoing("held")
    leave(out, 0, 0.1, 0.2)
    assert at(out, 0, 49.999, 50, 99.999) == [0.1, 0.1, 0.2, 0.2]


def test_what_a_chunk_ends_with_is_told_once_more_and_then_nothing() -> None:
    for interpolation in ("held", "linear"):
        out = outgoing(interpolation)  # type: ignore[arg-type]
        leave(out, 0, 0.1, 0.0)
        assert at(out, 30, 100, 101, 5000)[1:] == [0.0, None, None]
        out.clear()
        assert at(out, 30) == [None]


def test_positions_are_on_a_line_and_everything_else_is_held_unless_it_is_said() -> None:
    found = {}
    for command in ("positions", "velocities"):
        for interpolation in (None, "held", "linear"):
            out = outgoing(interpolation, command)  # type: ignore[arg-type]
            leave(out, 0, 0.0, 0.1)
            found[command, interpolation] = at(out, 75)[0]
    half = pytest.approx(0.05)
    assert found == {
        ("positions", None): half, ("positions", "held"): 0.1, ("positions", "linear"): half,
        ("velocities", None): 0.1, ("velocities", "held"): 0.1, ("velocities", "linear"): half,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="interpolation is 'cubic', expected one of held, linear"):
        Options(interpolation="cubic")  # type: ignore[arg-type]


@given(st.data())
def test_a_line_never_jumps_whatever_takes_over_and_how_often_it_is_asked_changes_nothing(data: Any) -> None:
    """Chunks leave at ticks, one after the other or long after; the reader comes ten times a tick, or when it likes."""
    asked, seldom = outgoing("linear", "positions"), outgoing("linear", "positions")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    leaves = sorted(data.draw(st.sets(st.integers(0, 12), min_size=1, max_size=6)))
    before: float | None = None
    for tick in range(leaves[-1] + 5):
        if tick in leaves:
            values = rng.uniform(-1, 1, data.draw(st.integers(1, 4)))
            if before is not None:
                # As the commander makes them: from where the last one ended, no further than that.
                values[0] = np.clip(values[0], before - 0.5, before + 0.5)
            for out in (asked, seldom):
                leave(out, tick, *values)
        for tenth in range(10):
            (found,) = at(asked, PERIOD_MS * tick + 5 * tenth)
            if found is not None and before is not None and asked.sent.in_force(TICK + tick - 1):
                assert abs(found - before) <= 2.0 / 10 + 1e-9
            before = found if found is not None else before
        time = PERIOD_MS * tick + data.draw(st.integers(0, PERIOD_MS - 1))
        if asked.sent.in_force(TICK + tick):
            assert at(seldom, time) == at(asked, time)


@pytest.mark.parametrize("positions", [False, True])
@given(story=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), min_size=1, max_size=8), keep=st.integers(2, 8))
def test_what_was_in_force_just_before_is_known_however_long_ago_it_began(
    positions: bool, story: list[tuple[int, int]], keep: int
) -> None:
    """Beside a list of all that was ever recorded: each `apart` ticks after the one before, so many steps."""
    sent = SentCommands(1, positions=positions, keep=keep)
    everything: dict[int, float] = {}
    rng = np.random.default_rng(0)
    tick = TICK
    for apart, steps in story:
        tick += apart
        values = rng.uniform(-1, 1, steps)
        sent.record(tick, values[:, None])
        everything = {at: value for at, value in everything.items() if at < tick}
        everything |= {tick + step: float(value) for step, value in enumerate(values)}
        for before in range(tick, tick + steps + 4):
            last = []
            for at in range(before - 3, before):
                until = [known for known in everything if known <= at]
                if not positions:
                    last.append(everything.get(at, 0.0))
                elif until:
                    last.append(everything[max(until)])
            state = sent.state_before(before)
            assert (state is None) == (not last)
            if state is not None:
                rows = [last[0]] * (3 - len(last)) + last
                np.testing.assert_array_equal(state.commands[:, 0], rows)
