"""Training configurations as YAML files (config/train/*.yaml), and changes to single settings of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rql_core.errors import ConfigError
from rql_core.strict_yaml import MAX_BYTES, StrictYamlError, parse_mapping
from rql_core.training.config import TrainConfig

# What stands for the task's number in an environment's name.
TASK = "{task}"


def load_train_config(
    path: Path, overrides: Mapping[str, Any] | None = None, *, task: int | None = None
) -> TrainConfig:
    """The configuration in file `path`, with the `overrides` that are not None in place of the file's values.

    A key with dots (`algorithm.alpha`) names a setting inside another. `task` goes into the environment's name. Raises
    ConfigError that names the file, the key, its value and what was expected.
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
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(data, key, value)
    _put_task(path, data, task)
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where} = {str(first['input'])[:80]!r}: {first['msg']}") from None


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Settings such as `algorithm.alpha=3`, by key, with their values as YAML reads them."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"the setting {setting!r} is no KEY=VALUE, such as algorithm.alpha=3")
        if key in parsed:
            raise ConfigError(f"the setting {key!r} is given twice")
        try:
            parsed[key] = parse_mapping(f"value: {text}")["value"]
        except StrictYamlError as error:
            raise ConfigError(f"the setting {setting!r}: {error}") from None
    return parsed


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"the setting {key!r} is inside {name!r}, which is {inner!r} and has no settings")
        data = inner
    data[last] = value


def _put_task(path: Path, data: dict[str, Any], task: int | None) -> None:
    environment = data.get("environment")
    if isinstance(environment, str) and TASK in environment:
        if task is None:
            raise ConfigError(f"{path}: environment is {environment}, and no task is given: add --task 1 (to 5)")
        if not 1 <= task <= 5:
            raise ConfigError(f"task is {task}, expected 1 to 5")
        data["environment"] = environment.replace(TASK, str(task))
    elif task is not None:
        raise ConfigError(f"{path}: task is {task}, but its environment ({environment}) has no tasks to choose from")
