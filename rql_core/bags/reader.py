"""Finds bags and reads their messages; whatever is wrong with a file comes out as one BagError that names it.

A recording that was killed (no end mark and no metadata.yaml, or a SQLite journal left beside it) is completed in a
temporary folder, read as far as it goes, and noted in `BagReader.notes`. A bag that had been closed and now lacks its
end was damaged afterwards, and is refused.
"""

from __future__ import annotations

import glob
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.rosbag2 import Reader

from rql_core.bags.decode import Decoder
from rql_core.bags.message_types import types_for
from rql_core.bags.recover import natural_order, recover_bag, storage_files
from rql_core.bags.scan import MCAP_MAGIC, SQLITE_SIDE_FILES, STORAGE_SUFFIXES
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import BagError

_METADATA = "metadata.yaml"


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: its message type ("" when it has several) and how many messages the bag says there are."""

    type: str
    messages: int


def find_bags(paths: Iterable[Path | str]) -> list[Path]:
    """The bags that `paths` mean: bag directories, directories of bags, .mcap and .db3 files, glob patterns.

    Each bag once, in the order of the paths, those of a directory or pattern by name (part 10 after part 9).
    Raises BagError for a path that does not exist or where no bag is.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        path = Path(given)
        if path.exists():
            starts = [path]
        elif any(sign in str(given) for sign in "*?["):
            starts = sorted(map(Path, glob.glob(str(given), recursive=True)), key=natural_order)
            if not starts:
                raise BagError(f"{given}: no path fits this pattern; check it")
        else:
            raise BagError(
                f"{given}: does not exist; give a bag directory, a directory of bags, or a .mcap or .db3 file"
            )
        bags = [bag for start in starts for bag in _bags_below(start)]
        if not bags:
            raise BagError(f"{given}: no bag there; expected a directory with {_METADATA}, or .mcap or .db3 files")
        for bag in bags:
            found.setdefault(bag.resolve(), bag)
    return list(found.values())


def _bags_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in STORAGE_SUFFIXES else []
    if (path / _METADATA).exists():
        return [path]
    files = storage_files(path)
    # rosbag2 names the files of a bag after its directory: these belong together and lack only the metadata.
    if files and all(file.stem == path.name or file.stem.rpartition("_")[0] == path.name for file in files):
        return [path]
    folders = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    below = [bag for folder in folders for bag in _bags_below(folder)]
    return sorted([*files, *below], key=natural_order)


