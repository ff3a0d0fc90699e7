"""Makes the bags that things went wrong with, for test_faults.py: each fault is a function that writes such a bag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import yaml
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from synthetic import GOAL, Recording

from rql_core.bags import BagWriter

JOINTS, POSE, COMMAND = "/joint_states", "/tool_pose", "/command"
GRIPPER = "my_robot/msg/Gripper"

Make = Callable[[Path], None]


def a_recording(seed: int = 7) -> Recording:
    """Two episodes of 20 ticks at 20 Hz."""
    return synthetic.record(40, markers=(0, 20), seed=seed)


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


def recorded(change: Callable[[Recording], object], storage: str = "mcap", leave_out: tuple[str, ...] = ()) -> Make:
    """A bag whose recording was changed before it was written."""

    def make(bag: Path) -> None:
        recording = a_recording()
        change(recording)
        recording.write(bag, storage, leave_out)

    return make


def spoilt(change: Callable[[Path], object], storage: str = "mcap") -> Make:
    """A bag that was changed after it was written."""

    def make(bag: Path) -> None:
        a_recording().write(bag, storage)
        change(bag)

    return make


def at_tick(topic: str, tick: int, change: Callable[[Any], object]) -> Callable[[Recording], None]:
    """Change the message of a topic that belongs to a tick."""

    def apply(recording: Recording) -> None:
        period = recording.contract.period_ns
        for name, stamp, message in recording.messages:
            if name == topic and stamp // period == recording.stamp(tick) // period:
                change(message)

    return apply


def setting(**values: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in values.items():
            setattr(message, name, value)

    return change


def stamped(offset_s: float | None) -> Callable[[Any], None]:
    """Move a message's stamp, or take it away."""

    def change(message: Any) -> None:
        stamp = message.header.stamp
        now = stamp.sec * 10**9 + stamp.nanosec
        message.header.stamp = synthetic.time_of(0 if offset_s is None else now + round(offset_s * 1e9))

    return change


def cut(bag: Path, metadata: bool = True) -> None:
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    if not metadata:
        (bag / "metadata.yaml").unlink()


def without_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").unlink()


def no_yaml(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("{[")


def noise(bag: Path) -> None:
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    at = len(data) // 2
    data[at : at + 4096] = np.random.default_rng(0).bytes(4096)
    file.write_bytes(data)


def information(bag: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what metadata.yaml says."""
    data = yaml.safe_load((bag / "metadata.yaml").read_text())
    change(data["rosbag2_bagfile_information"])
    (bag / "metadata.yaml").write_text(yaml.safe_dump(data))


def lying_count(bag: Path) -> None:
    def lie(said: dict[str, Any]) -> None:
        said["message_count"] = 7
        for topic in said["topics_with_message_count"]:
            topic["message_count"] = 7

    information(bag, lie)


def write_topics(bag: Path, kinds: dict[str, str]) -> None:
    """A bag whose topics have other types; messages of those are empty ones of that type."""
    recording = a_recording()
    types = {**synthetic.topics_of(recording.contract), **kinds}
    with BagWriter(bag) as writer:
        for topic, kind in types.items():
            writer.add_topic(topic, kind)
        for topic, stamp, message in sorted(recording.messages, key=lambda each: each[1]):
            made = synthetic.header(stamp) if topic in kinds else message
            writer.write(topic, stamp, synthetic.TYPES.serialize_cdr(made, types[topic]))


def with_gripper(bag: Path, embedded: bool, seed: int = 7) -> None:
    """A bag with a topic of a type that is no standard one, whose definition the bag has or lacks."""
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("float64 grip\n", GRIPPER))
    recording = a_recording(seed)
    with BagWriter(bag) as writer:
        writer.add_defined_topic("/gripper", GRIPPER, "float64 grip\n" if embedded else "", "", [])
        synthetic.fill(writer, recording)
        for tick in range(40):
            writer.write("/gripper", recording.stamp(tick), store.serialize_cdr(store.types[GRIPPER](0.5), GRIPPER))


def mixed_storages(bag: Path) -> None:
    """One bag of an MCAP file and a database."""
    bag.mkdir(parents=True)
    for index, storage in enumerate(("sqlite3", "mcap")):
        half = a_recording()
        border = half.stamp(20)
        half.messages = [each for each in half.messages if (each[1] < border) == (index == 0)]
        file = storage_file(half.write(bag.parent.parent / "halves" / storage, storage))
        file.rename(bag / f"{bag.name}_{index}{file.suffix}")


def inside(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """Change the first point of a command."""
    return lambda message: change(message.points[0])


def without_square_root(recording: Recording) -> None:
    """A tool where the square root of its x is no number."""
    recording.drop(POSE, [29])
    recording.add(POSE, recording.stamp(29), synthetic.pose(recording.stamp(29), (-1, 0, 0)))


def as_it_is(recording: Recording) -> None:
    """Change nothing."""


def dropping(topic: str, ticks: Sequence[int]) -> Callable[[Recording], None]:
    """Leave out the messages of a topic at these ticks."""
    return lambda recording: recording.drop(topic, ticks)


def jump(seconds: float) -> Callable[[Recording], None]:
    """All clocks are set by so much at tick 10."""

    def apply(recording: Recording) -> None:
        for tick in range(10, 40):
            for topic in (JOINTS, POSE, COMMAND):
                at_tick(topic, tick, stamped(seconds))(recording)

    return apply


def joints_turned_round(recording: Recording) -> None:
    """Names and numbers in the opposite order in every message."""

    def turn(message: Any) -> None:
        message.name = message.name[::-1]
        message.position, message.velocity = message.position[::-1].copy(), message.velocity[::-1].copy()

    for tick in range(40):
        at_tick(JOINTS, tick, turn)(recording)


def at_goal(*ticks: int) -> Callable[[Recording], None]:
    def apply(recording: Recording) -> None:
        recording.drop(POSE, ticks)
        for tick in ticks:
            recording.add(POSE, recording.stamp(tick), synthetic.pose(recording.stamp(tick), GOAL))

    return apply
