"""What acting costs on a robot: milliseconds a plan for one observation on one thread, torch beside ONNX Runtime.

Run as `make bench-acting`. Ways take turns, so that what else the machine does falls on all of them alike; medians and
99th percentiles of the turns are printed and written to build/bench/acting.json. Memory and time to loaded are those of
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal, get_args

import numpy as np
import torch

from rql_core.acting import Acting
from rql_core.algorithms import RewardRange, RQLConfig, make_algorithm
from rql_core.contract import load_contract
from rql_core.data import Statistics
from rql_core.export.checkpoint import export_checkpoint
from rql_core.runtime.plan import Guide
from rql_core.runtime.policy import Backend, DeployedPolicy
from rql_core.training.checkpoint import save_checkpoint
from rql_core.training.policy import Policy

CONTRACT = Path(__file__).resolve().parents[1] / "config" / "contracts" / "ur5e.yaml"
HORIZON, FLOW_STEPS, CRITICS = 8, 10, 10
LAYERS = 4
# Turns before those that are counted: caches are filled, and both libraries have chosen their kernels.
WARM_UP = 20

LOADING = """
import sys, time
started = time.perf_counter()
import json
from rql_core.runtime.policy import Backend, DeployedPolicy
policy = DeployedPolicy.load(sys.argv[1], backend=sys.argv[2], threads=1)
policy.warm_up()
seconds = time.perf_counter() - started
memory = int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "megabytes": memory}))
"""


def make_checkpoint(directory: Path, width: int) -> Path:
    """Write and export a checkpoint of random weights of the published size, under the UR5e's contract."""
    contract = load_contract(CONTRACT)
    hidden = (width,) * LAYERS
    config = RQLConfig(
        horizon=HORIZON, flow_steps=FLOW_STEPS, actor_hidden=hidden, critic_hidden=hidden, critics=CRITICS
    )
    rewards = RewardRange(-1.0, 0.0, can_end=True)
    algorithm = make_algorithm(config, contract.observation_dim, contract.action_dim, rewards)
    rows = np.random.default_rng(0).normal(size=(500, contract.observation_dim)).astype(np.float32)
    policy = Policy(algorithm, Statistics.of(rows))
    save_checkpoint(directory, policy, step=0, reward_range=rewards, contract_text=CONTRACT.read_text())
    export_checkpoint(directory)
    return directory


@dataclass(frozen=True)
class Way:
    """One way of acting."""

    acting: Acting = field(default_factory=Acting)
    guide_method: Literal["jacobian", "prefix"] | None = None
    with_values: bool = False

    def prepare(self, policy: DeployedPolicy) -> None:
        """Let a policy act like that; what it needs is loaded already."""
        policy.acting, policy.with_values = self.acting, self.with_values
        policy.guide_method = self.guide_method or "jacobian"


WAYS = {
    "plain": Way(),
    "one flow step fewer than in training": Way(Acting(flow_steps=FLOW_STEPS - 1)),
    "held by the Jacobian": Way(guide_method="jacobian"),
    "held by its prefix": Way(guide_method="prefix"),
    "with values of 10 critics": Way(with_values=True),
    "best of 16 by 10 critics": Way(Acting(16, 0.5)),
}


def measure(width: int, turns: int) -> dict[str, dict[str, float]]:
    """Return the figures of one size of network."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = make_checkpoint(Path(directory) / "checkpoint", width)
        policies = {
            backend: DeployedPolicy.load(checkpoint, backend=backend, threads=1) for backend in get_args(Backend)
        }
        observation = np.zeros(policies["onnx"].contract.observation_dim, dtype=np.float32)
        guide = Guide(policies["onnx"].act(observation), np.linspace(1, 0, HORIZON, dtype=np.float32))
        times: dict[str, list[float]] = {f"{backend}, {name}": [] for name in WAYS for backend in policies}
        for turn in range(WARM_UP + turns):
            for name, way in WAYS.items():
                for backend, policy in policies.items():
                    way.prepare(policy)
                    held = guide if way.guide_method else None
                    started = perf_counter()
                    policy.plan(observation, held)
                    if turn >= WARM_UP:
                        times[f"{backend}, {name}"].append(1e3 * (perf_counter() - started))
        figures = {
            name: {"p50_ms": float(np.median(taken)), "p99_ms": float(np.percentile(taken, 99))}
            for name, taken in times.items()
        }
        for backend in ("torch", "onnx"):
            command = [sys.executable, "-c", LOADING, str(checkpoint), backend]
            runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
            figures[f"{backend}, loading"] = {
                key: float(np.median([run[key] for run in runs])) for key in ("seconds", "megabytes")
            }
        return figures


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("build/bench/acting.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {f"{LAYERS}x{width}": measure(width, arguments.turns) for width in (256, 512)}
    print("| one plan, ms (p50 / p99) | " + " | ".join(figures) + " |\n|---|" + "---:|" * len(figures))
    names = list(next(iter(figures.values())))
    for name in names:
        rows = [figures[size][name] for size in figures]
        if "p50_ms" in rows[0]:
            cells = [f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}" for row in rows]
        else:
            cells = [f"{row['seconds']:.2f} s, {row['megabytes']:.0f} MB" for row in rows]
        print(f"| {name} | " + " | ".join(cells) + " |")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
