"""`rql report`: figures with their meaning, warnings, a page that needs nothing else, one line for what is wrong."""

from __future__ import annotations

import io
import json
import re
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from written_logs import write_dataset

from rql_core.algorithms import BCFlowConfig, RewardRange, make_algorithm
from rql_core.cli import main
from rql_core.contract import Contract
from rql_core.data import Statistics, Trajectories
from rql_core.evaluation import logs
from rql_core.evaluation.estimates import FIGURES
from rql_core.ogbench import files
from rql_core.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from rql_core.training.policy import Policy

FAST = ("--updates", "40", "--threads", "1")


@pytest.fixture(scope="module", autouse=True)
def _threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset(
    play_data: Trajectories, contract_text: str, contract: Contract, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the checkpoint was trained on, less its last episode."""
    rows = int(play_data.lengths[:-1].sum())
    fewer = Trajectories(
        play_data.observations[: rows + play_data.episodes - 1],
        play_data.actions[:rows],
        play_data.rewards[:rows],
        play_data.masks[:rows],
        play_data.lengths[:-1],
    )
    return write_dataset(tmp_path_factory.mktemp("data") / "play-v0", fewer, contract_text, contract)


@pytest.fixture(scope="module")
def imitator(play_data: Trajectories, contract_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without critics."""
    config = BCFlowConfig(horizon=4, flow_steps=2, actor_hidden=(8,))
    rewards = RewardRange(-1.0, 0.0, can_end=True)
    algorithm = make_algorithm(config, play_data.observation_dim, play_data.action_dim, rewards)
    directory = tmp_path_factory.mktemp("imitator") / "checkpoint"
    policy = Policy(algorithm, Statistics.of(play_data.observations))
    save_checkpoint(directory, policy, step=1, reward_range=rewards, contract_text=contract_text)
    return directory


@dataclass(frozen=True)
class Reported:
    """What a report wrote and printed."""

    page: Path
    numbers: Path
    lines: list[str]


@pytest.fixture(scope="module")
def reported(checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    directory = tmp_path_factory.mktemp("report") / "new"
    page, numbers = directory / "report.html", directory / "report.json"
    arguments = ["report", checkpoint, dataset, "--out", page, "--json", numbers, *FAST]
    with redirect_stdout(io.StringIO()) as printed:
        assert main([str(argument) for argument in arguments]) == 0
    return Reported(page, numbers, printed.getvalue().splitlines())


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["report", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


class Page(HTMLParser):
    """What a page refers to, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.headings: list[str] = []
        self._heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [str(value) for name, value in attributes if name in ("src", "href", "srcset", "data")]
        self._heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append(data)
        self._heading = False


def test_every_figure_is_printed_with_its_meaning(reported: Reported) -> None:
    lines = reported.lines
    for figure in FIGURES.values():
        meaning = figure.meaning.format(noises=16)
        (line,) = [line for line in lines if line.endswith(meaning) and line.strip().startswith(figure.label)]
        assert re.search(r"\d", line.removesuffix(meaning))
    # 40 updates are far too few, and a policy of 200 updates is far from good: that must be said.
    assert any(line.startswith("WARNING: fitted Q evaluation has not converged") for line in lines)
    assert "play-v0: 3 episodes, 1,500 steps" in lines[1]


def test_the_page_needs_nothing_else_and_has_every_picture(reported: Reported) -> None:
    page = Page(reported.page.read_text(encoding="utf-8"))
    assert len(page.references) == 5
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in page.references)
    assert not page.tags & {"script", "link", "iframe"}
    assert page.headings[:3] == ["Figures", "Has fitted Q evaluation converged?", "Value at episode starts"]
    assert "Errors of the checkpoint's critics" in page.headings


def test_the_json_file_has_figures_and_checks(reported: Reported) -> None:
    numbers = json.loads(reported.numbers.read_text(encoding="utf-8"))
    assert list(numbers["figures"]) == list(FIGURES)
    assert all(isinstance(value, float) for value in numbers["figures"].values())
    assert numbers["possible_returns"] == [pytest.approx(-100.0), 0.0]
    assert numbers["trained_on_this"] is False
    failed = [check["failure"] for check in numbers["checks"] if not check["holds"]]
    assert "fitted Q evaluation has not converged" in failed
    assert numbers["curve"]["updates"][-1] == numbers["updates"] == 40


def test_the_same_seed_gives_the_same_page(reported: Reported, checkpoint: Path, dataset: Path) -> None:
    again = reported.page.with_name("again.html")
    assert main(["report", str(checkpoint), str(dataset), "--out", str(again), *FAST]) == 0
    assert again.read_bytes() == reported.page.read_bytes()


def test_a_checkpoint_without_critics_says_so(
    imitator: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "r.html"
    assert main(["report", str(imitator), str(dataset), "--out", str(page), *FAST]) == 0
    text = capsys.readouterr().out
    assert "It has no critics of its own" in text
    assert "value, fitted afresh" in text
    assert "TD error" not in text
    assert "distance to the logs" in text
    html = page.read_text(encoding="utf-8")
    assert "has no critics of its own" in html
    assert "Errors of the checkpoint's critics" not in html


def test_the_data_that_it_was_trained_on_are_called_so(
    imitator: Path,
    play_data: Trajectories,
    contract_text: str,
    contract: Contract,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    same = write_dataset(tmp_path / "same-v0", play_data, contract_text, contract)
    page = tmp_path / "r.html"
    assert main(["report", str(imitator), str(same), "--out", str(page), *FAST]) == 0
    assert "which it was trained on" in capsys.readouterr().out
    assert "These are the data it was trained on" in page.read_text(encoding="utf-8")


def test_logs_of_another_contract_are_refused(
    checkpoint: Path,
    play_data: Trajectories,
    contract_text: str,
    contract: Contract,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faster = contract_text.replace("lower: -1.0, upper: 1.0", "lower: -2.0, upper: 2.0")
    other = write_dataset(tmp_path / "other-v0", play_data, faster, contract)
    line = refused(capsys, checkpoint, other, "--out", tmp_path / "r.html")
    assert "does not fit contract" in line
    assert "lower" in line
    assert str(other) in line
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--gamma", "1.5"), "gamma is 1.5"),
        (("--updates", "0"), "updates is 0"),
        (("--threads", "0"), "threads is 0"),
        (("--seed", "-1"), "seed is -1"),
        (("--out", "."), "is a directory"),
        (("--json", f"{__file__}/r.json"), "is no directory"),
        (("--device", "no-device"), "no-device"),
        (("--flow-steps", "0"), "flow_steps is 0"),
    ],
)
def test_wrong_options_are_named_before_anything_is_computed(
    arguments: tuple[str, ...],
    expected: str,
    checkpoint: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments if "--out" in arguments else ("--out", tmp_path / "r.html", *arguments)
    assert expected in refused(capsys, checkpoint, dataset, *given)


def test_best_of_several_samples_needs_critics(
    imitator: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, imitator, dataset, "--samples", "4", "--out", tmp_path / "r.html")
    assert "no critics to choose among 4 samples" in line


def test_what_is_not_there_is_named(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing-v0"
    assert str(missing) in refused(capsys, checkpoint, missing, "--out", tmp_path / "r.html")
    assert str(missing) in refused(capsys, missing, dataset, "--out", tmp_path / "r.html")


def test_logs_with_a_contract_do_not_fit_a_checkpoint_without_one(
    play_data: Trajectories, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BCFlowConfig(horizon=4, flow_steps=2, actor_hidden=(8,))
    rewards = RewardRange(-1.0, 0.0, can_end=True)
    algorithm = make_algorithm(config, play_data.observation_dim, play_data.action_dim, rewards)
    directory = tmp_path / "checkpoint"
    save_checkpoint(directory, Policy(algorithm, Statistics.of(play_data.observations)), step=1, reward_range=rewards)
    assert "has no contract" in refused(capsys, directory, dataset, "--out", tmp_path / "r.html")


@pytest.mark.parametrize("many", [False, True], ids=["one file", "many files"])
def test_of_ogbench_files_the_first_is_read_with_rewards_as_in_training(
    many: bool, play_data: Trajectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BCFlowConfig(horizon=4, flow_steps=2, actor_hidden=(8,))
    rewards = RewardRange(-1.0, 0.0, can_end=True)
    algorithm = make_algorithm(config, play_data.observation_dim, play_data.action_dim, rewards)
    policy = Policy(algorithm, Statistics.of(play_data.observations))
    read = []

    def read_file(path: Path, labels: tuple[str, str]) -> Trajectories:
        read.append((path, *labels))
        return play_data

    # Neither OGBench nor its files are needed to see which are read, and how.
    monkeypatch.setattr(files, "TaskLabels", lambda environment, rewards: (environment, rewards))
    monkeypatch.setattr(files, "_read", read_file)
    first = tmp_path / "scene-v0" / "scene-v0-000.npz"
    first.parent.mkdir()
    for name in (first.name, "scene-v0-001.npz", "scene-v0-000-val.npz"):
        first.with_name(name).touch()
    for name, state in (("with", TrainingState({}, {"config": {"rewards": "sparse"}})), ("without", None)):
        directory = tmp_path / name
        save_checkpoint(directory, policy, step=1, reward_range=rewards, environment="scene-v0", training_state=state)
        trajectories, contract = logs.open_logs(load_checkpoint(directory), first.parent if many else first)
        assert trajectories is play_data
        assert contract is None
    # No other file is being read in the background, and none was.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read file")]
    assert read == [(first, "scene-v0", "sparse"), (first, "scene-v0", "as_given")]
