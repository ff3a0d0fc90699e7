"""Every kind of bag reads as the same messages: storages, versions of metadata, compression, parts, ROS 1."""

import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import lz4.frame
import numpy as np
import pytest
import synthetic
import yaml
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rql_core.bags import BagReader, bag_topics, convert, find_bags, read_bag, recover_bag
from rql_core.contract import decode_chunk
from rql_core.errors import BagError

TOPICS = synthetic.topics_of(synthetic.record(1).contract)
STORAGES = ("mcap", "sqlite3")


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if {".mcap", ".db3"} & set(file.suffixes))


def content(path: Path) -> list[tuple[str, int, str]]:
    return [(topic, stamp, repr(message)) for topic, stamp, message in read_bag(path, TOPICS)]


def compressed(bag: Path, target: Path, mode: CompressionMode, storage: str) -> Path:
    """A copy of the bag as rosbag2 compresses it."""
    writer = Writer(target, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer, Reader(bag) as source:
        added = {
            each.topic: writer.add_connection(each.topic, each.msgtype, typestore=synthetic.TYPES)
            for each in source.connections
        }
        for connection, stamp, data in source.messages():
            writer.write(added[connection.topic], stamp, data)
    return target


# Metadata


def metadata_of_version(version: int, bag: Path, recording: synthetic.Recording) -> dict[str, Any]:
    """What rosbag2 of that version writes, by the history in rosbag2's documentation."""
    file = storage_file(bag)
    counts = {topic: sum(item[0] == topic for item in recording.messages) for topic in TOPICS}
    profile = {
        "history": 1 if version < 9 else "keep_last",
        "depth": 10,
        "reliability": 1 if version < 9 else "reliable",
        "durability": 2 if version < 9 else "volatile",
        "deadline": {"sec": 9223372036, "nsec": 854775807},
        "lifespan": {"sec": 9223372036, "nsec": 854775807},
        "liveliness": 1 if version < 9 else "automatic",
        "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807},
        "avoid_ros_namespace_conventions": False,
    }
    topics = []
    for topic, kind in TOPICS.items():
        about: dict[str, Any] = {"name": topic, "type": kind, "serialization_format": "cdr"}
        if version >= 4:
            about["offered_qos_profiles"] = yaml.safe_dump([profile]) if version < 9 else [profile]
        if version >= 7:
            about["type_description_hash"] = synthetic.TYPES.hash_rihs01(kind)
        topics.append({"topic_metadata": about, "message_count": counts[topic]})
    stamps = [stamp for _, stamp, _ in recording.messages]
    span = {
        "duration": {"nanoseconds": max(stamps) - min(stamps)},
        "starting_time": {"nanoseconds_since_epoch": min(stamps)},
        "message_count": len(stamps),
    }
    data: dict[str, Any] = {
        "version": version,
        "storage_identifier": "sqlite3" if file.suffix == ".db3" else "mcap",
        "relative_file_paths": [file.name if version >= 4 else f"{bag.name}/{file.name}"],
        **span,
        "topics_with_message_count": topics,
    }
    if version >= 3:
        data |= {"compression_format": "", "compression_mode": ""}
    if version >= 5:
        data["files"] = [{"path": file.name, **span}]
    if version >= 6:
        data["custom_data"] = None
    if version >= 8:
        data["ros_distro"] = "rolling"
    return {"rosbag2_bagfile_information": data}


def age_database(file: Path, version: int) -> None:
    """Give the database the tables of rosbag2 of that version: definitions came with 7, quality of service with 4."""
    if version >= 7:
        return
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        database.execute("DROP TABLE schema")
        if version < 4:
            database.execute("ALTER TABLE topics DROP COLUMN offered_qos_profiles")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("version", range(1, 10))
def test_metadata_of_every_version_reads_the_same(tmp_path: Path, storage: str, version: int) -> None:
    recording = synthetic.record(5)
    bag = recording.write(tmp_path / "bag", storage)
    expected = content(bag)
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata_of_version(version, bag, recording)))
    if storage == "sqlite3":
        age_database(storage_file(bag), version)
    with BagReader(bag) as reader:
        read = [(topic, stamp, repr(message)) for topic, stamp, message in reader.messages(TOPICS)]
        assert reader.notes == []
    assert len(read) == 16
    assert read == expected


