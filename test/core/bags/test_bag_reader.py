"""Bags are found and read, and what is wrong with one is said in one BagError."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rql_core.bags import BagReader, bag_topics, find_bags, read_bag, recover_bag
from rql_core.errors import BagError

STORAGES = ("mcap", "sqlite3")
TOPICS = synthetic.topics_of(synthetic.record(1).contract)


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return synthetic.record(40).write(tmp_path / "bag")


def test_find_bags_takes_directories_files_and_patterns_in_natural_order(tmp_path: Path) -> None:
    for name in ("run_10", "run_9", "run_1"):
        synthetic.record(2).write(tmp_path / "day" / name)
    loose = tmp_path / "day" / "loose.mcap"
    shutil.copy(storage_file(tmp_path / "day" / "run_1"), loose)
    folders = [tmp_path / "day" / name for name in ("run_1", "run_9", "run_10")]
    assert find_bags([tmp_path / "day"]) == [loose, *folders]
    assert find_bags([str(tmp_path / "day" / "run_*")]) == folders
    assert find_bags([folders[2], tmp_path / "day"]) == [folders[2], loose, *folders[:2]]
    assert find_bags([loose]) == [loose]


def test_an_unfinished_bag_directory_is_one_bag(bag: Path) -> None:
    (bag / "metadata.yaml").unlink()
    assert find_bags([bag.parent]) == [bag]


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "does not exist"), ("*.bag", "no path fits"), ("", "no bag there")]
)
def test_find_bags_says_what_is_wrong(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(BagError, match=message):
        find_bags([f"{tmp_path}/{name}"])


@pytest.mark.parametrize("storage", STORAGES)
def test_reading_a_directory_and_its_file_gives_the_same_messages(tmp_path: Path, storage: str) -> None:
    recording = synthetic.record(40)
    bag = recording.write(tmp_path / "bag", storage)
    shutil.copy(storage_file(bag), tmp_path / storage_file(bag).name)
    for path in (bag, tmp_path / storage_file(bag).name):
        messages = list(read_bag(path, {"/tool_pose": TOPICS["/tool_pose"]}))
        assert [stamp for _, stamp, _ in messages] == [recording.stamp(i) for i in range(40)]
        assert [message.pose.position.y for _, _, message in messages] == recording.tool[:, 1].tolist()


def test_topics_are_listed_with_types_and_counts(bag: Path) -> None:
    topics = bag_topics(bag)
    assert {name: info.type for name, info in topics.items()} == TOPICS
    assert topics["/joint_states"].messages == 40


def test_a_missing_topic_and_a_wrong_type_are_named(bag: Path) -> None:
    with pytest.raises(BagError, match=r"topic /joints .* is not in the bag; there are: .*/joint_states"):
        list(read_bag(bag, {"/joints": "sensor_msgs/msg/JointState"}))
    with pytest.raises(
        BagError, match="/tool_pose has geometry_msgs/msg/PoseStamped, expected geometry_msgs/msg/Pose;"
    ):
        list(read_bag(bag, {"/tool_pose": "geometry_msgs/msg/Pose"}))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_closed_bag_that_lost_its_end_is_refused(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(400).write(tmp_path / "bag", storage)
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match=r"bag.*recover"):
        list(read_bag(bag, TOPICS))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_cut_file_of_a_killed_recorder_is_read_as_far_as_it_goes(tmp_path: Path, share: float) -> None:
    recording = synthetic.record(400)
    bag = recording.write(tmp_path / "bag")
    file = storage_file(bag)
    (bag / "metadata.yaml").unlink()
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with BagReader(bag) as reader:
        tools = [message.pose.position.x for topic, _, message in reader.messages(TOPICS) if topic == "/tool_pose"]
        assert "unfinished" in reader.notes[0]
    assert 0.5 * share * 400 < len(tools) < 400
    np.testing.assert_array_equal(tools, recording.tool[: len(tools), 0])
    recovered = recover_bag(bag, tmp_path / "whole")
    assert recovered.bytes_cut > 0
    assert "inside a record" in recovered.damage


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere_raises_bag_error_or_still_reads(tmp_path: Path, storage: str, seed: int) -> None:
    bag = synthetic.record(60).write(tmp_path / "bag", storage)
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(data) - 64))
    data[at : at + 64] = rng.bytes(64)
    file.write_bytes(data)
    errors = []
    for read in (lambda: list(read_bag(bag, TOPICS)), lambda: recover_bag(bag, tmp_path / "whole")):
        try:
            read()
        except BagError as error:
            errors.append(str(error))
    assert all(str(bag) in error and "\n" not in error for error in errors)


def test_a_payload_that_does_not_decode_names_topic_and_time(tmp_path: Path) -> None:
    recording = synthetic.record(3)
    with synthetic.BagWriter(tmp_path / "bag") as writer:
        synthetic.fill(writer, recording)
        writer.write("/tool_pose", recording.stamp(20), b"\x00\x01\x00\x00\x07")
    with pytest.raises(BagError, match=r"topic /tool_pose, 1\.000 s from the bag's start .*PoseStamped of 5 bytes"):
        list(read_bag(tmp_path / "bag", TOPICS))


def test_one_flipped_bit_in_a_message_is_noticed(bag: Path) -> None:
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(BagError, match=r"damaged or no bag: .*checksum"):
        list(read_bag(bag, TOPICS))


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_a_compressed_bag_reads_the_same(tmp_path: Path, bag: Path, mode: CompressionMode) -> None:
    writer = Writer(tmp_path / "small", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer, Reader(bag) as source:
        added = {
            each.topic: writer.add_connection(each.topic, each.msgtype, typestore=synthetic.TYPES)
            for each in source.connections
        }
        for connection, stamp, data in source.messages():
            writer.write(added[connection.topic], stamp, data)
    assert find_bags([tmp_path / "small"]) == [tmp_path / "small"]
    expected = [(topic, stamp, repr(message)) for topic, stamp, message in read_bag(bag, TOPICS)]
    assert [(topic, stamp, repr(message)) for topic, stamp, message in read_bag(tmp_path / "small", TOPICS)] == expected


def test_a_type_that_differs_from_the_standard_one_is_read_by_the_definition_in_the_bag(tmp_path: Path) -> None:
    definition = "float64 grip\nstd_msgs/Header header\n" + "=" * 80 + "\nMSG: std_msgs/Header\n"
    definition += "builtin_interfaces/Time stamp\nstring frame_id\n" + "=" * 80
    definition += "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition, "my_robot/msg/Gripper"))
    message = store.types["my_robot/msg/Gripper"](0.25, synthetic.header(7))
    with synthetic.BagWriter(tmp_path / "bag") as writer:
        writer.add_defined_topic("/gripper", "my_robot/msg/Gripper", definition, "", [])
        writer.write("/gripper", 5, store.serialize_cdr(message, "my_robot/msg/Gripper"))
    (read,) = read_bag(tmp_path / "bag", {"/gripper": "my_robot/msg/Gripper"})
    assert (read[2].grip, read[2].header.stamp.nanosec) == (0.25, 7)
    assert recover_bag(tmp_path / "bag", tmp_path / "copy").messages == 1


def test_an_empty_and_a_foreign_file_are_no_bags(tmp_path: Path) -> None:
    for name in ("empty.mcap", "empty.db3"):
        (tmp_path / name).touch()
        with pytest.raises(BagError, match=name):
            list(read_bag(tmp_path / name, TOPICS))
    for name in ("text.mcap", "text.db3"):
        (tmp_path / name).write_text("this is no bag " * 100)
        with pytest.raises(BagError, match=name):
            list(read_bag(tmp_path / name, TOPICS))


def test_recovering_a_whole_bag_keeps_all_of_it(bag: Path, tmp_path: Path) -> None:
    recovered = recover_bag(bag, tmp_path / "copy")
    assert (recovered.messages, recovered.bytes_cut, recovered.damage) == (121, 0, "")
    before = [(topic, stamp) for topic, stamp, _ in read_bag(bag, TOPICS)]
    assert [(topic, stamp) for topic, stamp, _ in read_bag(tmp_path / "copy", TOPICS)] == before
    with pytest.raises(BagError, match="exists already"):
        recover_bag(bag, tmp_path / "copy")


def test_a_recovered_bag_keeps_topics_without_messages(tmp_path: Path) -> None:
    bag = synthetic.record(5, markers=()).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    recover_bag(bag, tmp_path / "whole")
    assert bag_topics(tmp_path / "whole")["/episode"].messages == 0


@pytest.mark.parametrize("storage", STORAGES)
def test_a_file_that_the_metadata_passes_over_is_named(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(10).write(tmp_path / "a ?#%bag" if storage == "mcap" else tmp_path / "bag", storage)
    with BagReader(bag) as opened:
        assert opened.notes == []
    first = storage_file(bag)
    second = first.with_name(f"{first.stem}_1{first.suffix}")
    shutil.copy(first, second)
    with BagReader(bag) as opened:
        assert opened.message_count == 31
        (note,) = opened.notes
    assert note.startswith(f"not read, because metadata.yaml does not list it: {second.name}; ")
    (bag / "metadata.yaml").rename(tmp_path / "metadata.yaml")
    with BagReader(bag) as opened:
        assert opened.message_count == 62
