"""Arrays in .npz files, column by column and row by row: files of gigabytes are written and read in little memory.

NumPy reads and writes whole arrays only. The files are NumPy's own: a zip archive with one .npy for each array.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from rql_core.errors import DatasetError

Array = npt.NDArray[Any]


class Columns:
    """The arrays of one .npz file, in which row i of every array belongs to the same instant.

    Raises DatasetError that names the file for one that is missing, no .npz, damaged, or lacks an array.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; leave the `with` block to close it."""
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be opened: {error.strerror}; give the path of an .npz file") from None
        except (zipfile.BadZipFile, RuntimeError, ValueError):
            raise DatasetError(f"{path}: is no .npz file, or is cut short; copy or make it again") from None
        self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._members)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without reading it."""
        with self.stream(name) as stream:
            return stream.shape

    def read(self, name: str) -> Array:
        """A whole array."""
        with self.stream(name) as stream:
            return stream.take(stream.shape[0] if stream.shape else 1).reshape(stream.shape)

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """An array in blocks of at most so many rows."""
        with self.stream(name) as stream:
            for first in range(0, stream.shape[0], rows):
                yield stream.take(min(rows, stream.shape[0] - first))

    @contextmanager
    def stream(self, name: str) -> Iterator[RowStream]:
        """An array to be taken row by row; several can be open at a time."""
        if name not in self._members:
            found = ", ".join(self._members) or "nothing"
            raise DatasetError(f"{self.path}: has no array {name!r}, it has {found}; is it a file of OGBench's form?")
        where = f"{self.path}: {name}"
        with _damage(where):
            file = self._archive.open(self._members[name])
        with file:
            yield RowStream(file, where)

    def fingerprint(self) -> str:
        """What tells these contents from others: the zip archive's checksums of all arrays. Reads none of them."""
        digest = hashlib.sha256()
        for name, info in sorted(self._members.items()):
            digest.update(f"{name} {info.CRC} {info.file_size}\n".encode())
        return digest.hexdigest()

    def __enter__(self) -> Columns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


class RowStream:
    """One array of a file, from its first row to its last."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        """Read the header. Raises DatasetError that starts with `where`."""
        self._file = file
        self._where = where
        with _damage(where):
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"unknown version {version}")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, in_columns, self.dtype = read_header(file)
        if self.dtype.hasobject or (in_columns and len(self.shape) > 1):
            raise DatasetError(
                f"{where}: is an array of {self.dtype}, in columns or of objects; expected rows of numbers"
            )

    def take(self, rows: int) -> Array:
        """The next rows; fewer than there are left, or all."""
        array = np.empty((rows, *self.shape[1:]), dtype=self.dtype)
        view = array.reshape(-1).view(np.uint8).data
        filled = 0
        with _damage(self._where):
            while filled < len(view):
                count = self._file.readinto(view[filled:])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError("it ends too early")
                filled += count
        return array


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """What a damaged file raises, as one DatasetError that starts with `where`."""
    try:
        yield
    # Damaged flags look like an unknown compression (NotImplementedError) or a password (RuntimeError).
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{where}: cannot be read, the file is cut short or damaged ({error}); copy or make it again"
        ) from None


def write_columns(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as a compressed .npz that is there whole or not at all. Raises DatasetError."""
    with _replacing(path, path.parent) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def join_columns(path: Path, parts: Sequence[Path], advance: Callable[[], object]) -> None:
    """Lay the rows of files with the same arrays end to end in one compressed .npz, there whole or not at all.

    `advance` is called after each array of each part. The bytes follow from the parts alone. What is not finished lies
    beside the parts. Raises DatasetError.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for part in parts:
        with Columns(part) as columns:
            for name in columns.names:
                shapes.setdefault(name, []).append(columns.shape(name))
    with Columns(parts[0]) as columns:
        for name in columns.names:
            with columns.stream(name) as stream:
                dtypes[name] = stream.dtype
    with (
        _replacing(path, parts[0].parent) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
    ):
        for name, dtype in dtypes.items():
            header = {
                "descr": npy.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (sum(shape[0] for shape in shapes[name]), *shapes[name][0][1:]),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, header)
                for part in parts:
                    with Columns(part) as columns:
                        member.write(columns.read(name).tobytes())
                    advance()


@contextmanager
def _replacing(path: Path, folder: Path) -> Iterator[Path]:
    """A path in `folder` to write to, which becomes `path` at the end; its name is that of this process alone."""
    partial = folder / f".{path.name}.{os.getpid()}.partial"
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror}; is the disk full?") from None
    finally:
        partial.unlink(missing_ok=True)
