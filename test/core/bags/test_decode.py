"""The quick decoder gives what rosbags gives, message for message, whatever changes from one message to the next."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError

from rql_core.bags import decode
from rql_core.bags.decode import Decoder
from rql_core.bags.message_types import standard_types

STORE = standard_types()
JOINTS, POSE, TRAJECTORY = (
    "sensor_msgs/msg/JointState",
    "geometry_msgs/msg/PoseStamped",
    "trajectory_msgs/msg/JointTrajectory",
)
NAMES = ["bool", "byte", "char", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"]
NUMPY = {"bool": "bool_", "byte": "int8", "char": "uint8"}


def make(kind: str, rng: random.Random, shape: random.Random) -> Any:
    """A message of type `kind`: its numbers are `rng`'s, its texts and lengths `shape`'s."""
    values = [make_field(int(node), detail, rng, shape) for _, (node, detail) in STORE.fielddefs[kind][1]]
    return STORE.types[kind](*values)


def make_field(node: int, detail: Any, rng: random.Random, shape: random.Random) -> Any:
    if node == Nodetype.NAME:
        return make(detail, rng, shape)
    if node == Nodetype.BASE:
        return make_base(detail[0], rng, shape)
    element, length = detail
    length = length if node == Nodetype.ARRAY else shape.randrange(4)
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        name = element[1][0]
        return np.array([make_base(name, rng, shape) for _ in range(length)], dtype=NUMPY.get(name, name))
    return [make_field(int(element[0]), element[1], rng, shape) for _ in range(length)]


def make_base(name: str, rng: random.Random, shape: random.Random) -> Any:
    if name == "string":
        return "".join(shape.choice("abcäß/_1") for _ in range(shape.randrange(7)))
    if name == "bool":
        return rng.random() < 0.5
    if name == "float32":
        return float(np.float32(rng.gauss(0, 1e3)))
    return rng.gauss(0, 1e9) if name == "float64" else rng.randrange(100)


def encoded(kind: str, numbers: int, shape: int, **options: bool) -> bytes:
    return bytes(STORE.serialize_cdr(make(kind, random.Random(numbers), random.Random(shape)), kind, **options))


def assert_as_rosbags(decoder: Decoder, raw: bytes | memoryview, kind: str) -> None:
    expected = STORE.deserialize_cdr(raw, kind)
    assert decode._same(decoder(raw), expected), kind


@pytest.mark.parametrize("shape", range(4))
def test_every_standard_type_is_decoded_as_by_rosbags(shape: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = sorted(kind for kind in STORE.fielddefs if "/msg/" in kind)
    assert len(kinds) > 150
    by_layout = 0
    for kind in kinds:
        decoder = Decoder(STORE, kind)
        assert_as_rosbags(decoder, encoded(kind, 0, shape), kind)
        for numbers in (1, 2):
            raw = encoded(kind, numbers, shape)
            assert_as_rosbags(decoder, raw, kind)
            assert_as_rosbags(decoder, memoryview(raw), kind)
        by_layout += bool(next(iter(decoder._layouts.values())))
    # All but those with kinds of numbers that only rosbags knows, if there are any.
    assert by_layout >= len(kinds) - 2


@pytest.mark.parametrize("kind", [JOINTS, POSE, TRAJECTORY])
def test_messages_whose_texts_and_lengths_change_are_decoded_as_by_rosbags(kind: str) -> None:
    decoder = Decoder(STORE, kind)
    for numbers in range(300):
        assert_as_rosbags(decoder, encoded(kind, numbers, numbers % 40), kind)


def test_what_is_known_is_not_decoded_by_rosbags_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(STORE, JOINTS)
    decoder(encoded(JOINTS, 0, 1))
    expected = STORE.deserialize_cdr(encoded(JOINTS, 1, 1), JOINTS)
    monkeypatch.setattr(decoder, "_store", None)
    assert decode._same(decoder(encoded(JOINTS, 1, 1)), expected)
    with pytest.raises(AttributeError):
        decoder(encoded(JOINTS, 1, 2))


def test_padding_means_nothing() -> None:
    """A header of "abc" is followed by padding, which some middlewares fill with what was there before."""
    header, time = STORE.types["std_msgs/msg/Header"], STORE.types["builtin_interfaces/msg/Time"]
    message = STORE.types[JOINTS](header(time(1, 2), "ab"), ["a", "b"], np.ones(2), np.zeros(0), np.zeros(0))
    raw = bytearray(STORE.serialize_cdr(message, JOINTS))
    assert raw[4 + 8 + 4 + 3] == 0, "one byte of padding after the text and its end"
    decoder = Decoder(STORE, JOINTS)
    decoder(bytes(raw))
    raw[4 + 8 + 4 + 3] = 0xAB
    trials = decoder._trials
    assert_as_rosbags(decoder, bytes(raw), JOINTS)
    assert decoder._trials == trials, "by the layout that was known"


def test_a_list_that_is_changed_is_not_that_of_the_next_message() -> None:
    decoder = Decoder(STORE, JOINTS)
    raw = encoded(JOINTS, 0, 1)
    names = list(decoder(raw).name)
    assert names
    decoder(raw).name.clear()
    assert decoder(raw).name == names


def test_big_endian_messages_are_left_to_rosbags() -> None:
    decoder = Decoder(STORE, POSE)
    for numbers in range(3):
        assert_as_rosbags(decoder, encoded(POSE, numbers, 0), POSE)
        assert_as_rosbags(decoder, encoded(POSE, numbers, 0, little_endian=False), POSE)


def test_a_damaged_message_is_refused_as_by_rosbags_also_when_its_layout_is_known() -> None:
    whole = encoded(JOINTS, 0, 1)
    decoder = Decoder(STORE, JOINTS)
    decoder(whole)
    refused = 0
    for cut in range(len(whole)):
        with pytest.raises((SerdeError, ValueError)):
            decoder(whole[:cut])
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        try:
            expected = STORE.deserialize_cdr(bytes(flipped), JOINTS)
        except SerdeError:
            refused += 1
            with pytest.raises(SerdeError):
                decoder(bytes(flipped))
        else:
            assert decode._same(decoder(bytes(flipped)), expected)
    assert refused > 8


def test_a_topic_without_two_alike_messages_costs_only_so_many_trials() -> None:
    decoder = Decoder(STORE, TRAJECTORY)
    for shape in range(200):
        assert_as_rosbags(decoder, encoded(TRAJECTORY, 0, shape), TRAJECTORY)
    assert decoder._trials == decode._MOST_TRIALS
    assert max(map(len, decoder._layouts.values())) <= decode._MOST_LAYOUTS


# What serialize_message of rclpy 9.1 with rmw_fastrtps_cpp makes of a JointState of two joints without velocities and
# efforts, and of a JointTrajectory of two points with velocities alone; then how much of it is behind the message.
OF_RCLPY = [
    (
        JOINTS,
        "00010000050000000000000001000000003b11ff020000000200000061000000020000006200000002000000000000000000f03f00000000"
        "000000400000000000000000"
        "9811d51c2ca851d1",
        8,
    ),
    (
        TRAJECTORY,
        "00010000000000000000000001000000002999fa010000000200000061000000020000000000000001000000000000000000e03f00000000"
        "0000000000000000000000000000000001000000000000000000e03f00000000000000000100000000000000"
        "017f0000e04531f8017f000040139dfa017f0000404531f8017f0000306676fe",
        32,
    ),
]


@pytest.mark.parametrize(("kind", "text", "reserved"), OF_RCLPY)
def test_what_rclpy_reserves_behind_a_message_is_not_damage(kind: str, text: str, reserved: int) -> None:
    raw = bytes.fromhex(text)
    expected = STORE.deserialize_cdr(raw[:-reserved], kind)
    decoder = Decoder(STORE, kind)
    for _ in range(2):
        assert decode._same(decoder(raw), expected)
        assert decode._same(decoder(memoryview(raw)), expected)
    assert decoder._trials == 1, "then by its layout"


@pytest.mark.parametrize(("kind", "text", "reserved"), OF_RCLPY)
def test_more_behind_a_message_than_its_empty_arrays_reserve_is_damage(kind: str, text: str, reserved: int) -> None:
    raw = bytes.fromhex(text)
    empty = decode._empty_arrays(STORE.deserialize_cdr(raw[:-reserved], kind))
    most = len(raw) - reserved + 8 * empty + 3
    Decoder(STORE, kind)(raw.ljust(most, b"x"))
    with pytest.raises(SerdeError, match="size mismatch"):
        Decoder(STORE, kind)(raw.ljust(most + 1, b"x"))


def test_behind_a_message_without_arrays_nothing_is_reserved() -> None:
    raw = encoded(POSE, 0, 3)
    Decoder(STORE, POSE)(raw + bytes(3))
    with pytest.raises(SerdeError, match="size mismatch"):
        Decoder(STORE, POSE)(raw + bytes(4))
