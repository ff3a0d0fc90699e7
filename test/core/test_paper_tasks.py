"""The paper's tasks within a budget: what is planned, what is found done, and that nothing is done twice."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from paper_runs import CORRECTED, PAPER, PUZZLE, SCENE, make_checkpoint, make_result

from benchmarks import paper_tasks
from benchmarks.paper_tasks_budget import Budget, EpisodeSpeeds, UpdateRate, checkpoint_fits, next_checkpoint
from benchmarks.paper_tasks_plan import (
    Places,
    Plan,
    generate_command,
    parse_forms,
    parse_tasks,
    train_command,
)
from benchmarks.paper_tasks_state import (
    Batch,
    Saved,
    check_settings,
    current_step,
    first_batch,
    go_back_to,
    missing_evaluations,
    plan_batches,
    reached_steps,
    remove_evaluated,
    saved_checkpoints,
    write_result,
)
from rql_core.errors import ConfigError
from rql_core.evaluation.results import read_evaluation
from rql_core.training.run_directory import RunDirectory


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "out", tmp_path / "data")


def planned(*arguments: str) -> Plan:
    return paper_tasks.make_plan(paper_tasks.make_parser().parse_args(arguments))


# What is to be done


def test_tasks_and_forms_keep_their_order_however_they_are_quoted() -> None:
    assert parse_tasks(["scene:1 puzzle-3x3:1"]) == parse_tasks(["scene:1", "puzzle-3x3:1"]) == (SCENE, PUZZLE)
    assert parse_forms(["corrected paper"]) == ("corrected", "paper")
    for wrong in (["scene"], ["scene:6"], ["scene:1,cube-double:1"], [""]):
        with pytest.raises(ConfigError, match="tasks"):
            parse_tasks(wrong)
    with pytest.raises(ConfigError, match="forms"):
        parse_forms(["published"])


def test_by_default_three_tasks_are_trained_in_both_forms_by_the_published_protocol() -> None:
    plan = planned()
    assert [group.name for group in plan.groups] == [
        f"{task}-task1-{form}" for task in ("puzzle-3x3", "cube-double", "scene") for form in ("paper", "corrected")
    ]
    assert (plan.seeds, plan.updates, plan.checkpoint_every, plan.episodes) == ((0, 1, 2, 3), 1_000_000, 50_000, 50)
    assert plan.episode_steps is None
    assert plan.best_of == ()


def test_q_normalisation_comes_after_everything_else_once_for_each_alpha() -> None:
    plan = planned("--tasks", "cube-double:1", "--forms", "paper", "--q-normalisation", "--q-alpha", "0.3", "1")
    names = [group.name for group in plan.groups]
    assert names == [f"cube-double-task1-paper{each}" for each in
                     ("", "+q_normalisation-alpha0.3", "+q_normalisation-alpha1")]  # fmt: skip
    assert plan.groups[1].settings == ("algorithm.q_normalisation=true", "algorithm.alpha=0.3")
    with pytest.raises(ConfigError, match="add --q-normalisation"):
        planned("--q-alpha", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--updates", "0"], "updates is 0"),
        (["--workers", "0"], "workers is 0"),
        (["--samples", "0"], "samples is 0"),
        (["--minutes", "-1"], "minutes is -1"),
        (["--set", "updates"], "KEY=VALUE"),
        (["--pack", "state.zip"], "tar.xz or .tar.gz"),
        (["--evaluation-episodes", "0"], "episodes is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_begun(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        planned(*arguments)


def test_the_help_says_what_is_packed_in_which_order_and_has_examples() -> None:
    text = paper_tasks.make_parser().format_help()
    assert "--minutes 0 --pack" in text
    assert text.index("results and metrics always") < text.index("with\ntheir training state")


def test_one_seed_and_several_are_trained_by_one_command_each(places: Places) -> None:
    plan = planned("--cuda-graphs", "--precision", "tf32", "--set", "log_every=7", "batch_size=16")
    several = train_command(plan, places, PAPER, (0, 2), resume=False)
    base = str(places.runs / "puzzle-3x3-task1-paper")
    assert several[several.index("--seeds") + 1] == "0,2"
    assert several[several.index("--out") + 1] == base
    assert "--resume" not in several
    one = train_command(plan, places, PAPER, (2,), resume=True)
    assert one[one.index("--seed") + 1] == "2"
    assert one[one.index("--out") + 1] == f"{base}-seed2" == str(places.run(PAPER, 2))
    assert "--resume" in one
    for command in (one, several):
        assert command[:2] == ["train", str(places.dataset("puzzle-3x3"))]
        assert {"--cuda-graphs", "--precision", "tf32", "evaluate_every=0", "batch_size=16"} <= set(command)
        # A setting may be given once.
        assert [each for each in command if each.startswith("log_every=")] == ["log_every=7"]


def test_the_commands_are_such_as_rql_takes(places: Places) -> None:
    import tyro

    from rql_core.cli import COMMANDS

    plan = planned("--device", "cpu", "--q-normalisation", "--q-alpha", "0.3", "--tasks", "puzzle-3x3:1")
    for group in plan.groups:
        train = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, args=train_command(plan, places, group, (3,), resume=True)
        )
        config = train._config()
        assert (config.seed, config.algorithm.form, config.updates) == (3, group.form, 1_000_000)
        assert config.algorithm.q_normalisation is group.q_normalisation
        assert config.algorithm.alpha == (0.3 if group.q_normalisation else 1.0)
        assert config.environment == "puzzle-3x3-play-singletask-task1-v0"
    generate = tyro.extras.subcommand_cli_from_dict(COMMANDS, args=generate_command(plan, places, "cube-triple", 5))
    assert (generate.episodes, generate.steps, generate.workers, generate.minari) == (3000, 1000, 5, False)


# Time


def test_what_is_left_is_without_the_reserve_and_has_no_end_without_a_limit() -> None:
    assert Budget(100.0, 60.0, 15.0).left(120.0) == 25.0
    assert Budget(100.0, None, 15.0).left(1e9) == float("inf")


def test_the_rate_leaves_out_the_start_and_what_was_made_before() -> None:
    rate = UpdateRate(began=0.0, step=500)
    rate.see(1.0, 0)  # not begun to write
    rate.see(2.0, 500)
    assert rate.per_second is None
    assert rate.seconds_to(10_000, 5.0) == 0.0
    rate.see(40.0, 1000)
    assert (rate.start_s, rate.per_second) == (40.0, None)
    rate.see(50.0, 2000)
    assert rate.per_second == 100.0
    assert rate.seconds_to(3000, 50.0) == 10.0
    assert rate.seconds_to(3000, 54.0) == 6.0
    assert rate.seconds_to(3000, 99.0) == 0.0


def test_episodes_take_as_long_as_was_measured_and_best_of_n_longer() -> None:
    speeds = EpisodeSpeeds()
    assert speeds.needed([("scene", 1, 0)], 4) == 0.0
    unknown = speeds.needed([("scene", 1, 50)], 4)
    speeds.add("scene", 1, 0.1)
    known = speeds.needed([("scene", 1, 50)], 4)
    assert known < unknown
    assert speeds.needed([("scene", 1, 50)], 8) < known
    assert speeds.of("scene", 16) > speeds.of("scene", 1)
    speeds.add("scene", 16, 0.15)
    assert speeds.of("scene", 16) == 0.15
    # A single episode is not shared out.
    assert speeds.needed([("scene", 1, 1)], 64) == speeds.needed([("scene", 1, 1)], 1)


def test_the_next_checkpoint_is_a_multiple_or_the_end() -> None:
    assert [next_checkpoint(step, 40, 100) for step in (0, 39, 40, 80, 99)] == [40, 40, 80, 100, 100]
    assert checkpoint_fits(10.0, 4.0, 6.0)
    assert not checkpoint_fits(10.0, 4.0, 6.1)


# What is found done


def saved(*steps: int, resumable: bool = True) -> list[Saved]:
    return [Saved(Path(f"step-{step}"), step, resumable) for step in steps]


def batches(saved: dict[int, list[Saved]], plan: Plan, **reached: int) -> tuple[list[Batch], list[int]]:
    steps = {seed: each[-1].step if each else 0 for seed, each in saved.items()}
    return plan_batches(saved, steps | {int(name[1:]): step for name, step in reached.items()}, plan)


def test_seeds_without_a_run_are_trained_together_and_finished_ones_are_left_alone() -> None:
    plan = Plan((PAPER,), (0, 1, 2), updates=100, checkpoint_every=20)
    assert batches({0: [], 1: saved(20, 100), 2: []}, plan) == ([Batch((0, 2), 0)], [])
    assert batches({0: saved(100), 1: saved(120)}, plan) == ([], [])


def test_seeds_that_a_kill_left_one_checkpoint_apart_go_on_together() -> None:
    plan = Plan((PAPER,), (0, 1, 2), updates=100, checkpoint_every=20)
    assert batches({0: saved(20, 40), 1: saved(20), 2: saved(20, 40)}, plan) == ([Batch((0, 1, 2), 20)], [])
    # Farther apart, or where one has nothing to go back to, each goes on from its own.
    assert batches({0: saved(20, 60), 1: saved(20)}, plan)[0] == [Batch((0,), 60), Batch((1,), 20)]
    assert batches({0: saved(40), 1: saved(20)}, plan)[0] == [Batch((0,), 40), Batch((1,), 20)]
    assert batches({0: saved(20), 1: []}, plan)[0] == [Batch((0,), 20), Batch((1,), 0)]


def test_seeds_are_trained_at_most_so_many_at_once() -> None:
    plan = Plan((PAPER,), (0, 1, 2), updates=100, at_once=2)
    assert batches({0: [], 1: [], 2: []}, plan)[0] == [Batch((0, 1), 0), Batch((2,), 0)]


def test_a_run_that_lost_its_training_state_is_not_trained_and_said_to_be_lost() -> None:
    plan = Plan((PAPER,), (0, 1), updates=100)
    assert batches({0: saved(50, resumable=False), 1: []}, plan) == ([Batch((1,), 0)], [0])
    assert batches({0: saved(100, resumable=False)}, plan) == ([], [])
    # Of what was packed without any checkpoint the results tell how far it was.
    assert batches({0: [], 1: []}, plan, s0=50, s1=100) == ([], [0])


def test_what_was_reached_is_told_by_checkpoints_and_results(places: Places) -> None:
    make_checkpoint(places.run(PAPER, 0), 40)
    make_result(places, PAPER, 0, 20, 1, 1)
    make_result(places, PAPER, 1, 60, 1, 1)
    make_result(places, PAPER, 1, 80, 1, 1, samples=16)
    assert reached_steps(places, PAPER, (0, 1, 2)) == {0: 40, 1: 80, 2: 0}


def test_only_whole_checkpoints_count(places: Places) -> None:
    run = places.run(PAPER, 0)
    assert saved_checkpoints(run) == []
    path = make_checkpoint(run, 40)
    make_checkpoint(run, 20, training_state=False)
    (run / "checkpoints" / ".step-00000060.partial").mkdir()
    (run / "checkpoints" / "step-00000080").mkdir()
    assert [(each.step, each.resumable) for each in saved_checkpoints(run)] == [(20, False), (40, True)]
    assert saved_checkpoints(run)[-1].path == path


def test_what_counts_is_evaluated_first_and_nothing_twice(places: Places) -> None:
    plan = Plan((PAPER, CORRECTED), (0, 1), updates=40, checkpoint_every=20, best_of=(16,))
    for group in plan.groups:
        for seed in plan.seeds:
            for step in (20, 40):
                make_checkpoint(places.run(group, seed), step)
    jobs = missing_evaluations(plan, places, {PAPER})
    assert [job.final for job in jobs] == [True] * 4 + [False] * 6
    assert [(job.samples, job.seed) for job in jobs[:4]] == [(1, 0), (1, 1), (16, 0), (16, 1)]
    assert [(job.samples, job.step, job.group) for job in jobs[4:]] == (
        [(1, 20, PAPER)] * 2 + [(1, 40, CORRECTED)] * 2 + [(1, 20, CORRECTED)] * 2
    )
    assert first_batch(jobs) == jobs[:2]
    for job in jobs[:3]:
        make_result(places, job.group, job.seed, job.step, 3, 4, samples=job.samples)
    assert missing_evaluations(plan, places, {PAPER}) == jobs[3:]


def test_a_result_is_read_again_as_what_it_was(places: Places) -> None:
    make_result(places, PAPER, 0, 40, 3, 4)
    path = places.result(PAPER, 0, 40, 1)
    evaluation = read_evaluation(path)
    assert (evaluation.successes, len(evaluation.records), evaluation.step) == (3, 4, 40)
    write_result(path, evaluation, 1.5)
    assert json.loads(path.read_text())["seconds_an_episode"] == 1.5


def test_checkpoints_go_when_they_were_evaluated_and_nothing_goes_on_from_them(places: Places) -> None:
    for seed, steps in ((0, (20, 40, 60)), (1, (20, 40))):
        for step in steps:
            make_checkpoint(places.run(PAPER, seed), step)
            make_result(places, PAPER, seed, step, 0, 1)
    places.result(PAPER, 1, 20, 1).unlink()
    remove_evaluated(places, PAPER, (0, 1, 2))
    left = {seed: [each.step for each in saved_checkpoints(places.run(PAPER, seed))] for seed in (0, 1)}
    assert left == {0: [40, 60], 1: [20, 40]}


def test_training_goes_on_from_the_checkpoint_that_all_seeds_have(places: Places) -> None:
    run = places.run(PAPER, 0)
    for step in (20, 40):
        make_checkpoint(run, step)
    go_back_to(run, 40)
    go_back_to(run, 20)
    directory = RunDirectory(run)
    assert directory.resume(directory.newest_step()).name == "step-00000020"
    assert [each.step for each in saved_checkpoints(run)] == [20]


def test_rows_of_the_training_before_say_nothing_of_this_one(places: Places) -> None:
    run = places.run(PAPER, 0)
    assert current_step(run, 0.0) == 0
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"st')
    os.utime(run / "metrics.jsonl", (1000.0, 1000.0))
    assert current_step(run, 999.0) == 20
    assert current_step(run, 1001.0) == 0


def test_data_and_protocol_stay_the_same_from_call_to_call(places: Places) -> None:
    check_settings(planned("--episodes", "5"), places)
    check_settings(planned("--episodes", "5", "--updates", "7"), places)
    with pytest.raises(ConfigError, match="episodes is None, but what"):
        check_settings(planned(), places)
