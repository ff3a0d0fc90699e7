"""Faulty checkpoints: a running node refuses each with its reason, and goes on moving the arm by the one it has."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from arm import Arm
from console import Console

from rql_core.contract import Contract
from rql_core.export.checkpoint import export_checkpoint

ATTEMPTS = 4

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def node(contract: Contract, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("node") / "log"
    with Arm(contract) as arm, Console(arm, log, checkpoint=checkpoint) as node:
        arm.start_moving()
        yield node


@pytest.fixture
def arm(node: Console) -> Iterator[Arm]:
    """A moving arm; afterwards what it was commanded is checked."""
    arm = node.arm
    assert node.call("estop").success
    arm.come_to_rest()
    arm.forget()  # now, while it is at rest: the first chunk may come before the call is answered
    assert node.call("rearm").success
    arm.start_moving()
    yield arm
    arm.executed.assert_safe()


def files_of(checkpoint: Path) -> list[str]:
    return sorted(json.loads((checkpoint / "manifest.json").read_text())["files"])


def refused(node: Console, checkpoint: Path) -> str:
    """Why a running node does not take it."""
    assert node.set(checkpoint=str(checkpoint)) == {}
    answer = reload_in_motion(node)
    assert not answer.success
    assert answer.message.startswith("kept ")
    assert "Traceback" not in answer.message
    assert "\n" not in answer.message
    return str(answer.message)


def reload_in_motion(node: Console) -> Any:
    """The answer of ~/reload; the arm must not rest meanwhile.

    Asked again where it does: what a busy machine keeps waiting rests at another time, a gap of the node at each.
    """
    arm = node.arm
    for _ in range(ATTEMPTS):
        arm.move_steadily()
        began = arm.now_ns()
        answer = node.call("reload")
        if not arm.executed.rested(began, arm.now_ns()):
            return answer
    raise AssertionError(f"the arm came to rest at each of {ATTEMPTS} reloads")


def copy_of(checkpoint: Path, folder: Path, name: str) -> Path:
    place = folder / name
    shutil.copytree(checkpoint.resolve(), place)
    return place


def sign(checkpoint: Path) -> None:
    """Give the manifest the hashes of the files as they are now: the fault is in what they say."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        if (checkpoint / name).exists():
            manifest["files"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def test_a_missing_truncated_or_flipped_file_is_named_and_the_arm_goes_on(
    node: Console, arm: Arm, checkpoint: Path, tmp_path: Path
) -> None:
    for name in [*files_of(checkpoint), "manifest.json"]:
        content = (checkpoint / name).read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]
        place = copy_of(checkpoint, tmp_path, name.replace("/", "_"))
        for damaged in (None, content[:middle], b"", flipped):
            if damaged is None:
                (place / name).unlink()
            else:
                (place / name).write_bytes(damaged)
            assert name in refused(node, place), name
        shutil.rmtree(place)
    assert "nowhere" in refused(node, tmp_path / "nowhere")


def edit_json(name: str, **changes: object) -> Damage:
    def damage(place: Path) -> None:
        document = json.loads((place / name).read_text())
        (place / name).write_text(json.dumps(document | changes))

    return damage


def edit_contract(old: str, new: str) -> Damage:
    def damage(place: Path) -> None:
        text = (place / "contract.yaml").read_text()
        assert old in text
        (place / "contract.yaml").write_text(text.replace(old, new, 1))

    return damage


def edit_statistics(change: Callable[[dict[str, np.ndarray]], None]) -> Damage:
    def damage(place: Path) -> None:
        path = place / "stats.safetensors"
        tensors = safetensors.numpy.load(path.read_bytes())
        change(tensors)
        path.write_bytes(safetensors.numpy.save(tensors))

    return damage


def constant_std(tensors: dict[str, np.ndarray]) -> None:
    tensors["std"][0] = 0.0


def nan_mean(tensors: dict[str, np.ndarray]) -> None:
    tensors["mean"][0] = np.nan


def extra_tensor(tensors: dict[str, np.ndarray]) -> None:
    tensors["more"] = np.zeros(3, dtype=np.float32)


def short_tensors(tensors: dict[str, np.ndarray]) -> None:
    for name in ("mean", "std"):
        tensors[name] = tensors[name][..., :-1].copy()


