"""Training configurations as YAML files (config/train/*.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rql_core.errors import ConfigError
from rql_core.training.config import TrainConfig

# A configuration has some thirty lines; a file past this is a mistake.
MAX_BYTES = 100_000


def load_train_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration in file `path`, with the `overrides` that are not None in place of the file's values.

    Raises ConfigError that names the file, the key, its value and what was expected.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, found {type(data).__name__}")
    data |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where} = {str(first['input'])[:80]!r}: {first['msg']}") from None
