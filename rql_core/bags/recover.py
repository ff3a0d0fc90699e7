"""Completes a bag whose recorder was killed: everything up to the last whole record, with a valid end and metadata."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from rql_core.bags.message_types import standard_types, type_hash
from rql_core.bags.scan import STORAGE_SUFFIXES, RawTopic, Scan
from rql_core.bags.writer import BagWriter, Storage
from rql_core.errors import BagError


@dataclass(frozen=True)
class RecoveredBag:
    """What `recover_bag` kept. `bytes_cut` counts MCAP only: SQLite rolls back by itself. `damage`: why it was cut."""

    path: Path
    messages: int
    bytes_cut: int
    damage: str


def storage_files(path: Path) -> list[Path]:
    """The storage files of a bag directory, or the file itself; part 10 after part 9."""
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in STORAGE_SUFFIXES and not file.name.startswith(".")]
    return sorted(files, key=natural_order)


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
    files = storage_files(source)
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


def _copy(files: list[Path], target: Path) -> tuple[int, int, str]:
    storage: Storage = "sqlite3" if files[0].suffix == ".db3" else "mcap"
    messages, bytes_cut, damage = 0, 0, []
    types: dict[str, str] = {}
    with BagWriter(target, storage) as writer:
        for file in files:
            scan = Scan(file)
            for topic, stamp, data in scan.messages():
                known = types.get(topic.name)
                if known is None:
                    _add(writer, file, topic)
                    types[topic.name] = topic.type
                elif known != topic.type:
                    raise BagError(f"{file}: topic {topic.name} has types {known} and {topic.type}, expected one")
                writer.write(topic.name, stamp, data)
                messages += 1
            for topic in scan.topics.values():
                if topic.name not in types:
                    _add(writer, file, topic)
                    types[topic.name] = topic.type
            bytes_cut += scan.bytes_cut
            if scan.damage:
                damage.append(f"{file.name}: {scan.damage}")
    return messages, bytes_cut, "; ".join(damage)


def _add(writer: BagWriter, file: Path, topic: RawTopic) -> None:
    definition = topic.definition
    if definition.format == MessageDefinitionFormat.NONE or not definition.data:
        if topic.type not in standard_types().fielddefs:
            raise BagError(
                f"{file}: topic {topic.name} has type {topic.type} without a definition, which is no standard one"
            )
        text, _ = standard_types().generate_msgdef(topic.type, ros_version=2)
        definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    writer.add_defined_topic(topic.name, topic.type, definition.data, type_hash(topic.type, definition), topic.qos)