class Touch:
    """What a pickle would do when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def pickled(name: str) -> Damage:
    def damage(place: Path) -> None:
        (place / name).write_bytes(pickle.dumps(Touch(place / "executed")))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit_json("config.json", observation_dim=8), "observation_dim"),
        (edit_json("config.json", action_dim=3), "action_dim"),
        (edit_json("config.json", horizon=5), "horizon"),
        (edit_json("config.json", more=1), "more"),
        (edit_json("config.json", schema_version=99), "schema_version is 99"),
        (edit_json("config.json", algorithm={"algorithm": "magic"}), "algorithm"),
        (edit_json("manifest.json", schema_version=99), "schema_version is 99"),
        (edit_json("manifest.json", more=1), "more"),
        (edit_json("manifest.json", files={"../../etc/passwd": "0" * 64}), "files"),
        (edit_json("values.json", mean={"0.001": float("nan"), "0.999": 1.0}), "values.json"),
        (edit_statistics(constant_std), "stats.safetensors"),
        (edit_statistics(nan_mean), "stats.safetensors"),
        (edit_statistics(extra_tensor), "stats.safetensors"),
        (edit_statistics(short_tensors), "stats.safetensors"),
        (pickled("stats.safetensors"), "stats.safetensors"),
        (pickled("model.safetensors"), "policy.onnx"),
        (pickled("policy_check.safetensors"), "policy_check.safetensors"),
        (pickled("policy.onnx"), "policy.onnx"),
        (edit_contract("acceleration: 20.0", "acceleration: .nan"), "acceleration"),
        (edit_contract("acceleration: 20.0", "acceleration: -20.0"), "acceleration"),
        (edit_contract("acceleration: 20.0", "acceleration: .inf"), "acceleration"),
        (edit_contract("position: [-2.25, 1.85]", "position: [1.85, -2.25]"), "position"),
        (edit_contract("lower: -1.0, upper: 1.0", "lower: 1.0, upper: -1.0"), "lower"),
        (edit_contract("lower: -1.0", "lower: .nan"), "lower"),
        (edit_contract("rate: 20", "rate: 25"), "rate is 2"),
        (edit_contract("ramp: 0.5", "ramp: 0"), "ramp"),
        (edit_contract("schema: 1", "schema: 99"), "schema"),
    ],
)
def test_a_checkpoint_that_says_something_wrong_is_refused_with_the_field_and_the_arm_goes_on(
    node: Console, arm: Arm, checkpoint: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    place = copy_of(checkpoint, tmp_path, "wrong")
    damage(place)
    sign(place)
    assert said in refused(node, place)
    assert not (place / "executed").exists()


def test_graphs_of_another_model_are_refused(
    node: Console, arm: Arm, checkpoint: Path, untrained_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    other = untrained_checkpoint("rql")
    export_checkpoint(other)
    for name in [name for name in files_of(checkpoint) if name.endswith(".onnx")]:
        place = copy_of(checkpoint, tmp_path, name)
        shutil.copy(other / name, place / name)
        sign(place)
        assert name in refused(node, place)


def test_a_good_checkpoint_takes_over_in_motion_without_a_stop(
    node: Console, arm: Arm, checkpoint: Path, untrained_checkpoint: Callable[[str], Path]
) -> None:
    others = [untrained_checkpoint(name) for name in ("bc_flow", "fql")]
    for other in others:
        export_checkpoint(other)
    for path in (*others, checkpoint):
        assert node.set(checkpoint=str(path)) == {}
        answer = reload_in_motion(node)
        assert answer.success, answer.message
        arm.tick_for(10)


def test_configuring_with_a_bad_checkpoint_fails_and_says_why_and_a_good_one_mends_it(
    node: Console, arm: Arm, checkpoint: Path, tmp_path: Path
) -> None:
    for change in ("deactivate", "cleanup"):
        assert node.change(change)
    arm.come_to_rest()
    assert node.set(checkpoint=str(tmp_path / "nowhere")) == {}
    assert not node.change("configure")
    assert node.state() == "unconfigured"
    assert "not configured: " in node.logged()
    assert "nowhere" in node.logged()
    assert node.set(checkpoint=str(checkpoint)) == {}
    for change in ("configure", "activate"):
        assert node.change(change)
    arm.start_moving()
