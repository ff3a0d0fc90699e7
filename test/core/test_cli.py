"""The command line: every sub-command explains itself, and what a user does wrong is one line without a traceback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rql_core.algorithms import BCFlowConfig, RewardRange, make_algorithm
from rql_core.cli import COMMANDS, main
from rql_core.commands.train import parse_seeds
from rql_core.contract import parse_contract
from rql_core.data import Statistics
from rql_core.data.minari_io import DatasetWriter
from rql_core.errors import ConfigError
from rql_core.evaluation.results import read_evaluation
from rql_core.resources import config_file
from rql_core.training.checkpoint import load_checkpoint, save_checkpoint
from rql_core.training.policy import Policy

ROOT = Path(__file__).resolve().parents[2]

TEXT = config_file("contracts", "planar_arm").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Some commands set the threads of torch for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def write_checkpoint(directory: Path, contract_text: str | None = TEXT) -> Path:
    algorithm = make_algorithm(
        BCFlowConfig(horizon=4, flow_steps=2, actor_hidden=(8,)), 7, 2, rewards := RewardRange(-1.0, 0.0, can_end=True)
    )
    observations = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    policy = Policy(algorithm, Statistics.of(observations))
    save_checkpoint(directory, policy, step=1, reward_range=rewards, contract_text=contract_text)
    return directory


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run what must be refused: status 1, one line on standard error, and nothing written; returns the line."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err
    assert line.startswith("error: ")
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    return line


# Help


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_explains(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"] if command else ["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: rql {command or ''}".strip())
    if command is None:
        assert all(name in text for name in COMMANDS)
        assert "From recorded bags to a policy" in text
    else:
        assert str(COMMANDS[command].__doc__).split(".")[0].strip() in text


def test_every_option_is_explained() -> None:
    """tyro shows the string below a field; one without it would be a name and nothing else."""
    for command in COMMANDS.values():
        source = Path(sys.modules[command.__module__].__file__ or "").read_text(encoding="utf-8")
        for field in command.__dataclass_fields__:  # type: ignore[attr-defined]
            block = source[source.index(f"class {command.__name__}:") :]
            line = next(line for line in block.splitlines() if line.startswith(f"    {field}:"))
            assert block.split(line + "\n", 1)[1].lstrip().startswith('"""'), f"{command.__name__}.{field}"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rql_core.cli", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert "contract" in done.stdout
    assert done.stderr == ""


def test_an_error_leaves_no_traceback_and_status_1() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rql_core.cli", "contract", "check", "nothing"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 'nothing' is no file")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["train"], ["evaluate", "x", "--world", "moon"], ["demo", "--from", "x"]]
)
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().out == ""


# Contracts


@pytest.mark.parametrize("name", ["ur5e", "planar_arm"])
def test_contract_check_prints_what_each_number_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "check", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    contract = parse_contract(config_file("contracts", name).read_text())
    assert len(lines) == 1 + contract.observation_dim + contract.action_dim
    assert "20 Hz" in lines[0]
    assert lines[1].split() == ["observation[0]", contract.observation_names[0]]
    assert lines[-1].endswith("rad/s")


def test_an_unknown_key_of_a_contract_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bags").mkdir()
    Path("mine.yaml").write_text(TEXT.replace("max_wait:", "max_weight: 3\n  max_wait:"))
    line = refused(capsys, "convert", "bags", "--contract", "mine.yaml", "--out", "data-v0")
    assert line == "error: mine.yaml: unknown key 'observation.max_weight'; remove it or correct its spelling\n"
    assert refused(capsys, "contract", "check", "mine.yaml") == line


def test_a_contract_that_does_not_exist_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bags").mkdir()
    line = refused(capsys, "convert", "bags", "--contract", "nowhere/mine.yaml", "--out", "data-v0")
    assert "'nowhere/mine.yaml' is no file" in line
    assert "planar_arm, ur5e" in line


def test_to_inspect_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no bags were given" in refused(capsys, "inspect")


@pytest.mark.parametrize("bag", ["nowhere", "empty"])
def test_bags_that_do_not_exist_are_refused(bag: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert bag in refused(capsys, "convert", bag, "--contract", "planar_arm", "--out", "data-v0")
    assert bag in refused(capsys, "recover", bag, "recovered")


# Training


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "data" / "arm-v0", TEXT) as writer:
        for _ in range(3):
            writer.add(
                observations=generator.normal(size=(31, 7)).astype(np.float32),
                actions=generator.uniform(-1, 1, (30, 2)),
                rewards=np.full(30, -1.0, dtype=np.float32),
                masks=np.ones(30, dtype=np.float32),
                terminal=False,
                origin={},
            )
        writer.finish({}, {})
        return writer.path


