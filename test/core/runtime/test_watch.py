"""What the watch allows as observations come, fail and come back. Ticks are 50 ms apart, times in ms."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.contract.alignment import Tick
from rql_core.errors import ConfigError
from rql_core.runtime.watch import Freshness, ObservationWatch

MS = 1_000_000
PERIOD = 50


def complete(at: int) -> Tick:
    return Tick(at // PERIOD, at * MS, np.zeros(2, dtype=np.float32))


def lacking(at: int, *topics: str) -> Tick:
    return Tick(at // PERIOD, at * MS, None, topics or ("/joints",))


def make(hold: int = 100, stop: int = 1000, recover: int = 0, recovers: bool = True) -> ObservationWatch:
    return ObservationWatch(hold * MS, stop * MS, recover * MS, recovers=recovers)


def test_it_waits_until_an_observation_is_complete() -> None:
    watch = make()
    assert watch.look(0) is Freshness.WAITING
    watch.take(lacking(50))
    assert watch.look(5000 * MS) is Freshness.WAITING
    assert watch.missing == ("/joints",)
    watch.take(complete(5000))
    assert watch.state is Freshness.FRESH
    assert watch.missing == ()


def test_what_lacks_is_tolerated_then_held_then_stopped() -> None:
    watch = make()
    watch.take(complete(0))
    watch.take(lacking(50, "/tool"))
    seen = [watch.look(at * MS) for at in (60, 100, 101, 1000, 1001, 9000)]
    assert seen == [
        Freshness.LATE,
        Freshness.LATE,
        Freshness.HOLDING,
        Freshness.HOLDING,
        Freshness.STOPPED,
        Freshness.STOPPED,
    ]
    assert watch.missing == ("/tool",)
    assert not watch.may_act


def test_without_tolerance_the_first_missing_tick_holds() -> None:
    watch = make(hold=0)
    watch.take(complete(0))
    watch.take(lacking(50))
    assert watch.state is Freshness.HOLDING


def test_silence_counts_even_where_no_tick_says_so() -> None:
    watch = make()
    watch.take(complete(0))
    assert watch.look(100 * MS) is Freshness.FRESH
    assert watch.look(150 * MS) is Freshness.HOLDING


def test_age_counts_from_the_last_complete_observation_and_not_from_the_last_tick() -> None:
    watch = make()
    watch.take(complete(0))
    for at, expected in ((50, Freshness.LATE), (100, Freshness.LATE), (150, Freshness.HOLDING)):
        watch.take(lacking(at))
        assert watch.state is expected


def test_a_hold_ends_when_observations_have_been_complete_for_long_enough() -> None:
    watch = make(recover=100, recovers=False)
    watch.take(complete(0))
    assert watch.look(200 * MS) is Freshness.HOLDING
    states = []
    for tick in (complete(250), complete(300), lacking(350), complete(400), complete(450), complete(500)):
        watch.take(tick)
        states.append(watch.may_act)
    assert states == [False, False, False, False, False, True]


def test_silence_during_a_recovery_begins_it_anew() -> None:
    watch = make(recover=100)
    watch.take(complete(0))
    watch.look(200 * MS)
    watch.take(complete(250))
    assert watch.look(400 * MS) is Freshness.HOLDING
    watch.take(complete(400))
    assert not watch.may_act
    watch.take(complete(500))
    assert watch.may_act


@pytest.mark.parametrize("recovers", [True, False])
def test_a_stop_ends_by_itself_or_by_rearming_as_the_rule_says(recovers: bool) -> None:
    watch = make(recovers=recovers)
    watch.take(complete(0))
    assert watch.look(2000 * MS) is Freshness.STOPPED
    watch.take(complete(2050))
    assert watch.may_act is recovers
    watch.reset()
    watch.take(complete(2100))
    assert watch.may_act is recovers
    watch.rearm()
    assert watch.state is Freshness.WAITING
    watch.take(complete(2150))
    assert watch.may_act


@pytest.mark.parametrize(("hold", "stop", "recover"), [(-1, 10, 0), (20, 10, 0), (1, 2, -1)])
def test_times_that_make_no_sense_are_refused(hold: int, stop: int, recover: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 <= hold_after <= stop_after"):
        make(hold, stop, recover)
