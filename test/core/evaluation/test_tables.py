"""Tables and pictures of evaluations: rows in order, means that weigh tasks alike, success against ways of acting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rql_core.errors import ConfigError
from rql_core.evaluation.results import EpisodeRecord, Evaluation, wilson_interval
from rql_core.evaluation.statistics import SeedScore, mean_interval
from rql_core.evaluation.tables import (
    acting_points,
    acting_table,
    format_table,
    mean_table,
    means_over_seeds,
    plot_acting,
    run_table,
)


def evaluation(successes: int, episodes: int = 10, **known: object) -> Evaluation:
    records = [EpisodeRecord(seed, 20, -20.0 + seed, seed < successes) for seed in range(episodes)]
    settings = {"algorithm": "rql", "form": "paper", "samples": 1, "rho": 0.0, "flow_steps": 10, "step": 500}
    return Evaluation("rql", "in_process", records, **(settings | known))  # type: ignore[arg-type]


def cells(table: str) -> list[list[str]]:
    """The cells of a table, which are two or more spaces apart."""
    return [[cell for cell in line.split("  ") if cell] for line in table.splitlines()]


def test_a_run_is_a_row_with_its_interval() -> None:
    table = run_table(
        [evaluation(5, environment="maze-task1-v0", training_seed=3), Evaluation("old", "ros", evaluation(0).records)],
        ["runs/a", "runs/b"],
    )
    low, high = wilson_interval(5, 10)
    header, first, second = ([cell.strip() for cell in line] for line in cells(table))
    assert header[0] == "run"
    assert header[-1] == "return"
    interval = f"{low:.2f} to {high:.2f}"
    assert first == ["runs/a", "rql", "paper", "maze-task1-v0", "3", "500", "0.50", interval, "10", "20", "-15.5"]
    assert second[:6] == ["runs/b", "old", "-", "unknown", "-", "-"]


def test_means_are_over_seeds_and_each_task_counts_alike() -> None:
    evaluations = [
        *(evaluation(successes, environment="one", training_seed=seed) for seed, successes in enumerate((2, 4, 6))),
        evaluation(10, environment="two"),
        evaluation(1, environment="one", algorithm="bc_flow"),
    ]
    one, two, both, other = means_over_seeds(evaluations)
    assert (one.task, one.seeds, one.success) == ("one", 3, pytest.approx(0.4))
    assert one.interval == mean_interval({"one": [SeedScore(rate, 10) for rate in (0.2, 0.4, 0.6)]})
    assert (two.task, two.seeds, two.success) == ("two", 1, 1.0)
    assert (both.task, both.tasks, both.seeds, both.success) == (None, 2, 3, pytest.approx(0.7))
    assert (other.algorithm, other.task, other.success) == ("bc_flow", "one", pytest.approx(0.1))
    lines = mean_table([one, two, both, other]).splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("mean of 2 tasks  rql")
    assert "seeds and episodes" in lines[1]
    assert lines[2].endswith("episodes")


def test_success_against_ways_of_acting_is_a_mean_over_seeds_with_their_interval() -> None:
    evaluations = [
        *(evaluation(successes, samples=1, training_seed=seed) for seed, successes in enumerate((2, 4))),
        evaluation(9, samples=4),
        Evaluation("old", "ros", evaluation(0).records),
    ]
    first, second = acting_points(evaluations)
    assert (first.samples, first.seeds, first.episodes, first.success) == (1, 2, 20, pytest.approx(0.3))
    interval = mean_interval({"maze": [SeedScore(0.2, 10), SeedScore(0.4, 10)]})
    assert interval is not None
    assert (first.low, first.high) == (interval.low, interval.high)
    assert (second.samples, second.seeds, second.episodes, second.success) == (4, 1, 10, pytest.approx(0.9))
    # One seed says nothing of others: what is left are its episodes.
    assert (second.low, second.high) == pytest.approx(wilson_interval(9, 10))
    header, *rows = cells(acting_table([first, second]))
    assert [cell.strip() for cell in header[:5]] == ["algorithm", "form", "samples", "rho", "flow steps"]
    assert [row[2].strip() for row in rows] == ["1", "4"]


@pytest.mark.parametrize(
    ("samples", "steps", "panels"), [((1, 4, 16), (10,), 1), ((1,), (1, 5), 1), ((1, 4), (1, 5), 2)]
)
def test_the_picture_has_a_panel_for_each_thing_that_was_varied(
    tmp_path: Path, samples: tuple[int, ...], steps: tuple[int, ...], panels: int
) -> None:
    from PIL import Image

    points = acting_points([evaluation(5, samples=n, flow_steps=f) for n in samples for f in steps])
    plot_acting(points, tmp_path / "new" / "acting.png")
    with Image.open(tmp_path / "new" / "acting.png") as picture:
        assert picture.size == (660 * panels, 440)
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 2  # something was drawn


def test_rates_of_0_and_1_can_be_drawn(tmp_path: Path) -> None:
    points = acting_points([evaluation(successes, samples=n) for n, successes in ((1, 0), (2, 10))])
    plot_acting([replace(points[0], low=1e-17), points[1]], tmp_path / "acting.png")
    assert (tmp_path / "acting.png").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/acting\.png: cannot be written"):
        plot_acting(acting_points([evaluation(5)]), tmp_path / "file" / "acting.png")


def test_columns_line_up() -> None:
    assert (
        format_table(("name", "n"), [("a", "100"), ("longer", "2")], left=1) == "name      n\na       100\nlonger    2"
    )
