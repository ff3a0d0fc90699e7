"""Make updates: sample, draw, step, and leave the metrics on the device; as fast as was asked for and is possible.

What was asked for and cannot be had is said once, and the updates go on without it.  Every way makes the same updates
to rounding, from the same generators (test/core/training/test_updates.py).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rql_core.algorithms import Algorithm
from rql_core.algorithms.stacking import stack_items
from rql_core.data.chunks import ChunkSampler

_logger = logging.getLogger(__name__)

Precision = Literal["float32", "tf32", "bf16"]

# Updates in a captured launch: what a launch costs is then a tenth of an update's, and rows of metrics stay prompt.
UPDATES_A_LAUNCH = 10
# Updates before a capture, which cuBLAS and autograd need to set themselves up; they count like any other.
WARM_UP = 3


@dataclass(frozen=True)
class Generators:
    """A run's sources of random numbers: two, so that an algorithm that draws more or less sees the same batches."""

    batches: torch.Generator
    draws: torch.Generator

    def named(self) -> dict[str, torch.Generator]:
        """Return them by name."""
        return {"batches": self.batches, "draws": self.draws}


class Updates:
    """Makes updates of an algorithm on its device.

    With several ``generators`` the algorithm is a stack of as many, and each member sees what its generators draw.
    """

    def __init__(
        self,
        algorithm: Algorithm[Any, Any],
        generators: Sequence[Generators],
        batch_size: int,
        *,
        precision: Precision = "float32",
        compiled: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        self.names: tuple[str, ...] = ()
        """The metrics' names, once an update was made."""
        self._algorithm = algorithm
        self._generators = tuple(generators)
        self._batch_size = batch_size
        self._precision = available_precision(algorithm.device, precision)
        if compiled:
            compile_loss(algorithm)
        self._captured: _Captured | None = None
        if cuda_graphs and algorithm.device.type != "cuda":
            _logger.warning("cuda_graphs: %s is no GPU; updates are launched one by one", algorithm.device)
        self._captures = cuda_graphs and algorithm.device.type == "cuda"

    def use(self, sampler: ChunkSampler) -> None:
        """Sample from here on from other data."""
        self._sampler = sampler
        every = [generator for each in self._generators for generator in each.named().values()]
        capturable = self._algorithm.let_capture
        self._captured = _Captured(self._one, every, capturable) if self._captures else None

    def make(self, count: int) -> Tensor:
        """Make updates; return their metrics (count, metrics), or (count, metrics, members), without waiting."""
        with computing_in(self._algorithm.device, self._precision):
            if self._captured is None:
                return self._each(count)
            rows, failure = self._captured.make(count)
            if failure is not None:
                _logger.warning("cuda_graphs: the updates cannot be captured (%s); going on without", failure)
                self._captured, self._captures = None, False
                left = count - sum(len(each) for each in rows)
                rows += [self._each(left)] if left else []
            return torch.cat(rows)

    def _each(self, count: int) -> Tensor:
        return torch.stack([self._one() for _ in range(count)])

    def _one(self) -> Tensor:
        algorithm, size = self._algorithm, self._batch_size
        if len(self._generators) == 1:
            batch = self._sampler.sample(size, self._generators[0].batches)
            draws = algorithm.sample_draws(size, self._generators[0].draws)
        else:
            batch = self._sampler.sample_each(size, [each.batches for each in self._generators])
            draws = stack_items([algorithm.sample_draws(size, each.draws) for each in self._generators])
        metrics = algorithm.update(batch, draws)
        self.names = tuple(metrics)
        return torch.stack(list(metrics.values()))


class _Captured:
    """Whole updates as CUDA graphs: one of ``UPDATES_A_LAUNCH`` of them, and one of a single update for what is left.

    Capturing makes no update; the generators are registered with the graphs, so a launch draws what eager updates do.
    """

    def __init__(
        self, one: Callable[[], Tensor], generators: Sequence[torch.Generator], let_capture: Callable[[bool], None]
    ) -> None:
        self._one = one
        self._generators = generators
        self._let_capture = let_capture
        self._warm = 0
        self._launches: dict[int, Callable[[], Tensor]] = {}

    def make(self, count: int) -> tuple[list[Tensor], str | None]:
        """Make updates; return the metrics of those that were made, and why no more, where a capture failed."""
        rows: list[Tensor] = []
        while self._warm < WARM_UP and len(rows) < count:
            rows.append(self._warm_up().unsqueeze(0))
            self._warm += 1
        left = count - len(rows)
        for size in (UPDATES_A_LAUNCH, 1):
            times, left = divmod(left, size)
            if times and size not in self._launches:
                try:
                    self._launches[size] = self._capture(size)
                except RuntimeError as error:
                    return rows, str(error).partition("\n")[0]
            rows.extend(self._launches[size]() for _ in range(times))
        return rows, None

    def _warm_up(self) -> Tensor:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            row = self._one()
        torch.cuda.current_stream().wait_stream(stream)
        return row

    def _capture(self, updates: int) -> Callable[[], Tensor]:
        states = [generator.get_state() for generator in self._generators]
        stream = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        self._let_capture(True)
        try:
            for generator in self._generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph):
                rows = torch.stack([self._one() for _ in range(updates)])
        except RuntimeError:
            # What a broken capture leaves behind: its stream, and generators that believe it is still going on.
            torch.cuda.set_stream(stream)
            for generator, state in zip(self._generators, states, strict=True):
                fresh = torch.Generator(generator.device)
                fresh.set_state(state)
                generator.graphsafe_set_state(fresh)
            raise
        finally:
            self._let_capture(False)

        def launch() -> Tensor:
            graph.replay()
            return rows.clone()

        return launch


