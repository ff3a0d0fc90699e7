"""The benchmark of the policy node: its arithmetic, what it runs, and what its options refuse."""

from __future__ import annotations

import json
import os
from math import inf, isinf
from pathlib import Path
from typing import Any

import pytest

from benchmarks.node_figures import (
    ECHO,
    Endurance,
    Summary,
    Turn,
    added_p99_ms,
    endurance_table,
    figures,
    missed_goals,
    quantile,
    table,
)
from benchmarks.node_host import Evenness, measure
from benchmarks.node_subjects import CONTRACT, SIZES, contract_at, echo_command, make_checkpoint, policy_command
from rql_core.contract import load_contract
from rql_core.runtime.policy import DeployedPolicy


def turn(*latencies: float, share: float = 0.25) -> Turn:
    return Turn(latencies, share)


def hundred(worst: float, second: float = 1.0) -> Turn:
    return turn(*[1.0] * 98, second, worst)


def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert quantile([3.0], 0.5) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)


def test_a_lost_answer_is_later_than_any_other() -> None:
    assert quantile([1.0, inf], 0.5) == 1.0
    assert isinf(quantile([1.0, inf], 0.99))
    one_of_hundred = hundred(inf)
    assert one_of_hundred.lost == 1
    assert quantile(one_of_hundred.latencies_ms, 0.99) == 1.0
    assert isinf(quantile(hundred(inf, inf).latencies_ms, 0.99))


def test_a_summary_takes_medians_over_the_rounds_and_adds_up_what_was_lost() -> None:
    summary = Summary.of([turn(1, 2, inf, share=0.1), turn(5, 6, 7, share=0.2), turn(2, 3, 4, share=0.6)])
    assert (summary.p50_ms, summary.p99_ms) == (3, 7)
    assert summary.p99_of_rounds_ms == [inf, 7, 4]
    assert (summary.cpu_share, summary.observations, summary.lost) == (0.2, 9, 1)


def test_what_a_policy_adds_is_the_difference_of_medians_and_not_the_median_of_differences() -> None:
    echo = [turn(1.0), turn(2.0), turn(9.0)]
    policy = [turn(4.0), turn(3.0), turn(9.5)]
    summaries = {ECHO: Summary.of(echo), "4x256": Summary.of(policy)}
    assert added_p99_ms(summaries) == {"4x256": 2.0}


def result() -> dict[str, Any]:
    slow, fast = [turn(1.0, 2.5)] * 3, [turn(0.5, 1.0)] * 3
    turns = {
        50: {ECHO: [turn(0.4, 0.5)] * 3, "4x256": fast, "4x512": slow},
        200: {ECHO: [turn(0.2, 0.3)] * 3, "4x256": [turn(0.4, 1.4)] * 3, "4x512": [turn(2.0, inf)] * 3},
    }
    return figures(turns, [0.8, 1.0, 3.0], {"4x256 at 50 Hz": 100.0, "4x512 at 50 Hz": 150.0})


def test_of_several_rates_the_worst_counts() -> None:
    found = result()
    assert found["added_p99_ms"]["4x256"] == pytest.approx(1.1)
    assert isinf(found["added_p99_ms"]["4x512"])
    assert found["p50_ms"] == {"4x256": 0.5, "4x512": 2.0}
    assert (found["start_s"], found["rss_mb"]) == (1.0, 150.0)
    assert found["rates"]["50"]["added_p99_ms"] == {"4x256": 0.5, "4x512": 2.0}
    assert json.loads(json.dumps(found)) == found


def test_goals_that_are_missed_and_lost_answers_are_said() -> None:
    said = "\n".join(missed_goals(result()))
    assert "4x256 adds 1.10 ms at the 99th percentile, the goal is 1" in said
    assert "4x512 adds inf ms" in said
    assert "4x512 at 200 Hz: 3 of 6 were not answered" in said
    assert "start" not in said
    assert "memory is 300 MB" in "\n".join(missed_goals(result() | {"rss_mb": 300.0}))
    assert "start takes 2.00 s" in "\n".join(missed_goals(result() | {"start_s": 2.0}))


