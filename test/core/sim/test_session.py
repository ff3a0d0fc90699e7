"""A session steps the world on the contract's ticks, and gives the trajectory that the Gymnasium environment gives."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rql_core.contract import ActionChunk, Contract, TickAssembler, parse_contract
from rql_core.errors import SimulationError
from rql_core.evaluation.rollout import frame_messages
from rql_core.resources import config_file
from rql_core.sim import make_world
from rql_core.sim.session import GAP_NS, Frame, Session

PERIOD = 50_000_000
# Without its safety section: tests change what is commanded.
TEXT = config_file("contracts", "planar_arm").read_text(encoding="utf-8").partition("\nsafety:")[0] + "\n"


@pytest.fixture
def session(contract: Contract) -> Session:
    return Session(make_world("planar_arm", terminate_on_success=False), contract)


def chunk(session: Session, *speeds: float, stamp_ns: int | None = None) -> ActionChunk:
    """From the present tick: a step a speed, of the shoulder alone."""
    actions = np.array([[speed, 0.0] for speed in speeds])
    return ActionChunk.regular(session.contract, session.stamp_ns if stamp_ns is None else stamp_ns, actions)


def steps_possible(session: Session) -> int:
    steps = 0
    while session.can_step():
        session.step()
        steps += 1
    return steps


def numbers(frame: Frame) -> bytes:
    sample = frame.sample
    parts = (sample.position, sample.velocity, sample.effort, sample.tool_position, sample.tool_quaternion)
    return b"".join(part.tobytes() for part in parts)


def test_a_contract_whose_first_observation_comes_later_is_refused(contract: Contract) -> None:
    assert "name: joint_velocity, unit: rad/s," in TEXT
    text = TEXT.replace("name: joint_velocity, unit: rad/s,", "name: joint_velocity, unit: rad/s, history: 3,")
    with pytest.raises(SimulationError, match="needs 3 observations before the first action"):
        Session(make_world("planar_arm"), parse_contract(text))


# Lockstep


def test_a_step_needs_the_chunk_of_its_tick(session: Session) -> None:
    assert not session.can_step()  # no episode was begun
    first = session.begin(0)
    assert not session.can_step()
    session.command(chunk(session, 0.5, stamp_ns=first.stamp_ns + PERIOD))  # of the next tick
    assert not session.can_step()
    session.command(chunk(session, 0.5, 0.5, 0.5))
    assert steps_possible(session) == 2  # the first chunk replaces the second at the next tick, and has one step
    assert session.frame is not None
    assert session.frame.stamp_ns == first.stamp_ns + 2 * PERIOD
    assert session.counts["starved"] == 0


@pytest.mark.parametrize(("execute_steps", "possible"), [(0, 4), (1, 1), (3, 3), (4, 4)])
def test_execute_steps_of_a_chunk_are_used_before_the_next_is_waited_for(
    contract: Contract, execute_steps: int, possible: int
) -> None:
    session = Session(make_world("planar_arm"), contract, execute_steps=execute_steps)
    session.begin(0)
    for _ in range(2):
        session.command(chunk(session, 0.1, 0.2, 0.3, 0.4))
        assert steps_possible(session) == possible


def test_each_tick_gets_the_action_of_its_step(session: Session) -> None:
    session.begin(0)
    session.command(chunk(session, 0.125, -0.5, 0.75))
    speeds = []
    step = session.env.step
    session.env.step = lambda action: (speeds.append(action.tolist()), step(action))[1]  # type: ignore[method-assign]
    steps_possible(session)
    session.command(chunk(session, -0.25))
    steps_possible(session)
    assert speeds == [[0.125, 0.0], [-0.5, 0.0], [0.75, 0.0], [-0.25, 0.0]]


def test_the_last_step_in_force_for_longer_does_not_let_lockstep_run_ahead() -> None:
    contract = parse_contract(TEXT.replace("hold: zero", "hold: zero\n  max_age: 0.2"))
    session = Session(make_world("planar_arm"), contract)
    session.begin(0)
    session.command(chunk(session, 0.5))
    assert steps_possible(session) == 1
    session.step()  # a realtime step, though, takes it
    assert session.counts["starved"] == 0


# The same trajectory as the environment's


@pytest.mark.parametrize("horizon", [1, 4])
def test_same_seed_and_actions_give_the_environments_trajectory_to_the_last_bit(
    contract: Contract, horizon: int
) -> None:
    session = Session(make_world("planar_arm"), contract)
    session.begin(99)  # whatever went before must not matter
    session.command(chunk(session, 1.0, -1.0))
    steps_possible(session)

    env = gymnasium.make("rql_ros/PlanarArm-v0")
    actions = np.random.default_rng(4).uniform(-1.2, 1.2, (60, 2))
    observation, _ = env.reset(seed=7)
    frame = session.begin(7)
    assembler = TickAssembler(contract)
    for step, action in enumerate(actions):
        assert numbers(frame) == numbers(Frame(0, env.unwrapped.sample(), 0, 0, 0.0, False, False, False))
        for topic, message in frame_messages(frame).items():
            assembler.push(topic, message, 0)
        (tick,) = assembler.take()
        assert tick.observation is not None
        assert tick.observation.tobytes() == observation.tobytes()
        if step % horizon == 0:
            session.command(ActionChunk.regular(contract, frame.stamp_ns, actions[step : step + horizon]))
        assert session.can_step()
        frame = session.step()
        observation, reward, terminated, truncated, info = env.step(action)
        assert (frame.reward, frame.terminated, frame.truncated, frame.success) == (
            reward,
            terminated,
            truncated,
            info["success"],
        )


def test_begin_without_a_seed_goes_on_with_the_worlds_random_numbers(session: Session) -> None:
    env = gymnasium.make("rql_ros/PlanarArm-v0")
    for seed in (3, None, None):
        env.reset(seed=seed)
        assert session.begin(seed).sample.position.tobytes() == env.unwrapped.sample().position.tobytes()


# Without an action


def test_without_an_action_the_hold_command_stands_in_and_is_counted(session: Session) -> None:
    session.begin(0)
    session.command(chunk(session, 0.8, 0.8))
    for _ in range(2):
        moving = session.step()
    assert session.counts["starved"] == 0
    assert abs(moving.sample.velocity[0]) > 0.5
    for _ in range(5):
        frame = session.step()
    assert session.counts["starved"] == 5
    assert abs(frame.sample.velocity[0]) < 0.01


# Episodes


def test_episodes_are_half_a_second_of_clock_apart(session: Session) -> None:
    first = session.begin(0)
    assert first.stamp_ns == GAP_NS  # ROS takes zero for "not set"
    session.command(chunk(session, 0.1, 0.1, 0.1))
    steps_possible(session)
    last = session.frame
    assert last is not None
    second = session.begin(0)
    assert second.stamp_ns == last.stamp_ns + GAP_NS
    assert session.begin(0).stamp_ns == second.stamp_ns + GAP_NS
    assert [first.episode, second.episode] == [1, 2]
    assert (second.step, second.reward, second.ended) == (0, 0.0, False)
    # A policy node ends what it commands, and does not yet wait for a person.
    stale = session.contract.stale
    assert stale.hold_after < GAP_NS / 1e9 < stale.stop_after


def test_no_chunk_of_one_episode_reaches_into_the_next_however_long_it_is(session: Session) -> None:
    session.begin(0)
    early = chunk(session, *[0.5] * 100)  # five seconds
    session.command(early)
    assert session.can_step()
    session.begin(1)
    assert not session.can_step()
    session.command(early)  # late on the wire
    assert not session.can_step()
    assert session.counts["stale"] == 1
    session.step()
    assert session.counts["starved"] == 1
    session.command(chunk(session, 0.5))
    assert session.can_step()


def test_an_episode_ends_once_and_then_takes_no_step(contract: Contract) -> None:
    session = Session(make_world("planar_arm", max_episode_steps=3), contract)
    session.begin(0)
    session.command(chunk(session, *[0.1] * 10))
    assert steps_possible(session) == 3
    assert session.frame is not None
    assert (session.frame.truncated, session.frame.terminated) == (True, False)
    with pytest.raises(SimulationError, match="reset the world first"):
        session.step()


def test_the_result_is_that_of_the_episode_so_far(contract: Contract) -> None:
    session = Session(make_world("planar_arm"), contract)
    for call in (session.result, session.step):
        with pytest.raises(SimulationError, match="begun"):
            call()
    session.begin(5)
    session.command(chunk(session, *[0.5] * 4))
    steps_possible(session)
    result = session.result()
    assert (result.episode, result.seed, result.steps, result.total_reward, result.success) == (1, 5, 4, -4.0, False)
    session.begin()
    result = session.result()
    assert (result.episode, result.seed, result.steps, result.total_reward) == (2, None, 0, 0.0)


def test_a_command_that_is_not_finite_is_refused_by_the_world(session: Session) -> None:
    session.begin(0)
    session.command(chunk(session, float("nan")))
    with pytest.raises(SimulationError, match="not finite"):
        session.step()


# What does not fit


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("rate: 20", "rate: 10", r"rate 10\.0 Hz, but the world steps every 50\.0 ms"),
        (
            "name: elbow_joint,",
            "name: wrist_joint,",
            "commands shoulder_joint, wrist_joint, but the world has the joints shoulder_joint, elbow_joint",
        ),
        (
            "command: velocities\n  unit: rad/s\n  hold: zero",
            "command: positions\n  unit: rad\n  hold: last",
            "commands positions, but the world takes velocities",
        ),
    ],
)
def test_a_contract_that_does_not_fit_the_world_is_refused_and_both_are_named(was: str, now: str, said: str) -> None:
    with pytest.raises(SimulationError, match=said) as error:
        Session(make_world("planar_arm"), parse_contract(TEXT.replace(was, now)))
    assert "'planar_arm'" in str(error.value)


def test_another_order_of_the_joints_is_refused() -> None:
    swapped = TEXT.replace("{name: shoulder_joint", "{name: x").replace("{name: elbow_joint", "{name: shoulder_joint")
    with pytest.raises(SimulationError, match="commands elbow_joint, shoulder_joint, but"):
        Session(make_world("planar_arm"), parse_contract(swapped.replace("{name: x", "{name: elbow_joint")))
