"""What `make bench-node` runs: the UR5e's contract at a rate, checkpoints that nobody trained, and the echo."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rql_core.contract import Contract, parse_contract
from rql_core.demo.processes import node_command

CONTRACT = Path("config/contracts/ur5e.yaml")
SIZES = {"4x256": (256,) * 4, "4x512": (512,) * 4}
HORIZON, FLOW_STEPS = 4, 10
# The echo is ready, and the policy node configured, with a line that has this in it.
ECHO_READY, POLICY_READY = "echo is ready", "configured: "


def contract_text(rate: int) -> str:
    """The UR5e's contract at another rate, and without latch for broken limits.

    What nobody trained commands noise: the filter changes nearly every chunk, step by step, which takes it longest, and
    would fall into that latch.
    """
    text = CONTRACT.read_text()
    for pattern, replacement in ((r"^rate: \d+", f"rate: {rate}"), (r"violations: \d+", "violations: null")):
        text, changed = re.subn(f"(?m){pattern}", replacement, text)
        if changed != 1:
            raise SystemExit(f"{CONTRACT}: expected {pattern!r} once")
    return text


def contract_at(rate: int) -> Contract:
    """The same, read."""
    return parse_contract(contract_text(rate), f"{CONTRACT} at {rate} Hz")


def make_checkpoint(directory: Path, size: str, rate: int) -> None:
    """Write an RQL checkpoint with its first weights, with graphs and the values of the monitor. Needs torch."""
    import numpy as np

    from rql_core.algorithms import RewardRange, make_algorithm
    from rql_core.data import Statistics
    from rql_core.training import Policy, TrainConfig
    from rql_core.training.checkpoint import save_checkpoint
    from rql_core.training.finish import finish_checkpoint

    contract = contract_at(rate)
    hidden = list(SIZES[size])
    settings = {"algorithm": "rql", "horizon": HORIZON, "flow_steps": FLOW_STEPS}
    config = TrainConfig.model_validate({"algorithm": settings | {"actor_hidden": hidden, "critic_hidden": hidden}})
    rewards = RewardRange(-1.0, 0.0, can_end=False)
    algorithm = make_algorithm(config.algorithm, contract.observation_dim, contract.action_dim, rewards)
    rows = np.random.default_rng(0).normal(size=(200, contract.observation_dim)).astype(np.float32)
    policy = Policy(algorithm, Statistics.of(rows))
    save_checkpoint(directory, policy, step=0, reward_range=rewards, contract_text=contract_text(rate))
    finish_checkpoint(directory, rows)


def policy_command(checkpoint: Path, threads: int = 1, **parameters: object) -> list[str]:
    """The node as it is by default, but that it plans at every step; and with these parameters."""
    given: dict[str, object] = {"backend": "onnx", "threads": threads, "mode": "receding", "replan_every": 1}
    return node_command("policy_node", checkpoint=checkpoint, **given, **parameters)


def echo_command(rate: int, points: int, checkpoint: Path | None = None) -> list[str]:
    """The echo, with so many points in its messages; with a checkpoint, behind its network."""
    command = [sys.executable, "-m", "benchmarks.node_echo", str(rate), str(points)]
    return command if checkpoint is None else [*command, str(checkpoint)]


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
