"""Writes rosbag2 bags (version 9) from serialised messages, fast enough for a live recorder, safe against SIGKILL.

`rosbags` keeps up to a megabyte of MCAP, and a whole SQLite transaction, in memory. This writer hands what it has to
the operating system ten times a second, so that a killed process leaves a bag which `recover_bag` can complete.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal
from zlib import crc32

from rosbags.interfaces import (
    Connection,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.interfaces import Qos as BagQos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from rql_core.bags.message_types import standard_types
from rql_core.contract.schema import Qos
from rql_core.errors import BagError

Storage = Literal["mcap", "sqlite3"]

# What a killed process may lose at most. A flush costs about 0.1 ms (MCAP), so that ten a second are free.
FLUSH_PERIOD_NS = 100_000_000

# rosbags closes a chunk at a megabyte; as much here, a reader then holds one megabyte at a time.
_CHUNK_BYTES = 2**20

_FOREVER = QosTime(9_223_372_036, 854_775_807)  # rmw's "infinite" duration, as rosbag2 writes it
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # MCAP specification, record 0x05: opcode, length, channel, sequence, 2 times
_MESSAGE_HEAD_SIZE = 22  # of the above, what counts as the record's length
_CHECKSUM_OFFSET = 9 + 24  # MCAP specification, record 0x06: opcode and length, then 2 times and a size before it


def offered_qos(qos: Qos) -> BagQos:
    """A contract's quality of service as the profile that `ros2 bag play` offers."""
    return BagQos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability[qos.reliability.upper()],
        QosDurability[qos.durability.upper()],
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


