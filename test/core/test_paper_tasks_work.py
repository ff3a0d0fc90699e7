"""The paper's tasks at work: what is done in which time, with processes that are not real, and then with real ones."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from paper_runs import CORRECTED, PAPER, SCENE, make_checkpoint, make_result

from benchmarks import paper_tasks, paper_tasks_work
from benchmarks.paper_tasks_budget import Budget, EpisodeSpeeds
from benchmarks.paper_tasks_child import Child
from benchmarks.paper_tasks_plan import Group, Places, Plan
from benchmarks.paper_tasks_state import Job, saved_checkpoints
from benchmarks.paper_tasks_work import Work
from rql_core.commands.train import parse_seeds
from rql_core.evaluation.results import read_evaluation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "out", tmp_path / "data")


# The work, with a clock, trainings and episodes that take no time


class World:
    """A clock, and what the processes of a `Work` would do in that time."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, places: Places, *, rate: float = 10.0, start: float = 5.0
    ) -> None:
        self.now, self.places, self.rate, self.start = 0.0, places, rate, start
        self.commands: list[list[str]] = []
        self.failing: Callable[[list[str]], bool] = lambda arguments: False
        self.episode_s = 1.0
        world = self

        class FakeChild:
            def __init__(self, arguments: Sequence[str], log: Path, **_: Any) -> None:
                self.arguments, self.log, self.exit_code = list(arguments), log, None
                self.command, self.began, self.stopped = " ".join(arguments), world.now, False
                world.commands.append(self.arguments)
                option = dict(zip(self.arguments, self.arguments[1:], strict=False))
                self.option = option
                if arguments[0] == "train":
                    seeds = tuple(parse_seeds(option.get("--seeds") or option["--seed"]))
                    base = option["--out"].removesuffix(f"-seed{seeds[0]}")
                    self.runs = [Path(f"{base}-seed{seed}") for seed in seeds]
                    self.step = max((each.step for each in saved_checkpoints(self.runs[0])), default=0)
                    self.first = self.step

            def wait(self, seconds: float) -> bool:
                if self.exit_code is None:
                    world.now += seconds
                    self.catch_up()
                return self.exit_code is not None

            def catch_up(self) -> None:
                if world.failing(self.arguments):
                    self.exit_code = 1
                elif self.arguments[0] == "generate":
                    path = world.places.dataset(self.arguments[1])
                    path.parent.mkdir(exist_ok=True, parents=True)
                    path.touch()
                    self.exit_code = 0
                else:
                    updates = int(self.option["--updates"])
                    every = int(re.search(r"checkpoint_every=(\d+)", self.command)[1])  # type: ignore[index]
                    made = self.first + int(max(0.0, world.now - self.began - world.start) * world.rate)
                    while self.step < min(made, updates):
                        self.step += 1
                        if self.step % every == 0 or self.step == updates:
                            for run in self.runs:
                                make_checkpoint(run, self.step)
                    for run in self.runs:
                        run.mkdir(parents=True, exist_ok=True)
                        (run / "metrics.jsonl").write_text(json.dumps({"step": self.step}) + "\n")
                    self.exit_code = 0 if self.step == updates else None

            def stop(self) -> None:
                self.stopped, self.exit_code = True, -15

            def last_words(self) -> str:
                return "error: no space left"

        class FakeEvaluator:
            def __init__(self, plan: Plan, places: Places, workers: int, say: Any, now: Any) -> None:
                self.speeds, self.damaged, self.running, self.begun = EpisodeSpeeds(), {}, [], 0
                self.plan, self.workers = plan, workers

            def seconds_for(self, jobs: Sequence[Job]) -> float:
                return self.speeds.needed(
                    [(j.group.task.domain, j.samples, self.plan.episodes) for j in jobs], self.workers
                )

            def evaluate(self, jobs: Sequence[Job], after_episode: Callable[[], None]) -> None:
                for job in jobs:
                    assert not places.result(job.group, job.seed, job.step, job.samples).exists(), "evaluated twice"
                    for _ in range(self.plan.episodes):
                        world.now += world.episode_s / self.workers
                        after_episode()
                    make_result(places, job.group, job.seed, job.step, 1, self.plan.episodes, samples=job.samples)
                    self.speeds.add(job.group.task.domain, job.samples, world.episode_s)

            def close(self) -> None:
                pass

        monkeypatch.setattr(paper_tasks_work, "Child", FakeChild)
        monkeypatch.setattr(paper_tasks_work, "Evaluator", FakeEvaluator)

    def work(self, plan: Plan, seconds: float | None = None, reserve: float = 0.0) -> Work:
        self.commands.clear()
        work = Work(plan, self.places, Budget(self.now, seconds, reserve), 4, now=lambda: self.now)
        work.run()
        return work

    def trained(self) -> list[tuple[str, bool]]:
        """Where each training went, and whether it went on with one."""
        return [
            (Path(command[command.index("--out") + 1]).name, "--resume" in command)
            for command in self.commands
            if command[0] == "train"
        ]


