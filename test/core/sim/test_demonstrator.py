"""The demonstrator's data: inside the limits, all round, both ways, off the obstacle, and rarely a solution by luck."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.errors import SimulationError
from rql_core.sim import WORLD_NAMES, ArmEnv, RingDemonstrator, make_world, world


def walk(env: ArmEnv, demonstrator: RingDemonstrator) -> bool:
    """Go on until the episode ends; whether it succeeded."""
    while True:
        sample = env.sample()
        action = demonstrator.act(sample.position, sample.velocity, sample.tool_position)
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return bool(info["success"])


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_play_stays_in_limits_visits_every_way_point_both_ways_and_hardly_ever_touches_the_obstacle(name: str) -> None:
    env = make_world(name, terminate_on_success=False, max_episode_steps=10**6)
    demonstrator = RingDemonstrator(env.world)
    ring, limits = env.world.ring, env.action_space.high
    visited, headings, actions, clearances = set(), [], [], []
    for episode in range(8):
        env.reset(seed=episode, options={"start": "anywhere"})
        demonstrator.reset(episode)
        for _ in range(250):
            sample = env.sample()
            action = demonstrator.act(sample.position, sample.velocity, sample.tool_position)
            env.step(action)
            actions.append(action)
            headings.append(demonstrator.heading)
            clearances.append(env.clearance)
            nearest = ring.nearest(sample.tool_position)
            if np.linalg.norm(sample.tool_position - ring.waypoints()[nearest]) < 0.04:
                visited.add(nearest)
    assert actions[0].dtype == np.float64
    assert (np.abs(actions) <= limits).all()
    assert (np.abs(actions) == limits).mean() < 0.01  # hardly ever saturated
    spread = (np.array(actions) / limits).std(axis=0)
    assert spread.max() < 0.6
    assert np.sort(spread)[::-1][: min(4, len(spread))].min() > 0.3
    assert visited == set(range(ring.count))
    assert 0.3 < np.mean(np.array(headings) == 1) < 0.7
    assert set(headings) == {-1, 1}
    assert min(clearances) > -0.002  # MuJoCo's contacts give way by a millimetre; it never pushes through
    assert np.percentile(clearances, 1) > 0.005


@pytest.mark.parametrize("name", WORLD_NAMES)
@pytest.mark.parametrize("direction", [-1, 1])
def test_a_persistent_walker_arrives_in_time_either_way(name: str, direction: int) -> None:
    env = make_world(name)
    demonstrator = RingDemonstrator(env.world, direction=direction)
    for episode in range(20):
        env.reset(seed=episode)
        demonstrator.reset(episode)
        assert walk(env, demonstrator), f"start {episode}"
        assert demonstrator.heading == direction


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_a_walker_that_tosses_a_coin_mostly_runs_out_of_time(name: str) -> None:
    env = make_world(name)
    demonstrator = RingDemonstrator(env.world)
    successes = 0
    for episode in range(40):
        env.reset(seed=episode)
        demonstrator.reset(episode)
        successes += walk(env, demonstrator)
    assert 1 <= successes <= 16


def test_its_actions_follow_from_the_seed_and_what_it_sees() -> None:
    first, second, other = (RingDemonstrator(world("planar_arm"), seed=seed) for seed in (5, 5, 6))
    first.act(np.array([-1.0, 2.0]), np.zeros(2), np.array([0.5, 0.1, 0.06]))
    first.reset(5)
    position, tool = np.array([-0.8, 2.1]), np.array([0.25, 0.05, 0.06])
    differs = False
    for _ in range(50):
        action = first.act(position, np.zeros(2), tool)
        np.testing.assert_array_equal(action, second.act(position, np.ones(2), tool))
        differs |= not np.array_equal(action, other.act(position, np.zeros(2), tool))
    assert differs


@pytest.mark.parametrize("offset", [-0.05, 0.06])
def test_a_tool_off_the_circle_is_led_back(offset: float) -> None:
    env = make_world("planar_arm", max_episode_steps=10**6, terminate_on_success=False)
    env.reset(seed=0)
    ring = env.world.ring
    demonstrator = RingDemonstrator(env.world, direction=1, noise=0.0, seed=0)
    env._data.qpos[:] = env._inverse_kinematics.pose(ring.point(1.0, offset))
    env.step(np.zeros(2))
    clearances = []
    for _ in range(60):
        sample = env.sample()
        env.step(demonstrator.act(sample.position, sample.velocity, sample.tool_position))
        clearances.append(env.clearance)
    assert abs(ring.polar(env.sample().tool_position)[1] - ring.radius) < 0.01
    assert min(clearances) > 0.005


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(SimulationError, match="expected 1, -1 or None"):
        RingDemonstrator(world("planar_arm"), direction=2)
