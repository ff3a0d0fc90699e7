"""The backend without torch gives the chunks that torch gives, and refuses what is not this checkpoint's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy

from rql_core.acting import Acting
from rql_core.contract import ActionScale
from rql_core.errors import ConfigError, RqlError
from rql_core.export.checkpoint import export_checkpoint
from rql_core.runtime.plan import Guide
from rql_core.runtime.policy import DeployedPolicy

NAMES = ["rql", "bc_flow", "ifql", "fql", "qc"]
GRAPHS = ["policy.onnx", "policy_prefix.onnx", "policy_jacobian.onnx", "critics.onnx"]
MakeCheckpoint = Callable[[str], Path]


@pytest.fixture(scope="session")
def exported(untrained_checkpoint: MakeCheckpoint) -> Callable[[str], Path]:
    """Exported checkpoints by algorithm, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = untrained_checkpoint(name)
            export_checkpoint(made[name])
        return made[name]

    return get


@pytest.fixture
def copy(exported: MakeCheckpoint, tmp_path: Path) -> Path:
    """A copy of RQL's, to be damaged."""
    shutil.copytree(exported("rql"), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def both(directory: Path, acting: Acting | None = None) -> tuple[DeployedPolicy, DeployedPolicy]:
    policies = [DeployedPolicy.load(directory, backend=name, acting=acting) for name in ("onnx", "torch")]  # type: ignore[arg-type]
    for policy in policies:
        policy.with_values = True
        policy.reset(5)
    return policies[0], policies[1]


def observations_for(policy: DeployedPolicy, count: int = 3) -> np.ndarray:
    shape = (count, policy.contract.observation_dim)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def guide_for(policy: DeployedPolicy) -> Guide:
    chunk = np.random.default_rng(2).uniform(-1.0, 1.0, (policy.horizon, policy.contract.action_dim))
    return Guide(ActionScale(policy.contract).physical(chunk), np.linspace(1, 0, policy.horizon, dtype=np.float32))


def assert_same(one: DeployedPolicy, other: DeployedPolicy, guide: Guide | None = None) -> None:
    for observation in observations_for(one):
        plans = [policy.plan(observation, guide) for policy in (one, other)]
        np.testing.assert_allclose(plans[0].actions, plans[1].actions, rtol=0, atol=1e-5)
        assert (plans[0].values is None) == (plans[1].values is None)
        if plans[0].values is not None and plans[1].values is not None:
            np.testing.assert_allclose(plans[0].values, plans[1].values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_chunks_and_values_that_torch_gives(exported: MakeCheckpoint, name: str) -> None:
    onnx_policy, torch_policy = both(exported(name))
    assert onnx_policy.acting == torch_policy.acting
    assert onnx_policy.algorithm == torch_policy.algorithm == name
    assert (onnx_policy.plan(observations_for(onnx_policy)[0]).values is None) == (name == "bc_flow")
    onnx_policy.reset(5)
    onnx_policy.warm_up()
    assert_same(onnx_policy, torch_policy)


@pytest.mark.parametrize("name", NAMES)
def test_the_critics_say_of_a_chunk_later_what_they_say_of_it_at_once(exported: MakeCheckpoint, name: str) -> None:
    for policy in both(exported(name)):
        observation = observations_for(policy)[0]
        plan = policy.plan(observation)
        values = policy.values(observation, plan.actions)
        assert (values is None) is (plan.values is None)
        if plan.values is not None:
            assert values is not None
            np.testing.assert_allclose(values, plan.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "acting", [Acting(8, 0.5), Acting(flow_steps=1), Acting(flow_steps=17), Acting(4, 0.0, 3)], ids=str
)
def test_samples_and_flow_steps_change_at_run_time_as_they_do_in_torch(
    exported: MakeCheckpoint, name: str, acting: Acting
) -> None:
    onnx_policy, torch_policy = both(exported(name))
    refusals: list[str] = []
    for policy in (onnx_policy, torch_policy):
        try:
            policy.set_acting(acting)
        except ConfigError as error:
            refusals.append(str(error))
    impossible = (name == "bc_flow" and acting.samples > 1) or (name == "fql" and acting.flow_steps not in (None, 1))
    if impossible:
        assert len(refusals) == 2
        assert refusals[0] == refusals[1]
        return
    assert refusals == []
    assert_same(onnx_policy, torch_policy)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fql"])
@pytest.mark.parametrize("method", ["jacobian", "prefix"])
@pytest.mark.parametrize("steps", [None, 3])
def test_a_guide_holds_a_chunk_as_it_does_in_torch(
    exported: MakeCheckpoint, name: str, method: Any, steps: int | None
) -> None:
    onnx_policy, torch_policy = both(exported(name))
    guide = guide_for(onnx_policy)
    for policy in (onnx_policy, torch_policy):
        policy.guide_method = method
        policy.set_acting(policy.acting.changed(flow_steps=steps))
    assert_same(onnx_policy, torch_policy, guide)
    for policy in (onnx_policy, torch_policy):
        assert policy.takes_guide
        policy.reset(5)
    held, free = (onnx_policy.plan(observations_for(onnx_policy)[0], each).actions for each in (guide, None))
    assert not np.allclose(held, free, atol=1e-3)


def test_what_is_no_flow_refuses_a_guide_in_the_words_of_torch(exported: MakeCheckpoint) -> None:
    said = []
    for policy in both(exported("fql")):
        with pytest.raises(ConfigError, match="fql acts in one step and has no flow to guide") as error:
            policy.plan(observations_for(policy)[0], guide_for(policy))
        said.append(str(error.value))
        assert not policy.takes_guide
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["rql", "bc_flow"])
def test_values_can_be_asked_for_later(exported: MakeCheckpoint, name: str) -> None:
    for policy in both(exported(name)):
        observation = observations_for(policy)[0]
        plan = policy.plan(observation)
        later = policy.values(observation, plan.actions)
        assert (later is None) == (plan.values is None) == (name == "bc_flow")
        if later is not None and plan.values is not None:
            np.testing.assert_allclose(later, plan.values, rtol=1e-3, atol=1e-3)


SCRIPT = """
import sys, time
started = time.perf_counter()
import numpy as np
import rql_core.runtime.plan, rql_core.runtime.runner, rql_core.runtime.safety
from rql_core.acting import Acting
from rql_core.runtime.plan import Guide
from rql_core.runtime.policy import DeployedPolicy
policy = DeployedPolicy.load(sys.argv[1], backend="onnx", acting=Acting(4, 0.5, 7))
loaded = time.perf_counter() - started
policy.with_values = True
policy.warm_up()
observation = np.zeros(policy.contract.observation_dim, np.float32)
plan = policy.plan(observation)
policy.plan(observation, Guide(plan.actions, np.ones(policy.horizon, np.float32)))
assert np.isfinite(plan.actions).all() and plan.values is not None
memory = open("/proc/self/status").read().split("VmRSS:")[1].split()[0]
print(f"{loaded:.2f} s to loaded, {int(memory) / 1024:.0f} MB")
print(*sorted(name for name in ("torch", "onnx", "onnxscript", "torchdiffeq", "scipy") if name in sys.modules))
"""


def test_a_robot_needs_no_torch(exported: MakeCheckpoint) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(exported("rql"))], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figures, imported = done.stdout.split("\n")[:2]
    sys.stdout.write(figures)
    assert imported == ""


