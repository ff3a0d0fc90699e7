"""A bag that BagWriter wrote is one that rosbags reads, whole or after a kill."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic
from rosbags.rosbag2 import Reader
from ruamel.yaml import YAML

from rql_core.bags import BagReader, BagWriter, read_bag, recover_bag
from rql_core.contract.schema import Qos
from rql_core.errors import BagError

STORAGES = ("mcap", "sqlite3")
HEADER = "std_msgs/msg/Header"


def serialised(stamp_ns: int) -> bytes:
    return bytes(synthetic.TYPES.serialize_cdr(synthetic.header(stamp_ns), HEADER))


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_written_is_read_by_rosbags_in_the_same_bytes(tmp_path: Path, storage: str) -> None:
    stamps = [synthetic.START_NS + i * 1_000_003 for i in range(500)]
    with BagWriter(tmp_path / "bag", storage) as writer:
        writer.add_topic("/a", HEADER)
        writer.add_topic("/b", HEADER)
        for i, stamp in enumerate(stamps):
            writer.write("/ab"[0] + "ab"[i % 2], stamp, serialised(stamp))
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 500
        assert reader.start_time == stamps[0]
        assert reader.end_time == stamps[-1] + 1
        assert {name: info.msgcount for name, info in reader.topics.items()} == {"/a": 250, "/b": 250}
        read = [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]
    assert read == [("/" + "ab"[i % 2], stamp, serialised(stamp)) for i, stamp in enumerate(stamps)]


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_has_the_offered_quality_of_service_and_the_type_hash(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / "bag", storage) as writer:
        writer.add_topic("/a", HEADER, Qos(reliability="best_effort", durability="transient_local", depth=7))
        writer.write("/a", 5, serialised(5))
    information = YAML(typ="safe").load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topic = information["topics_with_message_count"][0]["topic_metadata"]
    profile = topic["offered_qos_profiles"][0]
    assert information["version"] == 9
    assert (profile["history"], profile["depth"]) == ("keep_last", 7)
    assert (profile["reliability"], profile["durability"]) == ("best_effort", "transient_local")
    assert profile["deadline"] == {"sec": 9223372036, "nsec": 854775807}
    assert topic["type_description_hash"] == synthetic.TYPES.hash_rihs01(HEADER)


def test_a_path_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path)


@pytest.mark.parametrize("sign", "?#%")
def test_a_path_that_sqlite_would_take_for_another_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(BagError, match="cannot be in the path of a sqlite3 bag"):
        BagWriter(tmp_path / f"run{sign}1", "sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_misuse_is_refused_with_the_topic(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag")
    with pytest.raises(BagError, match="/x: was not added"):
        writer.write("/x", 1, b"")
    with pytest.raises(BagError, match="no standard type"):
        writer.add_topic("/x", "my_robot/msg/Gripper")
    writer.add_topic("/x", HEADER)
    with pytest.raises(BagError, match="there already"):
        writer.add_topic("/x", HEADER)
    with pytest.raises(BagError, match="before the epoch"):
        writer.write("/x", -1, b"")
    writer.close()
    writer.close()
    with pytest.raises(BagError, match="is closed"):
        writer.write("/x", 1, b"")


def test_a_bag_is_complete_also_when_the_block_fails(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", HEADER)
        writer.write("/a", 5, serialised(5))
        raise RuntimeError
    assert [stamp for _, stamp, _ in read_bag(tmp_path / "bag", {"/a": HEADER})] == [5]


def test_what_went_wrong_first_is_what_is_raised(tmp_path: Path) -> None:
    def lose_the_disk() -> None:
        with BagWriter(tmp_path / "bag") as writer:
            writer.add_topic("/a", HEADER)
            writer.write("/a", 5, serialised(5))
            shutil.rmtree(tmp_path / "bag")
            raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        lose_the_disk()


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import synthetic
from rql_core.bags import BagWriter
writer = BagWriter({path!r}, {storage!r})
synthetic.fill(writer, synthetic.record(50))
writer.flush()
writer._flush_at = 2**63  # what follows is lost: no flush before the end
for i in range(20):
    stamp = synthetic.START_NS + 10**10 + i
    writer.write("/episode", stamp, synthetic.TYPES.serialize_cdr(synthetic.header(stamp), "std_msgs/msg/Header"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_a_killed_writer_leaves_everything_up_to_the_last_flush(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "bag"
    code = KILLED.format(folder=str(Path(__file__).parent), path=str(path), storage=storage)
    result = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (path / "metadata.yaml").exists()

    recording = synthetic.record(50)
    with BagReader(path) as bag:
        read = list(bag.messages(synthetic.topics_of(recording.contract)))
        assert bag.notes == [bag.notes[0]]
        assert bag.notes[0].startswith("unfinished, 151 messages read")
    tools = [message.pose.position.x for topic, _, message in read if topic == "/tool_pose"]
    np.testing.assert_array_equal(tools, recording.tool[:, 0])

    recovered = recover_bag(path, tmp_path / "whole")
    assert recovered.messages == 151
    with Reader(tmp_path / "whole") as reader:
        assert reader.message_count == 151
    assert sorted(file.suffix for file in (tmp_path / "whole").iterdir()) == [
        ".mcap" if storage == "mcap" else ".db3",
        ".yaml",
    ]
    assert sorted(os.listdir(tmp_path)) == ["bag", "whole"]
