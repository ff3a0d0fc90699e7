"""ROS messages from plain fields, and quality of service from a contract."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from rql_core.contract.schema import Qos
from rql_core.errors import ConfigError


def message_class(type_name: str) -> Any:
    """The class of a message type such as "sensor_msgs/msg/JointState"; raises ConfigError when it is not installed."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise ConfigError(f"message type {type_name} is not installed; install the package {package}") from None


def fill(message: Any, fields: dict[str, Any]) -> Any:
    """Set the fields of a message from nested dicts and lists, as `encode_chunk` gives them; returns the message."""
    types = message.get_fields_and_field_types()
    for name, value in fields.items():
        if isinstance(value, dict):
            fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inner = types[name].removeprefix("sequence<").removesuffix(">")
            package, _, element = inner.partition("/")
            element_class = message_class(f"{package}/msg/{element}")
            setattr(message, name, [fill(element_class(), item) for item in value])
        else:
            setattr(message, name, value)
    return message


def qos_profile(qos: Qos) -> QoSProfile:
    """The rclpy profile of a contract's quality of service."""
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=QoSReliabilityPolicy[qos.reliability.upper()],
        durability=QoSDurabilityPolicy[qos.durability.upper()],
    )


def labelled(names: tuple[str, ...], values: list[float]) -> Float64MultiArray:
    """Numbers in the order of `names`, which the layout's label says, joined by commas."""
    message = Float64MultiArray(data=values)
    message.layout.dim = [MultiArrayDimension(label=",".join(names), size=len(values), stride=len(values))]
    return message