def steps_of(places: Places, group: Group, seed: int = 0) -> list[int]:
    paths = places.result(group, seed, 0, 1).parent.glob("step-????????.json")
    return sorted(int(path.stem.removeprefix("step-")) for path in paths)


def test_without_a_limit_everything_is_trained_and_evaluated_once(
    monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    world = World(monkeypatch, places)
    plan = Plan((PAPER, Group(SCENE, "paper")), (0, 1), updates=1000, checkpoint_every=250, best_of=(4,), episodes=5)
    work = world.work(plan)
    assert world.trained() == [("puzzle-3x3-task1-paper", False), ("scene-task1-paper", False)]
    assert [command[1] for command in world.commands if command[0] == "generate"] == ["puzzle-3x3", "scene"]
    for group in plan.groups:
        for seed in plan.seeds:
            assert steps_of(places, group, seed) == [250, 500, 750, 1000]
            assert places.result(group, seed, 1000, 4).exists()
            assert [each.step for each in saved_checkpoints(places.run(group, seed))] == [1000]
    assert (work.remarks, work.missing()) == ([], {})
    world.work(plan)
    assert world.commands == []


def test_training_stops_in_time_for_its_last_checkpoint_to_be_evaluated_and_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    world = World(monkeypatch, places)
    plan = Plan((PAPER, CORRECTED), (0, 1), updates=10_000, checkpoint_every=500, best_of=(4,), episodes=20)
    work = world.work(plan, seconds=600.0, reserve=30.0)
    assert world.now <= 600.0 - 30.0
    steps = steps_of(places, PAPER)
    assert steps_of(places, PAPER, 1) == steps
    # A thousand seconds of training do not fit, half of it does.
    assert 3000 <= steps[-1] < 10_000
    assert places.result(PAPER, 1, steps[-1], 4).exists()
    assert saved_checkpoints(places.run(PAPER, 0))[-1].step == steps[-1]
    assert world.trained() == [("puzzle-3x3-task1-paper", False)]
    assert work.missing() == {}
    world.work(plan)
    assert world.trained() == [("puzzle-3x3-task1-paper", True), ("puzzle-3x3-task1-corrected", False)]
    assert steps_of(places, PAPER) == [500 * count for count in range(1, 21)]


def test_with_no_time_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, places: Places) -> None:
    world = World(monkeypatch, places)
    make_checkpoint(places.run(PAPER, 0), 500)
    work = world.work(Plan((PAPER,), (0,), updates=1000, episodes=5), seconds=0.0)
    assert world.commands == []
    assert work.missing() == {PAPER: 1}


def test_a_training_that_fails_is_said_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, places: Places) -> None:
    world = World(monkeypatch, places)
    world.failing = lambda arguments: "corrected" not in arguments and arguments[0] == "train"
    work = world.work(Plan((PAPER, CORRECTED), (0,), updates=1000, checkpoint_every=500, episodes=5))
    assert [name for name, _ in world.trained()] == ["puzzle-3x3-task1-paper-seed0", "puzzle-3x3-task1-corrected-seed0"]
    assert len(work.remarks) == 1
    assert "puzzle-3x3-task1-paper: training ended with 1" in work.remarks[0]
    assert "no space left" in work.remarks[0]
    assert steps_of(places, CORRECTED) == [500, 1000]


