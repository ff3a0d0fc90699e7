"""`rql compare` from run directories to table, remarks and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import learning, records, write_run

from rql_core.commands.compare import Compare
from rql_core.errors import ConfigError, OutputError
from rql_core.evaluation.comparison import Comparison, compare
from rql_core.evaluation.comparison_table import as_markdown, as_text, show_seconds, tables
from rql_core.evaluation.grouping import make_groups
from rql_core.evaluation.results import wilson_interval
from rql_core.evaluation.runs import find_runs, read_run
from rql_core.evaluation.statistics import SeedScore, mean_interval, paired_test

QC = {"algorithm": "qc", "form": "corrected", "kappa": 0.9}
RQL_SUCCESSES, QC_SUCCESSES = (45, 48, 50), (30, 20, 25)


def comparison_of(directory: Path, baseline: str | None = None, at: int | None = None) -> Comparison:
    return compare(make_groups([(read_run(path), None) for path in find_runs([directory])]), baseline, at)


def write_two_groups(directory: Path, task: str = "puzzle-task1") -> Path:
    """Three seeds of each of two algorithms on a task."""
    for seed, (ours, theirs) in enumerate(zip(RQL_SUCCESSES, QC_SUCCESSES, strict=True)):
        write_run(directory / f"rql-{task}-{seed}", seed=seed, rates=(0.1, ours / 50), environment=task)
        write_run(directory / f"qc-{task}-{seed}", seed=seed, algorithm=QC, rates=(0.1, theirs / 50), environment=task)
    return directory


def test_the_numbers_are_those_of_the_statistics(tmp_path: Path) -> None:
    comparison = comparison_of(write_two_groups(tmp_path), baseline="qc")
    baseline, row = comparison.rows
    rql, qc = ([SeedScore(count / 50, 50) for count in counts] for counts in (RQL_SUCCESSES, QC_SUCCESSES))
    assert (baseline.group, row.group, row.task) == ("qc", "rql", "puzzle-task1")
    assert row.mean == pytest.approx(143 / 150)
    assert row.interval == mean_interval({"": rql})
    assert row.test == paired_test({"": list(zip(rql, qc, strict=True))})
    assert (row.rates, row.episodes, row.updates, row.seconds) == ([0.9, 0.96, 1.0], 150, (2000, 2000), 200)
    assert (row.iqm, row.improvement) == (pytest.approx(143 / 150), 1)
    assert (baseline.test, baseline.improvement) == (None, None)
    assert comparison.remarks == ()
    assert [setting.name for setting in comparison.settings] == ["algorithm"]


def test_all_tasks_together_are_those_that_every_group_has(tmp_path: Path) -> None:
    for task in ("task1", "task2"):
        write_two_groups(tmp_path, task)
    write_run(tmp_path / "more", environment="task3", rates=(0.0,), updates=2000)
    comparison = comparison_of(tmp_path, baseline="qc")
    assert comparison.sections == [None, "task1", "task2", "task3"]
    total = comparison.of_task(None)[1]
    assert total.mean == pytest.approx(143 / 150)
    assert total.test is not None
    assert total.test.pairs == 6
    assert [row.group for row in comparison.of_task("task3")] == ["rql"]
    assert comparison.of_task("task3")[0].test is None
    assert "Not every group was evaluated on task3: all tasks together means the others." in comparison.remarks
    assert "rql: qc lacks seed 0 on a task, which so has no part in the difference." in comparison.remarks


def test_pairs_are_of_the_same_seed_whatever_the_order(tmp_path: Path) -> None:
    """Seeds 1 and 2 are in both; their differences are 0 and .2, not those of the order of files."""
    for seed, rate in ((2, 0.9), (1, 0.5), (7, 0.0)):
        write_run(tmp_path / f"a{9 - seed}", seed=seed, rates=(rate,))
    for seed, rate in ((1, 0.5), (2, 0.7), (3, 1.0)):
        write_run(tmp_path / f"b{seed}", seed=seed, rates=(rate,), algorithm=QC)
    test = comparison_of(tmp_path, "qc").rows[1].test
    assert test is not None
    assert (test.pairs, test.difference) == (2, pytest.approx(0.1))


def test_at_compares_after_the_same_updates(tmp_path: Path) -> None:
    write_run(tmp_path / "a", rates=(0.1, 0.4, 0.9), evaluation=records(50, 50))
    write_run(tmp_path / "b", rates=(0.2, 0.3), updates=3000, seed=1)
    first, late = comparison_of(tmp_path, at=2000), comparison_of(tmp_path, at=3000)
    assert first.rows[0].rates == [0.4, 0.3]
    assert first.rows[0].updates == (2000, 2000)
    assert first.remarks == ()
    assert late.rows[0].rates == [0.9]
    assert late.remarks[0] == f"{tmp_path / 'b'} has no evaluation after 3,000 updates and is left out of the table."
    with pytest.raises(ConfigError, match=r"^at is 2500, but no run has .* updates; there are some from 1000 to 3000$"):
        comparison_of(tmp_path, at=2500)


def test_a_baseline_that_is_no_group_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^baseline is 'QC', expected one of the groups: qc, rql$"):
        comparison_of(write_two_groups(tmp_path), baseline="QC")


# What a reader must know


def remarks(directory: Path, **options: Any) -> str:
    return "\n".join(comparison_of(directory, **options).remarks)


def test_runs_that_are_not_finished_or_not_evaluated_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "half", rates=(0.1, 0.2), updates=4000)
    write_run(tmp_path / "none", rates=(), updates=4000, seed=1)
    said = remarks(tmp_path)
    assert f"{tmp_path / 'half'} (2,000 of 4,000 updates), {tmp_path / 'none'} (0 of 4,000 updates)." in said
    assert said.startswith("2 runs are not finished and count as they are: ")
    assert f"{tmp_path / 'none'} has no evaluation and is left out of the table." in said
    assert "One seed alone says nothing of how others would do: rql." in said


def test_of_many_runs_the_first_few_are_named(tmp_path: Path) -> None:
    for seed in range(9):
        write_run(tmp_path / f"{seed}", seed=seed, rates=(0.1,), updates=2000)
    assert "9 runs are not finished" in remarks(tmp_path)
    assert f"{tmp_path / '3'} (1,000 of 2,000 updates) and 5 more." in remarks(tmp_path)


def test_seeds_with_different_numbers_of_updates_are_told(tmp_path: Path) -> None:
    for seed, rates in enumerate(((0.1, 0.2), (0.1,))):
        write_run(tmp_path / f"{seed}", seed=seed, rates=rates, updates=1000)
    assert remarks(tmp_path) == "rql: seeds had different numbers of updates, 1,000 to 2,000."


def test_evaluations_that_are_not_alike_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, evaluation=records(3, 5, samples=1, step=3000))
    write_run(tmp_path / "b", seed=1, evaluation=records(3, 5, samples=32, step=2000))
    write_run(tmp_path / "c", seed=2, episodes=None)
    said = remarks(tmp_path)
    assert f"{tmp_path / 'b'} went on after its last evaluation (evaluated after 2,000, trained for 3,000)." in said
    assert "(evaluation.json: 2, metrics.jsonl: 1)" in said
    assert "Evaluations were not run alike: samples differs (1: rql; 32: rql)." in said
    assert "Some evaluations do not say how many episodes they had" in said


# Table


def test_the_table_says_what_there_is_and_leaves_out_what_there_is_not(tmp_path: Path) -> None:
    text = as_text(comparison_of(write_two_groups(tmp_path), baseline="qc"))
    title, head, qc, rql = text.splitlines()
    assert title == "puzzle-task1"
    assert " ".join(head.split()) == "group success IQM seeds difference p better episodes updates time"
    assert qc.startswith("qc     0.50 (0.")
    assert "  baseline  " in qc
    assert "  0.90 0.96 1.00  +0.45 (+0." in rql
    assert "  0.250 (3 pairs, least possible 0.250)  1.00    150       2,000    3.3 min" in rql
    alone = as_text(comparison_of(tmp_path))
    assert "difference" not in alone
    assert "better" not in alone


def test_a_group_without_an_evaluation_is_in_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "run", rates=(), updates=10, losses=False)
    (table,) = tables(comparison_of(tmp_path))
    assert (table.title, table.columns, table.rows) == (
        "unknown task",
        ("group", "success", "updates"),
        (("rql", "no evaluation", "0"),),
    )


def test_many_seeds_are_told_by_their_range(tmp_path: Path) -> None:
    for seed in range(9):
        write_run(tmp_path / f"{seed}", seed=seed, rates=(seed / 10,))
    assert "  9 from 0.00 to 0.80  " in as_text(comparison_of(tmp_path))


def test_a_single_seed_has_the_interval_that_rql_evaluate_prints(tmp_path: Path) -> None:
    write_run(tmp_path / "run", rates=(0.9,))
    low, high = wilson_interval(45, 50)
    assert f"0.90 ({low:.2f} to {high:.2f})" in as_text(comparison_of(tmp_path))


def test_markdown_has_the_same_cells_and_the_remarks(tmp_path: Path) -> None:
    write_two_groups(tmp_path, task="a_b|c")
    write_run(tmp_path / "x", seed=5, environment="a_b|c", rates=(0.5,), updates=2000)
    lines = as_markdown(comparison_of(tmp_path, "qc")).splitlines()
    assert lines[0] == r"**a\_b\|c**"
    assert lines[2].startswith("| group | success | IQM |")
    assert set(lines[3]) == set("|- ")
    assert len({line.count(" | ") for line in lines[2:6]}) == 1
    assert lines[7].startswith("- ")


@pytest.mark.parametrize(("seconds", "shown"), [(59, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_durations_are_in_the_unit_that_suits_them(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown


# The command


def test_the_command_writes_page_json_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write_two_groups(tmp_path / "runs")
    write_run(tmp_path / "runs" / "unfinished", seed=8, environment="puzzle-task1", rates=(0.1,), updates=2000)
    out = tmp_path / "out"
    paths = [out / "compare.html", out / "compare.json", out / "compare.md"]
    Compare((runs,), baseline="qc", out=paths[0], json=paths[1], markdown=paths[2]).run()
    captured = capsys.readouterr()
    comparison = comparison_of(runs, "qc")
    assert captured.out == as_text(comparison) + "\n"
    assert captured.err.splitlines() == [f"note: {remark}" for remark in comparison.remarks]
    assert sorted(out.iterdir()) == paths
    assert paths[2].read_text() == as_markdown(comparison)
    content = json.loads(paths[1].read_text())
    assert content["baseline"] == "qc"
    row = content["rows"][1]
    assert (row["group"], row["test"]["pairs"], row["test"]["smallest_p"]) == ("rql", 3, 0.25)
    assert row["scores"]["puzzle-task1"]["0"] == {"rate": 0.9, "episodes": 50}
    assert content["settings"] == {"algorithm": {"qc": "qc", "rql": "rql"}}
    assert [run["step"] for run in content["runs"]] == [2000] * 6 + [1000]
    assert content["remarks"] == list(comparison.remarks)


def test_groups_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_groups(tmp_path)
    Compare((tmp_path,), group=(f"mine={tmp_path}/rql-*",), baseline="mine").run()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["mine", "qc"]


def test_no_runs_and_a_place_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no run is given: name run directories"):
        Compare().run()
    write_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/page\.html: cannot be written"):
        Compare((tmp_path / "run",), out=tmp_path / "file" / "page.html").run()


def test_comparing_does_not_import_torch(tmp_path: Path) -> None:
    """It would take seconds, and a laptop that only looks at results need not have it."""
    write_two_groups(tmp_path)
    code = (
        "import sys; from pathlib import Path; from rql_core.commands.compare import Compare;"
        "Compare((Path(sys.argv[1]),), baseline='qc', out=Path(sys.argv[1]) / 'page.html').run();"
        "assert 'torch' not in sys.modules; assert 'matplotlib' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_hundreds_of_runs_are_compared(tmp_path: Path) -> None:
    for kappa in (0.1, 0.3, 0.5, 0.9):
        for task in ("task1", "task2", "task3", "task4", "task5"):
            for seed in range(10):
                write_run(
                    tmp_path / f"{kappa}-{task}-{seed}",
                    seed=seed,
                    environment=task,
                    algorithm={"algorithm": "rql", "kappa": kappa},
                    rates=learning(kappa, 3, seed),
                )
    comparison = comparison_of(tmp_path, "rql kappa=0.5")
    assert len(comparison.rows) == 4 * 6
    best = comparison.of_task(None)[3]
    assert (best.group, len(best.rates), best.episodes) == ("rql kappa=0.9", 50, 2500)
    assert best.test is not None
    assert (best.test.pairs, best.test.exact) == (50, False)
    assert best.test.p == pytest.approx(2 / 10_000)  # the smallest of 9,999 random patterns and the one there was
    assert best.improvement == 1


# What training writes


def test_runs_that_were_trained_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "training"))
    from small_runs import DATA, small_config

    from rql_core.training import train

    for seed in (0, 1):
        scores = {
            "success_rate": 0.25 + seed / 2,
            "success_low": 0.1,
            "success_high": 0.9,
            "episodes": 8,
            "mean_steps": 9,
        }
        config = small_config(seed=seed, updates=8, evaluate_every=4)
        train(DATA, config, tmp_path / f"run{seed}", evaluate=lambda policy, found=scores: found, progress=False)
    comparison = comparison_of(tmp_path)
    (row,) = comparison.rows
    assert (row.group, row.rates, row.episodes, row.updates) == ("rql", [0.25, 0.75], 16, (8, 8))
    assert comparison.remarks == ()
    run = comparison.groups[0].runs[0]
    assert [point.step for point in run.curve] == [4, 8]
    assert {"critic_loss", "flow_loss", "value"} <= run.curves.keys()
    assert run.settings["algorithm.critics"] == 2
