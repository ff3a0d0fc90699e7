"""Quantiles of durations, and deadlines."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.errors import ConfigError
from rql_core.runtime.latency import Deadlines, Latencies

MS = 1_000_000


def test_the_warm_up_is_left_out_after_each_reset() -> None:
    latencies = Latencies(warm_up=2)
    for duration in (900, 800, 1, 2, 3):
        latencies.add(duration * MS)
    assert latencies.milliseconds((0.0, 0.5, 1.0)) == {"p0": 1.0, "p50": 2.0, "p100": 3.0}
    latencies.reset()
    for duration in (700, 600):
        latencies.add(duration * MS)
    assert latencies.milliseconds() == {}
    assert latencies.total == 7


def test_quantiles_are_those_of_the_last_window() -> None:
    durations = np.random.default_rng(0).integers(1, 10**7, 5000)
    latencies = Latencies(window=300, warm_up=0)
    for duration in durations:
        latencies.add(int(duration))
    expected = np.quantile(durations[-300:] / 1e6, [0.5, 0.95, 0.99])
    np.testing.assert_allclose(list(latencies.milliseconds().values()), expected, rtol=1e-12)


def test_a_call_is_late_when_it_comes_more_than_the_slack_after_its_period() -> None:
    deadlines = Deadlines(10 * MS, slack_periods=2.0)
    assert [deadlines.called(at * MS) // MS for at in (0, 10, 19, 49, 80)] == [0, 0, 0, 20, 21]
    assert deadlines.missed == 1
    assert deadlines.worst_ns == 21 * MS
    deadlines.reset()
    assert deadlines.called(900 * MS) == 0
    assert deadlines.missed == 1


def test_a_period_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="period_ns is 0"):
        Deadlines(0)
