"""Updates a second on a GPU in every way that training has of making them, beside the floor of the same update.

Each way is the product's own `Updates`, sampling included, on data that lie on the GPU.  Before a
way is timed, it is shown to make the same updates as the plain one, to the rounding of its precision.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.update_setting import REWARDS, Setting, flops, make_product
from rql_core.algorithms import make_algorithm
from rql_core.algorithms.stacking import stack_algorithms
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import ChunkSampler
from rql_core.progress import progress_bar
from rql_core.training.updates import UPDATES_A_LAUNCH, WARM_UP, Generators, Precision, Updates, computing_in

SMALL_NETWORKS = Setting(width=256, critics=2)
# Each way is timed so often, in turn with the others, so that a GPU that slows down slows all of them down.
ROUNDS = 3
# A round makes updates for about this long.
ROUND_SECONDS = 1.5
# How far metrics of the first updates may be from plain ones, by precision: a product's rounding, through ten layers.
TOLERANCES = {"float32": 2e-3, "tf32": 3e-2, "bf16": 2e-1}
CHECKED_UPDATES = 5
# Steps of play on the GPU: more than its caches hold.
STEPS, EPISODE = 200_000, 1_000


@dataclass(frozen=True)
class Way:
    """One way of making updates."""

    name: str
    setting: Setting = field(default_factory=Setting)
    seeds: int = 1
    precision: Precision = "float32"
    compiled: bool = False
    cuda_graphs: bool = False


WAYS = (
    Way("one by one"),
    Way("captured", cuda_graphs=True),
    Way("compiled", compiled=True),
    Way("compiled, captured", compiled=True, cuda_graphs=True),
    Way("captured, tf32", precision="tf32", cuda_graphs=True),
    Way("compiled, captured, tf32", precision="tf32", compiled=True, cuda_graphs=True),
    Way("compiled, captured, bf16", precision="bf16", compiled=True, cuda_graphs=True),
    Way("8 seeds, captured, tf32", seeds=8, precision="tf32", cuda_graphs=True),
    Way("8 seeds, compiled, captured, tf32", seeds=8, precision="tf32", compiled=True, cuda_graphs=True),
    Way("8 seeds, compiled, captured, bf16", seeds=8, precision="bf16", compiled=True, cuda_graphs=True),
    Way("small, captured, tf32", setting=SMALL_NETWORKS, precision="tf32", cuda_graphs=True),
    Way("small, compiled, captured, tf32", setting=SMALL_NETWORKS, precision="tf32", compiled=True, cuda_graphs=True),
)


def play(setting: Setting, steps: int, episode: int) -> Trajectories:
    """Return random episodes of the right shape."""
    random = np.random.default_rng(0)
    return Trajectories.from_episodes(
        [
            (
                random.normal(size=(episode + 1, setting.observation_dim)),
                random.uniform(-1, 1, size=(episode, setting.action_dim)),
                np.full(episode, -1.0),
                np.ones(episode),
            )
            for _ in range(steps // episode)
        ]
    )


def make_updates(way: Way, device: torch.device, trajectories: Trajectories) -> Updates:
    """Return what makes updates that way."""
    setting = way.setting
    first = make_product(setting, device=device)
    members = [
        make_algorithm(first.config, setting.observation_dim, setting.action_dim, REWARDS, seed=seed, device=device)
        for seed in range(way.seeds)
    ]
    updates = Updates(
        stack_algorithms(members) if way.seeds > 1 else members[0],
        [
            Generators(*(torch.Generator(device).manual_seed(2 * seed + each) for each in range(2)))
            for seed in range(way.seeds)
        ],
        setting.batch,
        precision=way.precision,
        compiled=way.compiled,
        cuda_graphs=way.cuda_graphs,
    )
    updates.use(ChunkSampler(trajectories, Statistics.of(trajectories.observations), setting.horizon, device=device))
    return updates


def check(way: Way, device: torch.device, trajectories: Trajectories) -> float:
    """Return how far a way's metrics are from those of the plain one, relative to their size; raises where too far."""
    plain = replace(way, precision="float32", compiled=False, cuda_graphs=False)
    expected = make_updates(plain, device, trajectories).make(CHECKED_UPDATES)
    found = make_updates(way, device, trajectories).make(CHECKED_UPDATES)
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCES[way.precision]:
        raise SystemExit(f"{way.name}: metrics are {error:.1e} from those of plain updates: not the same update")
    return error


