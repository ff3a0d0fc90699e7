"""One writer for one output: a lock that the kernel takes back when its owner dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from rql_core.errors import DatasetError


class OutputLock:
    """The right to write `output`, held from construction to `release`; the lock file lies hidden beside the output.

    flock, not the file's existence, is the lock: a file that a killed process left behind locks nobody out.
    """

    def __init__(self, output: Path) -> None:
        """Take the lock. Raises DatasetError when another process has it, or the directory cannot be written."""
        self._path = output.parent / f".{output.name}.lock"
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._take(output)
        except OSError as error:
            raise DatasetError(
                f"{output}: cannot be made: {error.strerror}; choose a directory that can be written"
            ) from None

    def _take(self, output: Path) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
                os.close(file)
                raise DatasetError(
                    f"{output}: {owner} is writing it at this moment; wait for it, or give another output"
                ) from None
            except OSError:
                os.close(file)
                raise
            if self._is_there(file):
                os.ftruncate(file, 0)
                # A disk that is full must not hide behind the name in a lock file.
                with contextlib.suppress(OSError):
                    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
            os.close(file)  # its last owner has just removed it: the next one is another file

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the next one in; may be called twice."""
        if self._file < 0:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
