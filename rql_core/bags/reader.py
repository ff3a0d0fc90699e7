"""Finds bags and reads their messages; whatever is wrong with a file comes out as one BagError that names it.

A recording that was killed or still goes on (no end mark and no metadata.yaml, or a SQLite journal beside it) is copied
to a temporary folder and completed there, read as far as it goes, and noted in `BagReader.notes`. A bag that had been
closed and now lacks its end was damaged afterwards, and is refused, as is one that changes while it is read.
"""

from __future__ import annotations

import contextlib
import glob
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection

from rql_core.bags.message_types import read_definitions
from rql_core.bags.recover import is_packed, natural_order, recover_bag, storage_files
from rql_core.bags.scan import MCAP_MAGIC, PACKED_SUFFIX, ROS1_SUFFIX, SQLITE_SIDE_FILES, STORAGE_SUFFIXES, file_states
from rql_core.bags.storages import OpenBag, Storage, open_bag
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import BagError

METADATA = "metadata.yaml"
# Folders that this project and rosbags make for copies of a bag's files.
_COPIES = re.compile(rf"{re.escape(tempfile.gettempdir())}/(?:rql_bag_|tmp)\w+/")
_KINDS = "a bag directory, a directory of bags, or a .mcap, .db3 or .bag file"


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: its message type ("" when it has several) and how many messages the bag says there are."""

    type: str
    messages: int


def find_bags(paths: Iterable[Path | str]) -> list[Path]:
    """The bags that `paths` mean: bag directories, directories of bags, .mcap, .db3 and .bag files, glob patterns.

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
            raise BagError(f"{given}: does not exist; give {_KINDS}")
        bags = [bag for start in starts for bag in _bags_below(start)]
        if not bags:
            raise BagError(f"{given}: no bag there; expected a directory with {METADATA}, or .mcap, .db3 or .bag files")
        for bag in bags:
            found.setdefault(bag.resolve(), bag)
    return list(found.values())


def _bags_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in (*STORAGE_SUFFIXES, ROS1_SUFFIX) or is_packed(path) else []
    if (path / METADATA).exists():
        return [path]
    files = storage_files(path, packed=True)
    # rosbag2 names the files of a bag after its directory: these belong together and lack only the metadata.
    if files and all(_is_of_directory(file, path.name) for file in files):
        return [path]
    files += [file for file in path.glob(f"*{ROS1_SUFFIX}") if file.is_file() and not file.name.startswith(".")]
    folders = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    below = [bag for folder in folders for bag in _bags_below(folder)]
    return sorted([*files, *below], key=natural_order)


def _is_of_directory(file: Path, name: str) -> bool:
    stem = Path(file.stem).stem if is_packed(file) else file.stem
    return stem == name or stem.rpartition("_")[0] == name


