"""What each mode of a chunk schedule executes, asks for, refuses and says of itself. Times are ms; a step is 50 ms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from schedule_oracle import contract_of

from rql_core.contract import ActionChunk
from rql_core.errors import ConfigError, ContractError
from rql_core.runtime.delay import DelayEstimate
from rql_core.runtime.schedule import ChunkSchedule

MS = 1_000_000


def schedule_of(mode: Any, horizon: int = 4, *, max_age: float = 0.0, delay: int = 0, **options: Any) -> ChunkSchedule:
    estimate = DelayEstimate(warm_up=0, first_steps=delay)
    return ChunkSchedule(contract_of(20, max_age), horizon, mode, delay=estimate, **options)


def chunk(stamp: int, *elbow: float) -> ActionChunk:
    """A chunk from `stamp` ms on, whose first joint does that; the second stays at half the first."""
    actions = np.array([[value, value / 2] for value in elbow])
    return ActionChunk(stamp * MS, stamp * MS + 50 * MS * np.arange(1, len(elbow) + 1), actions)


def elbow_at(schedule: ChunkSchedule, *times: float) -> list[float | None]:
    actions = [schedule.action_at(round(time * MS)) for time in times]
    return [None if action is None else float(action[0]) for action in actions]


@pytest.mark.parametrize("mode", ["open_loop", "receding", "ensemble", "rtc"])
def test_a_late_chunk_is_executed_from_the_step_of_the_present_time(mode: str) -> None:
    schedule = schedule_of(mode)
    assert schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 120 * MS)
    assert elbow_at(schedule, 119, 120, 149, 150, 199, 200) == [None, 0.2, 0.2, 0.3, 0.3, None]


def test_open_loop_executes_a_chunk_to_its_end_and_receding_changes_when_the_next_is_there() -> None:
    for mode, at_120, at_180 in (("open_loop", 0.2, 0.3), ("receding", 0.6, 0.7), ("rtc", 0.6, 0.7)):
        schedule = schedule_of(mode)
        schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 0)
        schedule.add(chunk(50, 0.5, 0.6, 0.7, 0.8), 110 * MS)
        assert elbow_at(schedule, 109, 120, 180, 210) == [0.2, at_120, at_180, 0.8]


def test_an_ensemble_executes_the_mean_weighted_by_age_as_act_does() -> None:
    schedule = schedule_of("ensemble", ensemble_decay=0.5)
    for stamp in (0, 50, 100):
        schedule.add(chunk(stamp, *(stamp / 100 + 0.1 * step for step in range(4))), stamp * MS)
    # ACT: the actions that are there for a time, oldest first, weigh exp(-m i).
    weights = np.exp(-0.5 * np.arange(3))
    assert elbow_at(schedule, 120)[0] == pytest.approx(np.average([0.2, 0.6, 1.0], weights=weights))
    assert elbow_at(schedule, 210)[0] == pytest.approx(np.average([0.8, 1.2], weights=weights[:2]))
    assert elbow_at(schedule, 260)[0] == pytest.approx(1.3)


def test_an_ensemble_that_forgets_at_once_is_the_newest_chunk_however_strongly() -> None:
    schedule = schedule_of("ensemble", ensemble_decay=-1000.0)
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 0)
    schedule.add(chunk(50, 0.5, 0.6, 0.7, 0.8), 50 * MS)
    assert elbow_at(schedule, 60, 110) == [0.5, 0.6]


def test_the_next_chunk_is_asked_for_so_early_that_it_is_there_in_time() -> None:
    # Of 8 steps, from tick 0: when the chunk ends, less the delay; or after 3 steps where that is earlier.
    for mode, delay, first in (("open_loop", 0, 8), ("open_loop", 3, 5), ("receding", 3, 3), ("rtc", 6, 2)):
        schedule = schedule_of(mode, 8, delay=delay, replan_every=0 if mode == "open_loop" else 3)
        assert schedule.due(0)
        schedule.add(chunk(0, *np.zeros(8)), 0)
        schedule.delay.add(delay)
        assert [schedule.due(tick) for tick in range(9)] == [tick >= first for tick in range(9)]


def test_a_delay_longer_than_the_chunk_asks_at_every_tick_and_never_twice_for_one() -> None:
    schedule = schedule_of("rtc", 4, delay=9)
    schedule.add(chunk(0, 0, 0, 0, 0), 150 * MS)
    assert [schedule.due(tick) for tick in (-1, 0, 1, 2)] == [False, False, True, True]


def test_what_answers_no_newer_observation_or_is_over_is_refused_and_counted() -> None:
    schedule = schedule_of("receding")
    assert schedule.add(chunk(100, 0.1, 0.1), 100 * MS)
    assert not schedule.add(chunk(50, 0.5, 0.5, 0.5, 0.5), 110 * MS)
    assert not schedule.add(chunk(100, 0.6, 0.6), 115 * MS)
    assert not schedule.add(chunk(110, 0.7), 160 * MS)
    assert elbow_at(schedule, 160) == [0.1]
    figures = schedule.figures(160 * MS)
    assert (figures["chunks"], figures["refused_stale"], figures["refused_over"]) == (1, 2, 1)


def test_a_chunk_of_another_width_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match="chunk has 3 numbers a step, expected 2"):
        schedule_of("rtc").add(ActionChunk(0, np.array([50 * MS]), np.zeros((1, 3))), 0)


def test_a_gap_is_starvation_once_with_its_length_and_the_time_before_the_first_chunk_is_not() -> None:
    schedule = schedule_of("receding", max_age=0.02)
    assert schedule.state_at(0) == "waiting"
    schedule.add(chunk(1000, 0.1, 0.2), 1000 * MS)
    assert [schedule.state_at(time * MS) for time in (1099, 1100, 1119, 1120)] == [
        "running", "holding", "holding", "starved",
    ]  # fmt: skip
    assert elbow_at(schedule, 1119, 1120) == [0.2, None]
    for _ in range(3):
        figures = schedule.figures(1150 * MS)
        assert (figures["starvations"], figures["starved_s"]) == (1, pytest.approx(0.03))
    schedule.add(chunk(1150, 0.3, 0.4), 1160 * MS)
    figures = schedule.figures(1170 * MS)
    assert (figures["starvations"], figures["starved_s"]) == (1, pytest.approx(0.04))


def test_clearing_forgets_the_chunks_and_keeps_the_counts_and_the_delay() -> None:
    schedule = schedule_of("rtc")
    schedule.add(chunk(1000, 0.1, 0.2), 1040 * MS)
    schedule.clear(1110 * MS)
    assert schedule.state_at(1110 * MS) == "waiting"
    assert schedule.action_at(1050 * MS) is None
    assert schedule.guide(20) is None
    figures = schedule.figures(1200 * MS)
    assert (figures["chunks"], figures["starvations"], figures["starved_s"]) == (1, 1, pytest.approx(0.01))
    assert figures["delay_steps"] == 1
    # The clock was set back: what comes now is older than what was, and is taken.
    assert schedule.due(4)
    assert schedule.add(chunk(200, 0.1, 0.2), 200 * MS)


def test_the_delay_is_the_greatest_of_the_last_measured_ones_without_the_first() -> None:
    estimate = DelayEstimate(window=3, warm_up=2, first_steps=1)
    found = [estimate.steps]
    for measured in (9, 8, 2, 4, 0, -1, 3):
        estimate.add(measured)
        found.append(estimate.steps)
    assert found == [1, 1, 1, 2, 4, 4, 4, 3]


def test_latency_counts_in_whole_steps_rounded_up_and_later_than_expected_is_late() -> None:
    for arrived, steps in ((100, 0), (101, 1), (150, 1), (150.001, 2), (290, 4)):
        schedule = schedule_of("rtc", 8)
        schedule.add(chunk(100, *np.zeros(8)), round(arrived * MS))
        figures = schedule.figures(400 * MS)
        assert (figures["delay_steps"], figures["late"]) == (steps, steps > 0)


def test_a_guide_holds_a_new_chunk_to_the_old_one_by_time_and_frees_what_it_does_not_reach() -> None:
    schedule = schedule_of("rtc", 6, delay=2)
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5), 0)
    schedule.delay.add(2)
    guide = schedule.guide(2)
    assert guide is not None
    np.testing.assert_allclose(guide.previous[:, 0], [0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
    c = np.array([2 / 3, 1 / 3])
    np.testing.assert_allclose(guide.weights, [1, 1, *(c * np.expm1(c) / np.expm1(1)), 0, 0], rtol=1e-6)
    assert guide.weights.tolist() == schedule.guide(2, 2).weights.tolist()  # type: ignore[union-attr]
    assert schedule.guide(2, 9).weights.tolist() == [1, 1, 1, 1, 0, 0]  # type: ignore[union-attr]
    assert schedule.guide(6) is None


def test_a_guide_is_for_real_time_chunking_alone_and_never_of_numbers_that_are_not_finite() -> None:
    for mode, value, given in (("rtc", 0.1, True), ("receding", 0.1, False), ("rtc", float("nan"), False)):
        schedule = schedule_of(mode)
        schedule.add(chunk(0, 0.0, value, 0.0, 0.0), 0)
        assert (schedule.guide(1) is not None) == given


def test_seams_are_the_jumps_where_chunks_take_over_beside_the_steps_within_them() -> None:
    schedule = schedule_of("receding")
    # The first joint may go from -2 to 2 and the second from -1 to 0: half of the first's step counts twice as much.
    schedule.add(chunk(0, 0.0, -0.1, -0.2, -0.3), 0)
    assert schedule.figures(0) == {
        "chunks": 1, "late": 0, "refused_stale": 0, "refused_over": 0, "starvations": 0, "starved_s": 0,
        "delay_steps": 0, "seams": 0, "within_step_p95": pytest.approx(0.05),
    }  # fmt: skip
    schedule.add(chunk(100, 9.9, -0.8, -0.9, -1.0), 150 * MS)
    schedule.add(chunk(200, -0.7, -0.7, -0.7, -0.7), 230 * MS)
    figures = schedule.figures(230 * MS)
    # From -0.2 to -0.8 at 150 ms, and amid a step from -0.9 to -0.7 at 230 ms.
    assert figures["seams"] == 2
    assert figures["seam_jump_max"] == pytest.approx(0.3)
    assert figures["seam_jump_mean"] == pytest.approx(0.2)
    assert figures["within_step_p95"] == pytest.approx(0.05)
    assert figures["seam_ratio"] == pytest.approx(6.0)


def test_chunks_that_stand_still_and_jump_have_an_infinite_ratio() -> None:
    schedule = schedule_of("receding")
    schedule.add(chunk(0, 0.1, 0.1, 0.1, 0.1), 0)
    schedule.add(chunk(50, 0.1, 0.1, 0.1, 0.1), 50 * MS)
    assert schedule.figures(50 * MS)["seam_ratio"] == 0
    schedule.add(chunk(100, 0.2, 0.2, 0.2, 0.2), 100 * MS)
    assert schedule.figures(100 * MS)["seam_ratio"] == float("inf")


def test_a_seam_that_is_to_come_is_not_counted_and_never_comes_after_clearing() -> None:
    schedule = schedule_of("open_loop")
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 0)
    schedule.add(chunk(150, 0.5, 0.6, 0.7, 0.8), 170 * MS)
    assert [schedule.figures(time * MS)["seams"] for time in (199, 200)] == [0, 1]
    schedule.clear(180 * MS)
    assert schedule.figures(300 * MS)["seams"] == 0


def test_what_is_ahead_begins_with_the_present_step() -> None:
    schedule = schedule_of("receding")
    assert schedule.ahead(0) is None
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 0)
    schedule.add(chunk(100, 0.5, 0.6, 0.7, 0.8), 160 * MS)
    ahead = schedule.ahead(160 * MS)
    assert ahead is not None
    np.testing.assert_allclose(ahead[:, 0], [0.6, 0.7, 0.8])
    assert schedule.ahead(300 * MS) is None


def test_in_open_loop_the_old_chunk_is_ahead_to_its_end_and_then_the_new_one() -> None:
    schedule = schedule_of("open_loop")
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 0)
    schedule.add(chunk(100, 0.5, 0.6, 0.7, 0.8), 110 * MS)
    ahead = schedule.ahead(110 * MS)
    assert ahead is not None
    np.testing.assert_allclose(ahead[:, 0], [0.2, 0.3, 0.7, 0.8])


def test_a_first_chunk_that_is_late_begins_with_the_step_in_which_it_came() -> None:
    schedule = schedule_of("receding")
    schedule.add(chunk(0, 0.0, 0.1, 0.2, 0.3), 120 * MS)
    ahead = schedule.ahead(120 * MS)
    assert ahead is not None
    assert ahead[:, 0].tolist() == [0.2, 0.3]


@pytest.mark.parametrize("mode", ["open_loop", "receding", "ensemble", "rtc"])
def test_hours_of_chunks_leave_only_a_handful_behind(mode: str) -> None:
    schedule = schedule_of(mode, 8)
    for tick in range(0, 20_000, 2):
        schedule.add(chunk(50 * tick, *np.zeros(8)), (50 * tick + 20) * MS)
    assert len(schedule._entries) <= 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "fast"}, "chunk mode is 'fast', expected one of open_loop, receding, ensemble, rtc"),
        ({"horizon": 0}, "horizon is 0"),
        ({"replan_every": 5}, "replan_every is 5, expected 0 .* to 4"),
        ({"replan_every": -1}, "replan_every is -1"),
        ({"mode": "open_loop", "replan_every": 2}, "open_loop executes whole chunks"),
        ({"ensemble_decay": float("nan")}, "ensemble_decay is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ChunkSchedule(contract_of(), **{"horizon": 4, **options})


@pytest.mark.parametrize("options", [{"window": 0}, {"warm_up": -1}, {"first_steps": -1}])
def test_delay_settings_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"delay estimate: {next(iter(options))} is"):
        DelayEstimate(**options)


def test_half_a_chunk_is_executed_where_nothing_else_is_said_and_one_step_of_an_ensemble() -> None:
    steps = {mode: schedule_of(mode, 9).replan_every for mode in ("open_loop", "receding", "ensemble", "rtc")}
    assert steps == {"open_loop": 9, "receding": 4, "ensemble": 1, "rtc": 4}