def test_a_training_that_was_killed_goes_on_from_its_new_checkpoint(
    monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    world = World(monkeypatch, places)
    world.failing = lambda arguments: (
        arguments[0] == "train" and "--resume" not in arguments and len(saved_checkpoints(places.run(PAPER, 0))) > 0
    )
    work = world.work(Plan((PAPER,), (0,), updates=1000, checkpoint_every=500, episodes=5))
    assert [resume for _, resume in world.trained()] == [False, True]
    assert steps_of(places, PAPER) == [500, 1000]
    assert len(work.remarks) == 1


def test_without_data_a_domain_is_left_out_and_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    world = World(monkeypatch, places)
    world.failing = lambda arguments: arguments[:2] == ["generate", "puzzle-3x3"]
    scene = Group(SCENE, "paper")
    work = world.work(Plan((PAPER, CORRECTED, scene), (0,), updates=1000, checkpoint_every=500, episodes=5))
    assert [name for name, _ in world.trained()] == ["scene-task1-paper-seed0"]
    assert len(work.remarks) == 1
    assert "puzzle-3x3: playing ended with 1" in work.remarks[0]


# Processes


def test_a_command_that_fails_leaves_its_status_and_its_last_words(tmp_path: Path) -> None:
    child = Child(["generate", "no-such-domain", "--out", str(tmp_path / "data")], tmp_path / "log.txt")
    while not child.wait(60.0):
        pass
    assert child.exit_code == 1
    assert "expected one of cube-single" in child.last_words()
    child.stop()


def test_no_command_outlives_the_program_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from benchmarks.paper_tasks_child import Child\n"
        "if __name__ == '__main__':\n"
        f"    child = Child(['generate', 'scene', '--out', {str(tmp_path)!r}], Path({str(tmp_path / 'log')!r}))\n"
        "    print(child._process.pid, flush=True)\n"
        "    child._process.join()\n"
    )
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    descriptor = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    assert select.select([descriptor], [], [], 60.0)[0], "the command runs on"
    os.close(descriptor)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_a_finaliser_swallowed_is_raised_at_the_next_look() -> None:
    interruption = paper_tasks.Interruption()
    interruption.check()

    class Bar:
        def __del__(self) -> None:
            interruption.receive(signal.SIGTERM, None)

    bar = Bar()
    del bar
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        interruption.check()


# All of it, with real processes


SMALL = (
    *("--tasks", "puzzle-3x3:1", "--forms", "paper corrected", "--seeds", "0", "--updates", "20"),
    *("--checkpoint-every", "10", "--episodes", "3", "--steps", "30", "--evaluation-episodes", "2"),
    *("--evaluation-steps", "10", "--workers", "1", "--device", "cpu", "--samples", "1", "2"),
    *("--set", "algorithm.actor_hidden=[16]", "algorithm.critic_hidden=[16]", "batch_size=8"),
)


@pytest.mark.slow
def test_what_was_interrupted_goes_on_and_is_packed_and_nothing_is_done_twice(tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "state.tar.gz"
    command = [sys.executable, "-m", "benchmarks.paper_tasks", *SMALL, "--out", str(out), "--pack", str(state)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stderr is not None
    said = []
    for line in first.stderr:
        said.append(line)
        if "paper-seed0 after" in line:
            break
    first.send_signal(signal.SIGINT)
    table, rest = first.communicate()
    assert first.returncode == 128 + signal.SIGINT, "".join(said) + rest
    assert "stopped by SIGINT; the same command goes on" in rest
    assert "puzzle-3x3-task1-corrected: " in table
    results = {path: path.stat().st_mtime_ns for path in out.rglob("results/*/*.json")}
    assert 1 <= len(results) < 6
    assert state.exists()

    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in results} == results
    found = {str(path.relative_to(out / "results")) for path in out.rglob("results/*/*.json")}
    files = ("step-00000010.json", "step-00000020.json", "step-00000020-best2.json")
    assert found == {f"puzzle-3x3-task1-{form}-seed0/{file}" for form in ("paper", "corrected") for file in files}
    assert "Not done" not in second.stdout
    assert second.stdout.count("| puzzle-3x3, task 1") == 4
    assert (out / "table.md").read_text().strip() == second.stdout.strip()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    record = read_evaluation(out / "results" / "puzzle-3x3-task1-paper-seed0" / files[0])
    assert (record.environment, record.form, record.samples) == ("puzzle-3x3-play-singletask-task1-v0", "paper", 1)
    assert {each.steps for each in record.records} <= set(range(1, 11))

    elsewhere = ["--out", str(tmp_path / "elsewhere"), "--unpack", str(state), "--minutes", "0"]
    assert paper_tasks.main([*SMALL, *elsewhere]) == 0
    assert (tmp_path / "elsewhere" / "table.md").read_text() == (out / "table.md").read_text()