class BagReader:
    """One bag, open for reading within a `with` block. Owns the open files; not thread-safe.

    `notes` says in words what is peculiar about the bag, `topics` what there is, `start_ns` when its first message was
    received, `message_count` how many messages its files have. `definitions`: .msg files or directories of them, for
    types that are no standard ones and that the bag does not define itself.
    """

    def __init__(self, path: Path | str, definitions: Iterable[Path | str] = ()) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self.topics: dict[str, BagTopic] = {}
        self.start_ns = 0
        self.message_count = 0
        self._given = read_definitions(definitions)
        self._stack = ExitStack()
        self._checked = False

    def __enter__(self) -> BagReader:
        if not self.path.exists():
            raise BagError(f"{self.path}: does not exist; give a bag directory or a .mcap, .db3 or .bag file")
        with ExitStack() as stack:
            source = self._source(stack)
            self._files = storage_files(source, packed=True)
            self._states = file_states(self._files)
            try:
                self._bag = open_bag(source, stack)
            except Exception as error:  # rosbags, its YAML and SQLite libraries raise many kinds
                raise self._damaged(error) from error
            self.notes += self._unlisted(source)
            self.topics = _topics(self._bag)
            filled = [storage for storage in self._bag.storages if storage.messages_there]
            self.message_count = sum(storage.messages_there for storage in filled)
            self.start_ns = filled[0].start_ns if filled else 0
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def messages(self, wanted: Mapping[str, str], only: str | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, receive time in ns, message) of the topics in `wanted` (topic -> message type), by receive time.

        With `only` all of `wanted` is checked and that topic alone is read. Raises BagError when a topic is missing or
        has another type, or a type is not known, at once, and while it iterates when the file is damaged, or a message
        does not decode. A message of a ROS 1 bag looks like that of ROS 2: `header.stamp.nanosec`.
        """
        self._check(wanted)
        topics = frozenset(wanted if only is None else [only])
        decoders = [self._decoders(storage, topics) for storage in self._bag.storages]
        counts = dict.fromkeys(sorted(topics), 0)

        def decoded(storage: Storage, decoders: dict[int, Callable[[bytes], Any]]) -> Iterator[tuple[str, int, Any]]:
            connections = [each for each in storage.connections if each.topic in topics]
            for connection, stamp, raw in storage.messages(connections):
                topic = connection.topic
                counts[topic] += 1
                try:
                    message = decoders[connection.id](raw)
                except Exception as error:  # a short or garbled payload raises many kinds
                    raise self._undecodable(connection, stamp, raw, error) from error
                yield topic, stamp, message

        return self._guarded([decoded(*each) for each in zip(self._bag.storages, decoders, strict=True)], counts)

    def raw_messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """(topic, receive time in ns, serialised message) of `topics`, or of all, by receive time.

        CDR behind its four bytes of encapsulation, or ROS 1's own form (see `ros1`). Raises BagError as it iterates.
        """
        chosen = frozenset(self.topics if topics is None else topics)
        counts = dict.fromkeys(sorted(chosen), 0)

        def raw(storage: Storage) -> Iterator[tuple[str, int, bytes]]:
            connections = [each for each in storage.connections if each.topic in chosen]
            for connection, stamp, data in storage.messages(connections):
                counts[connection.topic] += 1
                yield connection.topic, stamp, data

        return self._guarded([raw(storage) for storage in self._bag.storages], counts)

    def decoder(self, topic: str) -> Callable[[bytes], Any]:
        """What makes a message of the bytes that `raw_messages` gives; raises BagError when the type is not known."""
        for storage in self._bag.storages:
            for decode in self._decoders(storage, frozenset([topic])).values():
                return decode
        raise BagError(f"{self.path}: topic {topic} is not in the bag")

    def decodable(self, topics: Iterable[str]) -> list[str]:
        """Those of `topics` whose types are known, so that `decoder` has one."""
        known = []
        for topic in topics:
            with contextlib.suppress(BagError):
                self.decoder(topic)
                known.append(topic)
        return known

    def stamp_offset(self, topic: str) -> int | None:
        """Where in the bytes that `raw_messages` gives the header's stamp stands; None without a header.

        Also None for a topic of several types, or one whose type is not known.
        """
        if not self.topics[topic].type:
            return None
        for storage in self._bag.storages:
            for connection in storage.connections:
                if connection.topic == topic:
                    try:
                        return storage.stamp_offset(connection, self._given)
                    except Exception:  # no definition, or one that cannot be parsed: `decoder` says so
                        return None
        return None

    @property
    def ros1(self) -> bool:
        """Whether the bag is one of ROS 1."""
        return any(storage.ros1 for storage in self._bag.storages)

    def _unlisted(self, source: Path) -> list[str]:
        """A note on the storage files of the directory that metadata.yaml passes over."""
        read = {storage.name for storage in self._bag.storages}
        passed = [file.name for file in self._files if not {file.name, file.name.removesuffix(PACKED_SUFFIX)} & read]
        if not source.is_dir() or not passed:
            return []
        return [
            f"not read, because {METADATA} does not list it: {', '.join(passed)}; if it belongs to the bag, move "
            f"{METADATA} away, and all files are read"
        ]

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

    def _decoders(self, storage: Storage, topics: frozenset[str]) -> dict[int, Callable[[bytes], Any]]:
        decoders = {}
        for connection in storage.connections:
            if connection.topic not in topics:
                continue
            try:
                decoders[connection.id] = storage.decoder(connection, self._given)
            except Exception as error:  # the parser of definitions raises many kinds
                reason = error.args[0] if isinstance(error, KeyError) else _one_line(error)
                raise BagError(
                    f"{self.path}: topic {connection.topic}: {connection.msgtype} cannot be decoded: {reason}; "
                    "name its .msg file, or a directory of them (contract: message_definitions)"
                ) from None
        return decoders

    def _guarded(
        self, streams: list[Iterator[tuple[str, int, Any]]], counts: dict[str, int]
    ) -> Iterator[tuple[str, int, Any]]:
        """All streams by time; damage becomes a BagError, and a wrong number of messages a note."""
        try:
            self._check_files()
            yield from (merge(*streams, key=itemgetter(1)) if self._bag.overlapping else chain.from_iterable(streams))
        except BagError:
            raise
        except Exception as error:  # rosbags lets OverflowError, struct.error and more through on damaged files
            raise self._damaged(error) from error
        if file_states(self._files) != self._states:
            raise BagError(f"{self.path}: changed while it was read; wait until the recorder or the copy is done")
        for topic, count in counts.items():
            if count != self.topics[topic].messages:
                self.notes.append(
                    f"{topic}: {count} messages read, but the bag's index says {self.topics[topic].messages}"
                )

    def _check_files(self) -> None:
        """Once a bag: it costs some hundredths of the time that reading takes."""
        if self._checked:
            return
        for storage in self._bag.storages:
            try:
                storage.check()
            except BagError as error:
                raise self._damaged(error) from None
        self._checked = True

    def _undecodable(self, connection: Connection, stamp: int, raw: bytes, error: Exception) -> BagError:
        return BagError(
            f"{self.path}: topic {connection.topic}, {self.when(stamp)}: {connection.msgtype} of {len(raw)} bytes "
            f"does not decode: {_one_line(error)}; the file is damaged there"
        )

    def when(self, stamp_ns: int) -> str:
        """A receive time in words: seconds from the bag's start, and absolute."""
        return f"{(stamp_ns - self.start_ns) / NANOSECONDS:.3f} s from the bag's start ({_seconds(stamp_ns)} s)"

    def _source(self, stack: ExitStack) -> Path:
        """The path to open: the bag itself, or a completed copy of an unfinished one."""
        if self.path.is_file() and self.path.suffix == ROS1_SUFFIX:
            return self.path
        folder = self.path if self.path.is_dir() else self.path.parent
        files = storage_files(self.path, packed=True)
        closed = (folder / METADATA).exists()
        if not files and not closed:
            raise BagError(f"{self.path}: no bag there; expected {METADATA} and .mcap or .db3 files")
        cut = [file for file in files if file.suffix == ".mcap" and not _has_end(file)]
        if cut and closed:
            raise BagError(
                f"{cut[0]}: its end is missing ({cut[0].stat().st_size} bytes are there), though the bag had been "
                "closed; copy the file again, or cut it with recover_bag (rql recover)"
            )
        journals = [file for file in files for end in SQLITE_SIDE_FILES if _holds_data(Path(f"{file}{end}"))]
        packed = self.path.is_file() and is_packed(self.path)
        if not cut and not journals and not packed and (closed or self.path.is_file()):
            return self.path
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rql_bag_")))
        recovered = recover_bag(self.path, temporary / "recovered")
        if recovered.messages == 0:
            raise BagError(f"{self.path}: unfinished and without a whole message; leave it out")
        # A killed recorder leaves an MCAP file that ends early, which is no damage, but a database that is whole.
        whole = [file for file in files if (file not in cut and file.suffix == ".mcap") or ".db3" in file.suffixes]
        hurt = any(f"{file.name}: " in recovered.damage for file in whole)
        if recovered.damage and (hurt or (packed and closed)):
            raise BagError(
                f"{self.path}: damaged: {recovered.damage}; copy it again, or keep what can be read with recover_bag "
                "(rql recover)"
            )
        if not packed or recovered.damage:
            detail = f", {recovered.bytes_cut} bytes cut" if recovered.bytes_cut else ""
            self.notes.append(f"unfinished, {recovered.messages} messages read{detail}")
        for topic, count in recovered.not_cdr.items():
            self.notes.append(f"{topic}: {count} messages are not CDR, or of no type, and were left out")
        return recovered.path

    def _damaged(self, error: Exception) -> BagError:
        reason = self._without_copies(str(error) if isinstance(error, BagError) else _one_line(error))
        repair = "run `rosbag reindex` on it" if self.path.suffix == ROS1_SUFFIX else "use recover_bag (rql recover)"
        return BagError(f"{self.path}: damaged or no bag: {reason}; copy it again, or {repair} to keep what is whole")

    def _without_copies(self, reason: str) -> str:
        """The reason without the temporary folders of unpacked or completed copies, which are gone when it is read."""
        folders = set(_COPIES.findall(reason))
        for folder in folders:
            if not str(self.path.absolute()).startswith(folder):
                reason = reason.replace(folder, "")
        return reason


def _topics(bag: OpenBag) -> dict[str, BagTopic]:
    """What the files have; how many messages says metadata.yaml where there is one."""
    kinds: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for storage in bag.storages:
        for connection in storage.connections:
            kinds.setdefault(connection.topic, set()).add(connection.msgtype)
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    for topic, (kind, messages) in bag.index.items():
        kinds.setdefault(topic, {kind})
        counts[topic] = messages
    return {topic: BagTopic(next(iter(of)) if len(of) == 1 else "", counts[topic]) for topic, of in kinds.items()}


def read_bag(
    path: Path | str, topics: Mapping[str, str], definitions: Iterable[Path | str] = ()
) -> Iterator[tuple[str, int, Any]]:
    """(topic, receive time in ns, message) of `topics` (topic -> message type) in the bag at `path`, by receive time.

    Messages are decoded one by one. Raises BagError. To see the notes on an unfinished bag, use BagReader.
    """
    with BagReader(path, definitions) as bag:
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
