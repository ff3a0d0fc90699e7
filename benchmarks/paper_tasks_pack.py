"""The state of benchmarks/paper_tasks.py in one file of limited size, to go on with on another machine.

What goes in, as far as it fits, in this order:

    1. always: results, metrics and settings of all runs, on which machines they were trained, table and picture
    2. the newest checkpoint of unfinished runs with their training state: what a run goes on from
    3. the newest checkpoint without training state, which can act, of runs that it was not evaluated of
    4. the same of all other runs

each in the order of tasks, forms and seeds. Data are not packed: the same seed plays the same again. Weights are noise
to a compressor, so a checkpoint of the paper's size, 180 MB with its training state, never fits into 60 MB; what does
not fit is said.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from benchmarks.paper_tasks_plan import Group, Places, Plan
from benchmarks.paper_tasks_state import SETTINGS, Saved, go_back_to, saved_checkpoints
from rql_core.checkpoint_files import MANIFEST, TRAINING_JSON, TRAINING_TENSORS
from rql_core.errors import ConfigError, DatasetError
from rql_core.whole_files import write_whole

LIMIT_BYTES = 60_000_000
# Float weights and Adam's moments shrink to nine tenths; what would have to shrink to less than this is not even tried.
BEST_RATIO = 0.8
# More than 60 MB of text and weights ever unpack to: text shrinks to a tenth.
MOST_UNPACKED_BYTES = 1_000_000_000
# Of each run, besides its checkpoints; and what lies beside the runs.
RUN_FILES = ("train.json", "metrics.jsonl", "evaluation.json")
OUT_FILES = (SETTINGS, "table.md", "curves.png")
FOLDERS = ("results", "logs", "runs")
# Says what was unpacked, so that the same command does it once.
UNPACKED = "unpacked.json"
_COMPRESSIONS: dict[str, Literal["xz", "gz"]] = {".tar.xz": "xz", ".tar.gz": "gz"}


@dataclass(frozen=True)
class Piece:
    """Files that are packed together or not at all: contents, or where they are, by their name in the archive."""

    run: str | None
    files: dict[str, Path | bytes]

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Each file's name and contents."""
        for name, content in self.files.items():
            yield name, content if isinstance(content, bytes) else content.read_bytes()

    def size(self) -> int:
        """Bytes before compression."""
        return sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in self.files.values())


@dataclass
class Packed:
    """What an archive holds: of which runs what to go on from, or what can act, or results and metrics alone."""

    path: Path
    size: int = 0
    resumable: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a person; every run is named once."""
        lines = [f"{self.path}: {self.size / 1e6:.1f} MB, with results and metrics of every run"]
        for names, words in (
            (self.resumable, "can be resumed from it"),
            (self.policies, "newest policy in it, but not what to go on from"),
            (self.finished, "finished; policy in it"),
            (self.without, "no checkpoint in it, as none fitted"),
        ):
            if names:
                lines.append(f"  {words}: {', '.join(names)}")
        return "\n".join(lines)


def compression_of(path: Path) -> Literal["xz", "gz"]:
    """By the file's name. Raises ConfigError."""
    for ending, compression in _COMPRESSIONS.items():
        if path.name.endswith(ending):
            return compression
    raise ConfigError(f"pack is {path}, expected a file that ends in {' or '.join(_COMPRESSIONS)}")


def pack(plan: Plan, places: Places, path: Path, limit: int = LIMIT_BYTES) -> Packed:
    """Write the archive beside its place and rename it. Raises ConfigError where not even the results fit."""
    compression = compression_of(path)
    chosen = [Piece(None, dict(_always(places)))]
    left = limit - _compressed_size(chosen[0].read(), compression, limit)
    if left < 0:
        raise ConfigError(f"pack: results and metrics alone take more than {limit / 1e6:g} MB; raise --pack-megabytes")
    packed = Packed(path)
    for kind, piece in _checkpoints(plan, places):
        if piece.run in (*packed.resumable, *packed.policies, *packed.finished):
            continue
        fits = piece.size() * BEST_RATIO <= left
        size = _compressed_size(piece.read(), compression, left) if fits else 0
        if fits and size <= left:
            left -= size
            chosen.append(piece)
            getattr(packed, kind).append(piece.run)
    while (data := _archive(chosen, compression)) is not None and len(data) > limit and len(chosen) > 1:
        # Headers and the compressor's blocks cost more than was reckoned.
        dropped = chosen.pop().run
        for names in (packed.resumable, packed.policies, packed.finished):
            if dropped in names:
                names.remove(str(dropped))
    write_whole(path, data)
    packed.size = len(data)
    known = {*packed.resumable, *packed.policies, *packed.finished}
    packed.without = [run.name for _, _, run in _runs(plan, places) if saved_checkpoints(run) and run.name not in known]
    return packed


