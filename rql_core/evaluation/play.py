"""Play data of the project's own worlds, made in this process by the demonstrator, without ROS.

The path is that of a recording over ROS: the session's frames become messages, a TickAssembler makes observations of
them, the runner asks the demonstrator, and the contract's rule labels the rewards. An episode starts anywhere on the
ring and goes on after success; it follows from the seed and its number, whatever was played before.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import rql_core
from rql_core.contract import Contract, RewardRule, TickAssembler, parse_contract, read_contract_text
from rql_core.data.minari_io import DatasetWriter
from rql_core.errors import ConfigError, SimulationError
from rql_core.evaluation.rollout import frame_messages
from rql_core.progress import progress_bar
from rql_core.resources import config_file
from rql_core.runtime.runner import PolicyRunner
from rql_core.sim import make_world
from rql_core.sim.actor import DemonstratorActor
from rql_core.sim.session import Session

# The contract that comes with the project for each world.
CONTRACTS = {"planar_arm": "planar_arm", "ur5e_ring": "ur5e"}


@dataclass(frozen=True)
class PlaySummary:
    """What was written."""

    path: Path
    episodes: int
    steps: int
    successes: int
    """Steps that arrive at the goal."""

    def text(self) -> str:
        """One line."""
        return (
            f"{self.path}: {self.episodes} episodes, {self.steps} steps, "
            f"{self.successes / self.steps:.1%} of them at the goal"
        )


class PlayRecorder:
    """Plays episodes of so many steps in one world."""

    def __init__(self, world: str, contract: Contract, steps: int) -> None:
        """Raises ConfigError for too few steps, SimulationError where the contract is not the world's."""
        if steps < contract.episodes.min_steps:
            raise ConfigError(
                f"steps is {steps}, expected at least {contract.episodes.min_steps}, the min_steps of contract "
                f"{contract.name!r}"
            )
        environment = make_world(world, terminate_on_success=False, max_episode_steps=steps)
        self._session = Session(environment, contract, start="anywhere")
        self._runner = PolicyRunner(contract, DemonstratorActor(world, contract))
        self._assembler = TickAssembler(contract)
        self._topics = [spec.topic for spec in contract.observation.topics]
        missing = set(self._topics) - set(frame_messages(self._session.begin(seed=0)))
        if missing:
            raise SimulationError(f"contract topic {min(missing)} is not published by world {world}")

    def play(self, world_seed: int, demonstrator_seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        """Observations (steps + 1, observation_dim) float32 and actions (steps, action_dim) float64, physical units."""
        frame = self._session.begin(world_seed)
        self._runner.reset(demonstrator_seed, frame.stamp_ns)
        self._assembler.reset(frame.stamp_ns)
        observations: list[npt.NDArray[np.float32]] = []
        actions: list[npt.NDArray[np.float64]] = []
        while True:
            for topic, message in frame_messages(frame).items():
                if topic in self._topics:
                    self._runner.push(topic, message, frame.stamp_ns)
                    self._assembler.push(topic, message, frame.stamp_ns)
            ticks = self._assembler.take()
            if len(ticks) != 1 or ticks[0].observation is None:
                raise SimulationError(
                    f"world seed {world_seed}, step {frame.step}: {len(ticks)} observations where one was expected; do "
                    "the contract's topics have one message a control period?"
                )
            observations.append(ticks[0].observation)
            if frame.ended:
                return np.stack(observations), np.stack(actions)
            chunks = self._runner.poll(None)
            if len(chunks) != 1:
                raise SimulationError(
                    f"world seed {world_seed}, step {frame.step}: the demonstrator gave no action "
                    f"(last refused message: {self._runner.last_error or 'none'})"
                )
            self._session.command(chunks[0])
            actions.append(chunks[0].actions[0])
            frame = self._session.step()


def record_play(
    world: str,
    out: Path | str,
    *,
    episodes: int,
    steps: int,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> PlaySummary:
    """Write a Minari dataset of play in a world ("planar_arm", "ur5e_ring"), as `rql convert` makes them from bags.

    `out` is a directory `.../name-vN`, or a bare `name-vN` below Minari's root. Raises ConfigError for values that make
    no sense and DatasetError where `out` cannot be written; then nothing is left there.
    """
    if world not in CONTRACTS:
        raise ConfigError(f"world is {world!r}; expected one of {', '.join(CONTRACTS)}")
    for field, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{field} is {value}, expected at least {least}")
    text = read_contract_text(config_file("contracts", CONTRACTS[world]))
    contract = parse_contract(text, CONTRACTS[world])
    recorder = PlayRecorder(world, contract, steps)
    rule = RewardRule(contract)
    successes = 0
    with DatasetWriter(out, text, overwrite=overwrite) as writer:
        for index in progress_bar(range(episodes), unit="episode", desc=world, disable=not progress):
            # Two seeds, so that the noise of the walk has nothing to do with where it starts.
            world_seed, demonstrator_seed = np.random.SeedSequence((seed, index)).generate_state(2).tolist()
            observations, actions = recorder.play(world_seed, demonstrator_seed)
            rewards, masks = rule.label(observations)
            successes += int((masks == 0).sum())
            writer.add(
                observations,
                actions,
                rewards,
                masks,
                terminal=False,
                origin={"world": world, "world_seed": world_seed, "demonstrator_seed": demonstrator_seed},
            )
        writer.finish({"made_by": "rql generate", "settings": _settings(world, episodes, steps, seed)}, {})
        return PlaySummary(writer.path, writer.episodes, writer.steps, successes)


def _settings(world: str, episodes: int, steps: int, seed: int) -> dict[str, Any]:
    packages = ("mujoco", "gymnasium", "minari", "numpy")
    return {
        "world": world,
        "episodes": episodes,
        "steps": steps,
        "seed": seed,
        "software": {
            "rql_core": rql_core.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }
