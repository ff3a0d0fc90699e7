"""The page of a comparison: one file that needs nothing else, with what the reader came for."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_runs import learning, write_run

from rql_core.evaluation.comparison import Comparison, compare
from rql_core.evaluation.comparison_page import comparison_page
from rql_core.evaluation.comparison_table import tables
from rql_core.evaluation.curve_pictures import metric_curves, success_curves
from rql_core.evaluation.grouping import make_groups
from rql_core.evaluation.runs import find_runs, read_run

QC = {"algorithm": "qc", "form": "corrected", "kappa": 0.7}
# Elements that have no end.
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def comparison_of(directory: Path, baseline: str | None = None, at: int | None = None) -> Comparison:
    return compare(make_groups([(read_run(path), None) for path in find_runs([directory])]), baseline, at)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of two algorithms on two tasks, and one run that stopped early."""
    for task in ("task1", "task2"):
        for seed in range(3):
            write_run(tmp_path / f"rql-{task}-{seed}", seed=seed, environment=task, rates=learning(0.9, 8, seed))
            write_run(
                tmp_path / f"qc-{task}-{seed}",
                seed=seed,
                environment=task,
                algorithm=QC,
                rates=learning(0.5, 8, 10 + seed)[: 4 if (task, seed) == ("task2", 2) else 8],
                updates=8000,
            )
    return tmp_path


def test_the_page_needs_nothing_else(runs: Path) -> None:
    html = comparison_page(comparison_of(runs, "qc"))
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert not {"src", "href", "srcset", "data"} & {name for name, _ in page.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "//" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert ("name", "viewport") in page.attributes


def test_the_page_has_table_curves_metrics_settings_remarks_and_their_meaning(runs: Path) -> None:
    comparison = comparison_of(runs, "qc")
    page = Page(comparison_page(comparison))
    for table in tables(comparison):
        for row in table.rows:
            for cell in row:
                assert cell in page.text
    assert all(remark in page.text for remark in comparison.remarks)
    assert len(comparison.remarks) == 2
    assert all(setting.name in page.text for setting in comparison.settings)
    # Three pictures of success, two learning curves, three metrics of two tasks, and swatches.
    assert [value for name, value in page.attributes if name == "class"].count("plot") == 3 + 2 + 2 * 3
    for words in (
        "12 runs in 2 groups on 2 tasks, 3 seeds each",
        "the baseline is qc",
        "bootstrap",
        "sign-flip",
        "Wilson",
    ):
        assert words in page.text
    assert all(str(run.path) in page.text for group in comparison.groups for run in group.runs)


def test_without_a_baseline_nothing_is_said_of_one(runs: Path) -> None:
    page = Page(comparison_page(comparison_of(runs, at=4000)))
    assert "the baseline is" not in page.text
    assert "Difference" not in page.text
    assert "sign-flip" not in page.text
    assert "Compared after 4,000 updates." in page.text


def test_more_comparisons_than_one_are_warned_of(runs: Path) -> None:
    assert "p is not adjusted" not in comparison_page(comparison_of(runs, "qc"))
    write_run(runs / "other", algorithm={"algorithm": "bc_flow"}, environment="task1")
    assert "There are 2 such comparisons for each task, and p is not adjusted" in comparison_page(
        comparison_of(runs, "qc")
    )


def test_names_from_files_cannot_change_the_page(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>&"
    for seed, name in enumerate((bad, "b")):
        write_run(tmp_path / str(seed), environment=bad, algorithm={"algorithm": name, bad: 1}, rates=(0.5, 0.5))
        metrics = tmp_path / str(seed) / "metrics.jsonl"
        metrics.write_text(metrics.read_text().replace("critic_loss", bad.replace('"', "")))
    page = Page(comparison_page(comparison_of(tmp_path, bad)))
    assert "script" not in page.tags
    assert bad in page.text


def test_runs_without_anything_still_make_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run", rates=(), updates=10, losses=False)
    page = Page(comparison_page(comparison_of(tmp_path)))
    assert "no evaluation" in page.text
    assert "Learning curves" not in page.text
    assert "Losses and values" not in page.text
    assert "The runs differ in nothing but seed and task." in page.text


def test_a_mean_ends_where_a_seed_ends_and_the_seeds_go_on(runs: Path) -> None:
    """qc on task 2: two seeds have 8 evaluations and one has 4."""
    first, second = success_curves(comparison_of(runs))
    assert (first.title, second.title) == ("task1", "task2")

    def lengths(svg: str, kind: str) -> list[int]:
        return [path.count("L") + 1 for path in re.findall(rf'class="{kind}" d="([^"]+)"', svg)]

    assert lengths(first.svg, "line") == [8, 8]
    assert lengths(second.svg, "line") == [4, 8]
    assert sorted(lengths(second.svg, "thin")) == [4, 8, 8, 8, 8, 8]
    assert lengths(second.svg, "band") == [2 * 4, 2 * 8]


def test_thin_lines_are_left_out_where_they_are_too_many(tmp_path: Path) -> None:
    for seed in range(61):
        write_run(tmp_path / str(seed), seed=seed, rates=learning(0.5, 3, seed), losses=False)
    (picture,) = success_curves(comparison_of(tmp_path))
    assert 'class="thin"' not in picture.svg
    assert 'class="band"' in picture.svg


def test_metrics_are_means_over_seeds_and_long_ones_are_thinned(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path / str(seed), seed=seed, rates=(0.5,), every=100_000)
        rows = "".join(f'{{"step": {step}, "loss": {1 + 2 * seed}}}\n' for step in range(100, 100_001, 100))
        (path / "metrics.jsonl").write_text(rows)
    (picture,) = metric_curves(comparison_of(tmp_path), "unknown task")
    assert picture.title == "loss"
    line = re.findall(r'class="line" d="M([^"]+)"', picture.svg)[0].split("L")
    assert len(line) == 120
    heights = {float(point.split(",")[1]) for point in line}
    assert len(heights) == 1
    label = re.findall(r'y="([\d.]+)">2<', picture.svg)
    assert float(label[0]) == pytest.approx(heights.pop() + 4, abs=0.1)  # 2 is the mean of 1 and 3
