"""Nodes as real processes with DDS on loopback, in a domain of this test process's own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="test/ros needs rclpy: install requirements/ros-wheels.txt or source a ROS 2 setup")


@pytest.fixture(scope="session", autouse=True)
def domain(loopback_domain: None) -> None:
    """Every test here runs in that domain."""


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says how the policy of faulty_policy.py fails."""
    path = tmp_path_factory.mktemp("fault") / "kind"
    path.write_text("healthy")
    return path
