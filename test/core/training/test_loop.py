"""A run resumes exactly, survives a kill at any moment, and learns."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import point_mass
import pytest
import torch
from small_runs import CONTRACT, DATA, small_config

from rql_core.algorithms import BCFlowConfig, RewardRange, RQLConfig
from rql_core.data import Statistics, Trajectories
from rql_core.errors import CheckpointError, ConfigError
from rql_core.training import Policy, TrainConfig, load_checkpoint, train
from rql_core.training import checkpoint as checkpoint_module
from rql_core.training import metrics as metrics_module
from rql_core.training import run_directory as run_directory_module
from rql_core.training.checkpoint import load_training_state
from rql_core.training.metrics import SECONDS, read_metrics

BC_FLOW = BCFlowConfig(horizon=2, flow_steps=3, actor_hidden=(8,))
ROOT = Path(__file__).parents[3]


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return load_training_state(load_checkpoint(run / "checkpoint")).tensors


def assert_same_run(first: Path, second: Path) -> None:
    expected, found = state_of(first), state_of(second)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert without_times(first) == without_times(second)


def without_times(run: Path) -> list[dict[str, Any]]:
    rows = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != SECONDS} for row in rows]


def test_rows_say_how_long_the_updates_took_in_all_parts_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr(metrics_module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))

    def evaluate(policy: Policy) -> dict[str, float]:
        """Take a hundred units of time, where an update takes one."""
        for _ in range(100):
            next(clock)
        return {}

    train(DATA, small_config(updates=10, evaluate_every=5), tmp_path, evaluate=evaluate)
    train(DATA, small_config(evaluate_every=5), tmp_path, evaluate=evaluate, resume=True)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row[SECONDS]) for row in rows if SECONDS in row] == [(each, each) for each in range(4, 21, 4)]


@pytest.mark.parametrize("settings", [{}, {"algorithm": BC_FLOW}], ids=["rql", "bc_flow"])
@pytest.mark.parametrize("middle", [8, 10], ids=["at a row of metrics", "between rows"])
def test_20_updates_equal_10_and_a_resume_and_10_more(tmp_path: Path, settings: dict[str, Any], middle: int) -> None:
    train(DATA, small_config(**settings), tmp_path / "straight")
    train(DATA, small_config(**settings, updates=middle), tmp_path / "halves")
    train(DATA, small_config(**settings), tmp_path / "halves", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "halves")


def test_an_evaluation_does_not_disturb_training(tmp_path: Path) -> None:
    def evaluate(policy: Policy) -> dict[str, float]:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        policy.sample(np.zeros((5, 2), np.float32), np.random.default_rng())
        policy.value(torch.randn(3, 2).numpy())
        random.random()
        return {"success_rate": 0.5}

    train(DATA, small_config(), tmp_path / "alone")
    train(DATA, small_config(evaluate_every=3), tmp_path / "evaluated", evaluate=evaluate)
    alone, evaluated = state_of(tmp_path / "alone"), state_of(tmp_path / "evaluated")
    assert all(torch.equal(tensor, evaluated[name]) for name, tensor in alone.items())
    rows = read_metrics(tmp_path / "evaluated" / "metrics.jsonl")
    assert [row["step"] for row in rows if "evaluation/success_rate" in row] == [3, 6, 9, 12, 15, 18, 20]


def test_metrics_are_means_over_the_updates_since_the_last_row(tmp_path: Path) -> None:
    train(DATA, small_config(log_every=1), tmp_path / "each")
    train(DATA, small_config(log_every=4), tmp_path / "fours")
    each, fours = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("each", "fours"))
    assert [row["step"] for row in fours] == [4, 8, 12, 16, 20]
    assert set(fours[0]) >= {"critic_loss", "policy_loss", "flow_loss", "value", "target"}
    for index, row in enumerate(fours):
        mean = np.mean([other["critic_loss"] for other in each[4 * index : 4 * index + 4]])
        assert row["critic_loss"] == pytest.approx(mean)


def test_rows_past_the_checkpoint_and_a_row_cut_off_are_dropped_on_resume(tmp_path: Path) -> None:
    train(DATA, small_config(), tmp_path / "straight")
    train(DATA, small_config(updates=10), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "critic_loss": 1.0}\n{"step": 16, "crit')
    train(DATA, small_config(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_the_last_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.2])
    config = small_config(evaluate_every=4, checkpoint_every=100, keep_last=2, keep_best=1)
    result = train(DATA, config, tmp_path, evaluate=lambda policy: {"success_rate": next(scores)})
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000016", "step-00000020"]
    assert (tmp_path / "checkpoint").resolve().name == "step-00000020"
    assert not os.path.isabs(os.readlink(tmp_path / "checkpoint"))
    assert result.checkpoint == (tmp_path / "checkpoints" / "step-00000020").resolve()
    assert load_checkpoint(tmp_path / "checkpoints" / "step-00000008").manifest.metrics == {"success_rate": 0.9}


FILE_OPERATIONS = [
    (checkpoint_module, "_write"),
    (checkpoint_module.os, "rename"),
    (run_directory_module.os, "replace"),
    (run_directory_module.shutil, "rmtree"),
    (run_directory_module.Path, "symlink_to"),
]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("before", range(0, 70, 3))
def test_a_kill_before_any_file_operation_leaves_a_state_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    train(DATA, small_config(), tmp_path / "straight")
    done = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done == before:
                raise Killed
            done += 1
            return operation(*args, **kwargs)

        return call

    for owner, name in FILE_OPERATIONS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    run = tmp_path / "run"
    killed = False
    try:
        train(DATA, small_config(keep_last=1), run)
    except Killed:
        killed = True
    monkeypatch.undo()
    assert killed or before > 40
    resume = (run / "checkpoint").is_symlink()
    if resume:
        load_checkpoint(run / "checkpoint")
    train(DATA, small_config(keep_last=1), run, resume=resume)
    assert_same_run(tmp_path / "straight", run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000020"]


def test_a_real_kill_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    script = """
        import sys
        sys.path[:0] = [sys.argv[1], sys.argv[2]]
        import conftest
        from small_runs import DATA, small_config
        from rql_core.training import train
        def say(policy):
            print("evaluated", flush=True)
            return {}
        config = small_config(updates=100_000, checkpoint_every=1, evaluate_every=7)
        train(DATA, config, sys.argv[3], evaluate=say, progress=False)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(ROOT), str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "evaluated\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    step = load_checkpoint(tmp_path / "checkpoint").manifest.step
    # The checkpoint of update 6 may still have been under way, but that of update 5 was waited for.
    assert step >= 5
    train(DATA, small_config(updates=step + 3, checkpoint_every=1), tmp_path, resume=True)
    assert load_checkpoint(tmp_path / "checkpoint").manifest.step == step + 3


