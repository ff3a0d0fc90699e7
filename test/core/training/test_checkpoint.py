"""A checkpoint acts as what was saved, and one that is damaged or does not fit is refused by file and field."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from small_runs import CONTRACT, DATA, small_config

from rql_core.errors import CheckpointError
from rql_core.training import load_checkpoint, train
from rql_core.training.checkpoint import load_training_state, save_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(DATA, small_config(updates=5), tmp_path_factory.mktemp("run"), CONTRACT).checkpoint


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(directory: Path, name: str, content: bytes) -> None:
    """Change a file and its hash, as somebody would who means it."""
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def edit_json(directory: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((directory / name).read_text())
    change(document)
    if name == "manifest.json":
        (directory / name).write_text(json.dumps(document))
    else:
        rewrite(directory, name, json.dumps(document).encode())


def edit_tensors(directory: Path, name: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = safetensors.torch.load((directory / name).read_bytes())
    change(tensors)
    rewrite(directory, name, safetensors.torch.save(tensors))


def test_the_directory_holds_exactly_what_is_promised(saved: Path) -> None:
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert files == {
        "model.safetensors",
        "config.json",
        "contract.yaml",
        "stats.safetensors",
        "manifest.json",
        "MODEL_CARD.md",
        "training_state/tensors.safetensors",
        "training_state/state.json",
        "values.json",
        "policy.onnx",
        "policy_prefix.onnx",
        "policy_jacobian.onnx",
        "critics.onnx",
        "policy_check.safetensors",
    }
    manifest = json.loads((saved / "manifest.json").read_text())
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert set(manifest["versions"]) == {"python", "torch", "numpy", "rql"}
    assert manifest["step"] == 5
    card = (saved / "MODEL_CARD.md").read_text()
    assert "not a certified safety function" in card
    assert "5 updates" in card


def test_what_is_loaded_acts_and_values_as_what_was_saved(saved: Path, tmp_path: Path) -> None:
    first = load_checkpoint(saved)
    save_checkpoint(tmp_path / "again", first.policy, step=5, reward_range=first.config.reward_range)
    again = load_checkpoint(tmp_path / "again")
    generator = np.random.default_rng(0)
    observations = generator.standard_normal((4, 2)).astype(np.float32)
    noise = generator.standard_normal((4, 4)).astype(np.float32)
    chunks = first.policy.act(observations, noise)
    assert chunks.shape == (4, 2, 2)
    assert chunks.dtype == np.float32
    np.testing.assert_array_equal(again.policy.act(observations, noise), chunks)
    np.testing.assert_array_equal(again.policy.value(observations), first.policy.value(observations))
    assert first.contract_text == CONTRACT
    assert again.contract_text is None
    with pytest.raises(CheckpointError, match="can act, not train on"):
        load_training_state(again)


def test_a_contract_comes_back_to_the_last_byte(saved: Path, tmp_path: Path) -> None:
    text = "name: ärm\r\nrate: 10\n"
    policy = load_checkpoint(saved).policy
    save_checkpoint(
        tmp_path / "c", policy, step=1, reward_range=load_checkpoint(saved).config.reward_range, contract_text=text
    )
    assert load_checkpoint(tmp_path / "c").contract_text == text


def test_a_checkpoint_is_never_written_over(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    with pytest.raises(CheckpointError, match="exists already"):
        save_checkpoint(saved, checkpoint.policy, step=5, reward_range=checkpoint.config.reward_range)


FILES = ["model.safetensors", "config.json", "contract.yaml", "stats.safetensors", "MODEL_CARD.md"]
FILES += ["training_state/tensors.safetensors", "training_state/state.json", "values.json", "policy.onnx"]
FILES += ["policy_prefix.onnx", "policy_jacobian.onnx", "critics.onnx", "policy_check.safetensors"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: is missing"):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: sha256"):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=rf"{name}: sha256"):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "stats.safetensors"])
@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"", b"\xff" * 64], ids=["pickle", "empty", "noise"])
def test_a_file_that_only_says_it_is_safetensors_is_refused_whatever_its_hash(
    copy: Path, name: str, content: bytes
) -> None:
    rewrite(copy, name, content)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read as safetensors"):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_newer_schema_is_refused_before_anything_else(copy: Path, name: str) -> None:
    edit_json(copy, name, lambda document: document.update(schema_version=2, more="fields"))
    with pytest.raises(CheckpointError, match=rf"{name}: schema_version is 2.*upgrade"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(extra=torch.zeros(1)), "'extra' is unknown"),
        (lambda t: t.pop("actor_average.weights.0"), r"'actor_average.weights.0' is missing"),
        (lambda t: t.update({"critic.biases.0": torch.zeros(3)}), r"'critic.biases.0' is torch.float32 \(3,\)"),
        (lambda t: t.update({"critic.biases.0": t["critic.biases.0"].double()}), "'critic.biases.0' is torch.float64"),
        (lambda t: t["critic.biases.0"].fill_(float("nan")), "'critic.biases.0' holds a number that is not finite"),
    ],
    ids=["extra", "missing", "shape", "type", "not finite"],
)
def test_tensors_that_do_not_fit_are_named(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], None], words: str
) -> None:
    edit_tensors(copy, "model.safetensors", change)
    with pytest.raises(CheckpointError, match=rf"model.safetensors: .*{words}"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("std"), "'std' is missing"),
        (lambda t: t["std"].zero_(), "'std' holds 0.0"),
        (lambda t: t.update({k: torch.cat((v, v)) for k, v in t.items() if k != "count"}), "has 4 features"),
    ],
    ids=["missing", "zero", "features"],
)
def test_statistics_that_do_not_fit_are_named(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], None], words: str
) -> None:
    edit_tensors(copy, "stats.safetensors", change)
    with pytest.raises(CheckpointError, match=rf"stats.safetensors: .*{words}"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", lambda d: d["algorithm"].update(alpha=-1), r"config.json: algorithm.rql.alpha is -1"),
        ("config.json", lambda d: d["algorithm"].update(algorithm="iql"), "config.json: algorithm"),
        ("config.json", lambda d: d.update(horizon=7), "config.json: horizon is 7"),
        ("config.json", lambda d: d.update(observation_dim="many"), "config.json: observation_dim is 'many'"),
        ("config.json", lambda d: d.update(has_contract=False), "contract.yaml: is there"),
        ("config.json", lambda d: d.update(colour="red"), "config.json: colour"),
        ("manifest.json", lambda d: d["files"].pop("config.json"), r"manifest.json: files lacks 'config.json'"),
        ("manifest.json", lambda d: d["files"].pop("contract.yaml"), "contract.yaml: is missing"),
        ("manifest.json", lambda d: d["files"].update({"../x": "0"}), "outside the checkpoint"),
        ("manifest.json", lambda d: d["files"].update({"/etc/hosts": "0"}), "outside the checkpoint"),
        ("manifest.json", lambda d: d.pop("step"), "manifest.json: step"),
    ],
)
def test_a_wrong_field_is_named(copy: Path, name: str, change: Callable[[dict[str, Any]], None], words: str) -> None:
    edit_json(copy, name, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(copy)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_json_object_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(copy)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: is no directory"):
        load_checkpoint(tmp_path / "nowhere")


def test_loading_draws_nothing_from_anybodys_random_numbers(saved: Path) -> None:
    before = torch.random.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.random.get_rng_state(), before)
