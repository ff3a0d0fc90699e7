"""Contract files: read safely, refuse what is not understood, say where and what to do."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rql_core.contract.schema import Contract
from rql_core.errors import ContractError
from rql_core.strict_yaml import MAX_BYTES, StrictYamlError, parse_mapping


def parse_contract(text: str, source: str = "contract") -> Contract:
    """The contract that `text` (YAML) says.

    Raises ContractError with `source`, the key, its value and what was expected.
    """
    try:
        data = parse_mapping(text)
    except StrictYamlError as error:
        raise ContractError(f"{source}: {error}") from None
    try:
        return Contract.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"{source}: {_first_errors(error)}") from None


def load_contract(path: Path | str) -> Contract:
    """The contract in file `path`; raises ContractError that names the file."""
    return parse_contract(read_contract_text(path), str(path))


def definition_paths(contract: Contract, path: Path | str) -> list[Path]:
    """The .msg files and directories of `message_definitions`, for the contract in file `path`.

    Raises ContractError for one that is not there. They are needed to read bags; a policy that runs does without.
    """
    found = [Path(path).parent / given for given in contract.message_definitions]
    for file, given in zip(found, contract.message_definitions, strict=True):
        if not file.exists():
            raise ContractError(
                f"{path}: message_definitions: {given!r} is not there (looked at {file}); "
                "name a .msg file or directory relative to the contract"
            )
    return found


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
