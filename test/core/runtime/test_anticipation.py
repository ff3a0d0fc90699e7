"""Anticipation: a rehearsal is over a margin before the earliest observation of late, however long it may take."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rql_core.contract.time import tick_time
from rql_core.errors import ConfigError
from rql_core.runtime.anticipation import MARGIN_NS, WINDOW, Anticipation

MS = 1_000_000
RATE = Fraction(50)
FIRST = 10**9
# Another clock than the ticks', and any zero.
OFFSET = -123_456_789


def seen(*late_ms: float, rate: Fraction = RATE, margin_ns: int | None = None) -> Anticipation:
    """What has seen observations that came so late after their ticks."""
    found = Anticipation(rate, margin_ns)
    for number, late in enumerate(late_ms):
        found.observed(FIRST + number, tick_time(FIRST + number, rate) + OFFSET + round(late * MS))
    return found


def begins_ms(anticipation: Anticipation, tick: int, most: int = 1, now_ms: float = -20.0) -> list[float]:
    """When each begins, in ms after the tick."""
    base = tick_time(FIRST + tick, RATE) + OFFSET
    return [(begin - base) / MS for begin in anticipation.begins(FIRST + tick, base + round(now_ms * MS), most)]


def test_it_is_over_a_margin_before_the_earliest_observation_of_late() -> None:
    anticipation = seen(0.5, 0.4, 0.7)
    anticipation.took(2 * MS)
    anticipation.took(3 * MS)
    assert begins_ms(anticipation, 3) == pytest.approx([0.4 - MARGIN_NS / MS - 3])
    assert begins_ms(anticipation, 10) == pytest.approx([0.4 - MARGIN_NS / MS - 3])


def test_it_is_done_as_often_as_there_is_time() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=2 * MS)
    anticipation.took(3 * MS)
    for now_ms, begins in ((-20.0, [-7.5, -4.5]), (-7.5, [-7.5, -4.5]), (-7.4, [-4.5]), (-4.5, [-4.5]), (-4.4, [])):
        assert begins_ms(anticipation, 2, most=2, now_ms=now_ms) == pytest.approx(begins)
    assert begins_ms(anticipation, 2, most=2, now_ms=5.0) == []


def test_nothing_is_known_before_two_observations_and_an_answer() -> None:
    anticipation = seen(0.5)
    anticipation.took(MS)
    assert begins_ms(anticipation, 1) == []
    assert begins_ms(seen(0.5, 0.5), 2) == []


def test_what_was_once_early_or_long_is_forgotten() -> None:
    anticipation = seen(0.1, *[0.9] * WINDOW, margin_ns=0)
    for duration in (50 * MS, *[MS] * WINDOW):
        anticipation.took(duration)
    assert begins_ms(anticipation, 20) == pytest.approx([-0.1])


def test_the_margin_is_a_quarter_of_a_short_period() -> None:
    assert Anticipation(Fraction(200)).margin_ns == 1_250_000
    assert Anticipation(Fraction(30000, 1001)).margin_ns == MARGIN_NS


@pytest.mark.parametrize("rate", [RATE, Fraction(30000, 1001)])
@pytest.mark.parametrize("jump_s", [-3600, 0.1, 3600])
def test_a_clock_that_was_set_is_learnt_anew(rate: Fraction, jump_s: float) -> None:
    anticipation = seen(0.5, 0.5, 0.5, rate=rate, margin_ns=0)
    anticipation.took(MS)
    moved = OFFSET + round(jump_s * 1000 * MS)
    anticipation.observed(FIRST + 3, tick_time(FIRST + 3, rate) + moved)
    assert anticipation.begins(FIRST + 4, 0, 1) == []
    anticipation.observed(FIRST + 4, tick_time(FIRST + 4, rate) + moved)
    begin = tick_time(FIRST + 5, rate) + moved - MS
    assert anticipation.begins(FIRST + 5, begin - MS, 1) == [begin]


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin_ns is -1"):
        Anticipation(RATE, -1)