# What is refused


def rewrite(directory: Path, name: str, content: bytes | None) -> None:
    """Change a file and its hash, as somebody would who means it; None takes it away."""
    manifest = json.loads((directory / "manifest.json").read_text())
    if content is None:
        (directory / name).unlink()
        del manifest["files"][name]
    else:
        (directory / name).write_bytes(content)
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def refused(directory: Path) -> str:
    with pytest.raises(RqlError) as error:
        DeployedPolicy.load(directory, backend="onnx")
    assert "\n" not in str(error.value)
    return str(error.value)


def edit_graph(directory: Path, name: str, change: Callable[[Any, dict[str, Any]], None]) -> None:
    """Change a graph, or what it says of itself."""
    model = onnx.load(directory / name, load_external_data=False)
    about = json.loads(model.metadata_props[0].value)
    change(model, about)
    model.metadata_props[0].value = json.dumps(about)
    rewrite(directory, name, model.SerializeToString())


def test_a_checkpoint_without_graphs_acts_by_torch_and_says_how_to_get_them(
    untrained_checkpoint: MakeCheckpoint,
) -> None:
    directory = untrained_checkpoint("rql")
    DeployedPolicy.load(directory, backend="torch")
    assert f"policy.onnx: is missing; run `rql export {directory}`" in refused(directory)


@pytest.mark.parametrize("name", [*GRAPHS, "policy_check.safetensors", "stats.safetensors", "model.safetensors"])
def test_a_file_that_is_missing_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert f"{name}: is missing" in refused(copy)


@pytest.mark.parametrize("name", [*GRAPHS[1:], "policy_check.safetensors"])
def test_a_graph_that_the_manifest_does_not_list_is_named(copy: Path, name: str) -> None:
    rewrite(copy, name, None)
    message = refused(copy)
    assert name in message
    assert "rql export" in message


