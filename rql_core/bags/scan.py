"""Reads the raw records of a bag's storage file without trusting its end: as far as they are whole.

MCAP (a record: opcode, 8 bytes of length, content) is read record by record, inside chunks too, and stops
before the first one that is cut or does not decode. SQLite is copied and opened for writing, which makes SQLite itself
roll an unfinished transaction back, and then read row by row.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.interfaces import Qos as BagQos
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import decompress, get_qos, read_bytes, read_string

from rql_core.errors import BagError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MCAP_MAGIC = b"\x89MCAP0\r\n"
STORAGE_SUFFIXES = (".mcap", ".db3")
# What file compression puts behind the above.
PACKED_SUFFIX = ".zstd"
ROS1_SUFFIX = ".bag"
# What message compression puts before each message; CDR begins with 0, so that the two cannot be confused.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# What SQLite leaves beside a database whose writer did not finish.
SQLITE_SIDE_FILES = ("-journal", "-wal")

# A commit of rosbag2 every some seconds against a copy of some milliseconds: the second attempt nearly always succeeds.
_COPY_ATTEMPTS = 5

_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}


@dataclass(frozen=True)
class RawTopic:
    """A topic as the storage file describes it."""

    name: str
    type: str
    definition: MessageDefinition
    qos: list[BagQos]


@dataclass
class Scan:
    """Goes over one storage file once; afterwards says which topics it has and how far it was whole.

    `not_cdr`: messages of MCAP channels in another encoding, such as JSON, or without a type, by topic; they are left
    out.
    """

    path: Path
    topics: dict[str, RawTopic] = field(default_factory=dict, init=False)
    bytes_cut: int = field(default=0, init=False)
    damage: str = field(default="", init=False)
    not_cdr: Counter[str] = field(default_factory=Counter, init=False)

    def messages(self) -> Iterator[tuple[RawTopic, int, bytes]]:
        """Topic, receive time in ns and CDR bytes of each whole message, in the order of the file.

        Raises BagError when the file is no MCAP or SQLite bag at all.
        """
        if self.path.suffix == PACKED_SUFFIX:
            return self._packed()
        return self._unpacked(self._sqlite() if self.path.suffix == ".db3" else self._mcap())

    def _packed(self) -> Iterator[tuple[RawTopic, int, bytes]]:
        """The messages of a file that was compressed as a whole, as far as it can be unpacked."""
        with tempfile.TemporaryDirectory(prefix="rql_bag_") as folder:
            inside = Scan(Path(folder) / self.path.stem)
            self.damage = _unpack_file(self.path, inside.path)
            try:
                yield from inside.messages()
            except BagError as error:
                # Nobody finds the copy, and what is wrong with it may be that it could not be unpacked.
                reason = str(error).replace(f"{inside.path}: ", "")
                unpacked = f"cannot be unpacked ({self.damage}): " if self.damage else "unpacked: "
                raise BagError(f"{self.path}: {unpacked}{reason}") from error
            self.topics, self.bytes_cut, self.not_cdr = inside.topics, inside.bytes_cut, inside.not_cdr
            self.damage = self.damage or inside.damage

    def _unpacked(self, messages: Iterator[tuple[RawTopic, int, bytes]]) -> Iterator[tuple[RawTopic, int, bytes]]:
        """The messages, those unpacked that were compressed one by one."""
        for topic, stamp, data in messages:
            if data[:4] != ZSTD_MAGIC:
                yield topic, stamp, data
                continue
            try:
                whole = unpack_message(data)
            except zstd.ZstdError as error:
                self.damage = f"{topic.name}: a compressed message cannot be unpacked: {error}"
                continue
            yield topic, stamp, whole

    def _mcap(self) -> Iterator[tuple[RawTopic, int, bytes]]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            if file.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                raise BagError(
                    f"{self.path}: does not begin like an MCAP file ({size} bytes); it cannot be read as a bag"
                )
            schemas: dict[int, tuple[str, MessageDefinition]] = {}
            channels: dict[int, RawTopic | str] = {}
            while True:
                self.topics.update({topic.name: topic for topic in channels.values() if isinstance(topic, RawTopic)})
                start = file.tell()
                try:
                    opcode, body = _record(file, size)
                    if opcode == _DATA_END:
                        break
                    if opcode == _CHUNK:
                        yield from self._chunk(body, schemas, channels)
                        continue
                    message = self._take(opcode, body, schemas, channels)
                except BagError:
                    raise
                except Exception as error:  # whatever a damaged record makes the decoders raise means "not whole"
                    self.damage = f"{type(error).__name__}: {error}"
                    self.bytes_cut = size - start
                    yield from self._whole_messages_of_a_cut_chunk(file, start, schemas, channels)
                    break
                if message is not None:
                    yield message

    def _chunk(
        self, body: bytes, schemas: dict[int, tuple[str, MessageDefinition]], channels: dict[int, RawTopic | str]
    ) -> list[tuple[RawTopic, int, bytes]]:
        """All messages of a chunk, or an exception and none of them."""
        _, _, size, checksum = struct.unpack_from("<QQQI", body)
        head = BytesIO(body[28:])
        compression = read_string(head)
        (length,) = struct.unpack("<Q", head.read(8))
        content = decompress(head.read(length), compression, size, checksum)
        inside = BytesIO(content)
        messages = []
        while inside.tell() < len(content):
            opcode, record = _record(inside, len(content))
            message = self._take(opcode, record, schemas, channels)
            if message is not None:
                messages.append(message)
        return messages

    def _whole_messages_of_a_cut_chunk(
        self,
        file: BinaryIO,
        start: int,
        schemas: dict[int, tuple[str, MessageDefinition]],
        channels: dict[int, RawTopic | str],
    ) -> Iterator[tuple[RawTopic, int, bytes]]:
        """The file ends inside a chunk: if that is not compressed, its whole messages are still good."""
        file.seek(start)
        rest = BytesIO(file.read())
        size = len(rest.getbuffer())
        if size < 9 + 32 or rest.read(1)[0] != _CHUNK or struct.unpack("<Q", rest.read(8))[0] <= size - 9:
            return
        rest.seek(9 + 28)
        if read_string(rest) != "" or size < rest.tell() + 8:
            return
        rest.seek(8, 1)
        while True:
            try:
                opcode, record = _record(rest, size)
                message = self._take(opcode, record, schemas, channels)
            except Exception:  # the cut
                return
            self.bytes_cut = size - rest.tell()
            if message is not None:
                yield message

    def _take(
        self,
        opcode: int,
        body: bytes,
        schemas: dict[int, tuple[str, MessageDefinition]],
        channels: dict[int, RawTopic | str],
    ) -> tuple[RawTopic, int, bytes] | None:
        """Note a schema or channel (one that is not CDR by its name alone), or return a message."""
        if opcode == _MESSAGE:
            channel, _, stamp, _ = struct.unpack_from("<HIQQ", body)
            topic = channels[channel]
            if isinstance(topic, RawTopic):
                return topic, stamp, body[22:]
            self.not_cdr[topic] += 1
        elif opcode == _SCHEMA:
            rest = BytesIO(body[2:])
            name, encoding, text = read_string(rest), read_string(rest), read_string(rest)
            definition = MessageDefinition(_FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)
            schemas[int.from_bytes(body[:2], "little")] = (name, definition)
        elif opcode == _CHANNEL:
            key, schema = struct.unpack_from("<HH", body)
            rest = BytesIO(body[4:])
            name, encoding = read_string(rest), read_string(rest)
            if encoding == "cdr" and schema in schemas:
                channels[key] = RawTopic(name, *schemas[schema], get_qos(read_bytes(rest)))
            else:
                channels[key] = name
        return None

    def _sqlite(self) -> Iterator[tuple[RawTopic, int, bytes]]:
        with tempfile.TemporaryDirectory(prefix="rql_bag_") as folder:
            copy = Path(folder) / self.path.name
            self._copy_at_rest(copy)
            database = sqlite3.connect(copy)
            try:
                yield from self._rows(database)
            finally:
                database.close()

    def _copy_at_rest(self, copy: Path) -> None:
        """Copy the database with its journal as they were at one moment, also while a recorder writes."""
        files = [Path(f"{self.path}{suffix}") for suffix in ("", *SQLITE_SIDE_FILES)]
        for _ in range(_COPY_ATTEMPTS):
            before = file_states(files)
            for file, suffix in zip(files, ("", *SQLITE_SIDE_FILES), strict=True):
                Path(f"{copy}{suffix}").unlink(missing_ok=True)
                # A journal may vanish at any moment: that is how a transaction ends.
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(file, f"{copy}{suffix}")
            if file_states(files) == before:
                return
        raise BagError(
            f"{self.path}: is being written, and changed during each of {_COPY_ATTEMPTS} attempts to copy it; "
            "wait until the recorder has stopped"
        )

    def _rows(self, database: sqlite3.Connection) -> Iterator[tuple[RawTopic, int, bytes]]:
        try:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"topics", "messages"} <= tables:
                raise BagError(f"{self.path}: has no tables 'topics' and 'messages'; it is no rosbag2 database")
            definitions = {}
            if "message_definitions" in tables:
                query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
                definitions = {
                    name: MessageDefinition(_FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)
                    for name, encoding, text in database.execute(query)
                }
            columns = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
            qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
            topics = {
                key: RawTopic(name, kind, definitions.get(kind, _NO_DEFINITION), parse_qos(profiles))
                for key, name, kind, profiles in database.execute(f"SELECT id, name, type, {qos} FROM topics")
            }
            self.topics.update({topic.name: topic for topic in topics.values()})
        except sqlite3.DatabaseError as error:
            raise BagError(f"{self.path}: not readable as a SQLite database: {error}") from None
        self.damage = _database_damage(database)
        try:
            # By row, not by time: the index on time may be what is damaged.
            for key, stamp, data in database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
                yield topics[key], stamp, data
        except (sqlite3.DatabaseError, KeyError) as error:
            self.damage = f"{type(error).__name__}: {error}"


def _database_damage(database: sqlite3.Connection) -> str:
    """What is wrong with the pages, or "": SQLite has no checksums, and gives out what stands in a damaged page."""
    try:
        ((verdict,),) = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    return "" if verdict == "ok" else f"{' '.join(verdict.split())} (numbers near it may be wrong)"


def file_states(files: Iterable[Path]) -> list[tuple[int, int] | None]:
    """Size and time of change of each file, None where there is none: what differs when somebody writes to one."""
    states: list[tuple[int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError:
            states.append(None)
        else:
            states.append((stat.st_size, stat.st_mtime_ns))
    return states


def unpack_message(data: bytes) -> bytes:
    """A message that was compressed by itself."""
    whole: bytes = zstd.decompress(data)
    return whole


def _unpack_file(packed: Path, target: Path) -> str:
    """Unpack as far as it goes; returns why it did not go further, or ""."""
    with packed.open("rb") as raw, zstd.open(raw, "rb") as source, target.open("wb") as out:
        try:
            while block := source.read(2**20):
                out.write(block)
        except (EOFError, zstd.ZstdError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


def _record(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Opcode and content of the next record; raises ValueError when it is not whole."""
    head = file.read(9)
    if len(head) < 9:
        raise ValueError("the file ends without an end mark" if not head else "the file ends inside a record")
    length = int.from_bytes(head[1:], "little")
    if head[0] == 0 or length > size - file.tell():
        raise ValueError("the file ends inside a record")
    return head[0], file.read(length)
