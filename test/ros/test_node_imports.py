"""What the policy node loads: no torch, and nothing else that training, data or simulation need."""

from __future__ import annotations

import sys
from pathlib import Path

from robot import Robot

from rql_core.contract import Contract
from rql_core.demo.processes import ProcessGroup, node_command

# Each of them takes tens of megabytes or tenths of a second, and torch takes both by the dozen.
HEAVY = {
    "torch",
    "minari",
    "h5py",
    "gymnasium",
    "mujoco",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "onnx",
    "rosbags",
}


def test_a_node_that_has_answered_has_loaded_nothing_heavy(
    contract: Contract, group: ProcessGroup, checkpoint: Path, tmp_path: Path
) -> None:
    python, *arguments = node_command("policy_node", checkpoint=checkpoint)
    assert python == sys.executable
    with Robot(contract) as robot:
        group.start("policy", [python, "-X", "importtime", *arguments])
        robot.wait_until_heard()
        robot.stream(lambda: bool(robot.chunks))
    log = (tmp_path / "logs" / "policy.log").read_text()
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines() if line.count("|") == 2}
    assert {"rql_core", "onnxruntime", "rclpy"} <= loaded
    assert not loaded & HEAVY
