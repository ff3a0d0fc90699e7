"""The stages of the demonstration: each can be run alone, is skipped when done, and is never half done.

A stage writes under a partial name and renames; `stages/<name>.json` with its wall time is the last thing written. A
lock keeps two demonstrations out of the same directory. Training goes on from its newest checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rql_core.demo.processes import ProcessError, ProcessGroup, node_command, prepare_child, ros_environment
from rql_core.demo.settings import SETTINGS, DemoSettings
from rql_core.errors import ConfigError
from rql_core.resources import config_file
from rql_core.whole_files import write_whole

STAGES = ("record", "convert", "train", "evaluate", "report")
CONTROLLERS = ("rql", "bc_flow", "demonstrator")


@dataclass(frozen=True)
class Demo:
    """Where the demonstration's things are."""

    settings: DemoSettings
    out: Path

    def common(self) -> dict[str, Any]:
        """Parameters that every node gets."""
        return {"contract": self.contract}

    @property
    def contract(self) -> Path:
        return config_file("contracts", self.settings.contract)

    @property
    def bags(self) -> Path:
        return self.out / "bags"

    @property
    def dataset(self) -> Path:
        return self.out / "datasets" / f"{self.settings.robot}-v0"

    def run(self, name: str) -> Path:
        """Run directory of a training."""
        return self.out / "runs" / name

    def evaluation(self, controller: str) -> Path:
        return self.out / "evaluations" / f"{controller}.json"

    def marker(self, stage: str) -> Path:
        return self.out / "stages" / f"{stage}.json"

    def seconds(self) -> dict[str, float]:
        """Wall time of each stage that is done, and of the installation where `make` measured it."""
        done = {}
        for stage in ("install", *STAGES):
            try:
                done[stage] = float(json.loads(self.marker(stage).read_text(encoding="utf-8"))["seconds"])
            except (OSError, ValueError, KeyError):
                continue
        return done


def run_demo(out: Path, robot: str, *, start: str | None = None, fresh: bool = False) -> None:
    """Run what is not done yet; `start` does that stage and those after it again, `fresh` everything."""
    demo = Demo(SETTINGS[robot], out)
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out / ".lock"):
        _check_same_robot(demo, fresh)
        redo = STAGES if fresh else STAGES[STAGES.index(start) :] if start else _changed(demo)
        for stage in redo:
            # A fresh start takes the other robot's things away too.
            for each in SETTINGS.values() if fresh else (demo.settings,):
                _forget(Demo(each, out), stage)
        stages: dict[str, Callable[[Demo], None]] = {
            "record": record,
            "convert": convert,
            "train": train,
            "evaluate": evaluate,
            "report": report,
        }
        for number, (stage, action) in enumerate(stages.items(), 1):
            heading = f"[{number}/{len(stages)}] {stage}"
            if demo.marker(stage).exists():
                print(f"{heading}: done already", flush=True)
                continue
            print(f"\n{heading}: {action.__doc__}", flush=True)
            started = monotonic()
            action(demo)
            _mark(demo, stage, monotonic() - started)
    print(f"\nOpen {out / 'report.html'} in a browser; the numbers are in {out / 'result.json'}.", flush=True)


def record(demo: Demo) -> None:
    """The demonstrator plays the simulated robot through its topics; the recorder writes rosbag2."""
    settings = demo.settings
    partial = demo.out / "bags.partial"
    _remove(partial, demo.bags)
    with ProcessGroup(demo.out / "logs") as group:
        group.start(
            "recorder",
            node_command(
                "recorder_node",
                **demo.common(),
                output=partial,
                episodes_per_bag=settings.episodes_per_bag,
                use_sim_time=True,
            ),
        )
        group.start(
            "demonstrator",
            # The bridge and the recorder, so that no action is missing in the bags.
            node_command(
                "demonstrator_node", **demo.common(), world=settings.world, seed=settings.seed, min_subscribers=2
            ),
        )
        group.start(
            "bridge",
            node_command(
                "mujoco_bridge_node",
                **demo.common(),
                world=settings.world,
                mode="lockstep",
                start="anywhere",
                seed=settings.seed,
                auto_reset=True,
                max_episodes=settings.episodes,
                max_episode_steps=settings.episode_steps,
                terminate_on_success=False,
                min_subscribers=2,
                progress=True,
            ),
            show=True,
        )
        group.wait("bridge")
        group.stop("demonstrator")
        group.stop("recorder")
    os.replace(partial, demo.bags)


def convert(demo: Demo) -> None:
    """The bags become a Minari dataset, by the contract; rewards are labelled by its rule."""
    _rql("convert", demo.bags, "--contract", demo.contract, "--out", demo.dataset, "--overwrite")