def test_the_table_has_a_row_for_each_node_and_rate() -> None:
    lines = table(result()).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:8]] == [ECHO, "4x256", "4x512"] * 2
    assert "| 200 Hz | 4x512 | 2.00 | inf | inf | inf | 25% | 3 of 6 |" in lines


def test_what_is_run_is_the_ur5e_s_contract_at_the_rate_and_the_node_s_defaults() -> None:
    contract = contract_at(200)
    assert (contract.rate, contract.period_ns, contract.action_dim) == (200, 5_000_000, 6)
    assert contract.safety_in_force.latch.violations is None
    plain = load_contract(CONTRACT)
    ignored = {"rate": True, "safety": {"latch"}}
    assert contract.model_dump(exclude=ignored) == plain.model_dump(exclude=ignored)
    command = " ".join(policy_command(Path("here")))
    assert "backend:=onnx" in command
    assert "monitor" not in command
    assert echo_command(50, 7)[-2:] == ["50", "7"]
    assert echo_command(50, 7, Path("here"))[-3:] == ["50", "7", "here"]


def test_the_checkpoint_has_the_published_form_and_all_that_training_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "4x256", (8, 8))
    make_checkpoint(tmp_path / "checkpoint", "4x256", 50)
    policy = DeployedPolicy.load(tmp_path / "checkpoint", backend="onnx", threads=1)
    assert (policy.algorithm, policy.horizon, policy.contract.rate) == ("rql", 4, 50)
    assert policy.make_monitor() is not None


# The machine


def test_how_evenly_a_core_computes_is_told_by_the_same_work() -> None:
    even = Evenness.of([100.0] * 90 + [150.0] * 8 + [300.0] * 2)
    assert (even.p10_us, even.p50_us, even.p99_us) == (100.0, 100.0, 300.0)
    assert "100 us in the best tenth, 100 in the median, and 3.0 times the first" in str(even)


def test_it_is_measured_on_the_cores_that_are_asked_for_and_they_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    found = measure(0.05, {min(before)})
    assert 0 < found.p10_us <= found.p50_us <= found.p99_us
    assert os.sched_getaffinity(0) == before


# The long run


def long_run(latencies: Any = (1.0,) * 99 + (5.0,), growth: float = 0.0, **changes: Any) -> Endurance:
    memory = [(float(second), 100.0 + (30.0 if second < 30 else 0.0) + growth * second / 3600) for second in range(600)]
    said = {"deadlines missed": "0", "starvations": "0"}
    fields = {"period_ms": 20.0, "memory_mb": tuple(memory), "threads": (20,) * 600, "robot_late_ms": 0.5, "said": said}
    return Endurance(tuple(latencies), **(fields | changes))


def test_a_long_run_without_fault_misses_nothing() -> None:
    run = long_run()
    assert run.missed() == []
    found = run.figures()
    assert found["latency_ms"]["max"] == 5.0
    # What the start takes is left out.
    assert found["rss_mb"] == {"settled": 100.0, "end": 100.0, "growth_an_hour": pytest.approx(0.0, abs=1e-9)}
    assert found["threads"] == {"least": 20, "most": 20}
    assert json.loads(json.dumps(found)) == found
    assert "| threads | 20 to 20 |" in endurance_table(found)


def test_it_is_told_when_answers_were_late() -> None:
    assert long_run((1.0, 40.1, 2.0, inf)).figures()["late_at_s"] == [0.02, 0.06]


def test_growth_of_memory_is_told_by_the_hour_and_is_a_fault_above_a_megabyte() -> None:
    run = long_run(growth=12.0)
    assert run.growth_mb_an_hour == pytest.approx(12.0)
    assert any("memory grew by 1.8 MB" in sentence for sentence in run.missed())
    assert long_run(growth=3.0).missed() == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"latencies": (1.0, 40.0, 40.1, inf)}, "2 answers came more than two periods late or never"),
        ({"said": {"deadlines missed": "3"}}, "the node says of its deadlines missed: 3"),
        ({"said": {}}, "deadlines missed: not said"),
        ({"threads": (20, 21)}, "threads were 20 to 21"),
    ],
)
def test_a_long_run_s_faults_are_said(fault: dict[str, Any], said: str) -> None:
    assert any(said in sentence for sentence in long_run(**fault).missed())