def test_a_later_version_of_metadata_is_refused_with_its_number(tmp_path: Path) -> None:
    recording = synthetic.record(5)
    bag = recording.write(tmp_path / "bag")
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata_of_version(10, bag, recording)))
    with pytest.raises(BagError, match=r"bag: .*version 10 not supported"):
        content(bag)


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_whose_quality_of_service_metadata_contradicts_are_not_lost(tmp_path: Path, storage: str) -> None:
    recording = synthetic.record(5)
    bag = recording.write(tmp_path / "bag", storage)
    expected = content(bag)
    changed = (bag / "metadata.yaml").read_text().replace("reliable", "best_effort")
    (bag / "metadata.yaml").write_text(changed)
    assert content(bag) == expected
    with Reader(bag) as plain:
        assert list(plain.messages()) == []


@pytest.mark.parametrize("storage", STORAGES)
def test_missing_metadata_is_no_loss(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", storage)
    expected = content(bag)
    (bag / "metadata.yaml").unlink()
    assert find_bags([tmp_path]) == [bag]
    assert content(bag) == expected


# Parts


def in_parts(tmp_path: Path, recording: synthetic.Recording, storage: str, cuts: list[int], order: list[int]) -> Path:
    """One bag whose files hold the messages up to each cut; `order`: in which metadata.yaml lists them."""
    bag = tmp_path / "parts"
    bag.mkdir()
    whole = recording.write(tmp_path / "whole", storage)
    messages = sorted(recording.messages, key=lambda item: item[1])
    names = []
    for index, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(messages)], strict=True)):
        part = synthetic.Recording(*[getattr(recording, name) for name in PLAIN], messages=messages[start:end])
        file = storage_file(part.write(tmp_path / f"part_{index}", storage))
        names.append(f"parts_{index}{file.suffix}")
        shutil.copy(file, bag / names[-1])
    information = yaml.safe_load((whole / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"]["relative_file_paths"] = [names[index] for index in order]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(information))
    return bag


PLAIN = ("contract", "positions", "velocities", "tool", "actions")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metadata", [True, False])
def test_a_split_bag_is_one_bag_by_time(tmp_path: Path, storage: str, metadata: bool) -> None:
    recording = synthetic.record(40)
    bag = in_parts(tmp_path, recording, storage, [50, 51, 100], [2, 0, 3, 1])
    if not metadata:
        (bag / "metadata.yaml").unlink()
    assert find_bags([bag]) == [bag]
    assert sorted(content(bag)) == sorted(content(tmp_path / "whole"))
    stamps = [stamp for _, stamp, _ in read_bag(bag, TOPICS)]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("storage", STORAGES)
def test_parts_that_overlap_in_time_are_merged(tmp_path: Path, storage: str) -> None:
    recording = synthetic.record(40)
    recording.messages.sort(key=lambda item: item[1])
    bag = in_parts(tmp_path, recording, storage, [60], [0, 1])
    # The second part again, with the odd messages of the first: as a recorder with several threads may write.
    first, second = recording.messages[:60], recording.messages[60:]
    for name, messages in (("parts_0", first[::2]), ("parts_1", first[1::2] + second)):
        part = synthetic.Recording(*[getattr(recording, each) for each in PLAIN], messages=messages)
        file = storage_file(part.write(tmp_path / f"again_{name}", storage))
        shutil.copy(file, bag / f"{name}{file.suffix}")
    assert sorted(content(bag)) == sorted(content(tmp_path / "whole"))
    stamps = [stamp for _, stamp, _ in read_bag(bag, TOPICS)]
    assert stamps == sorted(stamps)


# Compression


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("found", ["directory", "loose", "without metadata"])
def test_a_compressed_bag_reads_the_same_with_and_without_metadata(
    tmp_path: Path, storage: str, mode: CompressionMode, found: str
) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", storage)
    small = compressed(bag, tmp_path / "small", mode, storage)
    if found == "loose":
        small = Path(shutil.copy(storage_file(small), tmp_path / f"loose{''.join(storage_file(small).suffixes)}"))
    elif found == "without metadata":
        (small / "metadata.yaml").unlink()
    assert find_bags([small]) == [small]
    with BagReader(small) as reader:
        read = [(topic, stamp, repr(message)) for topic, stamp, message in reader.messages(TOPICS)]
        assert bool(reader.notes) == (found == "without metadata")
    assert read == content(bag)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("loose.mcap", "loose.db3")) == sorted(
        {"bag", "small", *([small.name] if found == "loose" and mode == CompressionMode.FILE else [])}
    )


def test_a_recorder_that_was_killed_while_it_compressed_loses_nothing(tmp_path: Path) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag")
    expected = content(bag)
    small = compressed(bag, tmp_path / "small", CompressionMode.FILE, "mcap")
    packed = storage_file(small).read_bytes()
    (bag / "metadata.yaml").unlink()
    (bag / "bag.mcap.zstd").write_bytes(packed[: len(packed) // 2])  # beside bag.mcap, which is still there
    assert content(bag) == expected


def test_a_cut_compressed_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    recording = synthetic.record(4000)
    small = compressed(recording.write(tmp_path / "bag"), tmp_path / "small", CompressionMode.FILE, "mcap")
    packed = storage_file(small).read_bytes()
    storage_file(small).write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(BagError, match=r"small: damaged or no bag: .*recover"):
        content(small)
    recovered = recover_bag(small, tmp_path / "whole")
    assert "compressed" in recovered.damage.lower()
    tools = [item[2].pose.position.x for item in read_bag(tmp_path / "whole", {"/tool_pose": TOPICS["/tool_pose"]})]
    assert 100 < len(tools) < 4000
    np.testing.assert_array_equal(tools, recording.tool[: len(tools), 0])


def with_lz4_chunks(file: Path) -> None:
    """Rewrite the MCAP file with its chunks compressed by lz4, and without index, as a foreign writer may leave it."""
    data, out = file.read_bytes(), bytearray()
    at = 8
    out += data[:8]
    while at < len(data) - 8:
        opcode, length = data[at], int.from_bytes(data[at + 1 : at + 9], "little")
        body = data[at + 9 : at + 9 + length]
        at += 9 + length
        if opcode == 0x06:
            start, end, size, _ = struct.unpack_from("<QQQI", body)
            raw = body[28 + 4 + 8 :]
            packed = lz4.frame.compress(raw)
            assert len(raw) == size
            body = struct.pack("<QQQI", start, end, size, crc32(raw)) + struct.pack("<I", 3) + b"lz4"
            body += struct.pack("<Q", len(packed)) + packed
        if opcode == 0x02:
            body = bytes(20)
        if opcode in (0x01, 0x06, 0x0F, 0x02):
            out += bytes([opcode]) + struct.pack("<Q", len(body)) + body
    file.write_bytes(out + data[:8])


def test_chunks_compressed_by_lz4_read_the_same(tmp_path: Path) -> None:
    bag = synthetic.record(4).write(tmp_path / "bag")
    expected = content(bag)
    loose = tmp_path / "loose.mcap"
    shutil.copy(storage_file(bag), loose)
    with_lz4_chunks(loose)
    assert b"lz4" in loose.read_bytes()
    assert content(loose) == expected


# ROS 1


def ros1_bag(path: Path, recording: synthetic.Recording, compression: str = "") -> Path:
    """The recording as a bag of ROS 1, with ROS 1's own definitions: a header has a `seq`."""
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression])
    with writer:
        connections = {}
        for topic, stamp, message in sorted(recording.messages, key=lambda item: item[1]):
            kind = TOPICS[topic]
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_ros1(as_ros1(message, store), kind))
    return path


