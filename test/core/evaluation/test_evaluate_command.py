"""`rql evaluate`: which runs, how they act, what is printed and written, and what is refused before anything is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import corridor
import pytest
import torch
import tyro

from rql_core.commands.evaluate import Evaluate
from rql_core.errors import CheckpointError, ConfigError, DatasetError, RqlError
from rql_core.evaluation.results import read_evaluation, read_evaluations
from rql_core.training.checkpoint import save_checkpoint
from rql_core.workers import WorkerError


@pytest.fixture(autouse=True)
def _shared_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pools: Callable[[int], Any]) -> Iterator[None]:
    """Commands run in an empty directory, and leave the workers alive for the next test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rql_core.evaluation.episodes.episode_pool", lambda workers: nullcontext(pools(workers)))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def evaluate(*arguments: object) -> None:
    """Run the command as the command line does."""
    tyro.cli(Evaluate, args=[str(argument) for argument in arguments]).run()


def refused(kind: type[RqlError], said: str, *arguments: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Run what must be refused: the right error, in one line, nothing printed, nothing written."""
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    capsys.readouterr()
    with pytest.raises(kind, match=said) as error:
        evaluate(*arguments)
    assert "\n" not in str(error.value)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.fixture
def arm(tmp_path: Path, contract_text: str) -> Path:
    """An untrained checkpoint for the planar arm."""
    policy = corridor.small_policy(observation_dim=7)
    save_checkpoint(tmp_path / "arm", policy, step=1, reward_range=corridor.REWARDS, contract_text=contract_text)
    return Path("arm")


def test_a_run_is_evaluated_where_it_was_trained_and_the_result_is_kept_in_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = corridor.write_run(tmp_path / "one", seed=4)
    evaluate(run, "--episodes", 3, "--first-seed", 20, "--workers", 2)
    evaluation = read_evaluation(run / "evaluation.json")
    assert [record.seed for record in evaluation.records] == [20, 21, 22]
    assert (evaluation.environment, evaluation.step, evaluation.training_seed) == (corridor.NAME, 7, 4)
    assert evaluation.checkpoint == str(run / "checkpoints/step-00000007")
    captured = capsys.readouterr()
    header, row, _, summary = captured.out.splitlines()
    assert header.split()[:3] == ["run", "algorithm", "form"]
    assert row.split()[:6] == [str(run), "rql", "corrected", corridor.NAME, "4", "7"]
    assert summary == evaluation.summary()
    assert "evaluating" in captured.err
    # One worker gives the same file.
    first = (run / "evaluation.json").read_bytes()
    evaluate(run, "--episodes", 3, "--first-seed", 20)
    assert (run / "evaluation.json").read_bytes() == first


def test_a_checkpoint_is_not_written_into_and_out_names_the_file(arm: Path) -> None:
    before = sorted(arm.iterdir())
    evaluate(arm, "--world", "planar_arm", "--episodes", 1, "--replan-every", 1, "--out", "results/arm.json")
    assert sorted(arm.iterdir()) == before
    evaluation = read_evaluation(Path("results/arm.json"))
    assert (evaluation.world, evaluation.replan_every, evaluation.training_seed) == ("planar_arm", 1, None)
    assert len(evaluation.records[0].path) == evaluation.records[0].steps + 1


def test_several_runs_give_a_row_each_and_their_mean(capsys: pytest.CaptureFixture[str], arm: Path) -> None:
    for seed in (0, 1):
        corridor.write_run(Path(f"runs/seed{seed}"), seed=seed)
    # A directory of runs stands for all of them, each counts once, and the world is for the contract alone.
    evaluate("runs", "runs/seed0", arm, "--world", "planar_arm", "--episodes", 2, "--out", "all.json")
    rows, means = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in rows.splitlines()] == ["run", "runs/seed0", "runs/seed1", "arm"]
    lines = means.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["task", corridor.NAME, "planar_arm", "mean of 2 tasks"]
    assert lines[1].split()[3] == "2"  # seeds
    assert all(Path(f"runs/seed{seed}/evaluation.json").exists() for seed in (0, 1))
    assert not (arm / "evaluation.json").exists()
    assert [each.task for each in read_evaluations(Path("all.json"))] == [corridor.NAME, corridor.NAME, "planar_arm"]


def test_several_ways_of_acting_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    corridor.write_run(Path("run"))
    evaluate("run", "--episodes", 2, "--samples", 1, 4, 4, "--flow-steps", 1, 2, "--rho", 0.5, "--plot", "p/acting.png")
    evaluations = read_evaluations(Path("run/evaluation-acting.json"))
    assert [(each.samples, each.flow_steps, each.rho) for each in evaluations] == [
        (1, 1, 0.5),
        (1, 2, 0.5),
        (4, 1, 0.5),
        (4, 2, 0.5),
    ]
    assert not Path("run/evaluation.json").exists()
    assert Path("p/acting.png").read_bytes().startswith(b"\x89PNG")
    _, acting = capsys.readouterr().out.split("\n\n")
    assert [line.split()[2:5] for line in acting.splitlines()[1:]] == [
        ["1", "0.5", "1"],
        ["1", "0.5", "2"],
        ["4", "0.5", "1"],
        ["4", "0.5", "2"],
    ]
    evaluate("run", "--episodes", 2, "--samples", 1, 4, "--out", "all.json")
    assert [each.samples for each in read_evaluations(Path("all.json"))] == [1, 4]


def test_json_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    corridor.write_run(Path("run"), seed=2)
    evaluate("run", "--episodes", 3, "--json")
    content = json.loads(capsys.readouterr().out)
    evaluation = read_evaluation(Path("run/evaluation.json"))
    (row,) = content["evaluations"]
    assert row["statistics"] == evaluation.statistics()
    assert (row["environment"], row["training_seed"]) == (corridor.NAME, 2)
    assert "records" not in row
    assert content["means"][0]["success"] == pytest.approx(evaluation.successes / 3)
    evaluate("run", "--episodes", 1, "--samples", 1, 2, "--json")
    assert [point["samples"] for point in json.loads(capsys.readouterr().out)["acting"]] == [1, 2]


def test_another_environment_can_be_named_and_a_film_made() -> None:
    corridor.write_run(Path("run"), environment=None)
    evaluate("run", "--environment", corridor.NAME, "--episodes", 2, "--video", "film.gif", "--video-episodes", 2)
    assert read_evaluation(Path("run/evaluation.json")).environment == corridor.NAME
    assert Path("film.gif").read_bytes().startswith(b"GIF89a")


# What is refused


def test_what_is_no_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    refused(ConfigError, "no run is named", capsys=capsys)
    refused(DatasetError, "empty: holds no run", "empty", capsys=capsys)
    refused(CheckpointError, "nowhere: is no directory; expected a checkpoint", "nowhere", capsys=capsys)
    corridor.write_run(Path("run"))
    shutil.rmtree("run/checkpoints")
    refused(CheckpointError, "step-00000007: is no directory", "run", capsys=capsys)


def test_a_checkpoint_that_fits_nowhere_is_refused(capsys: pytest.CaptureFixture[str], arm: Path) -> None:
    refused(ConfigError, "arm: was trained under a contract, .* give --world", arm, capsys=capsys)
    corridor.write_run(Path("nameless"), environment=None)
    refused(ConfigError, "names no environment, .* give --environment", "nameless", capsys=capsys)
    refused(CheckpointError, r"contract\.yaml: is missing", "nameless", "--world", "planar_arm", capsys=capsys)
    refused(
        ConfigError,
        "an observation has 3 numbers, but the policy was trained with 7",
        arm,
        "--environment",
        corridor.NAME,
        capsys=capsys,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--episodes", "0"], "episodes is 0, expected at least 1"),
        (["--first-seed", "-1"], "first_seed is -1, expected 0 or more"),
        (["--replan-every", "3"], r"replan_every is 3, expected 0 \(the whole chunk\) to 2"),
        (["--samples", "1", "0"], "samples is 0: expected 1 to"),
        (["--flow-steps", "0"], "flow_steps is 0: expected 1 to"),
        (["--rho", "-1"], "rho is -1.0: expected 0 or more"),
        (["--rho", "0.5"], "rho is 0.5, but there is one sample and nothing to choose"),
        (["--workers", "0"], "workers is 0, expected at least 1"),
        (["--video", "film.avi"], r"expected a file that ends in \.gif or \.mp4"),
        (["--video", "film.gif", "--samples", "1", "2"], "video is of one run and one way of acting, but 2"),
        (["--plot", "acting.xyz"], r"plot is acting\.xyz, expected a file that ends in \.png"),
        (["--environment", "Nothing"], "'Nothing'"),
    ],
)
def test_wrong_options_are_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    corridor.write_run(Path("run"))
    refused(ConfigError, said, "run", *options, capsys=capsys)


def test_an_algorithm_without_critics_cannot_choose_among_samples(
    capsys: pytest.CaptureFixture[str], checkpoint_without_critics: Path
) -> None:
    refused(
        ConfigError,
        "no critics to choose",
        checkpoint_without_critics,
        "--world",
        "planar_arm",
        "--samples",
        4,
        capsys=capsys,
    )


@pytest.fixture
def checkpoint_without_critics(tmp_path: Path, contract_text: str) -> Path:
    from rql_core.algorithms import BCFlowConfig, make_algorithm
    from rql_core.training.policy import Policy

    algorithm = make_algorithm(BCFlowConfig(horizon=2, actor_hidden=(8,)), 7, 2, corridor.REWARDS)
    policy = Policy(algorithm, corridor.small_policy(observation_dim=7).statistics)
    save_checkpoint(tmp_path / "bc", policy, step=1, reward_range=corridor.REWARDS, contract_text=contract_text)
    return tmp_path / "bc"


def test_wrong_usage_is_that_of_the_command_line() -> None:
    with pytest.raises(SystemExit) as end:
        evaluate("run", "--world", "moon")
    assert end.value.code == 2


# Last, because it ends the shared workers.
def test_an_environment_that_fails_in_a_worker_is_said_with_its_seed(tmp_path: Path) -> None:
    run = corridor.write_run(tmp_path / "run")
    first = corridor.BAD_SEED - 2
    with pytest.raises(WorkerError, match=r"step-00000007, seed 99: RuntimeError: the floor is gone; run it with one"):
        evaluate(run, "--episodes", 4, "--first-seed", first, "--workers", 2)
    assert not (run / "evaluation.json").exists()
