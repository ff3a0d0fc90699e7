"""Which software makes a dataset what it is: versions, and the hash of this project's own code for it."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

import rql_core

# What reads the bag, decides about the numbers, and writes the file.
_PACKAGES = ("rosbags", "minari", "h5py", "gymnasium", "simpleeval")
_SOURCES = ("contract", "bags")


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """Versions by name. "conversion_code" is a hash of this project's code: a version may lag behind a change."""
    return {
        "rql_core": rql_core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{package: version(package) for package in _PACKAGES},
        "conversion_code": _sources_hash(),
    }


def _sources_hash() -> str:
    digest = hashlib.sha256()
    root = Path(rql_core.__file__).parent
    for package in _SOURCES:
        for file in sorted((root / package).rglob("*.py")):
            text = file.read_bytes()
            digest.update(f"{file.relative_to(root).as_posix()} {len(text)}\n".encode())
            digest.update(text)
    return digest.hexdigest()
