"""The contract's schema and its reference page say what the code says, and all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rql_core.cli import main
from rql_core.contract.expression import FUNCTIONS
from rql_core.contract.json_schema import DESCRIPTIONS, contract_schema
from rql_core.contract.reference import reference_page
from rql_core.contract.schema import Contract
from rql_core.strict_yaml import parse_mapping

ROOT = Path(__file__).parents[3]
CONTRACTS = sorted((ROOT / "config" / "contracts").glob("*.yaml"))


def models() -> dict[str, Any]:
    schema = contract_schema()
    return {"Contract": schema, **schema["$defs"]}


def test_every_key_has_a_description_and_every_model_says_what_it_is() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, model in models().items()
        for key, part in model.get("properties", {}).items()
        if not part.get("description")
    ]
    assert undescribed == []
    assert [name for name, model in models().items() if not model.get("description")] == []


def test_descriptions_of_keys_that_are_gone_do_not_stay() -> None:
    there = {key for model in models().values() for key in model.get("properties", {})}
    qualified = {f"{name}.{key}" for name, model in models().items() for key in model.get("properties", {})}
    # "end" and "seconds" are keys of ways to cut episodes.
    assert set(DESCRIPTIONS) - there - qualified <= {"end", "seconds"}


def test_the_schema_is_json_and_refuses_unknown_keys_everywhere() -> None:
    schema = json.loads(json.dumps(contract_schema()))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert [name for name, model in models().items() if model.get("additionalProperties") is not False] == []
    assert "schema" in schema["required"]


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_the_shipped_contracts_have_only_keys_of_the_schema_and_all_required_ones(path: Path) -> None:
    schema = contract_schema()

    def fits(data: Any, part: dict[str, Any]) -> bool:
        if "$ref" in part:
            return fits(data, schema["$defs"][part["$ref"].rpartition("/")[2]])
        for union in ("anyOf", "oneOf"):
            if union in part:
                return any(fits(data, each) for each in part[union])
        if isinstance(data, dict):
            known = part.get("properties", {})
            whole = set(part.get("required", ())) <= set(data) <= set(known)
            return whole and all(fits(value, known[key]) for key, value in data.items())
        if isinstance(data, list):
            return part.get("type") == "array" and all(fits(value, part["items"]) for value in data)
        if "enum" in part or "const" in part:
            return data in part.get("enum", [part.get("const")])
        kinds: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}
        return isinstance(data, kinds[part["type"]])

    data = parse_mapping(path.read_text())
    assert fits(data, schema)
    assert not fits({**data, "speed": 3}, schema)
    assert not fits({**data, "clock": "sundial"}, schema)
    assert not fits({key: value for key, value in data.items() if key != "reward"}, schema)


def test_the_reference_page_in_the_docs_is_up_to_date() -> None:
    assert (ROOT / "docs" / "contract.md").read_text() == reference_page(), "run `make docs`"


def test_the_reference_page_has_every_model_key_and_function() -> None:
    page = reference_page()
    for name, model in models().items():
        assert f"## {name}\n" in page
        for key in model.get("properties", {}):
            assert f"| `{key}` |" in page[page.index(f"## {name}\n") :]
    for name in FUNCTIONS:
        assert f"- `{name}`: " in page
    # A table's row is one line, and a link leads to a heading.
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_the_commands_give_the_schema_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == contract_schema()
    assert main(["contract", "schema", "--out", str(tmp_path / "contract.schema.json")]) == 0
    assert json.loads((tmp_path / "contract.schema.json").read_text()) == contract_schema()
    assert main(["contract", "docs", "--out", str(tmp_path / "contract.md")]) == 0
    assert (tmp_path / "contract.md").read_text() == reference_page()
    assert Contract.__doc__ is not None
    assert Contract.__doc__ in reference_page()
