"""Where the files that come with the project are: contracts and presets, in a checkout or installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rql_core.errors import ConfigError

PACKAGE = "rql_ros"


def share_directories() -> list[Path]:
    """Where `config/` may lie, in order: the checkout, each ament prefix, the environment pip installed into."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    prefixes += [Path(sys.prefix), Path(sys.base_prefix)]
    return [Path(__file__).resolve().parents[1], *(prefix / "share" / PACKAGE for prefix in prefixes)]


def config_file(kind: str, name: str) -> Path:
    """The file `config/<kind>/<name>.yaml` that comes with the project, or `name` itself if it is a path to a file.

    Raises ConfigError that lists the names there are.
    """
    if os.path.isfile(name):  # which, unlike Path's, is False too for a name that no file can have
        return Path(name)
    found: set[str] = set()
    for share in share_directories():
        folder = share / "config" / kind
        if os.path.isfile(folder / f"{name}.yaml"):
            return folder / f"{name}.yaml"
        found |= {path.stem for path in folder.glob("*.yaml")}
    raise ConfigError(
        f"{name!r} is no file and no name in config/{kind}; "
        f"expected a path or one of {', '.join(sorted(found)) or 'none'}"
    )
