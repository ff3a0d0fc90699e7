"""Run directories as a comparison reads them: leniently, and with one line that names the file where that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import records, write_run

from rql_core.errors import DatasetError
from rql_core.evaluation.runs import BOOKKEEPING, find_runs, read_run


def test_a_run_is_read_with_settings_curve_and_metrics(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", seed=3, rates=(0.2, 0.6), environment="puzzle-task1"))
    assert (run.seed, run.task, run.algorithm, run.step, run.seconds_to(2000)) == (
        3,
        "puzzle-task1",
        "rql",
        2000,
        200.0,
    )
    assert (run.seconds_to(1999), run.seconds_to(999)) == (100.0, None)
    assert run.settings["algorithm.kappa"] == 0.9
    assert run.settings["algorithm.actor_hidden"] == [8, 8]
    assert not {"seed", "log_every", "environment"} & run.settings.keys()
    assert [(point.step, point.rate, point.episodes) for point in run.curve] == [(1000, 0.2, 50), (2000, 0.6, 50)]
    assert run.curves["critic_loss"] == ([1000, 2000], [3.0, 1.5])
    assert run.curves["evaluation/mean_steps"] == ([1000, 2000], [90.0, 70.0])
    assert set(run.curves) == {"critic_loss", "value", "evaluation/mean_steps"}
    assert not run.unfinished


def test_evaluation_json_counts_before_the_last_row(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", evaluation=records(40, 100, samples=32, world="ur5e_ring", step=3000)))
    score = run.score()
    assert score is not None
    assert (score.rate, score.episodes, score.step, score.source) == (0.4, 100, 3000, "evaluation.json")
    assert score.how == {"over": "in_process", "samples": 32}
    assert run.task == "ur5e_ring"
    during = run.score(at=2000)
    assert during is not None
    assert (during.rate, during.source) == (0.5, "metrics.jsonl")
    assert run.score(at=2500) is None


@pytest.mark.parametrize(
    "content",
    [{"statistics": {"success": 0.4, "episodes": 100}}, {"evaluations": [records(40, 100)]}, records(40, 100)],
)
def test_the_forms_of_evaluation_json(tmp_path: Path, content: dict[str, Any]) -> None:
    score = read_run(write_run(tmp_path / "run", evaluation=content)).score()
    assert score is not None
    assert (score.rate, score.episodes) == (0.4, 100)


def test_the_checkpoint_says_the_environment_or_else_the_contract(tmp_path: Path) -> None:
    checkpoint = write_run(tmp_path / "run", evaluation=records(1, 2, world="other")) / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "contract.yaml").write_text("name: ur5e\nrate: 20\n")
    (checkpoint / "config.json").write_text('{"environment": null}')
    assert read_run(tmp_path / "run").task == "ur5e"
    (checkpoint / "config.json").write_text('{"environment": "cube-task2"}')
    assert read_run(tmp_path / "run").task == "cube-task2"
    (checkpoint / "config.json").write_text("[]")
    assert read_run(tmp_path / "run").task == "other"


def test_a_run_that_has_just_begun_has_no_score(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", rates=(), updates=100))
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert read_run(tmp_path / "run") == run
    assert run.score() is None
    assert run.unfinished
    assert (run.step, run.task, run.seconds) == (0, None, ())


def test_rows_that_a_kill_cut_off_and_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    metrics = write_run(tmp_path / "run", rates=(0.5,)) / "metrics.jsonl"
    metrics.write_text(
        '{"step": 1, "loss": NaN, "partial": 1.0}\n'
        '{"step": 2, "evaluation/success_rate": null, "note": "text", "flag": true}\n'
        '{"step": 3, "loss": 2}\n'
        '{"step": 4, "loss": 1'
    )
    run = read_run(tmp_path / "run")
    assert (run.step, run.curve, dict(run.curves)) == (3, (), {"loss": ([3], [2.0])})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.json", "{", "train.json: is no JSON"),
        ("train.json", "[]", r"train.json: holds a list, expected a JSON object"),
        ("train.json", "{}", "train.json: seed is None, expected a whole number"),
        ("train.json", '{"seed": true}', "train.json: seed is True"),
        ("metrics.jsonl", '{"step": 1}\n{"step"\n', "metrics.jsonl, line 2: is no JSON object"),
        ("metrics.jsonl", "3\n", "metrics.jsonl, line 1: is no JSON object"),
        ("metrics.jsonl", '{"loss": 1}\n', "metrics.jsonl, line 1: has no step"),
        ("metrics.jsonl", '{"step": 1, "evaluation/success_rate": 7}\n', "line 1: the success rate is 7"),
        (
            "metrics.jsonl",
            '{"step": 1, "evaluation/success_rate": 1, "evaluation/episodes": 0.5}\n',
            "line 1: the number of episodes is 0.5",
        ),
        ("evaluation.json", "", "evaluation.json: is no JSON"),
        ("evaluation.json", '{"records": []}', "evaluation.json: has neither records with success nor statistics"),
        ("evaluation.json", '{"records": [{"seed": 1}]}', "evaluation.json: has neither records"),
        ("evaluation.json", '{"evaluations": [{}, {}]}', "evaluation.json: holds 2 evaluations, expected the one"),
        ("evaluation.json", '{"statistics": {"success": "high"}}', "evaluation.json: the success rate is 'high'"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    (write_run(tmp_path / "run") / file).write_text(content)
    with pytest.raises(DatasetError, match=message) as error:
        read_run(tmp_path / "run")
    assert str(error.value).startswith(str(tmp_path / "run" / file))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (write_run(tmp_path / "run") / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DatasetError, match=r"metrics\.jsonl: is no text in UTF-8"):
        read_run(tmp_path / "run")


def test_runs_are_found_below_directories_and_once_each(tmp_path: Path) -> None:
    for name in ("rql-1", "rql-0", "deep/qc-1"):
        write_run(tmp_path / "runs" / name)
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "rql-0")
    found = find_runs([tmp_path / "runs", tmp_path / "runs" / "rql-0", tmp_path / "link"])
    assert [path.name for path in found] == ["qc-1", "rql-0", "rql-1"]


@pytest.mark.parametrize(("name", "message"), [("nothing", "is no directory"), ("empty", "holds no run")])
def test_a_path_without_a_run_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=f"{name}: {message}"):
        find_runs([tmp_path / name])


def test_a_file_of_training_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Everything that may change on resuming, but the length of the run, is bookkeeping to a comparison too."""
    pytest.importorskip("torch")
    from rql_core.training.config import CHANGEABLE_ON_RESUME

    assert CHANGEABLE_ON_RESUME - {"updates"} <= BOOKKEEPING
    path = write_run(tmp_path / "run")
    assert json.loads((path / "train.json").read_text())["updates"] == read_run(path).planned
