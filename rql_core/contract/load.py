"""Contract files: read safely, refuse what is not understood, say where and what to do."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rql_core.contract.schema import Contract
from rql_core.errors import ContractError

# A contract of a hundred topics has some 30 kB; a file past 1 MB is a mistake or an attack.
MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses doubled keys and aliases (which YAML bombs are made of)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise ContractError(f"line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise ContractError(f"line {key_node.start_mark.line + 1}: key {key!r} is there twice or is no name")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_contract(text: str, source: str = "contract") -> Contract:
    """The contract that `text` (YAML) says.

    Raises ContractError with `source`, the key, its value and what was expected.
    """
    if len(text) > MAX_BYTES:
        raise ContractError(f"{source}: {len(text)} characters, expected at most {MAX_BYTES}")
    try:
        data = yaml.load(text, Loader=_Loader)
    except ContractError as error:
        raise ContractError(f"{source}: {error}") from None
    except RecursionError:
        raise ContractError(f"{source}: nested too deeply") from None
    except yaml.YAMLError as error:
        raise ContractError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ContractError(f"{source}: expected a mapping of keys at the top, found {type(data).__name__}")
    try:
        return Contract.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"{source}: {_first_errors(error)}") from None


def load_contract(path: Path | str) -> Contract:
    """The contract in file `path`; raises ContractError that names the file."""
    return parse_contract(read_contract_text(path), str(path))


def read_contract_text(path: Path | str) -> str:
    """The text of a contract file, of sane size; raises ContractError that names the file."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ContractError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None


def _first_errors(error: ValidationError, limit: int = 3) -> str:
    """Up to `limit` of pydantic's errors in one line, each with its key, value and what was expected."""
    parts = []
    for detail in error.errors(include_url=False)[:limit]:
        where = ".".join(str(part) for part in detail["loc"]) or "contract"
        if detail["type"] == "extra_forbidden":
            parts.append(f"unknown key {where!r}; remove it or correct its spelling")
        elif detail["type"] == "missing":
            parts.append(f"key {where!r} is missing")
        elif detail["type"] == "value_error":
            parts.append(f"{where}: {detail['msg'].removeprefix('Value error, ')}")
        else:
            parts.append(f"{where} = {str(detail['input'])[:80]!r}: {detail['msg']}")
    more = error.error_count() - limit
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
