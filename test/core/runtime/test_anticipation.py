"""Anticipation: a rehearsal is over a margin before the earliest observation of late, however long it may take."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rql_core.contract.time import tick_time
from rql_core.errors import ConfigError
from rql_core.runtime.anticipation import FORGET_NS, MARGIN_NS, REHEARSALS, WINDOW, Anticipation, Begin

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
    """When each begins, in ms after the tick; all of them whole."""
    base = tick_time(FIRST + tick, RATE) + OFFSET
    begins = anticipation.begins(FIRST + tick, base + round(now_ms * MS), most)
    assert all(begin.whole for begin in begins)
    return [(begin.time_ns - base) / MS for begin in begins]


def at_ms(tick: int, ms: float) -> int:
    return tick_time(FIRST + tick, RATE) + OFFSET + round(ms * MS)


def test_it_is_over_a_margin_before_the_earliest_observation_of_late() -> None:
    """As long as the fastest answer: most were made without a rehearsal, and took longer for it."""
    anticipation = seen(0.5, 0.4, 0.7)
    anticipation.answered(3 * MS)
    anticipation.answered(2 * MS)
    assert begins_ms(anticipation, 3) == pytest.approx([0.4 - MARGIN_NS / MS - 2])
    assert begins_ms(anticipation, 10) == pytest.approx([0.4 - MARGIN_NS / MS - 2])


def test_it_takes_as_long_as_most_did() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=0)
    anticipation.answered(2 * MS)
    for first in (True, False):
        for took in (1, 2, 1, 6, 1, 1, 3, 1, 5, 1, 1):  # sorted: seven times 1, 2, 3, 5, 6
            anticipation.rehearsed(at_ms(1, 0), took * MS, first=first)
    # Nine of ten, and the first begins as if it took as long as the longest.
    assert begins_ms(anticipation, 2) == pytest.approx([0.5 - 6])
    assert begins_ms(anticipation, 2, now_ms=-5.0) == pytest.approx([-5.0])
    assert begins_ms(anticipation, 2, most=2) == pytest.approx([0.5 - 5 - 6, 0.5 - 5])
    assert begins_ms(anticipation, 2, most=2, now_ms=-9.5) == pytest.approx([-9.5, 0.5 - 5])
    # Three of four where there is less time, and so more of them.
    assert begins_ms(anticipation, 2, now_ms=-4.4) == pytest.approx([-4.4])
    assert begins_ms(anticipation, 2, most=2, now_ms=-9.4) == pytest.approx([0.5 - 3 - 6, 0.5 - 3])
    assert begins_ms(anticipation, 2, most=2, now_ms=-5.5) == pytest.approx([-5.5, 0.5 - 3])
    assert begins_ms(anticipation, 2, most=2, now_ms=-5.4) == pytest.approx([-5.4])
    for _ in range(REHEARSALS):
        anticipation.rehearsed(at_ms(1, 0), MS)
    assert begins_ms(anticipation, 2) == pytest.approx([0.5 - 1])


def test_those_after_the_first_take_a_time_of_their_own() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=0)
    anticipation.answered(9 * MS)
    anticipation.rehearsed(at_ms(1, 0), 3 * MS)
    assert begins_ms(anticipation, 2, most=3) == pytest.approx([0.5 - 9, 0.5 - 6, 0.5 - 3])
    anticipation.rehearsed(at_ms(1, 0), MS, first=False)
    assert begins_ms(anticipation, 2, most=3) == pytest.approx([0.5 - 5, 0.5 - 2, 0.5 - 1])


def test_it_is_done_as_often_as_there_is_time() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=2 * MS)
    anticipation.answered(3 * MS)
    for now_ms, begins in ((-20.0, [-7.5, -4.5]), (-7.5, [-7.5, -4.5]), (-7.4, [-4.5]), (-4.5, [-4.5])):
        assert begins_ms(anticipation, 2, most=2, now_ms=now_ms) == pytest.approx(begins)
    assert begins_ms(anticipation, 2, most=0) == []


def test_where_there_is_no_time_for_a_whole_one_a_partial_one_is_made() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=2 * MS)
    anticipation.answered(3 * MS)
    for took, end in ((None, -1.5), (1.0, -1.5)):
        if took is not None:
            anticipation.rehearsed(at_ms(2, 0), round(took * MS), whole=False)
        expected = at_ms(2, end - (took or 1.5))  # half an answer, until it is known
        for most in (1, 2):
            assert anticipation.begins(FIRST + 2, at_ms(2, -4.4), most) == [Begin(expected, whole=False)]
        assert anticipation.begins(FIRST + 2, expected, 1) == [Begin(expected, whole=False)]
        assert anticipation.begins(FIRST + 2, expected + 1, 1) == []
    assert anticipation.begins(FIRST + 2, at_ms(2, 5.0), 2) == []


def test_nothing_is_known_before_two_observations_and_an_answer() -> None:
    anticipation = seen(0.5)
    anticipation.answered(MS)
    assert begins_ms(anticipation, 1) == []
    assert begins_ms(seen(0.5, 0.5), 2) == []


def test_what_was_once_early_or_long_is_forgotten() -> None:
    anticipation = seen(0.1, *[0.9] * WINDOW, margin_ns=0)
    for duration in (MS, *[2 * MS] * WINDOW):
        anticipation.answered(duration)
    assert begins_ms(anticipation, 20) == pytest.approx([0.9 - 2])


def test_rehearsals_that_were_too_long_to_be_made_again_are_tried_again_after_a_while() -> None:
    anticipation = seen(0.5, 0.5, margin_ns=0)
    anticipation.answered(2 * MS)
    anticipation.rehearsed(at_ms(0, 0), 50 * MS)
    anticipation.rehearsed(at_ms(0, 0), 50 * MS, whole=False)
    base = at_ms(0, 0)
    tick = FIRST + FORGET_NS // 20_000_000
    assert anticipation.begins(tick, base + FORGET_NS - 5 * MS, 1) == []
    (begin,) = anticipation.begins(tick + 1, base + FORGET_NS + MS, 1)
    assert begin == Begin(tick_time(tick + 1, RATE) + OFFSET + round(0.5 * MS) - 2 * MS)


def test_the_margin_is_a_fifth_of_a_short_period() -> None:
    assert Anticipation(Fraction(1000)).margin_ns == 200_000
    assert Anticipation(Fraction(200)).margin_ns == MARGIN_NS
    assert Anticipation(Fraction(30000, 1001)).margin_ns == MARGIN_NS


@pytest.mark.parametrize("rate", [RATE, Fraction(30000, 1001)])
@pytest.mark.parametrize("jump_s", [-3600, 0.1, 3600])
def test_a_clock_that_was_set_is_learnt_anew(rate: Fraction, jump_s: float) -> None:
    anticipation = seen(0.5, 0.5, 0.5, rate=rate, margin_ns=0)
    anticipation.answered(MS)
    moved = OFFSET + round(jump_s * 1000 * MS)
    anticipation.observed(FIRST + 3, tick_time(FIRST + 3, rate) + moved)
    assert anticipation.begins(FIRST + 4, 0, 1) == []
    anticipation.observed(FIRST + 4, tick_time(FIRST + 4, rate) + moved)
    begin = tick_time(FIRST + 5, rate) + moved - MS
    assert anticipation.begins(FIRST + 5, begin - MS, 1) == [Begin(begin)]


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin_ns is -1"):
        Anticipation(RATE, -1)
