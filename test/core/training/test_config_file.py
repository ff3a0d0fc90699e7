"""Training configurations: those that come with the project are valid, and single settings can be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rql_core.errors import ConfigError
from rql_core.training.config_file import load_train_config, parse_settings

FOLDER = Path(__file__).parents[3] / "config" / "train"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
# The published settings (arXiv 2606.17551): environment, rewards, alpha, kappa, rho, horizon, gamma.
PUBLISHED = {
    "antmaze-large": ("antmaze-large-navigate", "as_given", 0.1, 0.5, 0.5, 1, 0.99),
    "antmaze-giant": ("antmaze-giant-navigate", "as_given", 0.1, 0.5, 0.5, 1, 0.995),
    "humanoidmaze-medium": ("humanoidmaze-medium-navigate", "as_given", 0.3, 0.5, 0.0, 1, 0.995),
    "humanoidmaze-large": ("humanoidmaze-large-navigate", "as_given", 0.3, 0.5, 0.0, 1, 0.995),
    "scene": ("scene-play", "sparse", 3.0, 0.7, 0.5, 5, 0.99),
    "puzzle-3x3": ("puzzle-3x3-play", "sparse", 1.0, 0.7, 0.5, 5, 0.99),
    "puzzle-4x4": ("puzzle-4x4-play", "sparse", 1.0, 0.9, 0.5, 5, 0.99),
    "cube-double": ("cube-double-play", "as_given", 10.0, 0.9, 0.5, 5, 0.99),
    "cube-triple": ("cube-triple-play", "as_given", 1.0, 0.9, 0.5, 5, 0.99),
    "cube-quadruple": ("cube-quadruple-play", "as_given", 1.0, 0.7, 0.5, 5, 0.99),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid_and_says_where_it_comes_from(path: Path) -> None:
    has_tasks = "{task}" in path.read_text()
    config = load_train_config(path, task=1 if has_tasks else None)
    assert config.updates >= 1000
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    if has_tasks:
        assert "2606.17551" in path.read_text()
        assert config.environment is not None
        assert config.environment.endswith("-singletask-task1-v0")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_papers_tasks_have_the_published_settings(name: str) -> None:
    environment, rewards, alpha, kappa, rho, horizon, gamma = PUBLISHED[name]
    config = load_train_config(FOLDER / f"{name}.yaml", task=3)
    algorithm = config.algorithm
    assert algorithm.algorithm == "rql"
    assert config.environment == f"{environment}-singletask-task3-v0"
    assert config.rewards == rewards
    found = (algorithm.alpha, algorithm.kappa, algorithm.rho, algorithm.horizon, algorithm.gamma)
    assert found == (alpha, kappa, rho, horizon, gamma)
    assert (algorithm.flow_steps, algorithm.critics, algorithm.tau, algorithm.learning_rate) == (10, 10, 0.005, 3e-4)
    assert algorithm.actor_hidden == algorithm.critic_hidden == (512,) * 4
    assert (config.updates, config.batch_size, algorithm.act_average) == (1_000_000, 256, 0.999)
    assert algorithm.form == "paper"
    assert not config.normalises


def test_a_setting_with_dots_changes_one_inside_another() -> None:
    settings = parse_settings(["algorithm.alpha=0.5", "algorithm.actor_hidden=[8, 8]", "updates=7"])
    config = load_train_config(FOLDER / "planar_arm_rql.yaml", settings | {"seed": None})
    assert config.algorithm.alpha == 0.5
    assert config.algorithm.actor_hidden == (8, 8)
    assert (config.updates, config.seed) == (7, 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["updates"], "'updates' is no KEY=VALUE"),
        (["=3"], "'=3' is no KEY=VALUE"),
        (["seed=1", "seed=2"], "'seed' is given twice"),
        (["seed=[1"], r"'seed=\[1'"),
        (["seed.x=1"], "'seed.x' is inside 'seed', which is 0"),
        (["algorithm.alpha=near"], "algorithm.rql.alpha = 'near'"),
        (["algorithm.alfa=1"], "algorithm.rql.alfa"),
        (["form=paper"], "form"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load_train_config(FOLDER / "planar_arm_rql.yaml", parse_settings(settings))
    assert "\n" not in str(error.value)


def test_a_task_is_asked_for_where_there_are_tasks_and_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="no task is given: add --task 1"):
        load_train_config(FOLDER / "scene.yaml")
    with pytest.raises(ConfigError, match="task is 6, expected 1 to 5"):
        load_train_config(FOLDER / "scene.yaml", task=6)
    with pytest.raises(ConfigError, match="task is 1, but its environment"):
        load_train_config(FOLDER / "planar_arm_rql.yaml", task=1)
