"""Declared parameters: each with a type, a description, bounds, and no silent default for a wrong value."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from rql_core.contract import Contract, load_contract
from rql_core.errors import ConfigError
from rql_core.resources import config_file


def declare(
    node: Node,
    name: str,
    default: bool | int | float | str | list[str],
    description: str,
    *,
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = True,
) -> Any:
    """Declare a parameter and return its value; raises ConfigError with name, value and what was expected."""
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if choices:
        descriptor.additional_constraints = "one of " + ", ".join(choices)
    if bounds is not None and isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(bounds[0]), to_value=int(bounds[1]), step=0)]
    elif bounds is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(bounds[0]), to_value=float(bounds[1]), step=0.0)
        ]
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except Exception as error:  # rclpy raises several unrelated classes for a value of the wrong type or out of bounds
        raise ConfigError(f"parameter {name!r}: {' '.join(str(error).split())}") from None
    if choices and value not in choices:
        raise ConfigError(f"parameter {name!r} is {value!r}, expected one of {', '.join(choices)}")
    return value


def require(node: Node, name: str, description: str, *, read_only: bool = True) -> str:
    """Declare a text parameter that has no default; raises ConfigError when it was not given."""
    value = declare(node, name, "", description, read_only=read_only)
    if not value:
        raise ConfigError(
            f"parameter {name!r} is not set; expected {description}; pass it as --ros-args -p {name}:=VALUE"
        )
    return str(value)


def require_contract(node: Node) -> Contract:
    """Declare the parameter `contract`, a file or a name in `config/contracts`, and read it; raises ConfigError."""
    given = require(node, "contract", "a contract file, or a name in config/contracts")
    return load_contract(config_file("contracts", given))