class BagWriter:
    """A new bag at `path` (a directory), open for writing until `close`.

    Owns the files below `path`. Not thread-safe: all calls belong to one thread. Works as a context manager; the bag is
    completed also when the block is left by an exception, because what was recorded until then is worth keeping.
    """

    def __init__(self, path: Path | str, storage: Storage = "mcap") -> None:
        """Make the bag's directory. Raises BagError when the path exists or cannot be made."""
        self.path = Path(path)
        if storage not in ("mcap", "sqlite3"):
            raise BagError(f"{path}: storage is {storage!r}, expected 'mcap' or 'sqlite3'")
        if storage == "sqlite3" and (bad := set("?#%") & set(str(path))):
            # rosbags makes a URI of the path as it is, and would write another file.
            raise BagError(f"{path}: {bad.pop()!r} cannot be in the path of a sqlite3 bag; rename it, or use mcap")
        if self.path.exists():
            raise BagError(f"{path}: exists already; give a new path or remove it first")
        self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        try:
            self._writer.open()
        except (OSError, WriterError, sqlite3.Error) as error:
            raise BagError(f"{path}: cannot be made: {error}; check the path, its permissions and the disk") from None
        self._connections: dict[str, Connection] = {}
        self.message_counts: dict[str, int] = {}
        self._first_ns: int | None = None
        self._last_ns = 0
        self._flush_at = 0
        self._closed = False
        self._put: Callable[[Connection, int, bytes | memoryview], None]
        storage_writer = self._writer.storage
        if isinstance(storage_writer, McapWriter):
            self._mcap: McapWriter | None = storage_writer
            self._put = self._put_mcap
        else:
            assert isinstance(storage_writer, Sqlite3Writer)
            self._mcap = None
            self._sqlite = storage_writer
            # NORMAL survives a killed process in every case and is the fastest mode that keeps the database sound
            # when power fails.
            storage_writer.conn.execute("PRAGMA synchronous=NORMAL")
            self._put = storage_writer.write

    def add_topic(self, topic: str, type: str, qos: Qos | None = None) -> None:
        """Register a topic of a standard message type; `qos` is what `ros2 bag play` will offer."""
        if type not in standard_types().fielddefs:
            raise BagError(f"{self.path}: topic {topic} has type {type}, which is no standard type of ROS 2 Kilted")
        definition, _ = standard_types().generate_msgdef(type, ros_version=2)
        digest = standard_types().hash_rihs01(type)
        self.add_defined_topic(topic, type, definition, digest, [offered_qos(qos or Qos())])

    def add_defined_topic(
        self, topic: str, type: str, definition: str, digest: str, qos_profiles: Sequence[BagQos]
    ) -> None:
        """Register a topic with the text of its message definition and its hash ("" when unknown)."""
        self._check_open()
        if topic in self._connections:
            raise BagError(f"{self.path}: topic {topic} is there already; add each topic once")
        try:
            connection = self._writer.add_connection(
                topic, type, msgdef=definition, rihs01=digest or "unknown", offered_qos_profiles=qos_profiles
            )
        except (WriterError, OSError, sqlite3.Error) as error:
            raise BagError(f"{self.path}: topic {topic} ({type}) cannot be added: {error}") from None
        if not digest:
            # rosbags wants a hash, and its reader checks the one in metadata.yaml: an unknown one must be empty there.
            self._writer.connections[-1] = connection._replace(digest="")
        self._connections[topic] = connection
        self.message_counts[topic] = 0

    def write(self, topic: str, stamp_ns: int, data: bytes | memoryview) -> None:
        """Append a message: `stamp_ns` is when it was received, `data` its CDR bytes.

        Raises BagError for an unknown topic, a stamp before the epoch, a closed bag, or a full disk.
        """
        connection = self._connections.get(topic)
        if connection is None or self._closed or stamp_ns < 0:
            self._check_open()
            what = f"stamp {stamp_ns} ns is before the epoch" if connection else "was not added; call add_topic first"
            raise BagError(f"{self.path}: topic {topic}: {what}")
        try:
            self._put(connection, stamp_ns, data)
        except (OSError, sqlite3.Error) as error:
            raise BagError(f"{self.path}: cannot be written: {error}; is the disk full?") from None
        self.message_counts[topic] += 1
        if self._first_ns is None or stamp_ns < self._first_ns:
            self._first_ns = stamp_ns
        if stamp_ns > self._last_ns:
            self._last_ns = stamp_ns
        if time.monotonic_ns() >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Hand everything written so far to the operating system; `write` does it by itself ten times a second."""
        self._check_open()
        try:
            if self._mcap is None:
                self._sqlite.conn.commit()
            else:
                if self._mcap.chunk.msgs:
                    _close_chunk(self._mcap)
                self._mcap.bio.flush()
        except (OSError, sqlite3.Error) as error:
            raise BagError(f"{self.path}: cannot be written: {error}; is the disk full?") from None
        self._flush_at = time.monotonic_ns() + FLUSH_PERIOD_NS

    def close(self) -> None:
        """Complete the bag: index, end mark, metadata.yaml. Does nothing the second time."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        writer = self._writer
        writer.counts = {connection.id: self.message_counts[topic] for topic, connection in self._connections.items()}
        writer.min_timestamp = self._first_ns or 0
        writer.max_timestamp = self._last_ns
        try:
            writer.close()
        except (OSError, WriterError, sqlite3.Error) as error:
            raise BagError(f"{self.path}: cannot be completed: {error}; is the disk full?") from None

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # What went wrong first, a full disk for example, must not be hidden by what follows from it.
            with contextlib.suppress(BagError):
                self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BagError(f"{self.path}: is closed; make a new BagWriter with a new path")

    def _put_mcap(self, connection: Connection, stamp_ns: int, data: bytes | memoryview) -> None:
        """What McapWriter.write does, in one packing call instead of twelve writes; rosbags indexes and closes it."""
        mcap = self._mcap
        assert mcap is not None
        chunk = mcap.chunk
        if stamp_ns < mcap.message_start_time:
            mcap.message_start_time = stamp_ns
        if stamp_ns > mcap.message_end_time:
            mcap.message_end_time = stamp_ns
        if stamp_ns < chunk.message_start_time:
            chunk.message_start_time = stamp_ns
        if stamp_ns > chunk.message_end_time:
            chunk.message_end_time = stamp_ns
        identity = connection.id
        mcap.channel_stats[identity] += 1
        chunk.msgs[identity].append((stamp_ns, chunk.bio.tell()))
        chunk.bio.write(_MESSAGE_HEAD.pack(5, _MESSAGE_HEAD_SIZE + len(data), identity, 0, stamp_ns, stamp_ns))
        chunk.bio.write(data)
        if chunk.bio.tell() > _CHUNK_BYTES:
            _close_chunk(mcap)


def _close_chunk(mcap: McapWriter) -> None:
    """Write the pending chunk with the checksum that rosbags leaves out, so that a reader sees a flipped bit."""
    checksum = crc32(mcap.chunk.bio.getbuffer())
    start = mcap.bio.tell()
    mcap.close_chunk()
    end = mcap.bio.tell()
    mcap.bio.seek(start + _CHECKSUM_OFFSET)
    mcap.bio.write(checksum.to_bytes(4, "little"))
    mcap.bio.seek(end)
