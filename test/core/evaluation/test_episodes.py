"""Episodes of checkpoints: the same records from any number of workers, in worlds and in environments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corridor
import pytest
import torch

from rql_core.algorithms import Acting
from rql_core.errors import CheckpointError, ConfigError
from rql_core.evaluation.episodes import (
    EpisodeRunner,
    EpisodeSettings,
    EpisodeTask,
    describe,
    evaluate_all,
    place,
    seed_range,
)
from rql_core.evaluation.results import Evaluation
from rql_core.evaluation.rollout import contract_session, evaluate
from rql_core.runtime.policy import DeployedPolicy
from rql_core.training.checkpoint import load_checkpoint, save_checkpoint

SEEDS = range(7, 12)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corridor.write_run(tmp_path_factory.mktemp("run"), seed=4)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory, contract_text: str) -> Path:
    """An untrained checkpoint for the planar arm."""
    directory = tmp_path_factory.mktemp("arm") / "checkpoint"
    policy = corridor.small_policy(observation_dim=7)
    save_checkpoint(directory, policy, step=1, reward_range=corridor.REWARDS, contract_text=contract_text, seed=0)
    return directory


def plans(run: Path, arm: Path) -> list[tuple[EpisodeSettings, Evaluation]]:
    """Two ways of acting in the corridor, and the arm for a few steps."""
    in_corridor = {"checkpoint": run / "checkpoint", "environment": corridor.NAME}
    every: list[EpisodeSettings] = [
        EpisodeSettings(acting=Acting(), **in_corridor),  # type: ignore[arg-type]
        EpisodeSettings(arm, Acting(samples=2), world="planar_arm", options={"max_episode_steps": 8}),
        EpisodeSettings(acting=Acting(samples=3, flow_steps=1), replan_every=1, **in_corridor),  # type: ignore[arg-type]
    ]
    return [(settings, describe(load_checkpoint(settings.checkpoint), settings, SEEDS[0])) for settings in every]


@pytest.fixture(scope="module")
def alone(run: Path, arm: Path, pools: Callable[[int], Any]) -> list[Evaluation]:
    threads = torch.get_num_threads()
    evaluations = dict(evaluate_all(plans(run, arm), SEEDS, pools(1), progress=False))
    torch.set_num_threads(threads)
    return [evaluations[plan] for plan in range(3)]


@pytest.mark.parametrize("workers", [2, 3])
def test_the_records_are_the_same_whatever_the_number_of_workers(
    workers: int, run: Path, arm: Path, alone: list[Evaluation], pools: Callable[[int], Any]
) -> None:
    found = dict(evaluate_all(plans(run, arm), SEEDS, pools(workers), progress=False))
    assert [found[plan] for plan in range(3)] == alone


def test_records_are_in_the_order_of_their_seeds_and_differ(alone: list[Evaluation]) -> None:
    for evaluation in alone:
        assert [record.seed for record in evaluation.records] == list(SEEDS)
        assert (evaluation.over, evaluation.first_seed, evaluation.controller) == ("in_process", 7, "rql")
    of_corridor, of_arm, other = alone
    assert len({tuple(map(tuple, record.path)) for record in of_arm.records}) == len(SEEDS)
    assert {record.steps for record in of_arm.records} == {8}
    assert {record.steps for record in of_corridor.records + other.records} == {corridor.STEPS}


def test_an_evaluation_says_what_it_is_of(alone: list[Evaluation], run: Path) -> None:
    of_corridor, of_arm, other = alone
    assert (of_corridor.environment, of_corridor.world, of_corridor.task) == (corridor.NAME, None, corridor.NAME)
    assert (of_arm.environment, of_arm.world, of_arm.task) == (None, "planar_arm", "planar_arm")
    assert (of_corridor.step, of_corridor.training_seed) == (7, 4)
    assert (of_corridor.algorithm, of_corridor.form) == ("rql", "corrected")
    assert (of_corridor.samples, of_corridor.rho, of_corridor.flow_steps, of_corridor.replan_every) == (1, 0.0, 3, 0)
    assert (other.samples, other.flow_steps, other.replan_every) == (3, 1, 1)
    assert of_corridor.checkpoint == str(run / "checkpoint")


def test_a_world_gives_the_records_that_a_rollout_gives(alone: list[Evaluation], arm: Path) -> None:
    policy = DeployedPolicy.load(arm, acting=Acting(samples=2))
    session = contract_session(policy.contract, "planar_arm", max_episode_steps=8)
    expected = evaluate(session, policy, SEEDS, controller="rql", feature="tool_position")
    assert alone[1].records == expected.records


def test_a_runner_loads_a_checkpoint_and_an_environment_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rql_core.evaluation.episodes as episodes

    calls: list[str] = []

    def counted(name: str) -> None:
        function = getattr(episodes, name)
        monkeypatch.setattr(episodes, name, lambda *args, **options: calls.append(name) or function(*args, **options))

    counted("load_checkpoint")
    counted("make_environment")
    runner = EpisodeRunner()
    settings = [
        EpisodeSettings(run / "checkpoint", Acting(samples=samples), environment=corridor.NAME) for samples in (1, 2)
    ]
    for each in settings:
        for seed in (0, 1, 2):
            runner(EpisodeTask(each, seed))
    assert calls == ["make_environment", "load_checkpoint", "load_checkpoint"]


def test_what_is_done_is_given_out_before_the_rest(run: Path, arm: Path, pools: Callable[[int], Any]) -> None:
    shutil.copytree(run, broken := run.parent / "broken", symlinks=True)
    three = plans(run, arm)
    bad = EpisodeSettings(broken / "checkpoint", Acting(), environment=corridor.NAME)
    (broken / "checkpoint" / "model.safetensors").unlink()
    results = evaluate_all([three[0], (bad, three[0][1])], SEEDS, pools(1), progress=False)
    assert next(results)[0] == 0
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is missing"):
        next(results)


def test_a_task_is_named_by_checkpoint_and_seed() -> None:
    assert str(EpisodeTask(EpisodeSettings(Path("runs/a"), Acting(), world="planar_arm"), 3)) == "runs/a, seed 3"


def test_progress_is_shown_on_standard_error(
    run: Path, pools: Callable[[int], Any], capsys: pytest.CaptureFixture[str], arm: Path
) -> None:
    list(evaluate_all(plans(run, arm)[:1], SEEDS, pools(1)))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5/5" in captured.err
    assert "success 0." in captured.err or "success 1." in captured.err


# Where a checkpoint can be evaluated


def test_a_contract_is_driven_in_a_world_and_an_environment_is_taken_from_the_checkpoint(run: Path, arm: Path) -> None:
    with_contract, named = load_checkpoint(arm), load_checkpoint(run / "checkpoint")
    assert place(with_contract, "planar_arm", None) == ("planar_arm", None)
    assert place(named, None, None) == (None, corridor.NAME)
    assert place(named, "planar_arm", None) == (None, corridor.NAME)  # one of several runs
    assert place(named, None, "other:Thing-v0") == (None, "other:Thing-v0")
    assert place(with_contract, None, "other:Thing-v0") == (None, "other:Thing-v0")


def test_where_nothing_fits_it_is_said_what_to_give(arm: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trained under a contract, .* give --world planar_arm or --world ur5e_ring"):
        place(load_checkpoint(arm), None, None)
    nameless = load_checkpoint(corridor.write_run(tmp_path / "run", environment=None) / "checkpoint")
    with pytest.raises(ConfigError, match=r"has no contract and names no environment, .* give --environment NAME"):
        place(nameless, None, None)
    with pytest.raises(CheckpointError, match=r"contract\.yaml: is missing"):
        place(nameless, "planar_arm", None)


@pytest.mark.parametrize(
    ("episodes", "first_seed", "said"),
    [(0, 0, "episodes is 0, expected at least 1"), (3, -1, "first_seed is -1, expected 0 or more")],
)
def test_seeds_are_checked(episodes: int, first_seed: int, said: str) -> None:
    assert list(seed_range(3, 5)) == [5, 6, 7]
    with pytest.raises(ConfigError, match=said):
        seed_range(episodes, first_seed)
