"""Files that come with the project are found by name, in a checkout and where it was installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rql_core import resources
from rql_core.errors import ConfigError
from rql_core.resources import config_file, share_directories

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_name_is_a_file_of_the_checkout() -> None:
    assert config_file("contracts", "ur5e") == REPOSITORY / "config" / "contracts" / "ur5e.yaml"
    assert config_file("train", "ur5e_rql") == REPOSITORY / "config" / "train" / "ur5e_rql.yaml"


def test_a_path_to_a_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("")
    assert config_file("contracts", str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert config_file("contracts", "mine.yaml") == Path("mine.yaml")
    (tmp_path / "ur5e").mkdir()  # a directory of that name is no contract
    assert config_file("contracts", "ur5e") == REPOSITORY / "config" / "contracts" / "ur5e.yaml"


def test_the_first_ament_prefix_that_has_it_counts_when_there_is_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay, underlay = tmp_path / "overlay", tmp_path / "underlay"
    for prefix, name in ((overlay, "one"), (underlay, "one"), (underlay, "two")):
        folder = prefix / "share" / "rql_ros" / "config" / "contracts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text("")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{overlay}::{underlay}")
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "site-packages" / "rql_core" / "resources.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "usr"))
    assert [path.relative_to(tmp_path).parts[0] for path in share_directories()] == [
        "site-packages",
        "overlay",
        "underlay",
        "venv",
        "usr",
    ]
    assert config_file("contracts", "one").is_relative_to(overlay)
    assert config_file("contracts", "two").is_relative_to(underlay)
    with pytest.raises(ConfigError, match=r"'three' is no file and no name in config/contracts; .* one of one, two$"):
        config_file("contracts", "three")


@pytest.mark.parametrize("name", ["nothing", "", ".", "no/such/file.yaml", "a\0b", "x" * 5000])
def test_a_name_that_is_not_there_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_file("contracts", name)
    message = str(error.value)
    assert message.startswith(repr(name)[:20])
    assert "planar_arm, ur5e" in message
    assert "\n" not in message


def test_a_kind_without_files_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected a path or one of none"):
        config_file("recipes", "cake")
