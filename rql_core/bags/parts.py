"""What a conversion has finished so far: one part file a bag, and a manifest that says from what each was made.

A part is a zip file (stored, not compressed: zip brings a checksum for every entry): an entry an episode with its
arrays in NumPy's format, and `part.json` with everything else. It is written under another name and renamed when
whole. The next run uses a part only if the manifest has it with the same key, which is made of the hashes of bag,
contract and software, and if the file still has the hash that the manifest says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rql_core.bags.convert_bag import ShareDone, bag_files, bag_hashes, convert_bag, file_hash
from rql_core.bags.episodes import Episode
from rql_core.bags.message_types import read_definitions
from rql_core.bags.reader import METADATA
from rql_core.bags.recover import storage_files
from rql_core.bags.report import BagReport, SkippedBag
from rql_core.bags.scan import SQLITE_SIDE_FILES
from rql_core.bags.skipping import is_the_bags_own
from rql_core.contract.load import parse_contract
from rql_core.errors import BagError, ConfigError, DatasetError

# Written into every key: parts of another layout are made anew.
_LAYOUT = 4
_HEAD = "part.json"


@dataclass(frozen=True)
class Part:
    """A finished part: its key, the hash of its file, and how much is in it."""

    key: str
    sha256: str
    episodes: int
    steps: int


@dataclass(frozen=True)
class BadBag:
    """A bag of which no part could be made, and the key that its part would have had."""

    key: str
    skipped: SkippedBag


@dataclass(frozen=True)
class PartTask:
    """One bag to be made a part in `folder`; `known` is what an earlier run made of it. Plain data, to be sent away.

    `skip_bad`: a bag that is damaged or does not keep to the contract is an answer and no error.
    """

    bag: str
    contract_text: str
    folder: str
    software: dict[str, str]
    known: Part | None = None
    definitions: tuple[str, ...] = ()
    skip_bad: bool = False


def part_key(
    bag: str,
    hashes: Mapping[str, str],
    contract_text: str,
    software: Mapping[str, str],
    definitions: Sequence[str] = (),
) -> str:
    """The hash of all that decides what is in a part, with the small files that belong to the bag's.

    Raises BagError when one of those, or a definition, cannot be read.
    """
    contract = hashlib.sha256(contract_text.encode()).hexdigest()
    made_of = {"layout": _LAYOUT, "bag": bag, "files": hashes, "contract": contract, "software": software}
    made_of["beside"] = {file.name: file_hash(file) for file in _files_beside(Path(bag))}
    if definitions:
        made_of["definitions"] = [
            file_hash(file)
            for given in map(Path, definitions)
            for file in (sorted(given.rglob("*.msg")) if given.is_dir() else [given])
        ]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def make_part(task: PartTask, software: Mapping[str, str], share_done: ShareDone = lambda share: None) -> Part | BadBag:
    """Convert the bag of `task` to its part, or find that it was done already; BadBag where the task says to skip it.

    `software` is that of this process. Raises BagError, DatasetError where the part cannot be written, and ConfigError
    where this machine has other software than the one that asked.
    """
    _check_software(task, software)
    bag, folder = Path(task.bag), Path(task.folder)
    before = _states(bag)
    hashes = bag_hashes(bag)
    key = part_key(task.bag, hashes, task.contract_text, software, task.definitions)
    file = part_file(folder, key)
    if task.known is not None and task.known.key == key and file.exists() and file_hash(file) == task.known.sha256:
        return task.known
    contract = parse_contract(task.contract_text)
    # Definitions that cannot be read are the contract's fault and not that of the bags, which would all be skipped.
    read_definitions(task.definitions)
    # Two machines, or a process that outlives its parent by a moment, never write the same file.
    partial = folder / f".{key}.{socket.gethostname()}.{os.getpid()}"
    try:
        with _PartWriter(partial) as writer:
            report = convert_bag(bag, contract, hashes, writer.add, share_done, definitions=task.definitions)
            writer.finish(report)
        if _states(bag) != before:
            raise BagError(f"{bag}: changed while it was read; convert it when nothing writes it any more")
        part = Part(key, file_hash(partial), report.episodes, report.steps)
        partial.rename(file)
    except BagError as error:
        if not (task.skip_bad and is_the_bags_own(error)):
            raise
        _states(bag)  # a bag that is gone is nothing to skip: this raises
        return BadBag(key, SkippedBag(task.bag, hashes, str(error)))
    except OSError as error:
        raise DatasetError(
            f"{file}: cannot be written: {error.strerror or error}; is the disk full, or the directory read-only?"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return part


def part_file(folder: Path, key: str) -> Path:
    """Where the part with this key lies."""
    return folder / f"{key}.zip"


class _PartWriter:
    """Writes a part episode by episode, so that no more than one is in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._episodes: list[dict[str, Any]] = []

    def add(self, episode: Episode) -> None:
        fields = {field.name: getattr(episode, field.name) for field in dataclasses.fields(episode)}
        arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        with self._zip.open(_entry(len(self._episodes)), "w", force_zip64=True) as entry:
            for array in arrays.values():
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
        plain = {name: value for name, value in fields.items() if name not in arrays}
        self._episodes.append({"arrays": list(arrays), "plain": plain})

    def finish(self, report: BagReport) -> None:
        head = {"report": dataclasses.asdict(report), "episodes": self._episodes}
        self._zip.writestr(zipfile.ZipInfo(_HEAD), json.dumps(head))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> _PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # The zip's own end would be written by `close`, into a file that is thrown away, on a disk that is full.
            self._zip.fp = None
        self._file.close()


