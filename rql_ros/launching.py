"""What the launch files share: nodes whose death ends the launch with a failure.

A launch that goes on without one of its nodes is a robot that stands still and nobody is told; so is one that ends with
status 0. Imported by launch files only: it needs `launch` and `launch_ros`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from rql_core.resources import config_file


def argument(name: str, description: str, default: str | None = None, choices: list[str] | None = None) -> Any:
    """A launch argument; without `default` it must be given."""
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


def contract_path(context: LaunchContext) -> str:
    """The argument `contract` as a path: a file, or the name of a contract that comes with the package."""
    value = LaunchConfiguration("contract").perform(context)
    return str(config_file("contracts", value)) if value else ""


def parameters_file(name: str) -> str:
    """Path of config/<name>.yaml in the package."""
    return str(config_file("", name))


def watched(*nodes: Node, ends: Node | None = None) -> list[Any]:
    """The nodes, each with a handler that ends the launch when it exits.

    The launch fails (`ros2 launch` returns 1) when a node exits with another status than 0, or exits at all while it
    should not; the node `ends` may end the launch well.
    """
    actions: list[Any] = []
    for node in nodes:
        actions += [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=_on_exit(node is ends)))]
    return actions


def _on_exit(may_end: bool) -> Any:
    def handle(event: ProcessExited, context: LaunchContext) -> list[Any]:
        if context.is_shutdown:
            return []
        name = Path(event.cmd[0]).name
        if event.returncode == 0 and may_end:
            return [EmitEvent(event=Shutdown(reason=f"{name} is done"))]
        return [OpaqueFunction(function=_fail, args=[f"{name} exited with status {event.returncode}"])]

    return handle


def _fail(context: LaunchContext, reason: str) -> None:
    raise RuntimeError(reason)