def unpack(archive: Path, places: Places) -> bool:
    """Unpack into a place that holds no runs yet; False where this very archive was unpacked there before.

    Raises DatasetError for an archive that is damaged or tries to write elsewhere, and ConfigError where there is
    something else already.
    """
    try:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be read: {error.strerror}") from None
    marker = places.out / UNPACKED
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8")).get("sha256") == digest:
        return False
    for name in (*FOLDERS, SETTINGS):
        if (places.out / name).exists():
            raise ConfigError(f"{places.out / name}: exists already; unpack to another place with --out, or remove it")
    partial = places.out / ".unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _extract(archive, partial)
        for name in sorted(path.name for path in partial.iterdir()):
            os.replace(partial / name, places.out / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for run in places.runs.glob("*"):
        saved = saved_checkpoints(run)
        if saved:
            go_back_to(run, saved[-1].step)
    write_whole(marker, json.dumps({"archive": archive.name, "sha256": digest}) + "\n")
    return True


def _runs(plan: Plan, places: Places) -> Iterator[tuple[Group, int, Path]]:
    for group in plan.groups:
        for seed in plan.seeds:
            yield group, seed, places.run(group, seed)


def _always(places: Places) -> Iterator[tuple[str, Path]]:
    paths = [places.out / name for name in OUT_FILES]
    paths += sorted(places.results.rglob("*.json")) + sorted(places.logs.glob("*.machines.jsonl"))
    paths += [run / name for run in sorted(places.runs.glob("*")) for name in RUN_FILES]
    for path in paths:
        if path.is_file():
            yield path.relative_to(places.out).as_posix(), path


def _checkpoints(plan: Plan, places: Places) -> Iterator[tuple[str, Piece]]:
    """What may be packed besides, what matters most first, and which list of `Packed` names it."""
    newest = [
        (group, seed, run, saved[-1]) for group, seed, run in _runs(plan, places) if (saved := saved_checkpoints(run))
    ]
    for _, _, run, each in newest:
        if each.step < plan.updates and each.resumable:
            yield "resumable", _piece(places, run, each, training_state=True)
    for evaluated in (False, True):
        for group, seed, run, each in newest:
            if places.result(group, seed, each.step, 1).exists() is evaluated:
                kind = "policies" if each.step < plan.updates else "finished"
                yield kind, _piece(places, run, each, training_state=False)


def _piece(places: Places, run: Path, saved: Saved, *, training_state: bool) -> Piece:
    base = saved.path.relative_to(places.out).as_posix()
    manifest: dict[str, Any] = json.loads((saved.path / MANIFEST).read_text(encoding="utf-8"))
    if not training_state:
        # Files that the manifest names and that are missing would be damage.
        for name in (TRAINING_TENSORS, TRAINING_JSON):
            manifest["files"].pop(name, None)
    files: dict[str, Path | bytes] = {f"{base}/{name}": saved.path / name for name in manifest["files"]}
    files[f"{base}/{MANIFEST}"] = json.dumps(manifest, indent=2).encode()
    return Piece(run.name, files)


def _compressed_size(files: Iterable[tuple[str, bytes]], compression: str, enough: int) -> int:
    """Bytes after compression, or something above `enough` as soon as they are more."""
    compressor = lzma.LZMACompressor(preset=_PRESET) if compression == "xz" else zlib.compressobj(_LEVEL)
    size = 0
    for _, content in files:
        for first in range(0, len(content), 1 << 20):
            size += len(compressor.compress(content[first : first + (1 << 20)]))
            if size > enough:
                return size
    return size + len(compressor.flush())


# Higher ones are several times slower, and weights get no smaller by them.
_PRESET, _LEVEL = 1, 6


def _archive(pieces: Sequence[Piece], compression: Literal["xz", "gz"]) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"preset": _PRESET} if compression == "xz" else {"compresslevel": _LEVEL}
    mode: Any = f"w:{compression}"
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for piece in pieces:
            for name, content in piece.read():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _extract(archive: Path, directory: Path) -> None:
    """Write the files of an archive; everything that is no plain file inside `directory` is refused."""
    total = 0
    try:
        with tarfile.open(archive, "r:*") as content:
            for member in content:
                path = PurePosixPath(member.name)
                inside = not path.is_absolute() and ".." not in path.parts and "\\" not in member.name and path.parts
                if not inside or not (path.parts[0] in FOLDERS or member.name in OUT_FILES):
                    raise DatasetError(
                        f"{archive}: has a file {member.name!r}, which does not belong there; not unpacked"
                    )
                if not member.isreg():
                    raise DatasetError(f"{archive}: {member.name!r} is no plain file; not unpacked")
                total += member.size
                if total > MOST_UNPACKED_BYTES:
                    raise DatasetError(f"{archive}: unpacks to more than {MOST_UNPACKED_BYTES} bytes; not unpacked")
                file = content.extractfile(member)
                assert file is not None  # a plain file has contents
                target = directory / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read())
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DatasetError(f"{archive}: cannot be unpacked: {error}") from None
