"""Times of updates and of their parts, and what the machine can do: its rate of matrix products, and its memory's.

What is compared is measured in turns, A B C A B C, so that a machine that slows down slows all of them down.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.update_setting import Setting, make_batch, make_plain, make_product
from rql_core.algorithms import RQL, Batch
from rql_core.algorithms.rql import RQLDraws

Work = Callable[[], object]

# The first turns fill caches and allocate what is kept.
WARM_UPS = 2
# Rates are medians of so many products: a millisecond each, and a shared machine needs many.
RATE_REPEATS = 40
# Far above what any cache holds.
COPIED_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Timing:
    """Milliseconds."""

    median: float
    minimum: float
    interquartile_range: float

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Sum up what was measured."""
        low, median, high = np.percentile(np.array(seconds) * 1e3, (25, 50, 75))
        return cls(float(median), min(seconds) * 1e3, float(high - low))


def alternate(
    subjects: Mapping[str, Work],
    repeats: int,
    *,
    warm_ups: int = WARM_UPS,
    after_turn: Work = lambda: None,
    wait: Work = lambda: None,
) -> dict[str, Timing]:
    """Time every subject in turn, so many times; ``wait`` returns when a device has done what it was given."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for repeat in range(warm_ups + repeats):
        for name, subject in subjects.items():
            wait()
            start = time.perf_counter()
            subject()
            wait()
            if repeat >= warm_ups:
                seconds[name].append(time.perf_counter() - start)
        after_turn()
    return {name: Timing.of(values) for name, values in seconds.items()}


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Let matrix products of float32 be less precise for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def has_bf16() -> bool:
    """Whether matrix products of float32 can be done in bfloat16 on this CPU."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        # This build of PyTorch has no oneDNN.
        return False


def product_update(setting: Setting, form: Any = "fastest", device: str | torch.device = "cpu") -> Work:
    """Return the product's update as training calls it, draws included."""
    algorithm, batch = make_product(setting, form, device), make_batch(setting, device)
    generator = torch.Generator(device).manual_seed(0)
    return lambda: algorithm.update(batch, algorithm.sample_draws(setting.batch, generator))


def plain_update(setting: Setting, device: str | torch.device = "cpu") -> Work:
    """Return the plain reference's update, draws included."""
    reference, batch = make_plain(setting, device), vars(make_batch(setting, device))
    generator = torch.Generator(device).manual_seed(0)
    return lambda: reference.update(batch, reference.sample_draws(setting.batch, generator))


def update_subjects(setting: Setting) -> dict[str, Work]:
    """Return every kind of update on a CPU, by name."""
    subjects = {
        "product": product_update(setting),
        "product_plain_form": product_update(setting, "plain"),
        "plain_eager": plain_update(setting),
    }
    if has_bf16():
        update = product_update(setting)

        def bf16() -> None:
            with matmul_precision("medium"):
                update()

        subjects["bf16"] = bf16
    return subjects


def part_subjects(algorithm: RQL, batch: Batch, draws: RQLDraws) -> dict[str, Work]:
    """Return the parts of the product's update, by name; together they do what it does."""
    rows, generator = len(batch.rewards), torch.Generator().manual_seed(0)
    reversed_chunks, target = algorithm.reverse(batch, draws), algorithm.target(batch, draws)
    gradient = algorithm._online.gradient(algorithm.loss(batch, draws)[0]).clone()
    parameters = {name: list(algorithm.networks[name].parameters()) for name in ("actor", "critic")}
    # Gradients are written where they stay, as in an update.
    places = {name: [torch.empty_like(tensor) for tensor in tensors] for name, tensors in parameters.items()}

    def learn(name: str, loss: torch.Tensor) -> None:
        algorithm.networks[name].offer_gradients(places[name])
        torch.autograd.grad(loss, parameters[name])

    def critic_loss() -> None:
        # The target is a part of its own.
        with _replaced(algorithm, "target", lambda batch, draws: target):
            learn("critic", algorithm.critic_loss(batch, draws, reversed_chunks)[0])

    def averages() -> None:
        for average, source, rate in algorithm._averages:
            average.lerp_(source, rate)

    return {
        "draws": lambda: algorithm.sample_draws(rows, generator),
        "reverse": lambda: algorithm.reverse(batch, draws),
        "target": lambda: algorithm.target(batch, draws),
        "critic_loss_and_gradient": critic_loss,
        "actor_loss_and_gradient": lambda: learn("actor", algorithm.actor_loss(batch, draws, reversed_chunks)[0]),
        "adam": lambda: algorithm._optimizer.step(gradient),
        "averages": averages,
    }


@contextmanager
def _replaced(algorithm: RQL, method: str, replacement: Callable[..., Any]) -> Iterator[None]:
    setattr(algorithm, method, replacement)
    try:
        yield
    finally:
        delattr(algorithm, method)


def matrix_rates(setting: Setting, after_turn: Work = lambda: None) -> dict[str, float]:
    """Return the median rate, in operations a second, of the products that updates are made of, by their shape."""
    batch, width, critics = setting.batch, setting.width, setting.critics
    weight = torch.randn(width, width)
    rows = {f"mm {count}x{width} @ {width}x{width}": torch.randn(count, width) for count in (batch, 10 * batch)}
    left, right = torch.randn(critics, batch, width), torch.randn(critics, width, width)
    subjects: dict[str, Work] = {name: partial(torch.mm, matrix, weight) for name, matrix in rows.items()}
    work = {name: 2 * matrix.shape[0] * width * width for name, matrix in rows.items()}
    name = f"bmm {critics}x{batch}x{width} @ {critics}x{width}x{width}"
    subjects[name], work[name] = partial(torch.bmm, left, right), 2 * critics * batch * width * width
    timings = alternate(subjects, RATE_REPEATS, after_turn=after_turn)
    return {name: work[name] / (timing.median * 1e-3) for name, timing in timings.items()}


def bandwidth() -> float:
    """Return the bytes a second that a large copy reads and writes; work in place can be faster than a copy."""
    source = torch.ones(COPIED_BYTES // 4)
    copy = torch.empty_like(source)
    timing = alternate({"copy": lambda: copy.copy_(source)}, 5)["copy"]
    return 2 * COPIED_BYTES / (timing.median * 1e-3)


def machine() -> dict[str, Any]:
    """Return what was measured on, and when."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
    }


def as_milliseconds(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Return timings for a JSON file."""
    return {name: asdict(timing) for name, timing in timings.items()}
