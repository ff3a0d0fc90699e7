"""A file is there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rql_core.errors import OutputError
from rql_core.whole_files import write_whole


def test_directories_are_made_and_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    for content in ("first\n", "zweite größer\n", b"\x00third"):
        write_whole(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(path.parent) == ["file.json"]


def test_what_was_there_stays_where_the_new_one_could_not_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    write_whole(path, "whole")

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=r"file\.json: cannot be written: No space left on device"):
        write_whole(path, "another")
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("page.html", "folder/page.html"):
        with pytest.raises(OutputError, match=rf"file/{name}: cannot be written: Not a directory; name another place"):
            write_whole(tmp_path / "file" / name, "content")