class BagReader:
    """One bag, open for reading within a `with` block. Owns the open files; not thread-safe.

    `notes` says in words what is peculiar about the bag, `topics` what there is, `start_ns` when its first message was
    received, `message_count` how many messages it says it has.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self.topics: dict[str, BagTopic] = {}
        self.start_ns = 0
        self.message_count = 0
        self._stack = ExitStack()

    def __enter__(self) -> BagReader:
        if not self.path.exists():
            raise BagError(f"{self.path}: does not exist; give a bag directory or a .mcap or .db3 file")
        with ExitStack() as stack:
            source = self._source(stack)
            try:
                self._reader = stack.enter_context(Reader(source))
                self.topics = {
                    name: BagTopic(info.msgtype or "", info.msgcount) for name, info in self._reader.topics.items()
                }
                self.message_count = self._reader.message_count
                self.start_ns = self._reader.start_time if self.message_count else 0
            except Exception as error:  # rosbags, its YAML and SQLite libraries raise many kinds
                raise self._damaged(error) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def messages(self, wanted: Mapping[str, str], only: str | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, receive time in ns, message) of the topics in `wanted` (topic -> message type), by receive time.

        With `only` all of `wanted` is checked and that topic alone is read. Raises BagError when a topic is missing or
        has another type, at once, and while it iterates when the file is damaged or a message does not decode.
        """
        self._check(wanted)
        return self._decode(wanted if only is None else {only: wanted[only]})

    def _check(self, wanted: Mapping[str, str]) -> None:
        for topic, kind in wanted.items():
            there = self.topics.get(topic)
            if there is None:
                listed = ", ".join(f"{name} ({info.type})" for name, info in sorted(self.topics.items())) or "none"
                raise BagError(
                    f"{self.path}: topic {topic} ({kind}) is not in the bag; there are: {listed}; "
                    "record it, or correct the contract"
                )
            if there.type != kind:
                found = there.type or "several types"
                raise BagError(f"{self.path}: topic {topic} has {found}, expected {kind}; correct the contract")

    def _decode(self, wanted: Mapping[str, str]) -> Iterator[tuple[str, int, Any]]:
        connections = [connection for connection in self._reader.connections if connection.topic in wanted]
        counts: Counter[str] = Counter()
        try:
            decoders: dict[str, Decoder] = {}
            for connection in connections:
                store = types_for(connection.msgtype, connection.msgdef)
                decoders[connection.topic] = Decoder(store, connection.msgtype)
            for connection, stamp, raw in self._reader.messages(connections) if connections else ():
                topic = connection.topic
                counts[topic] += 1
                try:
                    message = decoders[topic](raw)
                except Exception as error:  # a short or garbled payload raises many kinds
                    raise BagError(
                        f"{self.path}: topic {topic}, {self.when(stamp)}: {connection.msgtype} of {len(raw)} bytes "
                        f"does not decode: {_one_line(error)}; the file is damaged there"
                    ) from error
                yield topic, stamp, message
        except BagError:
            raise
        except Exception as error:  # rosbags lets OverflowError, struct.error and more through on damaged files
            raise self._damaged(error) from error
        for topic in wanted:
            if counts[topic] != self.topics[topic].messages:
                self.notes.append(
                    f"{topic}: {counts[topic]} messages read, but the bag's index says {self.topics[topic].messages}"
                )

    def when(self, stamp_ns: int) -> str:
        """A receive time in words: seconds from the bag's start, and absolute."""
        return f"{(stamp_ns - self.start_ns) / NANOSECONDS:.3f} s from the bag's start ({_seconds(stamp_ns)} s)"

    def _source(self, stack: ExitStack) -> Path:
        """The path to open: the bag itself, or a completed copy of an unfinished one."""
        folder = self.path if self.path.is_dir() else self.path.parent
        files = storage_files(self.path)
        closed = (folder / _METADATA).exists()
        if not files and not closed:
            raise BagError(f"{self.path}: no bag there; expected {_METADATA} and .mcap or .db3 files")
        cut = [file for file in files if file.suffix == ".mcap" and not _has_end(file)]
        if cut and closed:
            raise BagError(
                f"{cut[0]}: its end is missing ({cut[0].stat().st_size} bytes are there), though the bag had been "
                "closed; copy the file again, or cut it with recover_bag (rql recover)"
            )
        journals = [file for file in files for end in SQLITE_SIDE_FILES if _holds_data(Path(f"{file}{end}"))]
        if not cut and not journals and (closed or self.path.is_file()):
            return self.path
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rql_bag_")))
        recovered = recover_bag(self.path, temporary / "recovered")
        if recovered.messages == 0:
            raise BagError(f"{self.path}: unfinished and without a whole message; leave it out")
        detail = f", {recovered.bytes_cut} bytes cut" if recovered.bytes_cut else ""
        self.notes.append(f"unfinished, {recovered.messages} messages read{detail}")
        return recovered.path

    def _damaged(self, error: Exception) -> BagError:
        return BagError(
            f"{self.path}: damaged or no bag: {_one_line(error)}; "
            "copy it again, or keep what is whole with recover_bag (rql recover)"
        )


def read_bag(path: Path | str, topics: Mapping[str, str]) -> Iterator[tuple[str, int, Any]]:
    """(topic, receive time in ns, message) of `topics` (topic -> message type) in the bag at `path`, by receive time.

    Messages are decoded one by one. Raises BagError. To see the notes on an unfinished bag, use BagReader.
    """
    with BagReader(path) as bag:
        yield from bag.messages(topics)


def bag_topics(path: Path | str) -> dict[str, BagTopic]:
    """The topics of the bag at `path`, with their types and message counts."""
    with BagReader(path) as bag:
        return dict(sorted(bag.topics.items()))


def _has_end(file: Path) -> bool:
    if file.stat().st_size < 2 * len(MCAP_MAGIC):
        return False
    with file.open("rb") as opened:
        opened.seek(-len(MCAP_MAGIC), 2)
        return opened.read() == MCAP_MAGIC


def _holds_data(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // NANOSECONDS}.{stamp_ns % NANOSECONDS:09d}"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
