"""Which runs are taken for seeds of the same thing, and what the groups are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import write_run

from rql_core.errors import ConfigError, DatasetError
from rql_core.evaluation.grouping import UNKNOWN_TASK, Group, differing_settings, find_named, make_groups
from rql_core.evaluation.runs import Run

TASK = "puzzle-task1"


def run(seed: int = 0, task: str | None = TASK, path: str = "run", updates: int = 1000, **algorithm: Any) -> Run:
    settings = {f"algorithm.{key}": value for key, value in algorithm.items()}
    return Run(Path(path), seed, task, {"updates": updates, **settings})


def names(*runs: Run) -> list[str]:
    return [group.name for group in make_groups([(each, None) for each in runs])]


def test_the_label_is_the_algorithm_and_what_tells_its_groups_apart() -> None:
    rql = [run(seed, algorithm="rql", form=form, horizon=4) for form in ("paper", "corrected") for seed in (0, 1)]
    assert names(*rql, run(algorithm="qc", form="corrected", horizon=8)) == ["qc", "rql corrected", "rql paper"]
    assert names(*rql[:2]) == ["rql"]


def test_labels_are_no_longer_than_they_must_be() -> None:
    """What goes with the form is told by it; what differs besides is named."""
    rql = [
        run(algorithm="rql", form="corrected", kappa=0.9, actor_hidden=[8, 8]),
        run(algorithm="rql", form="corrected", kappa=0.9, actor_hidden=[16]),
        run(algorithm="rql", form="paper", kappa=0.7, actor_hidden=[8, 8]),
    ]
    assert names(*rql) == [
        "rql corrected actor_hidden=[8,8]",
        "rql corrected actor_hidden=[16]",
        "rql paper actor_hidden=[8,8]",
    ]


def test_numbers_in_labels_are_in_order() -> None:
    runs = [run(algorithm="rql", alpha=alpha) for alpha in (10, 0.5, 0.05, 3)]
    assert names(*runs) == ["rql alpha=0.05", "rql alpha=0.5", "rql alpha=3", "rql alpha=10"]


def test_a_setting_chosen_for_each_task_makes_no_groups() -> None:
    """Published weights differ by task; runs that differ in them on the same task are two groups."""
    tuned = [run(task=f"task{number}", algorithm="rql", alpha=number) for number in (1, 2)]
    assert names(*tuned) == ["rql"]
    assert names(*tuned, run(task="task2", algorithm="rql", alpha=5)) == ["rql alpha=1", "rql alpha=2", "rql alpha=5"]


def test_a_setting_that_one_run_lacks_tells_it_apart() -> None:
    assert names(run(algorithm="rql"), run(algorithm="rql", rho=None)) == ["rql rho=absent", "rql rho=default"]


def test_how_long_to_train_makes_groups() -> None:
    assert names(run(updates=1000, algorithm="rql"), run(updates=2000, algorithm="rql")) == [
        "rql updates=1000",
        "rql updates=2000",
    ]


def test_given_names_go_before_and_derived_ones_follow() -> None:
    groups = make_groups(
        [(run(1, algorithm="rql"), "zebra"), (run(algorithm="qc"), None), (run(algorithm="rql"), "zebra")]
    )
    assert [group.name for group in groups] == ["zebra", "qc"]
    assert [each.seed for each in groups[0].on(TASK)] == [0, 1]


def test_runs_without_a_task_are_on_that_of_the_others_where_it_is_one() -> None:
    lost = run(1, None, algorithm="rql")
    assert make_groups([(run(algorithm="rql"), None), (lost, None)])[0].runs[1].task == TASK
    groups = make_groups([(run(algorithm="rql"), None), (run(task="task2", algorithm="rql"), None), (lost, None)])
    assert groups[0].runs[2].task == UNKNOWN_TASK


def test_two_runs_with_the_same_seed_are_refused_with_their_paths() -> None:
    with pytest.raises(
        ConfigError, match=r"^a and b: both are seed 0 of rql on puzzle-task1; name groups with --group"
    ):
        names(run(path="a", algorithm="rql"), run(path="b", algorithm="rql"))


def test_settings_that_differ_are_those_with_two_values_among_the_runs_that_have_them() -> None:
    groups = [
        Group(
            "rql",
            (run(algorithm="rql", alpha=3, rho=0.5, gamma=0.99), run(task="b", algorithm="rql", alpha=10, rho=0.5)),
        ),
        Group("qc", (run(algorithm="qc", samples=32, gamma=None),)),
    ]
    assert {setting.name: setting.values for setting in differing_settings(groups)} == {
        "algorithm": ("rql", "qc"),
        "alpha": ("3, 10", "-"),
        "gamma": ("0.99", "default"),
    }


# Groups by name


def test_groups_are_named_by_globs(tmp_path: Path) -> None:
    for name in ("new-0", "new-1", "old/a", "old/b"):
        write_run(tmp_path / name)
    (tmp_path / "new-notes.txt").write_text("no run")
    named = find_named([f"new={tmp_path}/new-*", f"old={tmp_path}/old"])
    assert {str(path.relative_to(tmp_path)): name for path, name in named.items()} == {
        "new-0": "new",
        "new-1": "new",
        "old/a": "old",
        "old/b": "old",
    }
    assert find_named([f"new={tmp_path}/new-0", f"new={tmp_path}/new-*"]).keys() == set(list(named)[:2])


@pytest.mark.parametrize("wrong", ["runs/*", "=runs/*", "name=", " =x"])
def test_a_group_that_is_no_name_and_glob_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME=GLOB"):
        find_named([wrong])


def test_a_glob_without_a_run_and_a_run_in_two_groups_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"group a: no directory is like 'nowhere/\*'"):
        find_named(["a=nowhere/*"])
    with pytest.raises(DatasetError, match="empty: holds no run"):
        find_named([f"a={tmp_path}/empty"])
    with pytest.raises(ConfigError, match="run: is in the groups a and b"):
        find_named([f"a={tmp_path}/*un", f"b={tmp_path}/r*"])
