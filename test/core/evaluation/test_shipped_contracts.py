"""The contracts and training configurations that come with the project fit its worlds and its algorithms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rql_core.contract import ActionChunk, Contract, TickAssembler, load_contract
from rql_core.contract.reward import RewardRule
from rql_core.demo.settings import SETTINGS
from rql_core.errors import ConfigError
from rql_core.evaluation.rollout import contract_session, frame_messages
from rql_core.resources import config_file, share_directories
from rql_core.sim import ArmEnv, make_world
from rql_core.sim.actor import DemonstratorActor
from rql_core.training.config_file import load_train_config

ROBOTS = [("planar_arm", "planar_arm"), ("ur5e", "ur5e_ring")]
CONFIG = share_directories()[0] / "config"
PRESETS = sorted((CONFIG / "train").glob("*.yaml"))


@pytest.fixture(params=ROBOTS, ids=[name for name, _ in ROBOTS])
def robot(request: pytest.FixtureRequest) -> tuple[Contract, ArmEnv]:
    name, world_name = request.param
    return load_contract(config_file("contracts", name)), make_world(world_name)


def test_every_contract_that_is_shipped_is_tested_here_and_shown_by_the_demo() -> None:
    assert {path.stem for path in (CONFIG / "contracts").glob("*.yaml")} == {name for name, _ in ROBOTS}
    assert {(each.contract, each.world) for each in SETTINGS.values()} == set(ROBOTS)


def test_the_goal_of_the_reward_is_the_goal_of_the_world(robot: tuple[Contract, ArmEnv]) -> None:
    contract, env = robot
    success = contract.reward.success
    assert success.feature == "tool_position"
    np.testing.assert_allclose(success.target, env.goal, rtol=0, atol=1e-12)
    assert success.tolerance == env.goal_tolerance
    assert (contract.reward.at_success, contract.reward.otherwise) == (0.0, -1.0)


def test_limits_joints_and_rate_are_those_of_the_world(robot: tuple[Contract, ArmEnv]) -> None:
    contract, env = robot
    assert contract.action.names == env.joint_names
    assert [feature.upper for feature in contract.action.features] == env.action_space.high.tolist()
    assert [feature.lower for feature in contract.action.features] == env.action_space.low.tolist()
    assert contract.action.command == "velocities"
    assert contract.period_ns == env.control_period_ns
    for group, name in (("position", "joint_position"), ("velocity", "joint_velocity")):
        part = contract.observation_names[contract.feature_slice(name)]
        assert part == tuple(f"{name}.{group}.{joint}" for joint in env.joint_names)


@pytest.mark.parametrize(("name", "world_name"), ROBOTS)
def test_observations_and_rewards_by_the_contract_are_the_environments_to_the_last_bit(
    name: str, world_name: str
) -> None:
    contract = load_contract(config_file("contracts", name))
    session = contract_session(contract, world_name)
    env = make_world(world_name)
    assembler = TickAssembler(contract)
    rule = RewardRule(contract)
    actor = DemonstratorActor(world_name, contract, direction=1)  # gets there
    actor.reset(1)
    observation, _ = env.reset(seed=2)
    frame, reward = session.begin(2), -1.0
    while True:
        for topic, message in frame_messages(frame).items():
            assembler.push(topic, message, frame.stamp_ns)
        (tick,) = assembler.take()
        assert tick.observation is not None
        assert (tick.stamp_ns, tick.ages_ns) == (frame.stamp_ns, (0, 0))
        assert tick.observation.dtype == observation.dtype
        assert tick.observation.tobytes() == observation.tobytes()
        assert bool(rule.success(tick.observation)) == (reward == contract.reward.at_success) == frame.success
        if frame.ended:
            break
        action = actor.act(tick.observation)
        session.command(ActionChunk.regular(contract, frame.stamp_ns, action))
        frame = session.step()
        observation, reward, *_ = env.step(action[0])
    assert frame.success


@pytest.mark.parametrize("robot_name", sorted(SETTINGS))
def test_imitation_and_improvement_are_compared_with_the_same_network_and_data(robot_name: str) -> None:
    settings = SETTINGS[robot_name]
    rql = load_train_config(config_file("train", settings.rql_config))
    bc = load_train_config(config_file("train", settings.bc_flow_config))
    for field in ("horizon", "flow_steps", "actor_hidden", "learning_rate"):
        assert getattr(rql.algorithm, field) == getattr(bc.algorithm, field)
    assert (rql.updates, rql.batch_size, rql.seed) == (bc.updates, bc.batch_size, bc.seed)


def test_overrides_replace_what_the_file_says_unless_they_are_none() -> None:
    path = config_file("train", "planar_arm_rql")
    config = load_train_config(path, {"updates": 7, "seed": None, "device": "cpu"})
    assert (config.updates, config.seed, config.device) == (7, 0, "cpu")


GOOD = "algorithm: {algorithm: bc_flow, horizon: 4}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "update: 5\n", "update = '5': Extra inputs"),
        ("algorithm: {algorithm: bc_flow, horizons: 4}\n", "algorithm.bc_flow.horizons"),
        (GOOD + "updates: many\n", "updates = 'many': Input should be a valid integer"),
        (GOOD + "updates: 0\n", "updates = '0': Input should be greater than or equal to 1"),
        (GOOD + "seed: -1\n", "seed = '-1'"),
        (GOOD + "best_is: biggest\n", "best_is = 'biggest': Input should be 'highest' or 'lowest'"),
        ("algorithm: {algorithm: sac}\n", "algorithm = "),
        ("algorithm: bc_flow\n", "algorithm = 'bc_flow'"),
        ("updates: 5\n", "algorithm"),
        ("1: 2\n" + GOOD, "1"),
        ("- a\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_file_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_train_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_text("#" * 2_000_000)
    for name, said in (("binary.yaml", "not UTF-8"), ("large.yaml", "expected at most"), (".", "cannot be read")):
        with pytest.raises(ConfigError, match=said) as error:
            load_train_config(tmp_path / name)
        assert "\n" not in str(error.value)
