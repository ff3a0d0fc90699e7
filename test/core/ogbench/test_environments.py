"""OGBench's environments by name, and what is said where they, or what they need, are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rql_core.errors import ConfigError, SimulationError
from rql_core.ogbench.environments import (
    DOMAINS,
    WITHOUT_DEPENDENCIES,
    environment_names,
    make_environment,
    parse_name,
    require_packages,
)

ROOT = Path(__file__).resolve().parents[3]


def test_every_domain_has_five_tasks_that_gymnasium_knows(ogbench: None) -> None:
    import gymnasium
    import ogbench as _  # noqa: F401  (registers them)

    assert len(DOMAINS) == 11
    for domain in DOMAINS:
        names = environment_names(domain)
        assert [parse_name(name).task for name in names] == [1, 2, 3, 4, 5]
        assert all(parse_name(name).gymnasium_id in gymnasium.registry for name in names)
    with pytest.raises(ConfigError, match="domain is 'cube'; expected one of antmaze-large-navigate, "):
        environment_names("cube")


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("puzzle-3x3-play-singletask-task1-v0", "puzzle-3x3-singletask-task1-v0"),
        ("antmaze-large-navigate-singletask-v0", "antmaze-large-singletask-v0"),
        ("cube-double-noisy-v0", "cube-double-v0"),
        ("scene-v0", "scene-v0"),
        ("scene-singletask-task5-v0", "scene-singletask-task5-v0"),
    ],
)
def test_a_name_of_data_is_that_of_an_environment(name: str, identifier: str) -> None:
    assert parse_name(name).gymnasium_id == identifier


@pytest.mark.parametrize("name", ["cube-double", "cube-double-play-singletask-task6-v0", "cube-dozen-v0", ""])
def test_an_unknown_environment_lists_the_domains(name: str, ogbench: None) -> None:
    with pytest.raises(ConfigError, match=f"environment is '{name}'; expected .* one of antmaze-large-navigate, "):
        make_environment(name)


@pytest.mark.parametrize("name", ["cube-single-play-singletask-task1-v0", "puzzle-4x4-play-singletask-task2-v0"])
def test_an_environment_says_whether_it_was_solved(name: str, ogbench: None) -> None:
    environment: Any = make_environment(name)
    observation, _ = environment.reset(seed=0)
    assert observation.shape == environment.observation_space.shape
    _, reward, _, _, info = environment.step(np.zeros(environment.action_space.shape))
    assert not info["success"]
    assert reward < 0
    assert environment.spec.max_episode_steps in (200, 500)


def test_options_reach_the_environment(ogbench: None) -> None:
    environment: Any = make_environment("cube-single-v0", max_episode_steps=2, mode="data_collection")
    environment.reset(seed=0)
    assert [environment.step(np.zeros(5))[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (("dm_control", "lxml"), r"pip install --no-deps dm_control==\S+ lxml==\S+"),
        (("scipy", "absl"), r"pip install scipy && pip install --no-deps absl-py==\S+"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(
    missing: tuple[str, ...], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rql_core.ogbench.environments.find_spec", lambda name: None if name in missing else name)
    with pytest.raises(SimulationError, match=f"run `{command}`$"):
        require_packages()
    with pytest.raises(SimulationError, match=f"run `{command}`$"):
        make_environment("scene-v0")


def test_the_versions_are_those_of_the_requirements() -> None:
    lines = (ROOT / "requirements" / "models.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == list(WITHOUT_DEPENDENCIES.values())