def test_a_resume_with_other_settings_data_or_contract_is_refused(tmp_path: Path) -> None:
    train(DATA, small_config(updates=5), tmp_path, CONTRACT)
    other = point_mass.play(episodes=6, steps=20, seed=9)
    for data, config, contract, words in (
        (DATA, small_config(batch_size=8), CONTRACT, "batch_size is 8"),
        (DATA, small_config(seed=3), CONTRACT, "seed is 3"),
        (DATA, small_config(algorithm=BC_FLOW), CONTRACT, "algorithm is"),
        (DATA, small_config(updates=4), CONTRACT, "updates is 4"),
        (DATA, small_config(), None, "contract differs"),
        (other, small_config(), CONTRACT, "data's mean differs"),
        (
            replace(DATA, rewards=DATA.rewards * 0.5),
            small_config(),
            CONTRACT,
            "data's actions, rewards or masks differ",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            train(data, config, tmp_path, contract, resume=True)
    train(DATA, small_config(log_every=2, keep_last=1), tmp_path, CONTRACT, resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(DATA, small_config(), tmp_path, resume=True)
    train(DATA, small_config(updates=5), tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(DATA, small_config(), tmp_path)
    (tmp_path / "checkpoints" / "step-00000005" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is missing"):
        train(DATA, small_config(), tmp_path, resume=True)


def test_a_missing_tensorboard_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.WARNING):
        train(DATA, small_config(tensorboard=True), tmp_path)
    assert [record.message for record in caplog.records if "TensorBoard is not installed" in record.message] != []
    assert len(caplog.records) == 1


def test_tensorboard_gets_the_same_numbers_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    class Writer:
        def __init__(self, directory: str, purge_step: int) -> None:
            assert purge_step == 1

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((step, name, value))

        def close(self) -> None:
            written.append("closed")

    stand_in = type(sys)("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    train(DATA, small_config(tensorboard=True), tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    expected = [(row["step"], name, value) for row in rows for name, value in row.items() if name != "step"]
    assert written == [*expected, "closed"]


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="device is 'abacus'"):
        small_config(device="abacus").resolve_device()


def test_training_needs_no_ros_no_simulator_and_no_dataset_library(tmp_path: Path) -> None:
    script = """
        import sys
        sys.path[:0] = [sys.argv[1], sys.argv[2]]
        banned = {"rclpy", "mujoco", "minari", "gymnasium", "rosbags", "ogbench", "torchdiffeq", "tensorboard", "scipy"}
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in banned:
                    raise ImportError("refused: " + name)
        sys.meta_path.insert(0, Refuse())
        from small_runs import DATA, small_config
        import rql_core.flow, rql_core.networks
        from rql_core.training import load_checkpoint, train
        result = train(DATA, small_config(updates=5), sys.argv[3], progress=False)
        assert load_checkpoint(result.checkpoint).manifest.step == 5
        assert not banned & {name.split(".")[0] for name in sys.modules}
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(ROOT), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rql_stitches_play_data_into_a_way_to_the_goal_and_bc_flow_does_not(tmp_path: Path) -> None:
    data: Trajectories = point_mass.play(episodes=200, steps=40, seed=0)
    shared: dict[str, Any] = {
        "horizon": 2,
        "flow_steps": 4,
        "actor_hidden": (64, 64),
        "learning_rate": 1e-3,
        "act_average": 0.99,
    }
    rql = RQLConfig(**shared, critic_hidden=(64, 64), critics=2, alpha=0.3, gamma=0.95, tau=0.02)
    rates = {}
    for algorithm in (rql, BCFlowConfig(**shared)):
        config = TrainConfig(algorithm=algorithm, updates=1000, batch_size=128, device="cpu", tensorboard=False)
        result = train(data, config, tmp_path / algorithm.algorithm, progress=False)
        rates[algorithm.algorithm] = point_mass.success_rate(load_checkpoint(result.checkpoint).policy)
    assert rates["rql"] > 0.8
    assert rates["bc_flow"] < 0.4


def test_the_settings_of_a_run_lie_beside_it(tmp_path: Path) -> None:
    config = small_config(updates=5)
    train(DATA, config, tmp_path)
    assert TrainConfig.model_validate(json.loads((tmp_path / "train.json").read_text())) == config


class Shards:
    """Data in three files that take turns; remembers which were loaded."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.files = [point_mass.play(episodes=2, steps=20, seed=seed) for seed in range(3)]

    def __len__(self) -> int:
        return 3

    def load(self, index: int) -> Trajectories:
        self.loaded.append(index)
        return self.files[index]

    def statistics(self) -> Statistics:
        return Statistics.of(np.concatenate([file.observations for file in self.files]))

    def reward_range(self) -> RewardRange:
        return RewardRange(-1.0, 0.0, can_end=True)

    def fingerprint(self) -> str:
        return "three files"


def test_a_data_set_in_many_files_takes_turns_and_resumes_with_the_file_whose_turn_it_is(tmp_path: Path) -> None:
    config = small_config(shard_updates=3)
    straight = Shards()
    train(straight, config, tmp_path / "straight")
    assert straight.loaded == [0, 1, 2, 0, 1, 2, 0]
    train(Shards(), small_config(shard_updates=3, updates=10), tmp_path / "resumed")
    resumed = Shards()
    train(resumed, config, tmp_path / "resumed", resume=True)
    # Updates 11 and 12 are still the first file's, whose second turn it is.
    assert resumed.loaded == [0, 1, 2, 0]
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_the_paper_forms_observations_are_raw_unless_it_is_told_to_normalise_them(tmp_path: Path) -> None:
    paper = small_config().algorithm.model_copy(update={"form": "paper"})
    for name, settings, normalised in (
        ("corrected", {}, True),
        ("paper", {"algorithm": paper}, False),
        ("both", {"algorithm": paper, "normalise_observations": True}, True),
    ):
        train(DATA, small_config(updates=2, **settings), tmp_path / name)
        statistics = load_checkpoint(tmp_path / name / "checkpoint").policy.statistics
        assert bool((statistics.std != 1).any()) is normalised, name
        np.testing.assert_array_equal(statistics.maximum, DATA.observations.max(axis=0))
