"""What a finished training leaves: the critics' values over its data, and graphs; and none of it can fail one."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import CONTRACT, DATA, small_config

from rql_core.algorithms import BCFlowConfig
from rql_core.training import load_checkpoint, train, train_seeds
from rql_core.training import value_distribution as values


def listed(directory: Path) -> set[str]:
    return set(json.loads((directory / "manifest.json").read_text())["files"])


def test_the_values_are_those_of_the_policys_own_chunks_over_the_data(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(train(DATA, small_config(updates=5), tmp_path, CONTRACT, progress=False).checkpoint)
    found = json.loads((checkpoint.directory / "values.json").read_text())
    observations = DATA.observations
    assert found["observations"] == len(observations) <= values.OBSERVATIONS
    chunks = checkpoint.policy.sample(observations, np.random.default_rng(0))
    each = checkpoint.policy.action_value(observations, chunks)
    assert found["critics"] == each.shape[1] == 2
    for name, numbers in (("mean", each.mean(axis=1)), ("std", each.std(axis=1))):
        assert list(found[name]) == ["0.001", "0.01", "0.05", "0.5", "0.95", "0.99", "0.999"]
        expected = [np.quantile(numbers, float(quantile)) for quantile in found[name]]
        np.testing.assert_allclose(list(found[name].values()), expected, rtol=1e-4, atol=1e-6)
    assert found["std"]["0.001"] < found["std"]["0.999"]


def test_of_many_observations_a_fixed_sample_is_taken() -> None:
    rows = np.arange(10_000, dtype=np.float32)[:, None]
    sampled = values.sample_observations(rows)
    assert sampled.shape == (values.OBSERVATIONS, 1)
    assert len(np.unique(sampled)) == values.OBSERVATIONS
    np.testing.assert_array_equal(values.sample_observations(rows), sampled)


def test_bc_flow_has_graphs_and_no_values(tmp_path: Path) -> None:
    config = small_config(updates=5, algorithm=BCFlowConfig(horizon=2, flow_steps=3, actor_hidden=(8,)))
    files = listed(train(DATA, config, tmp_path, CONTRACT, progress=False).checkpoint)
    assert "policy.onnx" in files
    assert not {"values.json", "critics.onnx"} & files


def test_the_last_and_the_best_are_finished_and_no_checkpoint_before_the_end(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def evaluate(policy: Any) -> dict[str, float]:
        seen.extend(listed(path) for path in (tmp_path / "checkpoints").glob("step-*"))
        return {"success_rate": 1.0 if len(seen) < 2 else 0.0}

    config = small_config(updates=20, checkpoint_every=5, evaluate_every=5, keep_last=1, keep_best=1)
    train(DATA, config, tmp_path, CONTRACT, evaluate, progress=False)
    assert seen
    assert not any("policy.onnx" in files for files in seen)
    kept = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert len(kept) == 2
    for directory in kept:
        assert {"policy.onnx", "values.json"} <= listed(directory)
        load_checkpoint(directory)


def test_every_seed_of_a_group_is_finished(tmp_path: Path) -> None:
    runs = train_seeds(DATA, small_config(updates=5), {seed: tmp_path / str(seed) for seed in (0, 1)}, progress=False)
    assert all("policy.onnx" in listed(result.checkpoint) for result in runs.values())


@pytest.mark.parametrize("obstacle", ["onnx", "onnxruntime", "dopri5"])
def test_a_training_whose_policy_cannot_be_exported_ends_well_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    settings: dict[str, Any] = {"horizon": 2, "flow_steps": 3, "actor_hidden": (8,)}
    if obstacle == "dopri5":
        settings["act_integrator"] = "dopri5"
    else:
        for name in [each for each in sys.modules if each.startswith("rql_core.export")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, obstacle, None)
    with caplog.at_level(logging.WARNING):
        result = train(DATA, small_config(updates=5, algorithm=BCFlowConfig(**settings)), tmp_path, progress=False)
    assert "policy.onnx" not in listed(load_checkpoint(result.checkpoint).directory)
    assert "has no ONNX graphs" in caplog.text
    assert obstacle in caplog.text