@pytest.mark.parametrize("name", [*GRAPHS, "policy_check.safetensors", "model.safetensors", "config.json"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:-9] + bytes([b[-9] ^ 4]) + b[-8:]], ids=["cut", "bit"]
)
def test_damage_is_found_by_the_hash(copy: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    assert f"{name}: sha256" in refused(copy)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"\xff" * 99], ids=["empty", "pickle", "noise"])
@pytest.mark.parametrize("name", [*GRAPHS, "policy_check.safetensors"])
def test_a_file_of_another_kind_is_refused_whatever_its_hash(copy: Path, name: str, content: bytes) -> None:
    rewrite(copy, name, content)
    message = refused(copy)
    assert name in message
    assert "cannot be" in message


def test_the_graphs_of_another_model_are_refused(copy: Path, exported: MakeCheckpoint, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported("rql"), other)
    tensors = safetensors.numpy.load_file(other / "model.safetensors")
    tensors["actor_average.biases.0"] = tensors["actor_average.biases.0"] + np.float32(0.01)
    rewrite(other, "model.safetensors", safetensors.numpy.save(tensors))
    assert "policy.onnx: was made of another model.safetensors (sha256" in refused(other)
    export_checkpoint(other)
    DeployedPolicy.load(other, backend="onnx")
    for name in GRAPHS:
        rewrite(copy, name, (other / name).read_bytes())
    assert "policy.onnx: was made of another model.safetensors" in refused(copy)


def test_weights_changed_behind_the_graphs_back_are_found_by_what_they_compute(copy: Path) -> None:
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    tensors["actor_average.weights.1"] = tensors["actor_average.weights.1"] * np.float32(1.01)
    rewrite(copy, "model.safetensors", safetensors.numpy.save(tensors))
    sha = json.loads((copy / "manifest.json").read_text())["files"]["model.safetensors"]
    for name in GRAPHS:
        edit_graph(copy, name, lambda model, about: about["sources"].update({"model.safetensors": sha}))
    message = refused(copy)
    assert "policy.onnx: differs from what torch computed by 0." in message
    assert "allowed is 1e-05" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [("observation_dim", 8), ("action_dim", 3), ("horizon", 5), ("flow_steps", 9), ("critics", 3), ("graph", "x.onnx")],
)
def test_a_graph_of_another_policy_is_refused_by_field(copy: Path, field: str, value: Any) -> None:
    edit_graph(copy, "policy.onnx", lambda model, about: about.update({field: value}))
    message = refused(copy)
    assert f"policy.onnx: {field} is {value!r}, but this checkpoint's is " in message


def test_a_graph_with_other_inputs_is_refused(copy: Path) -> None:
    def rename(model: Any, about: dict[str, Any]) -> None:
        model.graph.input[0].name = "state"
        for node in model.graph.node:
            node.input[:] = ["state" if name == "observation" else name for name in node.input]

    edit_graph(copy, "policy.onnx", rename)
    assert "policy_check.safetensors: does not fit the graphs" in refused(copy)


def test_settings_that_changed_after_the_export_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["algorithm"]["colour"] = "red"
    rewrite(copy, "config.json", json.dumps(config).encode())
    assert "policy.onnx: was made of another config.json" in refused(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version=2), "config.json: schema_version is 2"),
        (lambda d: d.update(colour="red"), "config.json: colour is 'red'"),
        (lambda d: d["algorithm"].update(algorithm="sac"), "config.json: algorithm.algorithm is 'sac'"),
        (lambda d: d.update(horizon=9), "config.json: horizon is 9"),
    ],
)
def test_a_wrong_config_is_refused_without_torch(copy: Path, change: Callable[[Any], None], said: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    change(config)
    rewrite(copy, "config.json", json.dumps(config).encode())
    assert said in refused(copy)


def test_statistics_without_spread_are_refused_without_torch(copy: Path) -> None:
    tensors = safetensors.numpy.load_file(copy / "stats.safetensors")
    tensors["std"] = tensors["std"] * np.float32(0)
    rewrite(copy, "stats.safetensors", safetensors.numpy.save(tensors))
    assert "stats.safetensors: the statistic 'std' holds 0.0" in refused(copy)


@pytest.mark.parametrize("name", ["../x", "/etc/hosts"])
def test_a_manifest_that_names_files_elsewhere_is_refused_without_torch(copy: Path, name: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = "0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "outside the checkpoint" in refused(copy)


def test_a_missing_runtime_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install -r requirements/robot.txt" in refused(copy)


@pytest.mark.parametrize(("options", "said"), [({"device": "cuda"}, "runs on the cpu"), ({"backend": "jax"}, "'jax'")])
def test_a_backend_that_is_not_there_is_said(copy: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DeployedPolicy.load(copy, **({"backend": "onnx"} | options))
