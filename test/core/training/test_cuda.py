"""On a GPU, every way of making updates makes the same ones, and none waits for the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, small_config

from rql_core.algorithms import RewardRange, RQLConfig, make_algorithm
from rql_core.algorithms.stacking import stack_algorithms
from rql_core.data import Statistics
from rql_core.data.chunks import ChunkSampler
from rql_core.training import load_checkpoint, train, train_seeds
from rql_core.training.checkpoint import load_training_state
from rql_core.training.updates import Generators, Updates

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

WAYS: list[dict[str, Any]] = [{"cuda_graphs": True}, {"compiled": True}, {"compiled": True, "cuda_graphs": True}]
COUNT = 34


def make(seeds: int, device: str, dtype: torch.dtype, **options: Any) -> tuple[Any, Updates]:
    config = RQLConfig(horizon=2, flow_steps=3, actor_hidden=(32, 32), critic_hidden=(32, 32), critics=3)
    members = [
        make_algorithm(
            config, DATA.observation_dim, DATA.action_dim, RewardRange(-1, 0, True), seed=s, device=device, dtype=dtype
        )
        for s in range(seeds)
    ]
    algorithm = stack_algorithms(members) if seeds > 1 else members[0]
    generators = [
        Generators(*(torch.Generator(device).manual_seed(10 * seed + k) for k in range(2))) for seed in range(seeds)
    ]
    updates = Updates(algorithm, generators, 32, **options)
    updates.use(ChunkSampler(DATA, Statistics.of(DATA.observations), 2, device=device, dtype=dtype))
    return algorithm, updates


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way))
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_way_makes_the_updates_of_the_plain_one(way: dict[str, Any], seeds: int) -> None:
    (plain, plain_updates), (fast, fast_updates) = (
        make(seeds, "cuda", torch.float64, **options) for options in ({}, way)
    )
    expected, found = plain_updates.make(COUNT), fast_updates.make(COUNT)
    assert fast_updates._captures == way.get("cuda_graphs", False), "the capture failed"
    assert (fast.compiled_loss is not None) == way.get("compiled", False), "the compiler failed"
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(fast.state_tensors(), plain.state_tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    states = [
        [each.get_state() for generators in updates._generators for each in generators.named().values()]
        for updates in (plain_updates, fast_updates)
    ]
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True)), "the generators are not at the same place"


def test_a_gpus_update_is_a_cpus() -> None:
    (on_cpu, cpu_updates), (on_gpu, gpu_updates) = (make(1, device, torch.float64) for device in ("cpu", "cuda"))
    generators = cpu_updates._generators[0]
    for _ in range(3):
        batch = cpu_updates._sampler.sample(32, generators.batches)
        draws = on_cpu.sample_draws(32, generators.draws)
        on_cpu.update(batch, draws)
        on_gpu.update(*(type(item)(**{k: v.cuda() for k, v in vars(item).items()}) for item in (batch, draws)))
    for ours, theirs in zip(on_gpu.state_tensors(), on_cpu.state_tensors(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-9, atol=1e-12)
    assert gpu_updates.names == ()


@pytest.mark.parametrize("options", [{}, {"cuda_graphs": True}], ids=["eager", "captured"])
def test_no_update_waits_for_the_gpu(options: dict[str, Any]) -> None:
    _, updates = make(2, "cuda", torch.float32, **options)
    updates.make(COUNT)
    torch.cuda.set_sync_debug_mode("error")
    try:
        updates.make(COUNT)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_coarser_precision_is_float32_to_its_rounding(precision: str) -> None:
    expected = make(1, "cuda", torch.float32)[1].make(5)
    found = make(1, "cuda", torch.float32, precision=precision)[1].make(5)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_captured_runs_of_several_seeds_resume(tmp_path: Path) -> None:
    config = small_config(device="cuda", cuda_graphs=True, updates=60, log_every=20, checkpoint_every=30)
    straight, halves = ({seed: tmp_path / name / str(seed) for seed in (0, 1)} for name in ("straight", "halves"))
    train_seeds(DATA, config, straight)
    train_seeds(DATA, config.model_copy(update={"updates": 30}), halves)
    train_seeds(DATA, config, halves, resume=True)
    train(DATA, config, tmp_path / "alone")
    for first, second in ((straight[0], halves[0]), (straight[1], halves[1]), (straight[0], tmp_path / "alone")):
        states = [load_training_state(load_checkpoint(run / "checkpoint")).tensors for run in (first, second)]
        for name, tensor in states[0].items():
            torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