def as_ros1(message: Any, store: Any) -> Any:
    if isinstance(message, list):
        return [as_ros1(each, store) for each in message]
    kind = getattr(message, "__msgtype__", None)
    if kind is None:
        return message
    values = {name: as_ros1(getattr(message, name), store) for name, _ in synthetic.TYPES.fielddefs[kind][1]}
    if kind == "std_msgs/msg/Header":
        values["seq"] = 7
    return store.types[kind](**values)


@pytest.mark.parametrize("compression", ["", "LZ4", "BZ2"])
def test_a_ros_1_bag_reads_with_the_attributes_of_ros_2(tmp_path: Path, compression: str) -> None:
    recording = synthetic.record(40)
    bag = ros1_bag(tmp_path / "old.bag", recording, compression)
    assert {topic: info.type for topic, info in bag_topics(bag).items()} == TOPICS
    read = list(read_bag(bag, TOPICS))
    assert len(read) == 121
    poses = [message for topic, _, message in read if topic == "/tool_pose"]
    stamps = [pose.header.stamp.sec * 10**9 + pose.header.stamp.nanosec for pose in poses]
    assert stamps == [recording.stamp(tick) for tick in range(40)]
    assert [pose.pose.position.y for pose in poses] == recording.tool[:, 1].tolist()
    commands = [message for topic, _, message in read if topic == recording.contract.action.topic]
    chunk = decode_chunk(recording.contract, commands[3], 0)
    assert (chunk.stamp_ns, chunk.ends_ns.tolist()) == (recording.stamp(3), [recording.stamp(4)])
    np.testing.assert_array_equal(chunk.actions[0], recording.actions[3])