def rates(updates: Mapping[str, Updates], device: torch.device, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return updates a second of each, in turn, a figure a round."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    found: dict[str, list[float]] = {name: [] for name in updates}
    for each in updates.values():
        each.make(WARM_UP + 2 * UPDATES_A_LAUNCH)
    for _ in range(rounds):
        for name, each in updates.items():
            wait()
            made, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                each.make(5 * UPDATES_A_LAUNCH)
                # A slice, as in training: launches must not pile up.
                wait()
                made += 5 * UPDATES_A_LAUNCH
            found[name].append(made / (time.perf_counter() - start))
    return found


def matrix_rate(setting: Setting, device: torch.device, precision: Precision, seeds: int, repeats: int = 50) -> float:
    """Return the rate (operations a second) of the batched product that an update consists of."""
    count = setting.critics * seeds
    left = torch.randn(count, setting.batch, setting.width, device=device)
    right = torch.randn(count, setting.width, setting.width, device=device)
    if precision == "bf16":
        left, right = left.bfloat16(), right.bfloat16()
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with computing_in(device, precision):
        times = []
        for _ in range(5):
            wait()
            start = time.perf_counter()
            for _ in range(repeats):
                torch.bmm(left, right)
            wait()
            times.append(time.perf_counter() - start)
    operations = 2 * count * setting.batch * setting.width**2
    return operations * repeats / float(np.median(times))


def bandwidth(device: torch.device, size: int = 2**30) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    source = torch.ones(size // 4, device=device)
    copy = torch.empty_like(source)
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(5):
        wait()
        start = time.perf_counter()
        copy.copy_(source)
        wait()
        times.append(time.perf_counter() - start)
    return 2 * size / float(np.median(times))


def fewest_bytes(setting: Setting, seeds: int) -> int:
    """Return the bytes that an update must move at least: Adam reads four numbers a parameter and writes three, the
    averages read two and write one, and the gradient is written.
    """
    algorithm = make_product(setting)
    parameters = sum(tensor.numel() for name in ("actor", "critic") for tensor in algorithm.networks[name].parameters())
    return 4 * seeds * parameters * (7 + 3 + 1)


def gpu_figures(
    device: torch.device,
    ways: Sequence[Way] = WAYS,
    *,
    rounds: int = ROUNDS,
    seconds: float = ROUND_SECONDS,
    steps: int = STEPS,
    episode: int = EPISODE,
    copied: int = 2**30,
) -> dict[str, Any]:
    """Return the figures of every way, with its floor, for a JSON file."""
    trajectories = play(ways[0].setting, steps, episode)
    figures: dict[str, Any] = {}
    speed = bandwidth(device, copied)
    prepared: dict[str, Updates] = {}
    for way in progress_bar(ways, unit="way", desc="check"):
        error = check(way, device, trajectories)
        rate = matrix_rate(way.setting, device, way.precision, way.seeds)
        operations, moved = way.seeds * flops(way.setting), fewest_bytes(way.setting, way.seeds)
        prepared[way.name] = make_updates(way, device, trajectories)
        figures[way.name] = {
            "seeds": way.seeds,
            "precision": way.precision,
            "error": error,
            "matrix_tflops": rate / 1e12,
            "floor_ms": 1e3 * max(operations / rate, moved / speed),
            "floor_by": "products" if operations / rate > moved / speed else "bytes",
        }
    measured = rates(prepared, device, rounds, seconds)
    for name, values in measured.items():
        median = float(np.median(values))
        figures[name] |= {
            "updates_per_second": median,
            "least": min(values),
            "most": max(values),
            "seed_updates_per_second": median * figures[name]["seeds"],
            "ms": 1e3 / median,
            "times_its_floor": 1e3 / median / figures[name]["floor_ms"],
        }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "copy_gigabytes_per_second": speed / 1e9, "ways": figures}


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    rows = [
        f"{figures['device']}, torch {figures['torch']}; a large copy: {figures['copy_gigabytes_per_second']:.0f} GB/s",
        "",
        "| way | updates/s | x seeds | ms | floor ms | times its floor | 1M updates, min |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in figures["ways"].items():
        rows.append(
            f"| {name} | {each['updates_per_second']:.0f} | {each['seed_updates_per_second']:.0f} | {each['ms']:.3f} | "
            f"{each['floor_ms']:.3f} ({each['floor_by']}) | {each['times_its_floor']:.1f} | "
            f"{1e6 / each['updates_per_second'] / 60:.1f} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_update", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="where gpu.json goes (%(default)s)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="ways to measure, by name; default: all")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here: nothing was measured; `make bench-update` measures a CPU")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    ways = [way for way in WAYS if not options.only or way.name in options.only]
    if not ways:
        raise SystemExit(
            f"none of {', '.join(options.only)} is a way: expected of {', '.join(way.name for way in WAYS)}"
        )
    figures = gpu_figures(torch.device("cuda"), ways)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(figures, indent=2))
    print(table(figures))


if __name__ == "__main__":
    main()
