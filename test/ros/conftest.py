"""Nodes as real processes with DDS on loopback, in a domain of this test process's own."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="test/ros needs rclpy: install requirements/ros-wheels.txt or source a ROS 2 setup")


@pytest.fixture(scope="session", autouse=True)
def domain(loopback_domain: None) -> None:
    """Every test here runs in that domain."""
