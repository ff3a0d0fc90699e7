"""Seeds that are trained as one batched model leave run folders as if each had been trained alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import DATA, small_config

from rql_core.algorithms.rql import RQL
from rql_core.errors import ConfigError, TrainingError
from rql_core.training import Policy, load_checkpoint, train, train_seeds
from rql_core.training import loop as loop_module
from rql_core.training import run_directory as run_directory_module
from rql_core.training.checkpoint import load_training_state
from rql_core.training.metrics import SECONDS, read_metrics

SEEDS = (3, 0, 5)


def folders(root: Path, seeds: tuple[int, ...] = SEEDS) -> dict[int, Path]:
    return {seed: root / f"run-seed{seed}" for seed in seeds}


def scored(policy: Policy) -> dict[str, float]:
    chunk = policy.act(np.full((1, 2), 0.3, np.float32), np.full((1, policy.algorithm.chunk_dim), 0.5, np.float32))
    return {"success_rate": float(chunk.mean())}


def assert_alike(found: Path, expected: Path) -> None:
    """Assert that two run folders hold the same files, rows and tensors; numbers to float32's rounding."""
    names = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if "tensorboard" not in path.parts)
        for run in (found, expected)
    ]
    assert names[0] == names[1]
    assert (found / "train.json").read_text() == (expected / "train.json").read_text()
    rows, others = (read_metrics(run / "metrics.jsonl") for run in (found, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {SECONDS}:
            assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
    one, two = (load_checkpoint(run / "checkpoint") for run in (found, expected))
    assert one.manifest.seed == two.manifest.seed
    assert one.manifest.step == two.manifest.step
    state, other_state = (load_training_state(each).tensors for each in (one, two))
    assert state.keys() == other_state.keys()
    for name, tensor in other_state.items():
        if name.startswith("generator/"):
            assert torch.equal(state[name], tensor), name
        else:
            torch.testing.assert_close(state[name], tensor, rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("settings", [{}, {"evaluate_every": 6, "keep_last": 1}], ids=["", "evaluated"])
def test_each_seed_is_as_if_it_had_been_trained_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    results = train_seeds(DATA, small_config(**settings), folders(tmp_path), evaluate=scored)
    assert list(results) == list(SEEDS)
    for seed, folder in folders(tmp_path).items():
        alone = tmp_path / f"alone-seed{seed}"
        result = train(DATA, small_config(**settings, seed=seed), alone, evaluate=scored)
        assert_alike(folder, alone)
        assert results[seed].metrics.keys() == result.metrics.keys()
        assert results[seed].checkpoint == (folder / "checkpoint").resolve()
    first, second = (
        load_training_state(load_checkpoint(folder / "checkpoint")).tensors
        for folder in folders(tmp_path, (3, 0)).values()
    )
    assert not torch.allclose(first["algorithm/actor.weights.0"], second["algorithm/actor.weights.0"])


def test_a_group_goes_on_from_seeds_trained_alone_and_each_alone_from_a_group(tmp_path: Path) -> None:
    straight = folders(tmp_path / "straight")
    train_seeds(DATA, small_config(), straight)
    grouped, alone = folders(tmp_path / "grouped"), folders(tmp_path / "alone")
    for seed in SEEDS:
        train(DATA, small_config(seed=seed, updates=10), alone[seed])
    train_seeds(DATA, small_config(), alone, resume=True)
    train_seeds(DATA, small_config(updates=10), grouped)
    for seed in SEEDS:
        train(DATA, small_config(seed=seed), grouped[seed], resume=True)
        assert_alike(alone[seed], straight[seed])
        assert_alike(grouped[seed], straight[seed])


def test_a_resumed_group_is_an_uninterrupted_one_to_the_last_bit(tmp_path: Path) -> None:
    straight, halves = folders(tmp_path / "straight"), folders(tmp_path / "halves")
    train_seeds(DATA, small_config(), straight)
    train_seeds(DATA, small_config(updates=13), halves)
    train_seeds(DATA, small_config(), halves, resume=True)
    for seed in SEEDS:
        states = [
            load_training_state(load_checkpoint(runs[seed] / "checkpoint")).tensors for runs in (straight, halves)
        ]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize(("publications", "goes_on_from"), [(1, 5), (2, 5), (3, 5), (4, 10), (5, 10), (6, 10)])
def test_a_kill_between_two_publications_leaves_a_group_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publications: int, goes_on_from: int
) -> None:
    train_seeds(DATA, small_config(), folders(tmp_path / "straight"))
    runs = folders(tmp_path / "run")
    honest, done = run_directory_module.RunDirectory.publish, 0

    def killed(self: Any, *args: Any) -> None:
        nonlocal done
        if done == publications:
            raise Killed
        done += 1
        honest(self, *args)

    monkeypatch.setattr(run_directory_module.RunDirectory, "publish", killed)
    with pytest.raises(Killed):
        train_seeds(DATA, small_config(keep_last=1), runs)
    monkeypatch.undo()
    seen: list[int] = []
    resume = loop_module.Run.resume
    monkeypatch.setattr(loop_module.Run, "resume", lambda run, step: (seen.append(step), resume(run, step))[1])
    train_seeds(DATA, small_config(keep_last=1), runs, resume=True)
    assert seen == [goes_on_from] * 3
    for seed, run in runs.items():
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000020"]
        states = [
            load_training_state(load_checkpoint(each / "checkpoint")).tensors
            for each in (run, folders(tmp_path / "straight")[seed])
        ]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_group_goes_on_from_where_its_links_point_and_not_from_what_is_newer(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    train_seeds(DATA, small_config(keep_last=4), runs)
    for run in runs.values():
        (run / "checkpoint").unlink()
        (run / "checkpoint").symlink_to("checkpoints/step-00000010")
    train_seeds(DATA, small_config(keep_last=4, updates=11), runs, resume=True)
    for run in runs.values():
        steps = sorted(path.name for path in (run / "checkpoints").iterdir())
        assert steps == ["step-00000005", "step-00000010", "step-00000011"]


def test_runs_at_different_updates_are_not_resumed_together(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    train_seeds(DATA, small_config(updates=10), runs)
    train(DATA, small_config(seed=0, keep_last=1), runs[0], resume=True)
    with pytest.raises(ConfigError, match=r"run-seed3 has made 10 updates, and others have made 20: .* --seed first"):
        train_seeds(DATA, small_config(updates=30), runs, resume=True)
    del runs[0]
    shutil.rmtree(runs[5] / "checkpoints")
    (runs[5] / "checkpoint").unlink()
    with pytest.raises(ConfigError, match="run-seed5/checkpoint: is missing; there is nothing to resume"):
        train_seeds(DATA, small_config(updates=30), runs, resume=True)
    with pytest.raises(ConfigError, match="nowhere-seed3/checkpoint: is missing; there is nothing to resume"):
        train_seeds(DATA, small_config(), {3: tmp_path / "nowhere-seed3", 4: tmp_path / "nowhere-seed4"}, resume=True)


def test_a_seed_that_breaks_down_stops_and_the_others_come_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RQL.critic_loss

    def broken(self: RQL, *args: Any) -> Any:
        loss, metrics = honest(self, *args)
        if self.updates == 12:
            metrics["critic_loss"] = metrics["critic_loss"] * torch.tensor([1.0, float("nan"), 1.0])
        return loss, metrics

    train_seeds(DATA, small_config(), folders(tmp_path / "straight"))
    monkeypatch.setattr(RQL, "critic_loss", broken)
    runs = folders(tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"1 of 3 seeds did not .*: seed 0 stopped: update 13: critic_loss is nan.*10"
    ):
        train_seeds(DATA, small_config(), runs)
    assert [load_checkpoint(run / "checkpoint").manifest.step for run in runs.values()] == [20, 10, 20]
    assert (runs[0] / "bad_batch.json").exists()
    assert [row["step"] for row in read_metrics(runs[0] / "metrics.jsonl")] == [4, 8, 12]
    for seed in (3, 5):
        states = [
            load_training_state(load_checkpoint(each / "checkpoint")).tensors
            for each in (runs[seed], folders(tmp_path / "straight")[seed])
        ]
        names = [name for name in states[0] if name != "pending_metrics"]
        assert all(torch.equal(states[0][name], states[1][name]) for name in names)


def test_training_stops_when_no_seed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, updates = RQL.critic_loss, []

    def broken(self: RQL, *args: Any) -> Any:
        loss, metrics = honest(self, *args)
        updates.append(self.updates)
        metrics["critic_loss"] = metrics["critic_loss"] * float("nan")
        return loss, metrics

    monkeypatch.setattr(RQL, "critic_loss", broken)
    with pytest.raises(TrainingError, match="3 of 3 seeds"):
        train_seeds(DATA, small_config(updates=1000), folders(tmp_path))
    assert max(updates) < 10


def test_two_seeds_need_two_folders_and_there_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same run directory"):
        train_seeds(DATA, small_config(), {0: tmp_path / "run", 1: tmp_path / "." / "run"})
    with pytest.raises(ConfigError, match="no seeds"):
        train_seeds(DATA, small_config(), {})
