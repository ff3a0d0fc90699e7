"""Training configurations as YAML files (config/train/*.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rql_core.errors import ConfigError
from rql_core.strict_yaml import MAX_BYTES, StrictYamlError, parse_mapping
from rql_core.training.config import TrainConfig


def load_train_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration in file `path`, with the `overrides` that are not None in place of the file's values.

    Raises ConfigError that names the file, the key, its value and what was expected.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        data = parse_mapping(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except StrictYamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    data |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where} = {str(first['input'])[:80]!r}: {first['msg']}") from None
