"""What the launch files share: arguments, and nodes whose death ends the launch with a failure.

A launch that goes on without one of its nodes is a robot that stands still and nobody is told; so is one that ends with
status 0. Imported by launch files only: it needs `launch` and `launch_ros`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration

from rql_core.resources import config_file


def argument(name: str, description: str, default: str | None = None, choices: Sequence[str] | None = None) -> Any:
    """A launch argument; without `default` it must be given."""
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=None if choices is None else list(choices)
    )


def given(context: LaunchContext, kind: type, *names: str) -> dict[str, Any]:
    """Parameters by those of the launch arguments `names` that were given, converted to `kind`.

    Raises ValueError, which ends the launch, for what is no `kind`.
    """
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    return {name: _converted(name, text, kind) for name, text in values.items() if text}


def _converted(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"argument {name!r} is {text!r}, expected a {kind.__name__}") from None


def contract_path(context: LaunchContext) -> str:
    """The argument `contract` as a path: a file, or the name of a contract that comes with the package."""
    value = LaunchConfiguration("contract").perform(context)
    return str(config_file("contracts", value)) if value else ""


def parameters_file(name: str) -> str:
    """Path of config/<name>.yaml in the package."""
    return str(config_file("", name))


def ends_launch(may_end: bool = False) -> Any:
    """For a Node's `on_exit`: the launch ends when the node does, and `ros2 launch` then returns 1.

    `may_end`: a node that exits with status 0 has done its work, and the launch ends well.
    """

    def handle(event: ProcessExited, context: LaunchContext) -> list[Any] | None:
        if context.is_shutdown:
            return None
        if event.returncode == 0 and may_end:
            return [Shutdown(reason=f"{event.process_name} is done")]
        # An exception is the only thing that makes `ros2 launch` return another status than 0.
        raise RuntimeError(f"{event.process_name} ended with status {event.returncode}")

    return handle
