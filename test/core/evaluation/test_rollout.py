"""Episodes in this process: the same for the same seed, of any controller, on observations that are the world's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rql_core.algorithms import BCFlowConfig, RewardRange, make_algorithm
from rql_core.contract import Contract, parse_contract
from rql_core.data import Statistics
from rql_core.errors import ConfigError, ContractError, SimulationError
from rql_core.evaluation.rollout import Rollout, contract_session, evaluate, training_evaluation
from rql_core.resources import config_file
from rql_core.runtime.plan import Guide, Plan
from rql_core.runtime.policy import DeployedPolicy
from rql_core.sim.actor import DemonstratorActor
from rql_core.sim.session import Frame
from rql_core.training.policy import Policy

# Without its safety section: tests rename features and joints.
TEXT = config_file("contracts", "planar_arm").read_text(encoding="utf-8").partition("\nsafety:")[0] + "\n"


class Still:
    """Stands still, and keeps what it was shown."""

    horizon = 4

    def __init__(self) -> None:
        self.seen: list[npt.NDArray[np.float32]] = []

    def reset(self, seed: int | None) -> None:
        self.seed = seed

    def plan(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        return Plan(self.act(observation))

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        self.seen.append(observation)
        return np.zeros((4, 2))


def small_policy() -> Policy:
    algorithm = make_algorithm(
        BCFlowConfig(horizon=4, flow_steps=2, actor_hidden=(8,)), 7, 2, RewardRange(-1.0, 0.0, can_end=True), seed=1
    )
    observations = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    return Policy(algorithm, Statistics.of(observations))


@pytest.mark.parametrize("replan_every", [0, 2])
def test_the_same_seeds_give_the_same_episodes(contract: Contract, replan_every: int) -> None:
    def run(seeds: list[int]) -> list[Any]:
        session = contract_session(contract, "planar_arm", execute_steps=replan_every, max_episode_steps=20)
        policy = DeployedPolicy(small_policy(), contract)
        return evaluate(
            session, policy, seeds, controller="bc", replan_every=replan_every, feature="tool_position"
        ).records

    first = run([3, 4])
    assert [record.seed for record in first] == [3, 4]
    assert first[0].path != first[1].path
    assert run([4, 3]) == first[::-1]  # nor does it matter what ran before


def test_the_policy_sees_every_replan_step_and_no_other(contract: Contract) -> None:
    actor = Still()
    session = contract_session(contract, "planar_arm", max_episode_steps=12)
    frames: list[Frame] = []
    record = Rollout(session, actor, feature="joint_position", on_frame=frames.append).run_episode(6)
    assert actor.seed == 6
    assert (record.steps, record.total_reward, record.success) == (12, -12.0, False)
    assert len(frames) == len(record.path) == 13
    np.testing.assert_allclose(record.path, [frame.sample.position for frame in frames], atol=5.1e-5)
    shown = [frames[step].sample.position.astype(np.float32) for step in (0, 4, 8)]
    np.testing.assert_array_equal([observation[:2] for observation in actor.seen], shown)


def test_a_path_is_kept_only_where_a_feature_is_named(contract: Contract) -> None:
    session = contract_session(contract, "planar_arm", max_episode_steps=4)
    assert Rollout(session, Still()).run_episode(0).path == []


def test_a_demonstrator_that_knows_the_way_round_succeeds_and_one_that_tosses_coins_does_not_always(
    contract: Contract,
) -> None:
    session = contract_session(contract, "planar_arm")
    seeds = range(1000, 1008)
    direct = evaluate(session, DemonstratorActor("planar_arm", contract, 1), seeds, controller="direct")
    assert direct.successes == 8
    assert all(record.steps < session.env.max_episode_steps for record in direct.records)
    assert all(record.total_reward == 1 - record.steps for record in direct.records)
    coin = evaluate(session, DemonstratorActor("planar_arm", contract), seeds, controller="coin")
    assert coin.successes < 8
    assert coin == evaluate(session, DemonstratorActor("planar_arm", contract), seeds, controller="coin")


def test_training_gets_rates_with_interval(contract: Contract) -> None:
    numbers = training_evaluation(contract, "planar_arm", 2)(small_policy())
    assert sorted(numbers) == ["episodes", "mean_steps", "success_high", "success_low", "success_rate"]
    assert numbers["episodes"] == 2
    assert 0 <= numbers["success_low"] <= numbers["success_rate"] <= numbers["success_high"] <= 1
    assert 1 <= numbers["mean_steps"] <= 95


@pytest.mark.parametrize("episodes", [0, -1])
def test_an_evaluation_without_episodes_is_refused_before_training_starts(contract: Contract, episodes: int) -> None:
    with pytest.raises(ConfigError, match=f"episodes is {episodes}, expected at least 1"):
        training_evaluation(contract, "planar_arm", episodes)


def test_a_topic_that_the_world_does_not_publish_is_named() -> None:
    contract = parse_contract(TEXT.replace("topic: /tool_pose", "topic: /camera_pose"))
    with pytest.raises(SimulationError, match=r"/camera_pose is not published by the world; it has .*/tool_pose"):
        Rollout(contract_session(contract, "planar_arm"), Still())


def test_a_controller_without_an_action_is_an_error_that_names_seed_and_step(contract: Contract) -> None:
    class Broken(Still):
        def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            return np.full((4, 2), np.nan)

    session = contract_session(contract, "planar_arm", max_episode_steps=40)
    # A bad chunk is a stop of two steps, and is asked for again at each: the third latches the filter for good.
    with pytest.raises(SimulationError, match="seed 5, step 4: the controller gave no action"):
        Rollout(session, Broken()).run_episode(5)


def test_the_demonstrator_needs_its_features_and_its_joints(contract: Contract) -> None:
    renamed = parse_contract(TEXT.replace("name: joint_velocity,", "name: joint_speed,"))
    with pytest.raises(ContractError, match="has no feature 'joint_velocity'"):
        DemonstratorActor("planar_arm", renamed)
    with pytest.raises(ContractError, match="commands shoulder_joint, elbow_joint, but world 'ur5e_ring' has"):
        DemonstratorActor("ur5e_ring", contract)
