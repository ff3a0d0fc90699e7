"""What every simulated arm promises: Gymnasium's interface, reproducibility, the task's logic, and honest errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rql_core.errors import SimulationError
from rql_core.sim import WORLD_NAMES, ArmEnv, RingDemonstrator, make_world
from rql_core.sim.registration import ENVIRONMENT_IDS


@pytest.fixture(params=WORLD_NAMES)
def env(request: pytest.FixtureRequest) -> ArmEnv:
    return make_world(request.param)


def actions_for(env: ArmEnv, steps: int, seed: int = 0) -> np.ndarray:
    high = env.action_space.high
    return np.random.default_rng(seed).uniform(-high, high, (steps, len(high)))


def trajectory(env: ArmEnv, seed: int, actions: np.ndarray) -> list[np.ndarray]:
    observation, _ = env.reset(seed=seed)
    out = [observation]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        sample = env.sample()
        numbers = [reward, terminated, truncated, info["success"]]
        out += [observation, np.array(numbers), sample.effort, sample.position, sample.tool_quaternion]
    return out


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_gymnasium_checks_pass(name: str) -> None:
    made = gymnasium.make(ENVIRONMENT_IDS[name])
    assert isinstance(made.unwrapped, ArmEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for recommendation in (".*infinity.*", ".*symmetric and normalized.*", ".*render_fps.*", ".*render mode.*"):
            warnings.filterwarnings("ignore", message=recommendation)
        check_env(made.unwrapped, skip_render_check=True)


def test_same_seed_and_actions_give_the_same_trajectory_to_the_last_bit(env: ArmEnv) -> None:
    actions = actions_for(env, 60)
    first = trajectory(env, 3, actions)
    env.step(actions[0])  # whatever was left behind must not matter
    again = trajectory(env, 3, actions)
    other_object = trajectory(make_world(env.world.name), 3, actions)
    for a, b, c in zip(first, again, other_object, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_another_seed_gives_another_start(env: ArmEnv) -> None:
    assert not np.array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])
    assert not np.array_equal(env.reset()[0], env.reset()[0])


def test_observation_is_positions_velocities_and_tool_in_this_order(env: ArmEnv) -> None:
    env.reset(seed=0)
    observation = env.step(actions_for(env, 1)[0])[0]
    sample = env.sample()
    assert sample.joint_names == env.joint_names
    expected = np.concatenate([sample.position, sample.velocity, sample.tool_position]).astype(np.float32)
    np.testing.assert_array_equal(observation, expected)
    assert np.abs(sample.velocity).min() > 0
    assert np.linalg.norm(sample.tool_quaternion) == pytest.approx(1.0)


def test_the_tool_quaternion_is_written_x_y_z_w() -> None:
    env = make_world("planar_arm")
    env.reset(seed=0)
    sample = env.sample()
    half = sample.position.sum() / 2  # the planar arm's tool turns about z by the sum of both joint angles
    np.testing.assert_allclose(np.abs(sample.tool_quaternion), np.abs([0, 0, np.sin(half), np.cos(half)]), atol=1e-9)


def test_the_ur5e_points_its_tool_down_and_reports_the_weight_it_carries() -> None:
    env = make_world("ur5e_ring")
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.zeros(6))
    sample = env.sample()
    np.testing.assert_allclose(np.abs(sample.tool_quaternion), [1, 0, 0, 0], atol=5e-3)  # half a turn about x
    assert np.abs(sample.velocity).max() < 1e-3
    assert np.abs(sample.effort[1:3]).min() > 5.0  # shoulder lift and elbow hold links of 8 and 2 kg


def test_joints_follow_the_commanded_velocity_within_a_few_steps(env: ArmEnv) -> None:
    env.reset(seed=0)
    action = 0.3 * env.action_space.high
    for _ in range(5):
        env.step(action)
    np.testing.assert_allclose(env.sample().velocity, action, rtol=0.1)


def test_actions_are_clipped_to_the_limits(env: ArmEnv) -> None:
    high = env.action_space.high
    env.reset(seed=0)
    within = env.step(high)[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(50 * high)[0], within)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused_and_moves_nothing(env: ArmEnv, value: float) -> None:
    env.reset(seed=0)
    before = env.sample().position
    action = np.zeros(len(env.joint_names))
    action[-1] = value
    with pytest.raises(SimulationError, match="not finite"):
        env.step(action)
    np.testing.assert_array_equal(env.sample().position, before)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 2)])
def test_an_action_of_a_wrong_shape_is_refused(env: ArmEnv, shape: tuple[int, ...]) -> None:
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="shape"):
        env.step(np.zeros(shape))


def test_unstable_physics_is_an_error_and_not_a_silent_restart(
    env: ArmEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log there
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(len(env.joint_names)))
    env._data.qvel[0] = np.nan
    with pytest.raises(SimulationError, match="unstable after 3 steps"):
        env.step(np.zeros(len(env.joint_names)))


def test_wrong_use_is_refused_with_what_was_expected() -> None:
    with pytest.raises(SimulationError, match="planar_arm, ur5e_ring"):
        make_world("moon")
    with pytest.raises(SimulationError, match="rgb_array"):
        make_world("planar_arm", render_mode="human")
    with pytest.raises(SimulationError, match="max_episode_steps is 0"):
        make_world("planar_arm", max_episode_steps=0)
    env = make_world("planar_arm")
    with pytest.raises(SimulationError, match="call reset first"):
        env.step(np.zeros(2))
    with pytest.raises(SimulationError, match="'task' or 'anywhere'"):
        env.reset(options={"start": "moon"})
    with pytest.raises(SimulationError, match="expected only 'start'"):
        env.reset(options={"begin": "task"})


def test_a_missing_ogbench_is_named_as_a_pip_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from rql_core.sim import ur5e_ring

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SimulationError, match="pip install --no-deps ogbench"):
        ur5e_ring.UR5E_RING.build()


def test_task_starts_lie_opposite_the_goal_and_play_starts_all_round(env: ArmEnv) -> None:
    ring = env.world.ring
    start = ring.waypoints()[0]
    np.testing.assert_allclose(np.linalg.norm(start - env.goal), 2 * ring.radius)
    tasks, plays = [], []
    for seed in range(60):
        env.reset(seed=seed)
        tasks.append(env.sample().tool_position)
        assert not env.success
        env.reset(seed=seed, options={"start": "anywhere"})
        plays.append(env.sample().tool_position)
    assert 0.005 < np.linalg.norm(np.array(tasks) - start, axis=1).max() < 0.03
    assert {ring.nearest(position) for position in plays} == set(range(ring.count))


def test_reward_success_and_terminal_agree_with_the_distance_to_the_goal(env: ArmEnv) -> None:
    going_on = make_world(env.world.name, terminate_on_success=False)
    walker = RingDemonstrator(env.world, direction=1, seed=0)
    env.reset(seed=0)
    going_on.reset(seed=0)
    seen = []
    for _ in range(env.max_episode_steps):
        sample = going_on.sample()
        action = walker.act(sample.position, sample.velocity, sample.tool_position)
        _, reward, terminated, truncated, info = going_on.step(action)
        near = bool(np.linalg.norm(going_on.sample().tool_position - env.goal) <= 0.04)
        assert (reward, info["success"], terminated) == (0.0 if near else -1.0, near, False)
        if not any(seen):  # the other one ends at the first success
            _, other_reward, other_terminated, other_truncated, _ = env.step(action)
            assert (other_reward, other_terminated, other_truncated) == (reward, near, False)
        seen.append(near)
    assert truncated
    assert any(seen)
    assert not seen[-1]  # it walked on past the goal


def test_the_time_limit_truncates_without_a_wrapper() -> None:
    env = make_world("planar_arm", max_episode_steps=3)
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]
    assert make_world("planar_arm").max_episode_steps == env.world.max_episode_steps


def test_the_obstacle_stops_the_tool(env: ArmEnv) -> None:
    kinematics = RingDemonstrator(env.world)._inverse_kinematics
    env.reset(seed=0)
    center = np.array(env.world.ring.center)
    clearances = []
    for _ in range(60):
        sample = env.sample()
        towards = center - sample.tool_position
        env.step(kinematics.joint_velocity(sample.position, 0.2 * towards / np.linalg.norm(towards)))
        clearances.append(env.clearance)
    assert min(clearances) < 0.0005  # it got there
    assert min(clearances) > -0.005  # and not in


def test_the_planar_tool_keeps_its_height_to_the_last_bit() -> None:
    env = make_world("planar_arm")
    heights = {trajectory_point[-1] for trajectory_point in trajectory(env, 0, actions_for(env, 100))[1::5]}
    assert heights == {np.float32(env.world.ring.center[2])}


def test_importing_the_worlds_brings_in_neither_ros_nor_torch_nor_opengl() -> None:
    code = (
        "import sys, numpy as np\n"
        "import rql_core.sim, rql_core.sim.demonstrator\n"
        "env = rql_core.sim.make_world('planar_arm', render_mode='rgb_array')\n"
        "env.reset(seed=0); env.step(np.zeros(2))\n"
        "print([m for m in ('rclpy', 'torch', 'OpenGL.GL', 'mujoco.egl', 'ogbench') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "MUJOCO_GL": "disable"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_no_play_episode_begins_in_a_collision(name: str) -> None:
    env = make_world(name)
    clearances = []
    for seed in range(200):
        env.reset(seed=seed, options={"start": "anywhere"})
        clearances.append(env.clearance)
    assert min(clearances) >= 0.005
    assert max(clearances) > 0.02  # and they differ