class PartReader:
    """A finished part: the bag's `report`, and its episodes one by one."""

    def __init__(self, file: Path) -> None:
        """Read the part's head. Raises DatasetError when the file is damaged."""
        self._file = file
        try:
            with zipfile.ZipFile(file) as opened:
                head = json.loads(opened.read(_HEAD))
            self.report = TypeAdapter(BagReport).validate_python(head["report"])
            self._episodes: list[dict[str, Any]] = head["episodes"]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, ValidationError) as error:
            raise self._damaged(error) from None

    def episodes(self) -> Iterator[Episode]:
        """The episodes in their order. Raises DatasetError when the file is damaged."""
        try:
            with zipfile.ZipFile(self._file) as opened:
                for index, episode in enumerate(self._episodes):
                    with opened.open(_entry(index)) as entry:
                        fields: dict[str, Any] = dict(episode["plain"])
                        for name in episode["arrays"]:
                            fields[name] = np.lib.format.read_array(entry, allow_pickle=False)
                        entry.read()  # to the end, where the checksum is compared
                    yield Episode(**fields)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DatasetError:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return DatasetError(f"{self._file}: damaged ({detail}); remove it and give the same command again")


class PartFolder:
    """The hidden folder beside an output in which its parts lie, with the manifest of those that are finished.

    Belongs to the one process that has the output's lock; workers only add part files.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.parent / f".{output.name}.parts"
        self._manifest = self.path / "manifest.json"
        self.parts: dict[str, Part] = {}
        self.bad: dict[str, BadBag] = {}

    def open(self) -> None:
        """Make the folder, or take over what a run before this one has finished. Raises DatasetError."""
        self.parts = self._read()
        keep = {self._manifest.name, *(part_file(self.path, part.key).name for part in self.parts.values())}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self.path.iterdir():
                if file.name not in keep:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be made: {error.strerror}") from None

    def add(self, bag: str, part: Part | BadBag) -> None:
        """Note that a bag's part is finished, or that it has none. Raises DatasetError when that cannot be written.

        Bad bags are remembered until this process ends and no longer: the next run looks whether they were mended.
        """
        if isinstance(part, BadBag):
            self.bad[bag] = part
            return
        if self.parts.get(bag) == part:
            return
        if not part_file(self.path, part.key).exists():
            raise DatasetError(
                f"{part_file(self.path, part.key)}: was made by a worker but is not to be seen from here; "
                "put the output on a file system that all machines share"
            )
        parts = {**self.parts, bag: part}
        text = json.dumps({bag: dataclasses.asdict(part) for bag, part in parts.items()}, indent=1)
        partial = self.path / f".{self._manifest.name}"
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._manifest)
        except OSError as error:
            raise DatasetError(f"{self._manifest}: cannot be written: {error.strerror}; is the disk full?") from None
        self.parts = parts

    def reader(self, bag: str) -> PartReader:
        """The finished part of a bag."""
        return PartReader(part_file(self.path, self.parts[bag].key))

    def remove(self) -> None:
        """Throw the parts away: the dataset is there, or there is nothing worth keeping."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self) -> dict[str, Part]:
        """What the manifest says; one that cannot be read is as none, because all can be made again."""
        try:
            text = self._manifest.read_text(encoding="utf-8")
            return TypeAdapter(dict[str, Part]).validate_json(text)
        except (OSError, ValueError):
            return {}


def inputs_hash(keys: Sequence[str]) -> str:
    """The hash of all bags, contract and software that a dataset was made of, by the keys of the bags in their order.

    The key of a bag that was skipped is `skipped_key` of what its part would have had.
    """
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def skipped_key(key: str) -> str:
    """What stands for a skipped bag among the keys: it is no part of the dataset, but decided about it."""
    return f"skipped {key}"


def _files_beside(bag: Path) -> list[Path]:
    """What decides how a bag's files are read: its metadata, and the journals of its databases."""
    folder = bag if bag.is_dir() else bag.parent
    journals = [Path(f"{file}{end}") for file in storage_files(bag) for end in SQLITE_SIDE_FILES]
    return [file for file in (folder / METADATA, *journals) if file.is_file()]


def _entry(index: int) -> str:
    return f"episode_{index}"


def _states(bag: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a bag's files: they tell whether somebody still writes it."""
    try:
        states = [(file.name, file.stat()) for file in bag_files(bag)]
    except OSError as error:
        raise BagError(
            f"{bag}: cannot be read on {socket.gethostname()}: {error.strerror}; put it where every worker sees it"
        ) from None
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _check_software(task: PartTask, software: Mapping[str, str]) -> None:
    differences = [
        f"{name} {software.get(name, 'none')} (expected {task.software.get(name, 'none')})"
        for name in sorted({*task.software, *software})
        if software.get(name) != task.software.get(name)
    ]
    if differences:
        raise ConfigError(
            f"{task.bag}: the worker on {socket.gethostname()} has {', '.join(differences)}; install the same there, "
            "or the dataset would depend on who converted which bag"
        )
