"""What `rql inspect` finds in a bag: figures that the test put there, and notes where something is peculiar."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import synthetic
import unseen_robot
from test_bag_kinds import ros1_bag

from rql_core.bags import BagWriter
from rql_core.bags.inspection import BagInspection, TopicInspection, inspect_bag
from rql_core.bags.inspection_table import as_text
from rql_core.errors import BagError

HEADER = "std_msgs/msg/Header"
SECOND = 10**9


def stamped(path: Path, pairs: Sequence[tuple[int, int | None]], little_endian: bool = True) -> TopicInspection:
    """Inspect a bag with one topic of headers; `pairs` are (received, stamp) in ns from the start; None: unset."""
    with BagWriter(path) as writer:
        writer.add_topic("/a", HEADER)
        for received, stamp in pairs:
            header = synthetic.header(0 if stamp is None else synthetic.START_NS + stamp)
            data = synthetic.TYPES.serialize_cdr(header, HEADER, little_endian=little_endian)
            writer.write("/a", synthetic.START_NS + received, data)
    (topic,) = inspect_bag(path).topics
    return topic


def steady(count: int, period_ns: int, delay_ns: int = 0) -> list[tuple[int, int]]:
    return [(i * period_ns + delay_ns, i * period_ns) for i in range(count)]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_rates_counts_and_duration_are_those_of_the_recording(tmp_path: Path, storage: str) -> None:
    bag = inspect_bag(unseen_robot.record(tmp_path / "bag", storage))
    topics = {topic.topic: topic for topic in bag.topics}
    assert (bag.messages, bag.start_ns) == (1760, synthetic.START_NS)
    assert bag.duration_s == pytest.approx(9.992)
    assert {name: topic.type for name, topic in topics.items()} == unseen_robot.TYPES
    rates = {name: topic.rate_hz for name, topic in topics.items() if topic.rate_hz}
    assert rates == pytest.approx({"/arm/joint_states": 100, "/odom": 50, "/cmd_vel": 20, "/dock": 5, "/battery": 1})
    assert topics["/odom"].offset_s == pytest.approx(0.005)
    assert topics["/odom"].drift == pytest.approx(0, abs=1e-9)
    assert topics["/cmd_vel"].offset_s is None
    assert topics["/scan"].notes == ("no messages",)
    assert topics["/odom"].notes == ()


def test_a_ros_1_bag_is_inspected_like_its_ros_2_twin(tmp_path: Path) -> None:
    recording = synthetic.record(40)
    new = inspect_bag(recording.write(tmp_path / "bag"))
    old = inspect_bag(ros1_bag(tmp_path / "old.bag", recording))
    assert old.storage == "ROS 1"
    assert old.topics == new.topics
    assert (old.start_ns, old.duration_s, old.markers) == (new.start_ns, new.duration_s, {"/episode": 1})


@pytest.mark.parametrize("little_endian", [True, False])
def test_stamps_are_read_in_either_byte_order(tmp_path: Path, little_endian: bool) -> None:
    topic = stamped(tmp_path / "bag", steady(50, SECOND // 50, 3_000_000), little_endian)
    assert topic.offset_s == pytest.approx(0.003)


def test_the_largest_gap_is_located(tmp_path: Path) -> None:
    pairs = [pair for pair in steady(500, SECOND // 100) if not 2 * SECOND < pair[0] < 3 * SECOND]
    topic = stamped(tmp_path / "bag", pairs)
    assert (topic.largest_gap_s, topic.largest_gap_at_s) == pytest.approx((1.0, 2.0))
    assert topic.notes == ("1 gap of more than 0.05 s, the largest at 2.0 s",)


def test_jitter_is_no_gap(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(at + int(rng.integers(4_000_000)), at) for at, _ in steady(300, SECOND // 100)]
    assert stamped(tmp_path / "bag", pairs).notes == ()


def test_a_clock_that_drifts_is_measured(tmp_path: Path) -> None:
    pairs = [(at + 10_000_000 + at // 1000, at) for at, _ in steady(1000, SECOND // 20)]
    pairs[500] = (pairs[500][0] + 40_000_000, pairs[500][1])  # one late message does not move it
    topic = stamped(tmp_path / "bag", pairs)
    assert topic.drift == pytest.approx(1e-3, rel=0.01)
    assert topic.notes == ("the offset of the clocks drifts by +59.9 ms a minute",)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda at: None, "all header stamps are unset (0); clock header cannot use them"),
        (lambda at: at if at > SECOND else None, "51 of 100 header stamps are unset (0); clock header cannot use them"),
        (lambda at: at - 3600 * SECOND, "header stamps are 3,600.0 s before the receive times: two clocks or a replay"),
        (lambda at: at + 90 * SECOND, "header stamps are 90.0 s after the receive times: two clocks or a replay"),
        (lambda at: at - SECOND // 10 * (at == SECOND), "header stamps go back 1 time, first at 1.0 s"),
        (
            lambda at: at + SECOND // 100 * (at == SECOND),
            "1 of 100 header stamps are in the future of their receive times",
        ),
    ],
)
def test_stamps_that_are_wrong_are_noted(tmp_path: Path, change: Callable[[int], int | None], note: str) -> None:
    pairs = [(at, change(at)) for at, _ in steady(100, SECOND // 50)]
    assert stamped(tmp_path / "bag", pairs).notes == (note,)


def test_a_type_that_nobody_defined_is_counted_all_the_same(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_defined_topic("/gripper", "my_robot/msg/Gripper", "", "", [])
        for second in range(3):
            writer.write("/gripper", synthetic.START_NS + second * SECOND, b"\x00\x01\x00\x00\x07")
    (topic,) = inspect_bag(tmp_path / "bag").topics
    assert (topic.messages, topic.rate_hz) == (3, 1.0)
    assert topic.notes == ("no definition of my_robot/msg/Gripper; name its .msg file with --definitions",)


def test_a_header_that_is_cut_names_topic_and_time(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", HEADER)
        writer.write("/a", synthetic.START_NS, b"\x00\x01\x00\x00\x07")
    with pytest.raises(BagError, match=r"topic /a, 0\.000 s from the bag's start .*Header of 5 bytes is too short"):
        inspect_bag(tmp_path / "bag")


def test_an_empty_and_an_unfinished_bag_say_so(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "empty"):
        pass
    empty = inspect_bag(tmp_path / "empty")
    assert (empty.messages, empty.duration_s, empty.topics) == (0, 0.0, ())
    assert "(no topics)" in as_text(empty)
    bag = synthetic.record(40).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    assert inspect_bag(bag).notes == ("unfinished, 121 messages read",)


def test_progress_is_told_the_share_that_was_read(tmp_path: Path) -> None:
    told: list[float] = []
    inspect_bag(unseen_robot.record(tmp_path / "bag", seconds=60), progress=told.append)
    assert told == pytest.approx([5000 / 10560, 10000 / 10560, 1.0])


def test_the_table_has_its_columns_one_below_the_other(tmp_path: Path) -> None:
    text = as_text(inspect_bag(synthetic.record(40, markers=(0, 20)).write(tmp_path / "bag")))
    lines = text.splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("  topic"))
    starts = [match.start() for match in re.finditer("-+", lines[header + 1])]
    assert len(starts) == 7
    row = next(line for line in lines if line.startswith("  /joint_states"))
    assert re.split(" {2,}", row.strip()) == [
        "/joint_states",
        "sensor_msgs/msg/JointState",
        "40",
        "20.0 Hz",
        "50 ms",
        "0 ms",
        "0 ms/min",
    ]
    assert all(row[at - 1] == " " for at in starts)
    assert "  note: /episode: may mark the starts of 2 episodes" in lines
    assert max(map(len, lines)) < 120


def test_large_figures_are_written_for_people() -> None:
    topic = TopicInspection("/a", "", 1_234_567, 2000.0, 90_000.0, 1.0, -12.5, 2e-3, has_header=True)
    bag = BagInspection("bag", "MCAP", 12_345_678_901, 10**30, 7322.0, 1_234_567, (topic,), {}, ())
    text = as_text(bag)
    assert "12.3 GB, 1,234,567 messages in 2 h 2 min 2 s" in text
    row = text.splitlines()[-1]
    assert "(several types)" in row
    assert "-12.5 s" in row
    assert "+120.0 ms/min" in row
