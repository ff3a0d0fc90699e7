"""Completes a bag whose recorder was killed: everything up to the last whole record, with a valid end and metadata."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from rql_core.bags.message_types import standard_types, type_hash
from rql_core.bags.scan import PACKED_SUFFIX, ROS1_SUFFIX, STORAGE_SUFFIXES, RawTopic, Scan
from rql_core.bags.writer import BagWriter, Storage
from rql_core.errors import BagError


@dataclass(frozen=True)
class RecoveredBag:
    """What `recover_bag` kept. `bytes_cut` counts MCAP only: SQLite rolls back by itself. `damage`: why it was cut.

    `not_cdr`: messages by topic that are not CDR, or of no type, and were left out.
    """

    path: Path
    messages: int
    bytes_cut: int
    damage: str
    not_cdr: Mapping[str, int] = field(default_factory=dict)


def storage_files(path: Path, packed: bool = False) -> list[Path]:
    """The storage files of a bag directory, or the file itself; part 10 after part 9.

    With `packed` also those compressed as a whole (.mcap.zstd), but for such as are there unpacked too: a recorder
    that was killed while it compressed leaves both.
    """
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in STORAGE_SUFFIXES and not file.name.startswith(".")]
    if packed:
        plain = {file.name for file in files}
        files += [file for file in path.iterdir() if is_packed(file) and file.stem not in plain]
    return sorted(files, key=natural_order)


def is_packed(file: Path) -> bool:
    """Whether the name is that of a storage file compressed as a whole."""
    return file.suffix == PACKED_SUFFIX and Path(file.stem).suffix in STORAGE_SUFFIXES and not file.name.startswith(".")


def natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """A sorting key that takes numbers in names as numbers."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def recover_bag(source: Path | str, destination: Path | str) -> RecoveredBag:
    """Copy the bag `source` (directory or storage file) to the new bag directory `destination`, without what is cut.

    Messages that are not whole are left out, and all that follow them in that file. The source is not touched. The copy
    is made beside the destination and renamed at the end.

    Raises BagError when nothing can be read, or the destination exists.
    """
    source, destination = Path(source), Path(destination)
    if destination.exists():
        raise BagError(f"{destination}: exists already; give a new path or remove it first")
    if not source.exists():
        raise BagError(f"{source}: does not exist; give a bag directory or a .mcap or .db3 file")
    if source.suffix == ROS1_SUFFIX and source.is_file():
        raise BagError(f"{source}: is a ROS 1 bag, which cannot be completed here; run `rosbag reindex` on it")
    files = storage_files(source, packed=True)
    if not files:
        raise BagError(f"{source}: has no .mcap or .db3 file; it is no bag")
    partial = destination.parent / f".{destination.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # The files of a bag carry the name of its directory, hence a directory of that name inside the partial one.
        recovered = _copy(files, partial / destination.name)
        (partial / destination.name).rename(destination)
    except OSError as error:
        raise BagError(f"{source}: cannot be copied to {destination}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return RecoveredBag(destination, *recovered)


def _copy(files: list[Path], target: Path) -> tuple[int, int, str, Mapping[str, int]]:
    storage: Storage = "sqlite3" if ".db3" in files[0].suffixes else "mcap"
    messages, bytes_cut, damage = 0, 0, []
    not_cdr: Counter[str] = Counter()
    types: dict[str, str] = {}
    with BagWriter(target, storage) as writer:
        for file in files:
            scan = Scan(file)
            for topic, stamp, data in scan.messages():
                known = types.get(topic.name)
                if known is None:
                    _add(writer, topic)
                    types[topic.name] = topic.type
                elif known != topic.type:
                    raise BagError(f"{file}: topic {topic.name} has types {known} and {topic.type}, expected one")
                writer.write(topic.name, stamp, data)
                messages += 1
            for topic in scan.topics.values():
                if topic.name not in types:
                    _add(writer, topic)
                    types[topic.name] = topic.type
            bytes_cut += scan.bytes_cut
            not_cdr += scan.not_cdr
            if scan.damage:
                damage.append(f"{file.name}: {scan.damage}")
    return messages, bytes_cut, "; ".join(damage), dict(not_cdr)


def _add(writer: BagWriter, topic: RawTopic) -> None:
    definition = topic.definition
    if definition.format == MessageDefinitionFormat.NONE or not definition.data:
        # A type that is no standard one stays without: who reads the bag may have its definition.
        text = ""
        if topic.type in standard_types().fielddefs:
            text, _ = standard_types().generate_msgdef(topic.type, ros_version=2)
        definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    writer.add_defined_topic(topic.name, topic.type, definition.data, type_hash(topic.type, definition), topic.qos)
