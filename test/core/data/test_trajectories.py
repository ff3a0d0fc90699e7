"""Episodes are checked when they are made, and the message says which number is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rql_core.data import Trajectories
from rql_core.errors import DatasetError


def make_trajectories() -> Trajectories:
    """Two episodes, of 2 and 3 steps; observation row o of episode e is [10 e + o, 1]."""
    episodes = []
    for episode, steps in enumerate((2, 3)):
        observations = np.array([[10.0 * episode + row, 1.0] for row in range(steps + 1)])
        episodes.append((observations, np.full((steps, 1), 0.5), -np.ones(steps), np.ones(steps)))
    return Trajectories.from_episodes(episodes)


def test_episodes_are_laid_end_to_end_with_one_observation_more_each() -> None:
    trajectories = make_trajectories()
    assert (trajectories.episodes, trajectories.steps) == (2, 5)
    assert (trajectories.observation_dim, trajectories.action_dim) == (2, 1)
    assert trajectories.step_offsets.tolist() == [0, 2]
    assert trajectories.observation_offsets.tolist() == [0, 3]
    observations, actions, rewards, masks = trajectories.episode(1)
    assert observations[:, 0].tolist() == [10, 11, 12, 13]
    assert (actions.shape, rewards.shape, masks.shape) == ((3, 1), (3,), (3,))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("observations", np.zeros((6, 2), np.float32), "observations has 6 rows: expected 7"),
        ("actions", np.zeros((4, 1), np.float32), "actions has 4 rows: expected 5"),
        ("actions", np.zeros((5, 0), np.float32), "actions has no columns"),
        ("rewards", np.zeros(5), "rewards is float64"),
        ("rewards", np.zeros((5, 1), np.float32), "rewards is float32 with 2 dimensions"),
        ("rewards", [0.0] * 5, "rewards is list"),
        ("masks", np.full(5, 0.5, np.float32), r"masks\[0\] is 0.5: expected 0 or 1"),
        ("lengths", np.array([5, 0]), r"lengths\[1\] is 0"),
        ("lengths", np.array([], np.int64), "lengths is empty"),
    ],
)
def test_a_wrong_array_is_named(field: str, value: object, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        replace(make_trajectories(), **{field: value})


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
def test_a_number_that_is_not_finite_is_named_with_its_place(field: str, number: float) -> None:
    trajectories = make_trajectories()
    getattr(trajectories, field)[(3, 0) if field != "rewards" else 3] = number
    with pytest.raises(DatasetError, match=rf"{field}\[3(, 0)?\] is {number}: expected a finite number"):
        replace(trajectories)


def test_an_action_outside_its_limits_is_refused_but_float32_rounding_is_not() -> None:
    trajectories = make_trajectories()
    trajectories.actions[0, 0] = 1.000001
    replace(trajectories)
    trajectories.actions[2, 0] = -1.01
    with pytest.raises(DatasetError, match=r"actions\[2, 0\] is -1.00999.*expected in \[-1, 1\]"):
        replace(trajectories)


def test_an_episode_whose_arrays_disagree_is_named() -> None:
    good = (np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(2), np.ones(2))
    bad = (np.zeros((3, 2)), np.zeros((3, 1)), np.zeros(3), np.ones(3))
    with pytest.raises(DatasetError, match="episode 1 has 3 observations, 3 actions"):
        Trajectories.from_episodes([good, bad])
    with pytest.raises(DatasetError, match="no episodes"):
        Trajectories.from_episodes([])


def test_an_episode_that_is_not_there_is_refused() -> None:
    with pytest.raises(DatasetError, match="no episode 2: expected 0 to 1"):
        make_trajectories().episode(2)