def train(demo: Demo) -> None:
    """BC flow imitates the data; Reversal Q-Learning improves on it. Same data, same network."""
    settings = demo.settings
    for name, config in (("bc_flow", settings.bc_flow_config), ("rql", settings.rql_config)):
        run = demo.run(name)
        resume = (run / "checkpoint").exists()
        if not resume:
            _remove(run)
        print(f"{name}: {'going on' if resume else 'starting'}", flush=True)
        _rql(
            "train",
            demo.dataset,
            "--config",
            config_file("train", config),
            "--out",
            run,
            "--world",
            settings.world,
            *(["--resume"] if resume else []),
        )


def evaluate(demo: Demo) -> None:
    """Each checkpoint drives the robot over ROS, in the policy node, from the same starts as the demonstrator."""
    settings = demo.settings
    for controller in CONTROLLERS:
        if demo.evaluation(controller).exists():
            continue
        with ProcessGroup(demo.out / "logs" / controller) as group:
            group.start(
                "bridge",
                node_command("mujoco_bridge_node", **demo.common(), world=settings.world, mode="lockstep", paused=True),
            )
            if controller == "demonstrator":
                group.start(
                    "controller",
                    node_command("demonstrator_node", name=controller, **demo.common(), world=settings.world),
                )
            else:
                checkpoint = demo.run(controller) / "checkpoint"
                group.start(
                    "controller",
                    node_command(
                        "policy_node",
                        name=controller,
                        **demo.common(),
                        checkpoint=checkpoint,
                        lockstep=True,
                        use_sim_time=True,
                    ),
                )
            group.start(
                "evaluator",
                node_command(
                    "evaluator_node",
                    **demo.common(),
                    controller=controller,
                    output=demo.evaluation(controller),
                    episodes=settings.evaluation_episodes,
                    first_seed=settings.first_seed,
                ),
                show=True,
            )
            group.wait("evaluator")


def report(demo: Demo) -> None:
    """Numbers with intervals, curves, paths and a video, in one page that needs nothing from outside."""
    from rql_core.demo.report import write_report

    write_report(demo)


def _rql(*arguments: object) -> None:
    """Run a sub-command of `rql` as a process of its own, with its output on the terminal."""
    command = [sys.executable, "-m", "rql_core.cli", *map(str, arguments)]
    code = subprocess.run(command, check=False, env=ros_environment(), preexec_fn=prepare_child).returncode
    if code != 0:
        raise ProcessError(f"`rql {' '.join(map(str, arguments))}` ended with status {code}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on the demonstration's directory; another one waits. The kernel frees it when its holder dies."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another demonstration is running here; waiting for it to end.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_same_robot(demo: Demo, fresh: bool) -> None:
    path = demo.out / "robot.json"
    if path.exists() and not fresh:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["robot"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: does not say which robot's demonstration this is ({type(error).__name__}); "
                "use --fresh, or another --out"
            ) from None
        if found != demo.settings.robot:
            raise ConfigError(
                f"{demo.out} holds the demonstration of robot {found!r}; use --fresh, or another --out for "
                f"{demo.settings.robot!r}"
            )
    _write_json(path, {"robot": demo.settings.robot})


def _fingerprint(demo: Demo, stage: str) -> str:
    """What a stage's result depends on besides the stages before it; another one means that it must be made again."""
    settings = demo.settings
    contract = demo.contract.read_text(encoding="utf-8")
    configs = (settings.rql_config, settings.bc_flow_config)
    parts = {
        "record": [contract, settings.world, settings.episodes, settings.episode_steps, settings.seed],
        "convert": [contract],
        "train": [config_file("train", config).read_text(encoding="utf-8") for config in configs],
        "evaluate": [settings.evaluation_episodes, settings.first_seed],
        "report": [],
    }
    return hashlib.sha256(json.dumps(parts[stage]).encode()).hexdigest()


def _changed(demo: Demo) -> tuple[str, ...]:
    """The stages whose settings are no longer those they were done with, and all after the first of them."""
    for number, stage in enumerate(STAGES):
        marker = demo.marker(stage)
        if marker.exists() and json.loads(marker.read_text(encoding="utf-8"))["fingerprint"] != _fingerprint(
            demo, stage
        ):
            print(
                f"{stage}: its settings have changed since it was done, so it and what follows is done again",
                flush=True,
            )
            return STAGES[number:]
    return ()


def _forget(demo: Demo, stage: str) -> None:
    """Remove what a stage has made; its marker goes first."""
    demo.marker(stage).unlink(missing_ok=True)
    made = {
        "record": [demo.bags],
        "convert": [demo.dataset],
        "train": [demo.run("rql"), demo.run("bc_flow")],
        "evaluate": [demo.evaluation(controller) for controller in CONTROLLERS],
        "report": [demo.out / "report.html", demo.out / "result.json"],
    }
    _remove(*made[stage])


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _mark(demo: Demo, stage: str, seconds: float) -> None:
    _write_json(demo.marker(stage), {"seconds": round(seconds, 1), "fingerprint": _fingerprint(demo, stage)})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2))
