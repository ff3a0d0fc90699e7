"""The emergency stop of the policy node outlasts everything but rearm. In this process, without topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from rql_ros.policy_node import PolicyNode


@pytest.fixture
def node(checkpoint: Path) -> Iterator[PolicyNode]:
    """A node that is not configured yet."""
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [Parameter("checkpoint", value=str(checkpoint)), Parameter("autostart", value=False)]
    node = PolicyNode(context=context, parameter_overrides=overrides)
    yield node
    node.trigger_shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def reason(node: PolicyNode) -> str | None:
    assert node._loop is not None
    return node._loop.runner.reason()


def ask(node: PolicyNode, name: str) -> Trigger.Response:
    return getattr(node, f"_{name}")(Trigger.Request(), Trigger.Response())


def test_an_emergency_stop_holds_before_configuring_and_through_cleanup_until_rearmed(node: PolicyNode) -> None:
    assert not ask(node, "rearm").success
    assert ask(node, "estop").success
    node.trigger_configure()
    assert "emergency stop" in str(reason(node))
    node.trigger_activate()
    node.trigger_deactivate()
    node.trigger_cleanup()
    node.trigger_configure()
    node.trigger_activate()
    assert "emergency stop" in str(reason(node))
    # Nothing was observed, so commands could not begin: it stays. Without a configuration it can be taken back.
    assert not ask(node, "rearm").success
    assert "emergency stop" in str(reason(node))
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert ask(node, "rearm").success
    node.trigger_configure()
    assert "emergency stop" not in str(reason(node))


def test_without_a_configuration_an_emergency_stop_can_be_taken_back(node: PolicyNode) -> None:
    ask(node, "estop")
    assert ask(node, "rearm").success
    node.trigger_configure()
    assert "emergency stop" not in str(reason(node))
