"""Bags that Python nodes write: what rclpy serialises is read as it was, whatever is in it."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosidl_parser.definition import AbstractNestedType, AbstractString, Array, NamespacedType
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from rql_core.bags import BagWriter, read_bag
from rql_core.bags.decode import Decoder
from rql_core.bags.message_types import standard_types

STORE = standard_types()
PACKAGES = ("diagnostic_msgs", "geometry_msgs", "nav_msgs", "sensor_msgs", "std_msgs", "trajectory_msgs")
TYPES = {"/joints": "sensor_msgs/msg/JointState", "/command": "trajectory_msgs/msg/JointTrajectory"}


def fill(message_class: Any, rng: random.Random) -> Any:
    """A message of random numbers, texts and lengths, often none."""
    names = message_class.get_fields_and_field_types()
    values = [value_of(kind, rng) for kind in message_class.SLOT_TYPES]
    return message_class(**dict(zip(names, values, strict=True)))


def value_of(kind: Any, rng: random.Random) -> Any:
    if isinstance(kind, AbstractNestedType):
        length = kind.size if isinstance(kind, Array) else rng.choice([0, 0, 1, 2, 3])
        return [value_of(kind.value_type, rng) for _ in range(length)]
    if isinstance(kind, NamespacedType):
        return fill(getattr(importlib.import_module(".".join(kind.namespaces)), kind.name), rng)
    if isinstance(kind, AbstractString):
        return "x" * rng.randrange(9)
    if kind.typename in ("boolean", "octet"):
        return rng.random() < 0.5 if kind.typename == "boolean" else bytes([rng.randrange(256)])
    return rng.randrange(100) * (0.5 if kind.typename in ("float", "double") else 1)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_rclpy_serialises_of_any_type_is_decoded(package: str) -> None:
    rng = random.Random(package)
    classes = vars(importlib.import_module(f"{package}.msg"))
    kinds = {name: kind for name, kind in classes.items() if f"{package}/msg/{name}" in STORE.fielddefs}
    assert kinds
    for name, kind in kinds.items():
        decoder = Decoder(STORE, f"{package}/msg/{name}")
        for _ in range(20):
            message = fill(kind, rng)
            decoded = decoder(serialize_message(message))
            again = bytes(STORE.serialize_cdr(decoded, f"{package}/msg/{name}"))
            assert deserialize_message(again, kind) == message


def test_a_bag_of_what_rclpy_serialised_is_read_as_it_was(tmp_path: Path) -> None:
    rng = random.Random(0)
    sent = [(fill(JointState, rng), fill(JointTrajectory, rng)) for _ in range(100)]
    with BagWriter(tmp_path / "bag", "mcap") as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind)
        for at, messages in enumerate(sent):
            for topic, message in zip(TYPES, messages, strict=True):
                writer.write(topic, at + 1, serialize_message(message))
    for topic, stamp, message in read_bag(tmp_path / "bag", TYPES):
        expected = sent[stamp - 1][list(TYPES).index(topic)]
        if topic == "/joints":
            assert message.name == expected.name
            assert (list(message.position), list(message.effort)) == (list(expected.position), list(expected.effort))
        else:
            assert message.joint_names == expected.joint_names
            assert [list(p.positions) for p in message.points] == [list(p.positions) for p in expected.points]
            assert [p.time_from_start.nanosec for p in message.points] == [
                p.time_from_start.nanosec for p in expected.points
            ]
