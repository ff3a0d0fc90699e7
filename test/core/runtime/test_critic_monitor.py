"""What the critics' values say of a plan."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.errors import ConfigError
from rql_core.runtime.critic_monitor import CriticMonitor, ValueRange

USUAL = ValueRange(-10.0, -1.0, 2.0)


def judge(monitor: CriticMonitor, *values: float) -> str:
    return monitor.judge(np.array(values, dtype=np.float32)).unusual


def test_mean_and_spread_are_those_of_the_critics() -> None:
    judgement = CriticMonitor(USUAL).judge(np.array([-3.0, -5.0], dtype=np.float32))
    assert (judgement.mean, judgement.std, judgement.unusual) == (-4.0, 1.0, "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((-11.0, -11.0), "below -10"),
        ((0.0, 0.0), "above -1"),
        ((-2.0, -8.0), "differ by 3, in the training data by 2 at most"),
        ((float("nan"), -2.0), "not finite"),
        ((float("inf"), -2.0), "not finite"),
    ],
)
def test_what_is_unusual_is_named(values: tuple[float, ...], said: str) -> None:
    assert said in judge(CriticMonitor(USUAL), *values)


def test_the_bounds_themselves_are_usual() -> None:
    monitor = CriticMonitor(USUAL)
    assert judge(monitor, -10.0, -10.0) == ""
    assert judge(monitor, -1.0, -1.0) == ""
    assert judge(monitor, -3.0, -7.0) == ""
    assert monitor.unusual == 0


def test_it_alarms_when_most_of_a_full_window_was_unusual_and_ends_when_it_was_not() -> None:
    monitor = CriticMonitor(USUAL, window=3)
    alarms = []
    for value in (5.0, 5.0, -5.0, -5.0, 5.0, 5.0):
        judge(monitor, value, value)
        alarms.append(monitor.alarm)
    assert alarms == [False, False, True, False, False, True]
    monitor.reset()
    assert not monitor.alarm
    assert (monitor.judged, monitor.unusual) == (6, 4)


@pytest.mark.parametrize("numbers", [(1.0, 0.0, 1.0), (float("nan"), 1.0, 1.0), (0.0, 1.0, -1.0)])
def test_a_range_that_makes_no_sense_is_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="value range"):
        ValueRange(*numbers)
