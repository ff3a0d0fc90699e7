"""What goes wrong with files in the field: each fault is named and located, or read around by a rule that is said."""

import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic
import yaml

from rql_core.bags import BagReader, BagWriter, bag_topics, find_bags, read_bag, recover_bag, scan
from rql_core.bags.scan import zstd
from rql_core.cli import main
from rql_core.errors import BagError

TOPICS = synthetic.topics_of(synthetic.record(1).contract)
STORAGES = ("mcap", "sqlite3")
POSE = {"/tool_pose": TOPICS["/tool_pose"]}


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


# Damage


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_4_kb_of_noise_are_an_error_that_names_the_bag(tmp_path: Path, storage: str, share: float) -> None:
    bag = synthetic.record(400).write(tmp_path / "bag", storage)
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = int(len(data) * share)
    data[at : at + 4096] = np.random.default_rng(int(share * 10)).bytes(4096)
    file.write_bytes(data)
    with pytest.raises(BagError, match=r"bag: damaged or no bag: [^\n]+; copy it again, or use recover_bag"):
        list(read_bag(bag, TOPICS))


def test_noise_in_a_database_is_found_before_the_first_message(tmp_path: Path) -> None:
    """SQLite has no checksums: numbers of a damaged page could be taken for true until the next page is read."""
    bag = synthetic.record(400).write(tmp_path / "bag", "sqlite3")
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = len(data) * 6 // 10
    data[at : at + 4096] = np.random.default_rng(0).bytes(4096)
    file.write_bytes(data)
    read = []
    with pytest.raises(BagError), BagReader(bag) as reader:
        read.extend(reader.messages(POSE))
    assert read == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_database_with_noise_and_without_metadata_is_refused_and_recovered_with_a_warning(
    tmp_path: Path, share: float
) -> None:
    bag = synthetic.record(400).write(tmp_path / "bag", "sqlite3")
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = int(len(data) * share)
    data[at : at + 4096] = np.random.default_rng(int(share * 10)).bytes(4096)
    file.write_bytes(data)
    with pytest.raises(BagError, match=r"bag: damaged: .*; copy it again, or keep what can be read"):
        list(read_bag(bag, TOPICS))
    assert recover_bag(bag, tmp_path / "whole").damage.startswith("bag.db3: ")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_cut_database_without_metadata_is_refused(tmp_path: Path, share: float) -> None:
    bag = synthetic.record(400).write(tmp_path / "bag", "sqlite3")
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    for read in (lambda: list(read_bag(bag, TOPICS)), lambda: recover_bag(bag, tmp_path / "whole")):
        with pytest.raises(BagError, match=r"bag\.db3: not readable as a SQLite database"):
            read()


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "before the end-of-stream marker"),
        (lambda data: zstd.compress(b"no bag" * 1000), "magic is invalid|begin like an MCAP|not a database"),
    ],
    ids=["cut", "no bag inside"],
)
def test_a_packed_file_is_named_and_never_the_copy_that_was_unpacked(
    tmp_path: Path, storage: str, metadata: bool, spoil: Callable[[bytes], bytes], words: str
) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", storage)
    file = storage_file(bag)
    packed = file.rename(file.with_name(f"{file.name}.zstd"))
    packed.write_bytes(spoil(zstd.compress(packed.read_bytes())))
    information = yaml.safe_load((bag / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"].update(
        relative_file_paths=[packed.name], compression_format="zstd", compression_mode="FILE"
    )
    (bag / "metadata.yaml").write_text(yaml.safe_dump(information))
    if not metadata:
        (bag / "metadata.yaml").unlink()
    with pytest.raises(BagError, match=words) as caught:
        list(read_bag(bag, TOPICS))
    message = str(caught.value)
    assert message.startswith(f"{bag}: " if metadata else f"{packed}: ")
    assert tempfile.gettempdir() not in message.replace(str(tmp_path), "")


def test_what_is_before_the_noise_is_recovered(tmp_path: Path) -> None:
    recording = synthetic.record(12_000)
    bag = recording.write(tmp_path / "bag")
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = data.find(b"shoulder_joint", len(data) // 2)  # within a chunk: noise in an index of messages loses nothing
    data[at : at + 4096] = np.random.default_rng(0).bytes(4096)
    file.write_bytes(data)
    recovered = recover_bag(bag, tmp_path / "whole")
    assert "checksum" in recovered.damage
    tools = [message.pose.position.x for _, _, message in read_bag(tmp_path / "whole", POSE)]
    assert 1000 < len(tools) < 7000
    np.testing.assert_array_equal(tools, recording.tool[: len(tools), 0])


@pytest.mark.parametrize("damaged", [True, False])
def test_the_command_says_what_it_kept_and_what_it_cut(
    damaged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, copy = synthetic.record(12_000).write(tmp_path / "bag"), tmp_path / "whole"
    file = storage_file(bag)
    if damaged:
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    assert main(["recover", str(bag), str(copy)]) == 0
    said = capsys.readouterr().out.splitlines()
    with BagReader(copy) as reader:
        assert said[0] == f"{copy}: {sum(1 for _ in reader.raw_messages())} messages kept"
    assert len(said) == 1 + damaged
    if damaged:
        assert re.fullmatch(r"it was damaged: bag\.mcap: .+, [1-9]\d* bytes cut", said[1])


def mcap_record(opcode: int, body: bytes) -> bytes:
    return bytes([opcode]) + struct.pack("<Q", len(body)) + body


def mcap_text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


@pytest.mark.parametrize("schema", [7, 0])
def test_messages_that_are_no_cdr_do_not_end_an_unfinished_bag(tmp_path: Path, schema: int) -> None:
    """Other tools write a status in JSON, with a schema or none, into the same file."""
    bag = synthetic.record(60).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    data = file.read_bytes()
    head = 8 + 9 + int.from_bytes(data[9:17], "little")  # magic, and the record of the header
    stamps = struct.pack("<QQ", synthetic.START_NS, synthetic.START_NS)
    others = mcap_record(3, struct.pack("<H", 7) + mcap_text("Status") + mcap_text("jsonschema") + mcap_text("{}"))
    others += mcap_record(4, struct.pack("<HH", 99, schema) + mcap_text("/status") + mcap_text("json") + mcap_text(""))
    others += 3 * mcap_record(5, struct.pack("<HI", 99, 0) + stamps + b"{}")
    # Three quarters: as after a power failure.
    file.write_bytes(data[:head] + others + data[head : len(data) * 3 // 4])
    with BagReader(bag) as reader:
        assert "/status" not in reader.topics
        got = [(topic, stamp) for topic, stamp, _ in reader.messages(TOPICS)]
        assert reader.notes[1:] == ["/status: 3 messages are not CDR, or of no type, and were left out"]
    file.write_bytes(data[: len(data) * 3 // 4])
    assert got == [(topic, stamp) for topic, stamp, _ in read_bag(bag, TOPICS)]
    assert len(got) > 40


def test_noise_in_a_file_that_has_its_end_is_damage_also_where_metadata_are_missing(tmp_path: Path) -> None:
    bag = synthetic.record(12_000).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = data.find(b"shoulder_joint", len(data) // 2)  # within a chunk: noise in an index of messages loses nothing
    data[at : at + 4096] = np.random.default_rng(0).bytes(4096)
    file.write_bytes(data)
    with pytest.raises(BagError, match=r"bag: damaged: bag\.mcap: .*; copy it again, or keep what can be read"):
        list(read_bag(bag, POSE))
    # Without its end it is that of a recorder that was killed: read as far as it goes, and noted.
    file.write_bytes(data[:-1000])
    with BagReader(bag) as reader:
        assert 1000 < len(list(reader.messages(POSE))) < 7000
        assert "bytes cut" in reader.notes[0]


def test_rows_that_belong_to_no_topic_are_counted(tmp_path: Path) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(storage_file(bag)) as database:
        database.execute("UPDATE messages SET topic_id = 99 WHERE id % 10 = 0")
    with pytest.raises(BagError, match=r"bag: damaged or no bag: 12 of 121 rows belong to no topic"):
        list(read_bag(bag, TOPICS))


# What is there, and what metadata.yaml says


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_bag_has_topics_and_no_messages(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / "bag", storage) as writer:
        for topic, kind in TOPICS.items():
            writer.add_topic(topic, kind)
    for path in (tmp_path / "bag", storage_file(tmp_path / "bag")):
        with BagReader(path) as reader:
            assert (reader.message_count, reader.start_ns, set(reader.topics)) == (0, 0, set(TOPICS))
            assert list(reader.messages(TOPICS)) == []
            assert reader.notes == []


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_without_any_topic_says_that_the_topic_is_not_there(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / "bag", storage):
        pass
    with pytest.raises(BagError, match=r"topic /tool_pose .* is not in the bag; there are: none"):
        list(read_bag(tmp_path / "bag", POSE))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_topic_without_a_message_is_there(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(5, markers=()).write(tmp_path / "bag", storage)
    assert bag_topics(bag)["/episode"].messages == 0
    assert len(list(read_bag(bag, TOPICS))) == 15


def test_a_topic_that_only_metadata_knows_is_there_without_messages(tmp_path: Path) -> None:
    bag = synthetic.record(5).write(tmp_path / "bag")
    information = yaml.safe_load((bag / "metadata.yaml").read_text())
    topics = information["rosbag2_bagfile_information"]["topics_with_message_count"]
    other = yaml.safe_load(yaml.safe_dump(topics[0]))
    other["topic_metadata"]["name"], other["message_count"] = "/quiet", 0
    topics.append(other)
    (bag / "metadata.yaml").write_text(yaml.safe_dump(information))
    assert bag_topics(bag)["/quiet"].messages == 0


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("said", [0, 39, 4000])
def test_a_message_count_that_lies_is_noted_and_changes_nothing(tmp_path: Path, storage: str, said: int) -> None:
    recording = synthetic.record(40)
    bag = recording.write(tmp_path / "bag", storage)
    information = yaml.safe_load((bag / "metadata.yaml").read_text())
    content = information["rosbag2_bagfile_information"]
    content["message_count"] = said
    for topic in content["topics_with_message_count"]:
        topic["message_count"] = said
    (bag / "metadata.yaml").write_text(yaml.safe_dump(information))
    with BagReader(bag) as reader:
        assert (reader.message_count, reader.start_ns) == (121, recording.stamp(0))
        assert len(list(reader.messages(POSE))) == 40
        assert reader.notes == [f"/tool_pose: 40 messages read, but the bag's index says {said}"]


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_that_metadata_calls_by_another_name_is_named(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(5).write(tmp_path / "bag", storage)
    other = "mcap" if storage == "sqlite3" else "sqlite3"
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace(f"storage_identifier: {storage}", f"storage_identifier: {other}"))
    with pytest.raises(BagError, match="bag: damaged or no bag"):
        list(read_bag(bag, TOPICS))


def test_bags_of_both_storages_are_read_together(tmp_path: Path) -> None:
    recording = synthetic.record(5)
    recording.write(tmp_path / "day" / "a", "sqlite3")
    recording.write(tmp_path / "day" / "b", "mcap")
    first, second = ([repr(item) for item in read_bag(bag, TOPICS)] for bag in find_bags([tmp_path / "day"]))
    assert first == second


def test_a_bag_with_parts_of_both_storages_is_one_bag(tmp_path: Path) -> None:
    recording = synthetic.record(40)
    halves = [
        [item for item in recording.messages if (item[1] < recording.stamp(20)) == early] for early in (True, False)
    ]
    bag = tmp_path / "bag"
    bag.mkdir()
    for index, (storage, messages) in enumerate(zip(("sqlite3", "mcap"), halves, strict=True)):
        recording.messages = messages
        file = storage_file(recording.write(tmp_path / "parts" / storage, storage))
        file.rename(bag / f"bag_{index}{file.suffix}")
    tools = [message.pose.position.x for _, _, message in read_bag(bag, POSE)]
    np.testing.assert_array_equal(tools, recording.tool[:, 0])


# Names


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", ["with space", "Grüße 机器人", "100%20 #1?", "a'b\"c", "[x]*"])
def test_any_file_name_is_read(tmp_path: Path, storage: str, name: str) -> None:
    recording = synthetic.record(5)
    (tmp_path / name).mkdir()
    named = recording.write(tmp_path / "bag", storage).rename(tmp_path / name / name)
    file = storage_file(named)
    file = file.rename(named / f"{name}_0{file.suffix}")
    expected = [recording.stamp(tick) for tick in range(5)]
    information = yaml.safe_load((named / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"]["relative_file_paths"] = [file.name]
    (named / "metadata.yaml").write_text(yaml.safe_dump(information, allow_unicode=True), encoding="utf-8")
    for path in (named, file):
        assert find_bags([path]) == [path]
        assert [stamp for _, stamp, _ in read_bag(path, POSE)] == expected
    (named / "metadata.yaml").unlink()
    assert [stamp for _, stamp, _ in read_bag(named, POSE)] == expected
    assert recover_bag(named, tmp_path / "copy").messages == 16


# A recorder that still writes

RECORDER = """
import sys
sys.path.insert(0, {folder!r})
import synthetic
from rql_core.bags import BagWriter
recording = synthetic.record(200)
with BagWriter({path!r}, {storage!r}) as writer:
    synthetic.fill(writer, recording)
    writer.flush()
    print("flushed", flush=True)
    for line in sys.stdin:
        for i in range(int(line)):
            stamp = recording.stamp(200 + i)
            message = synthetic.TYPES.serialize_cdr(synthetic.pose(stamp, (i, 0, 0)), "geometry_msgs/msg/PoseStamped")
            writer.write("/tool_pose", stamp, message)
        writer.flush()
        print("flushed", flush=True)
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_is_still_being_written_is_read_as_far_as_it_was_flushed(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    code = RECORDER.format(folder=str(Path(__file__).parent), path=str(bag), storage=storage)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as recorder:  # type: ignore[call-overload]
        for more, expected in ((0, 200), (50, 250)):
            if more:
                recorder.stdin.write(f"{more}\n")
                recorder.stdin.flush()
            assert recorder.stdout.readline() == "flushed\n"
            with BagReader(bag) as reader:
                assert len(list(reader.messages(POSE))) == expected
                assert reader.notes[0].startswith("unfinished, ")
        recorder.stdin.close()
    assert recorder.returncode == 0
    with BagReader(bag) as reader:
        assert len(list(reader.messages(POSE))) == 250
        assert reader.notes == []


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_changes_while_it_is_read_is_refused(tmp_path: Path, storage: str) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", storage)
    with BagReader(bag) as reader:
        messages = reader.messages(POSE)
        next(messages)
        with storage_file(bag).open("ab") as file:
            file.write(b"more")
        with pytest.raises(BagError, match="bag: changed while it was read; wait until the recorder"):
            list(messages)


def test_a_database_that_changes_during_every_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = synthetic.record(40).write(tmp_path / "bag", "sqlite3")
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    copy = scan.shutil.copyfile

    def copy_while_somebody_writes(source: Path, target: str) -> None:
        copy(source, target)
        with file.open("ab") as opened:
            opened.write(b"more")

    monkeypatch.setattr(scan.shutil, "copyfile", copy_while_somebody_writes)
    with pytest.raises(BagError, match="is being written, and changed during each of 5 attempts"):
        list(read_bag(bag, POSE))
