"""An export is found right before it is listed, is the same every time, and leaves a checkpoint whole at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rql_core.cli import main
from rql_core.errors import CheckpointError
from rql_core.export import checkpoint as export
from rql_core.export import graphs as graph_files
from rql_core.export.checkpoint import export_checkpoint
from rql_core.runtime.policy import DeployedPolicy
from rql_core.training.checkpoint import load_checkpoint

GRAPHS = ["policy.onnx", "policy_prefix.onnx", "policy_jacobian.onnx", "critics.onnx"]
MakeCheckpoint = Callable[..., Path]


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def fresh(untrained_checkpoint: MakeCheckpoint) -> Path:
    return untrained_checkpoint("rql")


def test_the_command_writes_graphs_and_says_how_near_they_are(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(fresh)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in GRAPHS)
    assert "written; at most " in said
    first = files_of(fresh)
    assert {*GRAPHS, "policy_check.safetensors"} <= json.loads(first["manifest.json"])["files"].keys()
    assert main(["export", str(fresh)]) == 0
    assert "there already" in capsys.readouterr().out
    assert files_of(fresh) == first


def test_the_format_is_valid_and_the_weights_are_stored_once(fresh: Path) -> None:
    export_checkpoint(fresh)
    weights = (fresh / "model.safetensors").stat().st_size
    for name in GRAPHS:
        onnx.checker.check_model(str(fresh / name), full_check=True)
        assert (fresh / name).stat().st_size < 20_000 < weights
        about = json.loads(onnx.load(fresh / name, load_external_data=False).metadata_props[0].value)
        assert about["graph"] == name
        assert about["sources"] == {
            source: json.loads((fresh / "manifest.json").read_text())["files"][source]
            for source in ("model.safetensors", "stats.safetensors", "config.json")
        }


def test_a_graph_that_computes_something_else_is_never_listed(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(fresh)
    monkeypatch.setattr(graph_files, "GELU_CUBIC", 0.04)  # the Jacobian's slopes alone use it
    with pytest.raises(CheckpointError, match=r"policy_jacobian\.onnx: differs from what torch computed by "):
        export_checkpoint(fresh)
    assert files_of(fresh) == before


def test_a_kill_at_any_file_leaves_a_checkpoint_that_acts(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = export.write_whole, 0

    def killed_at(limit: int) -> Callable[..., None]:
        def write(path: Path, content: Any) -> None:
            nonlocal count
            count += 1
            if count > limit:
                raise KeyboardInterrupt
            real(path, content)

        return write

    for limit in range(5):
        count = 0
        monkeypatch.setattr(export, "write_whole", killed_at(limit))
        with pytest.raises(KeyboardInterrupt):
            export_checkpoint(fresh)
        load_checkpoint(fresh)
        with pytest.raises(CheckpointError, match=r"policy\.onnx: is missing; run `rql export"):
            DeployedPolicy.load(fresh, backend="onnx")
    monkeypatch.setattr(export, "write_whole", real)
    assert export_checkpoint(fresh).changed
    DeployedPolicy.load(fresh, backend="onnx")


def test_an_export_of_other_weights_is_made_anew(fresh: Path, untrained_checkpoint: MakeCheckpoint) -> None:
    export_checkpoint(fresh)
    manifest = json.loads((fresh / "manifest.json").read_text())
    manifest["files"]["policy.onnx"] = export.sha256(b"old")
    (fresh / "policy.onnx").write_bytes(b"old")
    (fresh / "manifest.json").write_text(json.dumps(manifest))
    assert export_checkpoint(fresh).changed
    DeployedPolicy.load(fresh, backend="onnx")


def test_a_damaged_checkpoint_is_not_exported(fresh: Path) -> None:
    (fresh / "model.safetensors").write_bytes((fresh / "model.safetensors").read_bytes()[:-4])
    assert main(["export", str(fresh)]) == 1
    assert not (fresh / "policy.onnx").exists()


@pytest.mark.parametrize("integrator", ["midpoint", "dopri5"])
def test_every_integrator_with_steps_of_its_own_is_exported_and_the_other_is_refused(
    make_policy: Callable[..., Path], integrator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_policy(act_integrator=integrator)
    if integrator == "dopri5":
        assert main(["export", str(directory)]) == 1
        assert "act_integrator is dopri5" in capsys.readouterr().err
        return
    assert export_checkpoint(directory).difference <= 1e-5


def test_observations_that_training_did_not_normalise_stay_as_they_are(make_policy: Callable[..., Path]) -> None:
    directory = make_policy(scaled=False)
    assert export_checkpoint(directory).difference <= 1e-5


@pytest.mark.parametrize("hidden", [(7,), (24, 16, 8)])
def test_layers_of_any_number_and_width_are_exported(make_policy: Callable[..., Path], hidden: tuple[int, ...]) -> None:
    assert export_checkpoint(make_policy(actor_hidden=hidden)).difference <= 1e-5


@pytest.fixture
def make_policy(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint of BC flow with settings of one's own."""
    from rql_core.algorithms import BCFlowConfig, RewardRange, make_algorithm
    from rql_core.data import Statistics
    from rql_core.training.checkpoint import save_checkpoint
    from rql_core.training.policy import Policy

    def make(*, scaled: bool = True, **settings: Any) -> Path:
        rewards = RewardRange(-1.0, 0.0, can_end=True)
        config = BCFlowConfig(**({"horizon": 3, "flow_steps": 4, "actor_hidden": (16, 8)} | settings))
        algorithm = make_algorithm(config, 5, 2, rewards, seed=3)
        statistics = Statistics.of(np.random.default_rng(0).normal(0.5, 2.0, (50, 5)).astype(np.float32))
        policy = Policy(algorithm, statistics if scaled else statistics.without_scaling())
        save_checkpoint(tmp_path / "checkpoint", policy, step=1, reward_range=rewards)
        return tmp_path / "checkpoint"

    return make