def compile_loss(algorithm: Algorithm[Any, Any]) -> None:
    """Let torch.compile make one program of an algorithm's losses; where it cannot, its first update says so."""
    forms = {name: network.form for name, network in algorithm.networks.items()}
    for network in algorithm.networks.values():
        network.form = "plain"
    compiled = torch.compile(algorithm.loss, dynamic=False)

    def first(batch: Any, draws: Any) -> Any:
        try:
            result = compiled(batch, draws)
        except Exception as error:
            # Whatever a compiler lacks or fails at, the same loss without it is right; an error of the loss itself
            # comes again from there.
            _logger.warning(
                "compile: torch.compile failed (%s: %s); going on without",
                type(error).__name__,
                str(error).strip().partition("\n")[0],
            )
            algorithm.compiled_loss = None
            for name, network in algorithm.networks.items():
                network.form = forms[name]
            return algorithm.loss(batch, draws)
        algorithm.compiled_loss = compiled
        return result

    algorithm.compiled_loss = first


def available_precision(device: torch.device, wanted: Precision) -> Precision:
    """Return the wanted precision where the device has it, else float32, and say so."""
    if wanted == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        _logger.warning("precision: %s has no tf32; computing in float32", device)
        return "float32"
    if wanted == "bf16":
        if device.type == "cuda":
            there = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
            there = bool(supported is not None and supported())
        if not there:
            _logger.warning("precision: %s has no bf16; computing in float32", device)
            return "float32"
    return wanted


def autocast(device_type: str) -> torch.autocast:
    """Return a context in which matrix products are computed in bfloat16 and all else in float32.

    Without torch's cache of cast weights, which would last for all the updates of a slice: Adam changes the weights
    between them in a way that the cache does not see.
    """
    return torch.autocast(device_type, torch.bfloat16, cache_enabled=False)


@contextlib.contextmanager
def computing_in(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute matrix products of float32 tensors like that, and as before afterwards."""
    before = torch.get_float32_matmul_precision()
    # torch's names: "high" is tf32 on a GPU, "medium" is bf16 inside a CPU's products, which take and give float32.
    level = {"float32": "highest", "tf32": "high", "bf16": "highest" if device.type == "cuda" else "medium"}[precision]
    torch.set_float32_matmul_precision(level)
    try:
        with autocast("cuda") if precision == "bf16" and device.type == "cuda" else contextlib.nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
