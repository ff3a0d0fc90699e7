"""Spare time: what nobody waits for is done where it fits, and now and then where it does not."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rql_core.errors import ConfigError
from rql_core.runtime.spare_time import WINDOW, Postponed, SpareTime

EVERY = 1000


def test_it_is_allowed_where_the_longest_of_late_still_fits() -> None:
    spare = SpareTime(EVERY)
    assert spare.allows(0, 0)
    spare.took(10, 30)
    spare.took(50, 20)
    assert spare.allows(100, 130)
    assert not spare.allows(100, 129)
    assert not spare.allows(100, 90)
    for _ in range(WINDOW):
        spare.took(200, 5)
    assert spare.allows(300, 305)
    assert not spare.allows(300, 304)


def test_where_it_never_fits_it_is_done_once_in_a_while() -> None:
    spare = SpareTime(EVERY, 0.05)
    done = []
    for now in range(0, 10 * EVERY, 50):
        if spare.allows(now, now + 40):
            spare.took(now, 45)
            done.append(now)
    assert done == list(range(0, 10 * EVERY, EVERY))


def test_where_it_never_fits_it_takes_no_more_than_a_share_of_the_time() -> None:
    spare = SpareTime(EVERY, 0.01)
    done = []
    for now in range(0, 100 * EVERY, 50):
        if spare.allows(now, now + 40):
            spare.took(now, 45)
            done.append(now)
    assert done == list(range(0, 100 * EVERY, 4500))


def test_a_clock_that_is_set_back_does_not_keep_it_waiting() -> None:
    spare = SpareTime(EVERY)
    spare.took(10**9, 500)
    assert spare.allows(5, 6)
    spare.took(6, 500)
    assert not spare.allows(7, 8)


def test_a_time_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at_least_every_ns is 0"):
        SpareTime(0)
    for share in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=f"most_share is {share}"):
            SpareTime(EVERY, share)


def test_what_is_due_waits_for_a_good_moment_but_not_for_long() -> None:
    due = Postponed(1000, 200)
    assert due.now(5, good=False)
    assert not due.now(1004, good=True)
    assert not due.now(1204, good=False)
    assert due.now(1020, good=True)
    assert not due.now(1030, good=True)
    # The next is due by the grid of the first, and no good moment comes.
    assert not due.now(2204, good=False)
    assert due.now(2205, good=False)
    assert due.now(3005, good=True)


def test_good_moments_or_not_it_is_done_once_a_period_in_the_mean_and_nothing_is_made_up_for() -> None:
    for apart, good in ((90, True), (250, False)):
        due = Postponed(1000, 200)
        done = [time for time in range(0, 100_000, apart) if due.now(time, good=good)]
        assert 99 <= len(done) <= 101
        assert min(late - early for early, late in pairwise(done)) >= 700
    due = Postponed(1000, 200)
    due.now(0, good=True)
    assert [due.now(time, good=True) for time in (5500, 5501, 6400, 6500)] == [True, False, False, True]


@pytest.mark.parametrize("times", [(0, 1), (1, 0)])
def test_periods_that_make_no_sense_are_refused(times: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="_ns is 0, expected more than 0"):
        Postponed(*times)
