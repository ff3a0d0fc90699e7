"""How every node of this package starts, spins and ends.

A node ends on SIGINT and SIGTERM with its own clean-up done while ROS still works, so that the last command a robot
gets is the safe one. Errors a user can act on are printed in one line, without a traceback, and end with status 1.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from rql_core.errors import RqlError

# How long a signal can wait for the executor to look up: short beside a person's patience, long beside a control step.
WAKE_S = 0.1


def make_executor() -> Executor:
    """The events executor where this rclpy has it (twice the message rate of the other), else the single-threaded."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


class StopSignal:
    """Becomes true on SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def spin_until(executor: Executor, done: Callable[[], bool]) -> None:
    """Serve callbacks until `done()`; errors raised in callbacks come out here."""
    while rclpy.ok() and not done():
        executor.spin_once(timeout_sec=WAKE_S)


def run_node(make: Callable[[], Any], arguments: list[str] | None = None) -> int:
    """Make a node, spin it until a signal or until its `exit_code` is set, close it; returns the exit status.

    The node may have `close()` (the last chance to publish) and `exit_code` (not None ends it).
    """
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = StopSignal()
    node = None
    executor = make_executor()
    try:
        node = make()
        executor.add_node(node)
        spin_until(executor, lambda: stop.received or getattr(node, "exit_code", None) is not None)
        return int(getattr(node, "exit_code", None) or 0)
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        if node is not None:
            close = getattr(node, "close", None)
            if close is not None:
                close()
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