def test_train_writes_a_checkpoint_that_evaluate_runs(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "algorithm: {algorithm: bc_flow, horizon: 2, flow_steps: 2, actor_hidden: [8]}\nupdates: 9\nbatch_size: 8\n"
    Path("small.yaml").write_text(small + "log_every: 1\ntensorboard: false\n")
    common = ["train", str(dataset), "--config", "small.yaml", "--out", "run", "--threads", "1", "--device", "cpu"]
    assert main([*common, "--updates", "2", "--seed", "5"]) == 0
    assert "bc_flow: 2 updates, checkpoint" in capsys.readouterr().out
    assert "holds a run already" in refused(capsys, *common)
    assert main([*common, "--updates", "4", "--seed", "5", "--resume"]) == 0
    checkpoint = load_checkpoint(Path("run/checkpoint"))
    assert (checkpoint.manifest.step, checkpoint.contract_text) == (4, TEXT)
    arguments = ["evaluate", "run/checkpoint", "--world", "planar_arm", "--episodes", "2", "--first-seed", "7"]
    assert main([*arguments, "--out", "results/bc.json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("bc_flow: success 0.")
    evaluation = read_evaluation(Path("results/bc.json"))
    assert [record.seed for record in evaluation.records] == [7, 8]
    assert (evaluation.controller, evaluation.over) == ("bc_flow", "in_process")
    assert len(evaluation.records[0].path) == evaluation.records[0].steps + 1


def test_several_seeds_are_trained_at_once_into_a_folder_each(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "algorithm: {algorithm: bc_flow, horizon: 2, flow_steps: 2, actor_hidden: [8]}\nupdates: 9\nbatch_size: 8\n"
    Path("small.yaml").write_text(small + "log_every: 1\ntensorboard: false\n")
    common = [
        "train",
        str(dataset),
        "--config",
        "small.yaml",
        "--out",
        "runs/bc",
        "--device",
        "cpu",
        "--seeds",
        "0,3-4",
    ]
    assert main([*common, "--updates", "2"]) == 0
    assert main([*common, "--updates", "4", "--resume"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("bc_flow: 4 updates, checkpoint")]) == 3
    assert sorted(path.name for path in Path("runs").iterdir()) == ["bc-seed0", "bc-seed3", "bc-seed4"]
    for seed in (0, 3, 4):
        manifest = load_checkpoint(Path(f"runs/bc-seed{seed}/checkpoint")).manifest
        assert (manifest.seed, manifest.step) == (seed, 4)


def test_seeds_are_a_range_or_a_list() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("7,0-2") == [7, 0, 1, 2]


@pytest.mark.parametrize("text", ["", "x", "3-1", "1,,2", "-1", "1-", "1,1", "0-3,2"])
def test_seeds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="seeds is"):
        parse_seeds(text)


def test_a_dataset_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "nowhere-v0", "--config", "planar_arm_bc_flow", "--out", "run")
    assert "nowhere-v0: no dataset there" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "nothing"], "'nothing' is no file"),
        (["--config", "planar_arm_bc_flow", "--updates", "0"], "updates = '0'"),
        (["--config", "planar_arm_bc_flow", "--seed", "-1"], "seed = '-1'"),
        (["--config", "planar_arm_bc_flow", "--device", "toaster"], "device is 'toaster'"),
        (["--config", "planar_arm_bc_flow", "--threads", "0"], "threads is 0, expected at least 1"),
        (["--config", "planar_arm_bc_flow", "--world", "planar_arm", "--episodes", "0"], "episodes is 0"),
        (["--config", "planar_arm_bc_flow", "--world", "ur5e_ring"], "'planar_arm' commands shoulder_joint"),
        (["--config", "planar_arm_bc_flow", "--resume"], "nothing to resume"),
        (["--config", "planar_arm_bc_flow", "--seed", "1", "--seeds", "0-1"], "give one of them"),
        (["--config", "planar_arm_bc_flow", "--seeds", "0-"], "expected such as 0-7 or 0,2,5"),
    ],
)
def test_wrong_settings_of_a_training_are_refused(
    dataset: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "train", dataset, "--out", "run", *options)


# Evaluation


def test_a_checkpoint_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "evaluate", "nowhere/checkpoint", "--world", "planar_arm", "--out", "result.json")
    assert "nowhere/checkpoint: is no directory; expected a checkpoint" in line


def test_a_run_is_not_taken_for_its_checkpoint_where_one_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("run/checkpoint"))
    assert "run: is no checkpoint, but has one: give run/checkpoint" in refused(capsys, "export", "run")


def test_a_checkpoint_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("arm"))
    evaluate = ["--out", "result.json", "--world"]
    assert "'planar_arm' commands shoulder_joint, elbow_joint, but" in refused(
        capsys, "evaluate", "arm", *evaluate, "ur5e_ring"
    )
    write_checkpoint(Path("slow"), TEXT.replace("rate: 20", "rate: 10"))
    assert "rate 10.0 Hz" in refused(capsys, "evaluate", "slow", *evaluate, "planar_arm")
    write_checkpoint(Path("nameless"), None)
    assert "contract.yaml: is missing" in refused(capsys, "evaluate", "nameless", *evaluate, "planar_arm")
    shutil.copytree("arm", "cut")
    Path("cut/model.safetensors").write_bytes(Path("cut/model.safetensors").read_bytes()[:-5])
    assert "cut/model.safetensors: sha256 is" in refused(capsys, "evaluate", "cut", *evaluate, "planar_arm")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--episodes", "0"], "episodes is 0, expected at least 1"),
        (["--episodes", "-3"], "episodes is -3, expected at least 1"),
        (["--first-seed", "-1"], "first_seed is -1, expected 0 or more"),
        (["--replan-every", "5"], "replan_every is 5, expected 0 (the whole chunk) to 4"),
        (["--replan-every", "-1"], "replan_every is -1, expected 0"),
    ],
)
def test_wrong_numbers_for_an_evaluation_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(Path("arm"))
    assert said in refused(capsys, "evaluate", "arm", "--world", "planar_arm", "--out", "result.json", *options)


def test_a_checkpoint_whose_contract_names_its_features_otherwise_is_evaluated() -> None:
    write_checkpoint(Path("arm"), TEXT.replace("tool_position", "hand"))
    assert main(["evaluate", "arm", "--world", "planar_arm", "--episodes", "1", "--out", "result.json"]) == 0
    assert len(read_evaluation(Path("result.json")).records[0].path[0]) == 3


def test_ctrl_c_ends_with_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["contract"], "run", interrupt)
    assert main(["contract", "check", "ur5e"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("command", ["train --help", "contract check ur5e"])
def test_a_reader_that_has_had_enough_is_no_error(command: str) -> None:
    line = f"set -o pipefail; {sys.executable} -m rql_core.cli {command} | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""
