"""What tests of several folders share: the planar arm's contract, a small checkpoint, and processes on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from rql_core.contract import ActionScale, RewardRule, load_contract
from rql_core.contract.schema import Contract
from rql_core.data.trajectories import Trajectories
from rql_core.demo.processes import ProcessGroup, ros_environment

# Examples are as slow as the machine is busy: a deadline would make the tests' result depend on that. Nor may it depend
# on chance: new examples are looked for by `make test-search`.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ROOT / "config" / "contracts" / "planar_arm.yaml"


@pytest.fixture(scope="session")
def loopback_domain(tmp_path_factory: pytest.TempPathFactory) -> None:
    """This process and its children share one ROS domain on loopback, which nothing else on the machine uses."""
    os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
    for name, value in ros_environment().items():
        if name.startswith(("ROS_", "FASTDDS_")):
            os.environ[name] = value


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The planar arm's contract."""
    return load_contract(CONTRACT)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    """Processes that end with the test."""
    with ProcessGroup(tmp_path / "logs") as processes:
        yield processes


@pytest.fixture(scope="session")
def play_data(contract: Contract) -> Trajectories:
    """2,000 steps of play on the planar arm, made in process."""
    from rql_core.sim import RingDemonstrator, make_world

    env = make_world("planar_arm", max_episode_steps=500, terminate_on_success=False)
    demonstrator = RingDemonstrator(env.world)
    scale, rule = ActionScale(contract), RewardRule(contract)
    episodes: list[Any] = []
    for seed in range(4):
        observation, _ = env.reset(seed=seed, options={"start": "anywhere"})
        demonstrator.reset(seed)
        observations, actions = [observation], []
        for _ in range(500):
            sample = env.sample()
            actions.append(demonstrator.act(sample.position, sample.velocity, sample.tool_position))
            observations.append(env.step(actions[-1])[0])
        stacked = np.stack(observations)
        episodes.append((stacked, scale.normalise(np.stack(actions)), *rule.label(stacked)))
    return Trajectories.from_episodes(episodes)


@pytest.fixture(scope="session")
def checkpoint(play_data: Trajectories, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 200 updates: far from good, but a real one that moves the arm."""
    from rql_core.training import TrainConfig, train

    config = TrainConfig.model_validate(
        {
            "algorithm": {
                "algorithm": "rql",
                "horizon": 4,
                "flow_steps": 5,
                "actor_hidden": [64, 64],
                "critic_hidden": [64, 64],
                "critics": 2,
            },
            "updates": 200,
            "log_every": 100,
            "checkpoint_every": 200,
            "tensorboard": False,
            "device": "cpu",
        }
    )
    run = tmp_path_factory.mktemp("run") / "rql"
    train(play_data, config, run, CONTRACT.read_text(), progress=False)
    return run / "checkpoint"


@pytest.fixture(scope="session")
def untrained_checkpoint(play_data: Trajectories, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a checkpoint of an algorithm, with its first weights, of the planar arm's contract or another."""
    from rql_core.algorithms import make_algorithm
    from rql_core.data import Statistics
    from rql_core.data.chunks import reward_range
    from rql_core.training import Policy, TrainConfig
    from rql_core.training.checkpoint import save_checkpoint

    def make(name: str, contract_text: str | None = None) -> Path:
        settings = {"algorithm": name, "horizon": 4, "flow_steps": 5, "actor_hidden": [32, 32]}
        if name != "bc_flow":
            settings |= {"critic_hidden": [32, 32], "critics": 2}
        config = TrainConfig.model_validate({"algorithm": settings})
        rewards = reward_range(play_data)
        algorithm = make_algorithm(config.algorithm, play_data.observation_dim, play_data.action_dim, rewards)
        directory = tmp_path_factory.mktemp(name) / "checkpoint"
        policy = Policy(algorithm, Statistics.of(play_data.observations))
        save_checkpoint(
            directory, policy, step=0, reward_range=rewards, contract_text=contract_text or CONTRACT.read_text()
        )
        return directory

    return make


@pytest.fixture(scope="session")
def contract_path() -> Path:
    """The file of the planar arm's contract."""
    return CONTRACT


@pytest.fixture(scope="session")
def contract_text() -> str:
    """The text of the planar arm's contract, without its safety section: tests rename joints and change units."""
    return CONTRACT.read_text().partition("\nsafety:")[0] + "\n"
