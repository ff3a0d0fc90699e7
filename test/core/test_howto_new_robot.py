"""The page about a new robot does what it says, from the first command to the last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_pages import ROOT, Page, PageError, commands, edit, matches

from rql_core.data.minari_io import load_dataset

PAGE = ROOT / "docs" / "howto_new_robot.md"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page, followed to its end."""
    directory = tmp_path_factory.mktemp("new robot") / "work"
    page = Page(PAGE, directory, directory / "my_robot.yaml")
    page.run()
    return page


def test_everything_on_the_page_is_as_it_says(done: Page) -> None:
    assert [command.split()[:2] for command in done.commands] == [
        ["python", "rql_ros/test/core/bags/unseen_robot.py"],
        ["rql", "inspect"],
        ["rql", "contract"],
        ["rql", "convert"],
        ["rql", "convert"],
    ]
    assert done.edits == PAGE.read_text().count("```diff") > 5


def test_the_dataset_at_the_end_has_the_runs_that_were_recorded(done: Page) -> None:
    data = load_dataset(done.directory / "datasets" / "my_robot-v0")[0]
    assert (len(data.lengths), data.observation_dim, data.action_dim) == (3, 18, 2)
    assert data.masks.sum() == len(data.masks) - 3
    first, last = data.observations[[0, -1]]
    dock = slice(14, 16)
    assert np.hypot(*first[dock]) > 5
    assert 0.4 < np.hypot(*last[dock]) < 0.5


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/howto_new_robot.md)" in (ROOT / "README.md").read_text()


# What keeps the page honest


def test_a_line_that_differs_is_found_and_sizes_are_not() -> None:
    assert matches(["bag, 738 kB", "...", "end"], ["bag, 74 MB", "a", "b", "end", ""])
    assert matches(["...", "end"], ["end"])
    for printed in (["bag, 738 kB", "a", "end", "more"], ["bag, 738 kB", "ends"], ["bar, 738 kB", "end"], []):
        assert not matches(["bag, 738 kB", "...", "end"], printed)
    assert not matches(["a.c"], ["abc"])


def test_an_edit_needs_its_lines_in_the_file_once() -> None:
    assert edit("a: 1\nb: 2\n", " a: 1\n-b: 2\n+b: 3\n") == "a: 1\nb: 3\n"
    for text in ("b: 1\n", "b: 2\nb: 2\n", "ab: 2\n"):
        with pytest.raises(PageError, match="not in the file once"):
            edit(text, "-b: 2\n+b: 3\n")


def test_commands_go_over_several_lines_and_have_what_they_print() -> None:
    assert commands("$ one \\\n    two\nout\n$ three\n") == [("one two", ["out"]), ("three", [])]
    with pytest.raises(PageError, match="expected a command"):
        commands("out\n$ one\n")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "prints\none"),
        ("```console\n$ false\n```\n", "exits with 1"),
        ("```console\n$ echo fine\nerror: not\n```\n", "exits with 0"),
        ("```console\n$ true\n```\n```\n", "without a beginning or an end"),
        ("```yaml\nb: 2\n```\n", "has not:\nb: 2"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, block: str, said: str) -> None:
    (tmp_path / "page.md").write_text(block)
    (tmp_path / "file.yaml").write_text("a: 1\n")
    with pytest.raises(PageError, match=said):
        Page(tmp_path / "page.md", tmp_path / "work", tmp_path / "file.yaml").run()
