"""The opened storage files of one bag, whatever wrote them: rosbag2's SQLite and MCAP, ROS 1's .bag.

The files are read through the storage readers of `rosbags`, and not through its reader of directories, which leaves out
without a word the messages whose quality of service in the file is not what metadata.yaml says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from rosbags.interfaces import Connection, Nodetype
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from rql_core.bags.decode import Decoder
from rql_core.bags.mcap_reader import ChunkedMcapReader
from rql_core.bags.message_types import NO_DEFINITIONS, Definitions, types_for
from rql_core.bags.scan import ROS1_SUFFIX, ZSTD_MAGIC, unpack_message
from rql_core.errors import BagError

if TYPE_CHECKING:
    from rosbags.interfaces.typing import RPath
    from rosbags.rosbag2.reader import ReaderProtocol

_HEADER = "std_msgs/msg/Header"

RawMessage = tuple[Connection, int, bytes]


class _QuotedSqlite3Reader(Sqlite3Reader):
    """The reader of rosbags makes a URI of the path as it is, and finds no file whose name has a ?, # or %."""

    def __init__(self, path: RPath) -> None:
        super().__init__(Path(quote(str(path))))


class _Directory(DirectoryReader):
    STORAGE_PLUGINS: Mapping[str, type[ReaderProtocol]] = {
        "mcap": ChunkedMcapReader,
        "sqlite3": _QuotedSqlite3Reader,
    }


@dataclass
class Storage:
    """One opened file: what is in it, when it begins and ends, and its messages by receive time."""

    reader: Any
    message_compressed: bool = False
    start_ns: int = field(init=False)
    end_ns: int = field(init=False)
    messages_there: int = field(init=False)

    def __post_init__(self) -> None:
        about = self.reader if isinstance(self.reader, Ros1Reader) else self.reader.metadata
        self.start_ns, self.end_ns, self.messages_there = about.start_time, about.end_time, about.message_count

    @property
    def name(self) -> str:
        """The file's name; of one that was compressed as a whole, that of what was in it."""
        return Path(unquote(str(self.reader.path)) if isinstance(self.reader, Sqlite3Reader) else self.reader.path).name

    @property
    def connections(self) -> list[Connection]:
        found: list[Connection] = self.reader.connections
        return found

    @property
    def ros1(self) -> bool:
        return isinstance(self.reader, Ros1Reader)

    def messages(self, connections: list[Connection]) -> Iterator[RawMessage]:
        """Connection, receive time in ns and bytes of each message of the connections."""
        raw: Iterator[RawMessage] = self.reader.messages(connections) if connections else iter(())
        return self._unpacked(raw) if self.message_compressed else raw

    def _unpacked(self, messages: Iterator[RawMessage]) -> Iterator[RawMessage]:
        for connection, stamp, data in messages:
            yield connection, stamp, unpack_message(data)

    def decoder(self, connection: Connection, given: Definitions = NO_DEFINITIONS) -> Callable[[bytes], Any]:
        """What makes a message of the connection's bytes; raises what `types_for` raises."""
        store, kind = types_for(connection.msgtype, connection.msgdef, given), connection.msgtype
        return partial(store.deserialize_ros1, typename=kind) if self.ros1 else Decoder(store, kind)

    def stamp_offset(self, connection: Connection, given: Definitions = NO_DEFINITIONS) -> int | None:
        """Where in a message's bytes its time (seconds, nanoseconds, 4 bytes each) stands; None when it has no header.

        Behind CDR's 4 bytes of encapsulation, or ROS 1's 4 bytes of header.seq: in both a header comes first.
        """
        kind = connection.msgtype
        _, fields = types_for(kind, connection.msgdef, given).fielddefs[kind]
        if kind == _HEADER or (fields and fields[0] == ("header", (Nodetype.NAME, _HEADER))):
            return 4
        return None

    def check(self) -> None:
        """Look for damage that reading would pass over: SQLite has no checksums. Raises BagError."""
        if not isinstance(self.reader, Sqlite3Reader):
            return
        lost = self.messages_there - sum(each.msgcount for each in self.connections)
        if lost:
            raise BagError(f"{lost} of {self.messages_there} rows belong to no topic")
        assert self.reader.dbconn is not None
        ((verdict,),) = self.reader.dbconn.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise BagError(" ".join(str(verdict).split()))


@dataclass(frozen=True)
class OpenBag:
    """The storages of a bag in the order of time.

    `index`: type and number of messages of each topic as metadata.yaml says; empty where there is none.
    """

    storages: list[Storage]
    index: dict[str, tuple[str, int]]

    @property
    def overlapping(self) -> bool:
        """Whether a storage begins before the one before it ends."""
        filled = [storage for storage in self.storages if storage.messages_there]
        return any(later.start_ns < earlier.end_ns - 1 for earlier, later in pairwise(filled))


def open_bag(path: Path, stack: ExitStack) -> OpenBag:
    """Open the bag at `path` until `stack` is closed; raises what rosbags raises, and OSError."""
    index: dict[str, tuple[str, int]] = {}
    if path.is_dir():
        directory = _Directory(path)
        directory.open()
        stack.callback(directory.close)
        for connection in directory.connections:
            _, others = index.get(connection.topic, ("", 0))
            index[connection.topic] = (connection.msgtype, others + connection.msgcount)
        packed = directory.metadata.compression_mode == "message"
        storages = [Storage(each, packed) for each in directory.storages]
    else:
        kinds: dict[str, Callable[[Path], Any]] = {ROS1_SUFFIX: Ros1Reader, ".db3": _QuotedSqlite3Reader}
        reader = kinds.get(path.suffix, ChunkedMcapReader)(path)
        reader.open()
        stack.callback(reader.close)
        storages = [Storage(reader, False)]
        storages[0].message_compressed = _is_message_compressed(storages[0])
    storages.sort(key=lambda storage: storage.start_ns)
    return OpenBag(storages, index)


def _is_message_compressed(storage: Storage) -> bool:
    """Only metadata.yaml says so; without it the first message does."""
    for _, _, data in storage.messages(storage.connections):
        return bytes(data[:4]) == ZSTD_MAGIC
    return False