def test_a_ros_1_bag_converts_to_the_same_data(tmp_path: Path) -> None:
    recording = synthetic.record(40)
    contract = synthetic.contract_file(tmp_path)
    new = convert(recording.write(tmp_path / "new"), contract, tmp_path / "new-v0", progress=False)
    old = convert(ros1_bag(tmp_path / "old.bag", recording), contract, tmp_path / "old-v0", progress=False)
    assert (new.steps, new.content_sha256) == (old.steps, old.content_sha256)
    assert new.steps == 39


def test_directories_are_searched_for_ros_1_bags_too(tmp_path: Path) -> None:
    recording = synthetic.record(2)
    names = ("run_10.bag", "run_9.bag", "fresh")
    ros1_bag(tmp_path / names[0], recording)
    ros1_bag(tmp_path / names[1], recording)
    recording.write(tmp_path / names[2])
    assert find_bags([tmp_path]) == [tmp_path / name for name in ("fresh", "run_9.bag", "run_10.bag")]
    assert find_bags([f"{tmp_path}/run_*.bag"]) == [tmp_path / name for name in ("run_9.bag", "run_10.bag")]


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_cut_ros_1_bag_is_refused_with_what_mends_it(tmp_path: Path, share: float) -> None:
    bag = ros1_bag(tmp_path / "old.bag", synthetic.record(400))
    data = bag.read_bytes()
    bag.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BagError, match=r"old\.bag: damaged or no bag: .*rosbag reindex"):
        content(bag)
    with pytest.raises(BagError, match=r"old\.bag: is a ROS 1 bag.*rosbag reindex"):
        recover_bag(bag, tmp_path / "copy")


def test_a_type_of_its_own_in_a_ros_1_bag_is_read_by_its_definition(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    text = "Header header\nfloat64 grip\nduration[] waits\n"
    text += "=" * 80 + "\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n"
    own = get_types_from_msg(text, "my_robot/msg/Gripper")
    store.register({"my_robot/msg/Gripper": own["my_robot/msg/Gripper"]})
    wait = store.types["builtin_interfaces/msg/Duration"](1, 5)
    message = store.types["my_robot/msg/Gripper"](as_ros1(synthetic.header(7), store), 0.25, [wait])
    with Ros1Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/gripper", "my_robot/msg/Gripper", msgdef=text, md5sum="0" * 32)
        writer.write(connection, 5, store.serialize_ros1(message, "my_robot/msg/Gripper"))
    ((_, stamp, read),) = read_bag(tmp_path / "old.bag", {"/gripper": "my_robot/msg/Gripper"})
    assert (stamp, read.grip, read.header.stamp.nanosec, read.header.seq, read.waits[0].nanosec) == (5, 0.25, 7, 7, 5)
