"""What the policy node says of itself: /diagnostics once a second, ~/status kept for latecomers, ~/value, and in
shadow ~/comparison.

Health is not commands: all of this goes on while the node is inactive, latched or stopped.
"""

from __future__ import annotations

import re
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray

from rql_core.runtime.critic_monitor import Judgement
from rql_core.runtime.health import Health
from rql_core.runtime.runner import PolicyRunner
from rql_ros.messages import labelled

LEVELS = {
    "ok": DiagnosticStatus.OK,
    "warn": DiagnosticStatus.WARN,
    "error": DiagnosticStatus.ERROR,
    "stale": DiagnosticStatus.STALE,
}


class Reports:
    """The publishers of a node's health."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._diagnostics: Publisher[Any] = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._status: Publisher[Any] = node.create_publisher(DiagnosticArray, "~/status", kept)
        self._value: Publisher[Any] = node.create_publisher(Float64MultiArray, "~/value", 10)
        self._comparison: Publisher[Any] = node.create_publisher(Float64MultiArray, "~/comparison", 10)
        self._judged: Judgement | None = None
        self._logged: tuple[str, str] | None = None
        self._said: tuple[str, str, tuple[tuple[str, str], ...]] | None = None

    def diagnose(self, health: Health) -> None:
        """One message on /diagnostics."""
        self._diagnostics.publish(self._array(health.level, health.summary, health.values))

    def status(self, level: str, summary: str, facts: dict[str, str]) -> None:
        """On ~/status, where it is not what was said last; and into the log where it is something else."""
        self._log(level, summary)
        said = (level, summary, tuple(facts.items()))
        if said != self._said:
            self._said = said
            self._status.publish(self._array(level, summary, facts))

    def _log(self, level: str, summary: str) -> None:
        # Only the beginning is compared: figures and topics follow it, and change from one second to the next.
        kind = (level, re.split("[:,]", summary, maxsplit=1)[0])
        if kind == self._logged:
            return
        self._logged = kind
        logger = self._node.get_logger()
        # rclpy wants each level on a line of its own.
        if level == "error":
            logger.error(summary)
        elif level == "warn":
            logger.warning(summary)
        else:
            logger.info(summary)

    def news(self, runner: PolicyRunner) -> None:
        """What the critics say of a plan, on ~/value, and in shadow how far it is from the other controller's command.

        Mean and standard deviation over the critics; distance, whether both agree, and the difference of each action.
        """
        judgement = None if runner.monitor is None else runner.monitor.last
        if judgement is not None and judgement is not self._judged:
            self._judged = judgement
            self._value.publish(labelled(("mean", "std"), [judgement.mean, judgement.std]))
        for difference in () if runner.comparison is None else runner.comparison.take_new():
            apart = (difference.proposed - difference.commanded).tolist()
            names = ("distance", "agrees", *runner.contract.action.names)
            self._comparison.publish(labelled(names, [difference.distance, float(difference.agrees), *apart]))

    def _array(self, level: str, summary: str, values: dict[str, str]) -> DiagnosticArray:
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: policy"
        status = DiagnosticStatus(name=name, hardware_id="rql_ros", level=LEVELS[level], message=summary)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        return message
