"""Chunks of an MCAP file are read one at a time, and their messages come out by time all the same."""

from pathlib import Path

import numpy as np
import pytest
import synthetic
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import ChunkInfo

from rql_core.bags import BagWriter, read_bag
from rql_core.bags.mcap_reader import ChunkedMcapReader
from rql_core.errors import BagError

HEADER = "std_msgs/msg/Header"
TOPICS = synthetic.topics_of(synthetic.record(1).contract)


def shuffled_bag(path: Path, seed: int, messages: int = 200) -> Path:
    """Two topics whose messages are written late and in chunks of random length; equal times occur."""
    rng = np.random.default_rng(seed)
    stamps = np.sort(rng.integers(0, messages * 2, messages))
    with BagWriter(path) as writer:
        writer.add_topic("/a", HEADER)
        writer.add_topic("/b", HEADER)
        for index in np.argsort(np.arange(messages) + rng.uniform(0, rng.choice([1, 10, 300]), messages)):
            header = synthetic.TYPES.types[HEADER](synthetic.time_of(int(index)), "")
            writer._flush_at = 2**63  # the test alone says where a chunk ends
            writer.write(("/a", "/b")[index % 2], int(stamps[index]) + 1, synthetic.TYPES.serialize_cdr(header, HEADER))
            if rng.random() < 0.1:
                writer.flush()
    return next(path.glob("*.mcap"))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("topics", [("/a", "/b"), ("/b",)])
def test_messages_come_by_time_as_from_rosbags(tmp_path: Path, seed: int, topics: tuple[str, ...]) -> None:
    file = shuffled_bag(tmp_path / "bag", seed)
    with Reader(file) as reader:
        connections = [each for each in reader.connections if each.topic in topics]
        expected = [(each.topic, stamp, data) for each, stamp, data in reader.messages(connections)]
    chunked = ChunkedMcapReader(file)
    chunked.open()
    assert len(chunked.chunks) > 5
    read = [
        (each.topic, stamp, data)
        for each, stamp, data in chunked.messages([each for each in chunked.connections if each.topic in topics])
    ]
    chunked.close()
    assert [stamp for _, stamp, _ in read] == [stamp for _, stamp, _ in expected]
    assert sorted(read) == sorted(expected)


def test_a_chunk_is_read_only_when_its_turn_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", HEADER)
        for stamp in range(1, 101):
            writer.write("/a", stamp, synthetic.TYPES.serialize_cdr(synthetic.header(stamp), HEADER))
            if stamp % 10 == 0:
                writer.flush()
    reader = ChunkedMcapReader(next((tmp_path / "bag").glob("*.mcap")))
    reader.open()
    reads: list[ChunkInfo] = []
    plain = reader._read_chunk
    monkeypatch.setattr(reader, "_read_chunk", lambda chunk, wanted: reads.append(chunk) or plain(chunk, wanted))
    chunks_read = [len(reads) for _ in reader.messages(reader.connections)]
    reader.close()
    assert len(reads) >= 10
    assert chunks_read == sorted(chunks_read)
    assert chunks_read[0] == 1
    assert max(np.diff(chunks_read)) == 1


def test_chunks_whose_messages_have_no_index_are_not_passed_over(tmp_path: Path) -> None:
    file = shuffled_bag(tmp_path / "bag", 0)
    reader = ChunkedMcapReader(file)
    reader.open()
    reader.chunks = [chunk._replace(channel_count={}) for chunk in reader.chunks]
    assert len(list(reader.messages(reader.connections))) == 200
    reader.close()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_noise_is_found_in_chunks_without_a_checksum_too(tmp_path: Path, share: float) -> None:
    recording = synthetic.record(400)
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        added = {topic: writer.add_connection(topic, kind, typestore=synthetic.TYPES) for topic, kind in TOPICS.items()}
        for topic, stamp, message in sorted(recording.messages, key=lambda item: item[1]):
            writer.write(added[topic], stamp, synthetic.TYPES.serialize_cdr(message, TOPICS[topic]))
    file = next(path.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    at = int(len(data) * share)
    data[at : at + 4096] = np.random.default_rng(int(share * 10)).bytes(4096)
    file.write_bytes(data)
    with pytest.raises(BagError, match=r"bag: .*damaged"):
        list(read_bag(path, TOPICS))
