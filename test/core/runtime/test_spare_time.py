"""Spare time: what nobody waits for is done where it fits, and now and then where it does not."""

from __future__ import annotations

import pytest

from rql_core.errors import ConfigError
from rql_core.runtime.spare_time import WINDOW, SpareTime

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
    spare = SpareTime(EVERY)
    done = []
    for now in range(0, 10 * EVERY, 50):
        if spare.allows(now, now + 40):
            spare.took(now, 45)
            done.append(now)
    assert done == list(range(0, 10 * EVERY, EVERY))


def test_a_clock_that_is_set_back_does_not_keep_it_waiting() -> None:
    spare = SpareTime(EVERY)
    spare.took(10**9, 500)
    assert spare.allows(5, 6)
    spare.took(6, 500)
    assert not spare.allows(7, 8)


def test_a_time_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at_least_every_ns is 0"):
        SpareTime(0)
