"""What a runner says of itself: a level, a sentence, figures. Times are ms after START."""

from __future__ import annotations

import pytest
from runner_bench import Bench
from runner_script import CONTRACT, HOLD_LAST, MS, START, Script, health, joints, make, observe, tool

from rql_core.contract import Contract, parse_contract
from rql_core.runtime.health import health_of
from rql_core.runtime.options import Options


@pytest.fixture
def contract() -> Contract:
    return parse_contract(CONTRACT)


def test_health_goes_from_waiting_to_running_and_tells_ages_and_times(contract: Contract) -> None:
    runner = make(contract)
    said = health(runner)
    assert (said.level, said.summary) == ("warn", "waiting for observations")
    assert said.values["age /joints"] == "none"
    assert "inference p50" not in said.values
    observe(runner, *range(0, 601, 50))  # four chunks, of which the first three are a warm-up
    said = health(runner, 630)
    assert (said.level, said.summary) == ("ok", "running")
    assert said.values["age /joints"] == said.values["age /tool"] == "0.030 s"
    assert said.values["inference p50"].endswith(" ms")
    assert said.values["observations"] == "13"
    assert said.values["chunks"] == "4"


def test_topics_slower_than_the_contract_says_are_a_warning_as_the_converter_would_refuse_them() -> None:
    relaxed = CONTRACT.replace("max_age: 0.04", "max_age: 0.2", 2)
    point = "type: geometry_msgs/msg/PointStamped\n"
    stated = relaxed.replace(point, f"{point}      min_rate: 10\n")
    found = []
    for text in (relaxed, stated):
        runner = make(parse_contract(text))
        for at in range(0, 600, 50):
            runner.push("/joints", joints(at), START)
            if at % 100 == 0:
                runner.push("/tool", tool(at), START)
        runner.poll(None)
        found.append(health(runner))
    assert [each.level for each in found] == ["warn", "ok"]
    assert found[0].summary.startswith("running on slow topics: /tool has 10 Hz (median), expected at least")


def test_a_reset_forgets_how_slow_topics_were() -> None:
    runner = make(parse_contract(CONTRACT.replace("max_age: 0.04", "max_age: 0.2", 2)))
    observe(runner, *range(0, 1000, 100))
    assert health(runner).summary.startswith("running on slow topics: /joints has 10 Hz")
    runner.reset(start_ns=START + 1000 * MS)
    observe(runner, 1000)
    assert health(runner).level == "ok"


def test_joints_from_which_commands_cannot_begin_are_a_warning_until_they_can() -> None:
    text = CONTRACT
    for was, now in HOLD_LAST:
        text = text.replace(was, now)
    runner = make(parse_contract(text), Script(horizon=2), 1)
    assert observe(runner, 0, value=7.0) == []
    said = health(runner)
    assert (said.level, said.values["cannot_begin"]) == ("warn", "1")
    assert said.summary.startswith("cannot begin: elbow is at 7 rad, outside its limits [-2, 2]")
    assert observe(runner, 50, value=1.0)
    assert (health(runner).level, health(runner).summary) == ("ok", "running")
    runner.reset()
    assert observe(runner, 100, value=-7.0) == []
    assert health(runner).level == "warn"
    runner.reset()
    assert "cannot begin" not in health(runner).summary


def test_plans_that_are_over_without_another_are_a_warning() -> None:
    bench = Bench(Options("open_loop", lockstep=False), horizon=4)
    bench.run(10)
    assert health_of(bench.runner, bench.now()).summary == "running"
    bench.run(12, delay=500)  # a plan takes ten periods, and a chunk has four
    said = health_of(bench.runner, bench.now())
    assert (said.level, said.summary.split(":")[0]) == ("warn", "starved")
    bench.run(12)
    assert health_of(bench.runner, bench.now()).summary == "running"
