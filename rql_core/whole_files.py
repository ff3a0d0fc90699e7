"""Files that are there as a whole or not at all: written beside their place and renamed."""

from __future__ import annotations

import os
from pathlib import Path

from rql_core.errors import OutputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, and the directories above it; whoever reads it meanwhile reads the one before.

    Raises OutputError that names the file.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        # A file where a directory should be made is said to exist, which helps nobody.
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"{path}: cannot be written: {reason}; name another place") from None
