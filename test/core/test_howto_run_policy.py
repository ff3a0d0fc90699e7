"""The pages about running a policy name what there is: arguments, parameters, services, files, messages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto_run_policy.md"
PAGES = (PAGE, ROOT / "docs" / "security_sros2.md", ROOT / "SECURITY.md", ROOT / "README.md")
CONFIG = ROOT / "config" / "policy.yaml"
LIVE = {"checkpoint"}  # which the file leaves to the launch file


def arguments(launch_file: str) -> set[str]:
    """Names of the arguments that a launch file declares."""
    calls = list(ast.walk(ast.parse((ROOT / "launch" / launch_file).read_text())))
    return {
        str(ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "argument"
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_launch_command_has_arguments_that_are_declared(page: Path) -> None:
    for name, rest in re.findall(r"ros2 launch rql_ros (\w+\.launch\.py)([^\n`]*)", page.read_text()):
        assert set(re.findall(r"(\w+):=", rest)) <= arguments(name), rest


def test_every_parameter_that_is_set_can_be_set_while_the_node_runs() -> None:
    text = CONFIG.read_text()
    live = {line.split(":")[0].strip() for line in text.splitlines() if "# * " in line} | LIVE
    declared = set(yaml.safe_load(text)["/**"]["policy_node"]["ros__parameters"])
    found = re.findall(r"ros2 param set /policy_node (\w+) \S+\n(.*)", PAGE.read_text())
    assert len(found) >= 6
    for name, answer in found:
        assert name in live or "read-only" in answer, name
        assert name in declared | LIVE, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_service_and_every_message_is_one_of_the_nodes(page: Path) -> None:
    served = set(re.findall(r'\("(\w+)", self\._\w+\)', (ROOT / "rql_ros" / "policy_node.py").read_text())) | {"reset"}
    assert served == {"reset", "rearm", "estop", "run", "reload"}
    assert set(re.findall(r"ros2 service call /policy_node/(\w+)", page.read_text())) <= served


def test_the_messages_in_the_table_are_in_the_code() -> None:
    code = "".join(
        path.read_text() for folder in ("rql_core/runtime", "rql_ros") for path in sorted((ROOT / folder).glob("*.py"))
    )
    rows = re.findall(r"^\| (`.*?) \| (?:ok|warn|error) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 9
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            for part in re.split(r"\.\.\.|: |but ", message):
                words = part.strip(" ;,")
                assert words in code, message


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_leads_to_the_pages() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in (
        "docs/howto_run_policy.md",
        "docs/security_sros2.md",
        "docs/chunks.md",
        "docs/safety.md",
        "SECURITY.md",
    ):
        assert f"({page})" in readme
