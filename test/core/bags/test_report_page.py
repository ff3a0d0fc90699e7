"""The report's page is one file that asks nothing from anywhere, says everything, and bears many episodes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic import contract_text, record

from rql_core.bags import ConversionReport, convert
from rql_core.bags.report_page import report_page
from rql_core.bags.report_pictures import Row, episode_rows, group_size, histogram

QUALITY = "quality: {max_gap: 0.2, max_dropped_share: 0.01}\n"
_VOID = {"meta", "br", "link", "img", "input"}


class _Page(HTMLParser):
    """Checks that every element is closed, and gathers what there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    folder = tmp_path_factory.mktemp("page")
    (folder / "contract.yaml").write_text(contract_text(("min_steps: 2", "min_steps: 5")) + QUALITY)
    record(60, (0, 30, 33)).write(folder / "bag <b>&amp;")
    return convert(folder / "bag <b>&amp;", folder / "contract.yaml", folder / "arm-v0", progress=False)


def test_the_page_is_whole_and_asks_nothing_from_anywhere(report: ConversionReport) -> None:
    page = report_page(report)
    parsed = _Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert not any("src" in attributes for _, attributes in parsed.tags)
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    ids = {f"#{attributes['id']}" for _, attributes in parsed.tags if "id" in attributes}
    assert links
    assert set(links) <= ids
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert re.findall(r"https?://\S+", page) == []


def test_the_page_beside_the_dataset_is_that_of_its_report(report: ConversionReport) -> None:
    bag = Path(report.bags[0].path)
    assert (bag.parent / "arm-v0" / "report.html").read_text() == report_page(report)


def test_the_page_names_topics_features_actions_bounds_and_what_was_dropped(report: ConversionReport) -> None:
    text = " ".join(_Page(report_page(report)).text.split())
    for name in ["/joint_states", "/tool_pose", "/command", "tool_position.pose.position.x", "shoulder_joint", "rad/s"]:
        assert name in text
    assert "Past 1 of 2 bounds" in text
    assert "max_dropped_share is 0.03509, its bound is 0.01: steps in dropped episodes" in text
    assert "shorter than min_steps 5, ended by: marker" in text
    assert "bag <b>&amp;" in text  # shown as it is and never as markup
    assert text.count("end of bag") >= 1


def test_without_bounds_the_page_says_that_nothing_was_tested(report: ConversionReport) -> None:
    page = report_page(replace(report, bounds=[], findings=[]))
    assert "No bounds." in page
    assert "Nothing stands out." in page
    kept = [replace(bound, kept=True) for bound in report.bounds]
    assert "Within all 2 bounds" in report_page(replace(report, bounds=kept))


def test_five_hundred_episodes_make_a_page_that_a_browser_opens_at_once(report: ConversionReport) -> None:
    many = replace(report, each_episode=report.each_episode * 250, episodes=500)
    page = report_page(many)
    _Page(page)
    assert len(page) < 1_000_000
    assert page.count('class="touch"') == 500
    # What is long is folded; the pictures and the summaries are not.
    assert "<details><summary>500 episodes</summary>" in page


def test_past_what_can_be_drawn_neighbours_share_a_bar_that_shows_the_worst() -> None:
    values = [1.0] * 2000
    values[777] = 9.0
    bad = [value > 5 for value in values]
    group = group_size(2000)
    picture = episode_rows([Row("pause", "s", values, bad)], [(0, "bag")], [f"episode {i}" for i in range(2000)])
    assert group == 4
    assert picture.count('class="touch"') == 500
    assert picture.count("M", picture.index('class="bad" d="'), picture.index('class="bad" d="') + 60) == 1
    assert group_size(500) == 1


def test_a_row_of_nothing_but_zeros_has_its_line_at_the_bottom_and_one_number() -> None:
    zeros, mixed = Row("stuck", "", [0.0] * 3, [False] * 3), Row("steps", "", [0.0, 2.0, 1.0], [False] * 3)
    picture = episode_rows([zeros, mixed], [], ["a", "b", "c"])
    lines = [float(y) for y in re.findall(r'class="rule" x1="150" x2="1000" y1="([0-9.]+)"', picture)]
    below = [float(y) for y in re.findall(r'class="name" x="0" y="([0-9.]+)"', picture)]
    # Both lines are as far below their row's name.
    assert lines[0] - below[0] == lines[1] - below[1] > 0
    assert re.findall(r'text-anchor="end">([^<]*)<', picture) == ["0", "2", "0"]


def test_rare_values_are_seen_in_a_histogram() -> None:
    heights = [float(y) for y in re.findall(r"V([\d.]+)H", histogram([10_000, 0, 1], "rare"))]
    assert heights == [0.0, 29.0]
