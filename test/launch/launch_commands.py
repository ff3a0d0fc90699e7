"""The command lines that launch makes of the launch files, for machines without launch.

test_launch_files.py compares them with what the real launch runs, wherever that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def real_launch() -> bool:
    """Whether `ros2 launch` is here and finds this package."""
    if shutil.which("ros2") is None:
        return False
    found = subprocess.run(["ros2", "pkg", "prefix", "rql_ros"], capture_output=True, check=False)
    return found.returncode == 0


REAL = real_launch()


def _node(
    executable: str, name: str, parameters: dict[str, str], *, namespace: str = "", file: str | None = None
) -> list[str]:
    command = [sys.executable, "-m", f"rql_ros.{executable}", "--ros-args", "-r", f"__node:={name}"]
    if namespace:
        command += ["-r", f"__ns:=/{namespace}"]
    if file is not None:
        command += ["--params-file", file]
    for key, value in parameters.items():
        if value != "":
            command += ["-p", f"{key}:={value}"]
    return command


def _contract(arguments: dict[str, str], default: str) -> str:
    value = arguments.get("contract", default)
    return value if value == "" or "/" in value else str(ROOT / "config" / "contracts" / f"{value}.yaml")


def _pick(arguments: dict[str, str], **defaults: str) -> dict[str, str]:
    return {name: arguments.get(name, default) for name, default in defaults.items()}


# Of policy.launch.py; one that is not given is left to the parameters file.
POLICY_ARGUMENTS = ("backend", "device", "mode", "output", "shadow", "on_trigger", "run_limit", "autostart")


def policy(arguments: dict[str, str]) -> list[list[str]]:
    """policy.launch.py."""
    parameters = {
        "checkpoint": arguments["checkpoint"],
        "contract": _contract(arguments, ""),
        **_pick(arguments, use_sim_time="false"),
        **{name: arguments[name] for name in POLICY_ARGUMENTS if name in arguments},
    }
    file = arguments.get("params_file", str(ROOT / "config" / "policy.yaml"))
    return [
        _node("policy_node", "policy_node", parameters, namespace=arguments.get("namespace", ""), file=file),
    ]


def sim(arguments: dict[str, str]) -> list[list[str]]:
    """sim.launch.py."""
    contract = _contract(arguments, "ur5e")
    parameters = {
        "contract": contract,
        **_pick(arguments, world="ur5e_ring", mode="realtime", factor="1.0", auto_reset="true", seed="-1"),
    }
    file = arguments.get("params_file", str(ROOT / "config" / "mujoco_bridge.yaml"))
    commands = [_node("mujoco_bridge_node", "mujoco_bridge", parameters, file=file)]
    if arguments.get("demonstrator", "false") == "true":
        parameters = {"contract": contract, **_pick(arguments, world="ur5e_ring", seed="-1"), "use_sim_time": "true"}
        commands.append(_node("demonstrator_node", "demonstrator", parameters))
    return commands


def record(arguments: dict[str, str]) -> list[list[str]]:
    """record.launch.py."""
    parameters = {
        "contract": _contract(arguments, ""),
        "output": arguments["output"],
        **_pick(arguments, prefix="run", storage="mcap", episodes_per_bag="0", autostart="true", use_sim_time="false"),
    }
    return [_node("recorder_node", "recorder", parameters)]


def evaluate(arguments: dict[str, str]) -> list[list[str]]:
    """evaluate.launch.py."""
    contract = _contract(arguments, "ur5e")
    replan_every = arguments.get("replan_every", "0")
    world = arguments.get("world", "ur5e_ring")
    bridge = {"contract": contract, "world": world, "mode": "lockstep", "paused": "true", "execute_steps": replan_every}
    node = {
        "contract": contract,
        "checkpoint": arguments["checkpoint"],
        "replan_every": replan_every,
        "lockstep": "true",
        "use_sim_time": "true",
    }
    evaluator = {"contract": contract, **_pick(arguments, output="evaluation.json", episodes="50", first_seed="0")}
    return [
        _node("evaluator_node", "evaluator", evaluator),
        _node("mujoco_bridge_node", "mujoco_bridge", bridge),
        _node("policy_node", "policy_node", node),
    ]


COMMANDS: dict[str, Callable[[dict[str, str]], list[list[str]]]] = {
    "policy": policy,
    "sim": sim,
    "record": record,
    "evaluate": evaluate,
}
