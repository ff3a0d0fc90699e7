"""Pictures of the worlds. Needs EGL (libegl1, in software is enough); without it the tests say so and are skipped."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.errors import SimulationError
from rql_core.sim import WORLD_NAMES, make_world


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_a_picture_shows_obstacle_start_and_goal_and_follows_the_arm(name: str) -> None:
    env = make_world(name, render_mode="rgb_array", width=160, height=120)
    env.reset(seed=0)
    try:
        picture = env.render()
    except SimulationError as error:
        pytest.skip(f"needs OpenGL: {error}")
    assert picture is not None
    assert (picture.shape, picture.dtype) == ((120, 160, 3), np.uint8)
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert ((red > 2 * green) & (red > 2 * blue)).sum() > 50  # the obstacle
    assert ((green > red + 40) & (green > blue + 40)).sum() > 20  # the goal
    assert ((red > blue + 60) & (green > blue + 40)).sum() > 20  # the start
    for _ in range(20):
        env.step(env.action_space.high)
    assert (env.render() != picture).any(axis=-1).sum() > 100
    env.close()
    env.close()


def test_drawing_does_not_change_the_trajectory() -> None:
    seen, unseen = make_world("planar_arm", render_mode="rgb_array", width=64, height=64), make_world("planar_arm")
    seen.reset(seed=0)
    unseen.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 2)):
        try:
            seen.render()
        except SimulationError as error:
            pytest.skip(f"needs OpenGL: {error}")
        np.testing.assert_array_equal(seen.step(action)[0], unseen.step(action)[0])
    seen.close()


def test_without_a_render_mode_there_is_no_picture() -> None:
    env = make_world("planar_arm")
    env.reset(seed=0)
    assert env.render() is None


def test_missing_opengl_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(width: int, height: int) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr("rql_core.sim.rendering._open_context", fail)
    env = make_world("planar_arm", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="install libegl1"):
        env.render()
    env.step(np.zeros(2))  # the physics goes on
    env.close()
