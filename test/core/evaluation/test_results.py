"""What is said of the episodes of an evaluation, and the file they are kept in."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rql_core.errors import DatasetError, OutputError
from rql_core.evaluation.results import (
    EpisodeRecord,
    Evaluation,
    read_evaluation,
    read_evaluations,
    wilson_interval,
    write_evaluation,
    write_evaluations,
)

RECORDS = [
    EpisodeRecord(seed=1000, steps=40, total_reward=-39.0, success=True, path=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
    EpisodeRecord(seed=1001, steps=95, total_reward=-95.0, success=False),
    EpisodeRecord(seed=1002, steps=60, total_reward=-59.0, success=True),
]
EVALUATION = Evaluation("rql", "ros", RECORDS)


@settings(deadline=None)  # the first example imports SciPy
@given(episodes=st.integers(1, 500), data=st.data())
def test_the_interval_is_wilsons(episodes: int, data: st.DataObject) -> None:
    """Wilson (1927): (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96 for 95 %."""
    successes = data.draw(st.integers(0, episodes))
    z, n, p = 1.959963984540054, episodes, successes / episodes
    half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    middle = p + z**2 / (2 * n)
    low, high = wilson_interval(successes, episodes)
    assert low == pytest.approx((middle - half) / (1 + z**2 / n), abs=1e-9)
    assert high == pytest.approx((middle + half) / (1 + z**2 / n), abs=1e-9)


def test_statistics_are_those_of_the_records() -> None:
    assert EVALUATION.successes == 2
    statistics = EVALUATION.statistics()
    low, high = wilson_interval(2, 3)
    assert statistics == {
        "success": pytest.approx(2 / 3),
        "low": low,
        "high": high,
        "episodes": 3,
        "mean_steps": 65,
        "median_steps_of_successes": 50,
        "mean_return": pytest.approx(-193 / 3),
    }
    assert Evaluation("x", "ros", RECORDS[1:2]).statistics()["median_steps_of_successes"] is None


def test_the_summary_is_one_line_with_the_interval() -> None:
    summary = EVALUATION.summary()
    assert "\n" not in summary
    assert summary == "rql: success 0.67 (95 % 0.21 to 0.94), 2 of 3 episodes, 65 steps on average"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "rql.json"
    write_evaluation(EVALUATION, path)
    assert read_evaluation(path) == EVALUATION
    assert json.loads(path.read_text())["statistics"] == EVALUATION.statistics()
    write_evaluation(Evaluation("bc", "in_process", RECORDS[:1]), path)  # replaces
    assert read_evaluation(path).controller == "bc"
    assert [each.name for each in path.parent.iterdir()] == ["rql.json"]


def test_what_an_evaluation_is_of_is_kept_with_it(tmp_path: Path) -> None:
    evaluation = Evaluation(
        "rql",
        "in_process",
        RECORDS,
        environment="puzzle-3x3-play-singletask-task1-v0",
        checkpoint="runs/a/checkpoint",
        step=1000,
        training_seed=3,
        algorithm="rql",
        form="paper",
        first_seed=1000,
        replan_every=2,
        samples=4,
        rho=0.5,
        flow_steps=10,
    )
    write_evaluation(evaluation, tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["environment"], content["world"], content["step"]) == (evaluation.task, None, 1000)


def test_a_file_of_before_says_less_and_is_read(tmp_path: Path) -> None:
    old = {"controller": "rql", "over": "ros", "records": [asdict(record) for record in RECORDS], "statistics": {}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    evaluation = read_evaluation(tmp_path / "old.json")
    assert evaluation == EVALUATION
    assert (evaluation.task, evaluation.step, evaluation.samples) == ("unknown", None, None)


def test_several_evaluations_are_one_file(tmp_path: Path) -> None:
    several = [EVALUATION, Evaluation("bc", "in_process", RECORDS[:1], world="planar_arm")]
    write_evaluations(several, tmp_path / "several.json")
    assert read_evaluations(tmp_path / "several.json") == several
    write_evaluation(EVALUATION, tmp_path / "one.json")
    assert read_evaluations(tmp_path / "one.json") == [EVALUATION]
    with pytest.raises(DatasetError, match=r"several\.json: no readable evaluation"):
        read_evaluation(tmp_path / "several.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/rql\.json: cannot be written"):
        write_evaluation(EVALUATION, tmp_path / "file" / "rql.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'{"controller": "rql", "over": "ros", "records": null}',
        b'{"controller": "rql", "over": "ros", "records": [1]}',
        b'{"controller": "rql", "over": "ros", "records": [{"seed": 1}]}',
        b'{"controller": "rql", "records": []}',
    ],
)
def test_a_file_that_is_no_evaluation_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rql.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"rql\.json: no readable evaluation") as error:
        read_evaluation(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: no readable evaluation"):
        read_evaluation(tmp_path / "none.json")
