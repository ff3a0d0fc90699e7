"""Episodes in Gymnasium environments: the published protocol, and an episode follows from its seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import corridor
import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from rql_core.algorithms import Acting
from rql_core.errors import ConfigError, RqlError, SimulationError
from rql_core.evaluation import environment as environments
from rql_core.evaluation.environment import (
    EnvironmentRollout,
    make_environment,
    seeded,
    training_evaluation_environment,
)


class Scripted:
    """Stands for a policy: gives chunks of 4 steps in turn, the last again and again, and keeps what it was asked."""

    horizon = 4

    class algorithm:
        observation_dim, action_dim = 3, 2
        default_acting = Acting()

        @staticmethod
        def check_acting(acting: Acting) -> None: ...

    def __init__(self, *chunks: Any) -> None:
        self._chunks = [np.array(chunk, dtype=np.float32) for chunk in chunks]
        self.asked: list[tuple[NDArray[np.float32], Acting]] = []

    def sample(self, observations: NDArray[np.float32], _: np.random.Generator, acting: Acting) -> NDArray[np.float32]:
        chunk = self._chunks[min(len(self.asked), len(self._chunks) - 1)]
        self.asked.append((observations, acting))
        return chunk[None]


def corridor_rollout(policy: Any = None, **options: Any) -> EnvironmentRollout:
    return EnvironmentRollout(
        make_environment(corridor.NAME), policy or corridor.small_policy(), name="corridor", **options
    )


# Seeds


def test_an_episode_follows_from_its_seed_whatever_ran_before() -> None:
    rollout = corridor_rollout()
    first = [rollout.run_episode(seed) for seed in (3, 4)]
    assert [record.seed for record in first] == [3, 4]
    seen: list[tuple[NDArray[np.float64], list[NDArray[np.float32]]]] = []

    def keep(steps: int, ended: bool, solved: bool) -> None:
        if ended:
            inner: Any = environment.unwrapped
            seen.append((inner._position.copy(), list(inner.actions)))

    environment = make_environment(corridor.NAME)
    watched = EnvironmentRollout(environment, corridor.small_policy(), name="corridor", on_step=keep)
    np.random.seed(99)  # noqa: NPY002
    assert [watched.run_episode(seed) for seed in (4, 3, 4)] == [first[1], first[0], first[1]]
    np.testing.assert_array_equal(seen[0][0], seen[2][0])
    np.testing.assert_array_equal(seen[0][1], seen[2][1])
    assert not np.array_equal(seen[0][0], seen[1][0])


class Noisy(corridor.Corridor):
    """Keeps its spaces, and draws from both in every step."""

    action_space = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(np.float32(corridor.LOW), np.float32(corridor.HIGH))
        self.drawn: list[float] = []

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        self.drawn += [float(self.action_space.sample()[0]), float(self.observation_space.sample()[0])]
        return observation + 0.1 * self.drawn[-1], sum(self.drawn[-2:]), terminated, truncated, info


class Narrow(gymnasium.ActionWrapper[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]):
    """Has an action space of its own, and draws from it in every step."""

    def __init__(self, environment: Noisy) -> None:
        super().__init__(environment)
        self.action_space = gymnasium.spaces.Box(-0.5, 0.5, (2,))

    def action(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        moved: NDArray[np.float32] = 0.5 * (action + self.action_space.sample())
        return moved


def test_an_environments_own_spaces_follow_from_the_seed_too() -> None:
    def records(*seeds: int) -> dict[int, tuple[float, list[float]]]:
        inner = Noisy()
        # The outermost layer has no space of its own: what it shows is that of the layer below.
        environment = gymnasium.wrappers.TimeLimit(Narrow(inner), corridor.STEPS)
        rollout = EnvironmentRollout(environment, corridor.small_policy(), name="noisy")
        found = {}
        for seed in seeds:
            inner.drawn = []
            found[seed] = (rollout.run_episode(seed).total_reward, inner.drawn)
        return found

    alone, after_another = records(5), records(4, 5)
    assert alone[5] == after_another[5]
    assert after_another[4][0] != after_another[5][0]
    assert len(set(alone[5][1])) == 2 * corridor.STEPS


def test_seeding_spaces_does_not_change_what_else_is_drawn() -> None:
    def draw(environment: gymnasium.Env[Any, Any] | None) -> list[float]:
        with seeded(5, environment):
            space = gymnasium.spaces.Box(0.0, 1.0, (1,))
            return [np.random.random(), random.random(), float(space.sample()[0])]  # noqa: NPY002

    assert draw(Noisy()) == draw(None)


def test_seeded_reaches_every_generator_and_leaves_no_trace() -> None:
    def draw() -> list[float]:
        space = gymnasium.spaces.Box(0.0, 1.0, (1,))
        return [np.random.random(), random.random(), float(space.sample()[0]), float(space.sample()[0])]  # noqa: NPY002

    def inside(seed: int) -> list[float]:
        with seeded(seed):
            return draw()

    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = [np.random.random(), random.random()]  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    first = inside(5)
    assert inside(5) == first
    assert not set(inside(6)) & set(first)
    assert len(set(first)) == 4
    assert [np.random.random(), random.random()] == expected  # noqa: NPY002
    assert draw()[2] != draw()[2]  # spaces are unseeded again


def test_a_seeded_reset_of_ogbench_is_the_same_twice() -> None:
    pytest.importorskip("dm_control", reason="OGBench's environments need dm_control")
    environment = make_environment("antmaze-medium-navigate-singletask-task1-v0")

    def start(seed: int) -> NDArray[np.float64]:
        with seeded(seed):
            observation: NDArray[np.float64] = environment.reset(seed=seed)[0]
            return observation

    first = start(0)
    other = start(1)
    np.testing.assert_array_equal(start(0), first)
    assert not np.array_equal(other[:2], first[:2])  # where it starts is drawn from numpy's global generator


# The protocol


def test_actions_are_scaled_to_the_action_space() -> None:
    policy = Scripted([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0], [0.5, 0.5]])
    environment = make_environment(corridor.NAME)
    EnvironmentRollout(environment, policy, name="corridor").run_episode(0)  # type: ignore[arg-type]
    inner: Any = environment.unwrapped
    np.testing.assert_array_equal(inner.actions[:4], [[-0.5, 3.0], [0.5, 0.0], [1.5, -3.0], [1.0, 1.5]])
    assert inner.actions[0].dtype == np.float32


def test_an_action_space_of_1_leaves_actions_as_they_are_to_the_last_bit() -> None:
    class Unit(corridor.Corridor):
        @property
        def action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]
            return gymnasium.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)

    chunk = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    environment = Unit()
    EnvironmentRollout(environment, Scripted(chunk), name="unit").run_episode(0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(environment.actions[:4], chunk)


@pytest.mark.parametrize(("replan_every", "plans"), [(0, 3), (4, 3), (3, 4), (1, 12)])
def test_a_chunk_is_executed_open_loop(replan_every: int, plans: int) -> None:
    policy = Scripted([[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0]])
    environment = make_environment(corridor.NAME)
    rollout = EnvironmentRollout(
        environment,
        policy,  # type: ignore[arg-type]
        name="corridor",
        replan_every=replan_every,
        acting=Acting(samples=3),
    )
    assert rollout.run_episode(0).steps == corridor.STEPS
    assert len(policy.asked) == plans
    assert all(observation.shape == (1, 3) and observation.dtype == np.float32 for observation, _ in policy.asked)
    assert {acting.samples for _, acting in policy.asked} == {3}
    inner: Any = environment.unwrapped
    executed = np.round((np.array(inner.actions)[:, 0] - 0.5) * 10)
    cycle = np.arange(1, 1 + (replan_every or 4))
    np.testing.assert_array_equal(executed, np.resize(cycle, corridor.STEPS))


@pytest.mark.parametrize(
    ("speeds", "ever", "at_the_end"),
    [((1, 1, 1), True, True), ((1, -1, -1), True, False), ((-1, 1, 1), True, True), ((-1, -1, -1), False, False)],
)
def test_success_is_that_of_the_last_step(speeds: tuple[int, ...], ever: bool, at_the_end: bool) -> None:
    solved: list[bool] = []
    policy = Scripted(*([[speed, 0.0]] * 4 for speed in speeds))
    record = corridor_rollout(policy, on_step=lambda steps, ended, now: solved.append(now)).run_episode(0)
    assert (any(solved), record.success) == (ever, at_the_end)
    assert (record.steps, record.total_reward) == (corridor.STEPS, -corridor.STEPS)
    assert len(solved) == corridor.STEPS + 1


def test_the_seed_draws_the_policys_noise() -> None:
    environment = make_environment(corridor.NAME)
    inner: Any = environment.unwrapped
    rollout = EnvironmentRollout(environment, corridor.small_policy(), name="corridor")

    def first_action(seed: int) -> NDArray[np.float32]:
        rollout.run_episode(seed)
        action: NDArray[np.float32] = inner.actions[0]
        return action

    np.testing.assert_array_equal(first_action(2), first_action(2))
    assert not np.array_equal(first_action(2), first_action(3))


# What does not fit


def test_a_policy_of_other_sizes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"environment corridor: an observation has 3 numbers, but .* trained with 5"):
        corridor_rollout(corridor.small_policy(observation_dim=5))
    wide = Scripted([[0.0]] * 4)
    wide.algorithm = type("algorithm", (Scripted.algorithm,), {"action_dim": 4})  # type: ignore[misc]
    with pytest.raises(ConfigError, match="an action has 2 numbers, but the policy was trained with 4"):
        corridor_rollout(wide)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (gymnasium.spaces.Discrete(4), r"its action space is Discrete\(4\), expected a Box"),
        (gymnasium.spaces.Box(-np.inf, np.inf, (2,)), "its action space has no limits"),
    ],
)
def test_an_action_space_that_nothing_can_be_scaled_to_is_refused(space: gymnasium.Space[Any], said: str) -> None:
    class Odd(corridor.Corridor):
        action_space = space  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=said):
        EnvironmentRollout(Odd(), corridor.small_policy(), name="odd")


@pytest.mark.parametrize("replan_every", [-1, 3])
def test_replanning_later_than_a_chunk_lasts_is_refused(replan_every: int) -> None:
    with pytest.raises(ConfigError, match=rf"replan_every is {replan_every}, expected 0 \(the whole chunk\) to 2"):
        corridor_rollout(replan_every=replan_every)


def test_an_environment_that_does_not_say_success_is_refused() -> None:
    silent = make_environment(corridor.NAME, say_success=False)
    rollout = EnvironmentRollout(silent, corridor.small_policy(), name="corridor")
    with pytest.raises(SimulationError, match=r"corridor: info has no 'success' at the last step \(12\), it has other"):
        rollout.run_episode(0)


def test_an_environment_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "MAX_STEPS", 6)
    with pytest.raises(SimulationError, match="corridor, seed 8: no end after 6 steps; register it with max_episode"):
        corridor_rollout().run_episode(8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("corridor:rql_test/Stairs-v0", "'corridor:rql_test/Stairs-v0' cannot be made: .*Stairs"),
        ("no_such_module:Thing-v0", "cannot be made: .*no_such_module"),
        ("Nothing", "Nothing"),
        ("puzzle-9x9-play-singletask-task1-v0", "puzzle-9x9-play-singletask-task1-v0"),
    ],
)
def test_an_environment_that_does_not_exist_is_named(name: str, said: str) -> None:
    with pytest.raises(RqlError, match=said) as error:
        make_environment(name)
    assert "\n" not in str(error.value)


def test_the_projects_worlds_are_environments_too() -> None:
    environment = make_environment("rql_ros/PlanarArm-v0", max_episode_steps=6)
    policy = corridor.small_policy(observation_dim=7)
    assert EnvironmentRollout(environment, policy, name="arm").run_episode(0).steps == 6


# During training


@pytest.mark.parametrize("workers", [1, 2])
def test_training_gets_the_same_rates_from_any_number_of_workers(
    workers: int, pools: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rql_core.evaluation.episodes.episode_pool", pools)
    policy = corridor.small_policy(seed=1)
    evaluate = training_evaluation_environment(corridor.NAME, 5, workers=workers)
    numbers = evaluate(policy)
    assert sorted(numbers) == ["episodes", "mean_steps", "success_high", "success_low", "success_rate"]
    expected = [corridor_rollout(policy).run_episode(seed) for seed in range(5)]
    assert numbers["success_rate"] == sum(record.success for record in expected) / 5
    assert (numbers["episodes"], numbers["mean_steps"]) == (5, corridor.STEPS)
    assert numbers["success_low"] <= numbers["success_rate"] <= numbers["success_high"]
    # A policy that has changed is the one that acts the next time.
    others = [corridor.small_policy(seed=seed) for seed in (2, 3)]
    assert [evaluate(other)["success_rate"] for other in others] == [
        sum(corridor_rollout(other).run_episode(seed).success for seed in range(5)) / 5 for other in others
    ]


def test_an_evaluation_that_cannot_be_is_refused_before_training_starts() -> None:
    with pytest.raises(ConfigError, match="episodes is 0, expected at least 1"):
        training_evaluation_environment(corridor.NAME, 0)
    with pytest.raises(ConfigError, match="workers is 0, expected at least 1"):
        training_evaluation_environment(corridor.NAME, 5, workers=0)
    with pytest.raises(RqlError, match="Nothing"):
        training_evaluation_environment("Nothing", 5)
