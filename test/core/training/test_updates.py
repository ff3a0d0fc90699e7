"""However updates are made, they are the same updates; and what cannot be had is said and done without."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from small_runs import DATA

from rql_core.algorithms import AnyAlgorithmConfig, RewardRange, make_algorithm
from rql_core.algorithms.stacking import stack_algorithms
from rql_core.data import Statistics
from rql_core.data.chunks import ChunkSampler
from rql_core.training import updates as updates_module
from rql_core.training.updates import Generators, Updates, computing_in

ALGORITHMS: list[dict[str, Any]] = [
    {"algorithm": "rql"},
    {"algorithm": "rql", "form": "paper", "q_normalisation": True},
    {"algorithm": "rql", "actor_gradient_at": "reversed", "reversal_integrator": "midpoint"},
    {"algorithm": "bc_flow"},
    {"algorithm": "fql"},
    {"algorithm": "ifql"},
    {"algorithm": "qc", "target_samples": 3},
]
every_algorithm = pytest.mark.parametrize(
    "variant", ALGORITHMS, ids=lambda variant: "-".join(map(str, variant.values()))
)
GENERATORS = ("batches", "draws")


def make(variant: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float64, width: int = 8) -> Any:
    values: dict[str, Any] = {"horizon": 2, "flow_steps": 3, "actor_hidden": (width, width)}
    if variant["algorithm"] != "bc_flow":
        values |= {"critic_hidden": (width, width), "critics": 2}
    config: Any = TypeAdapter(AnyAlgorithmConfig).validate_python(values | variant)
    return make_algorithm(
        config, DATA.observation_dim, DATA.action_dim, RewardRange(-1, 0, True), seed=seed, dtype=dtype
    )


def make_updates(algorithm: Any, seeds: tuple[int, ...] = (0,), **options: Any) -> Updates:
    generators = [
        Generators(torch.Generator().manual_seed(2 * seed), torch.Generator().manual_seed(2 * seed + 1))
        for seed in seeds
    ]
    updates = Updates(algorithm, generators, 16, **options)
    sampler = ChunkSampler(DATA, Statistics.of(DATA.observations), 2, algorithm.config.form, dtype=algorithm.dtype)
    updates.use(sampler)
    return updates


def assert_same(found: Any, expected: Any, **tolerances: float) -> None:
    expected_state, state = expected.training_state(), found.training_state()
    assert expected_state.keys() == state.keys()
    for name, tensor in expected_state.items():
        torch.testing.assert_close(state[name], tensor, **tolerances, msg=name)


EXACT = {"rtol": 0.0, "atol": 0.0}
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 4]])
def test_it_does_not_matter_in_how_many_slices_updates_are_made(sizes: list[int]) -> None:
    straight, sliced = make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(straight).make(7)
    updates = make_updates(sliced)
    rows = torch.cat([updates.make(size) for size in sizes])
    assert torch.equal(rows, expected)
    assert rows.shape == (7, len(updates.names))
    assert_same(sliced, straight, **EXACT)


@every_algorithm
def test_several_seeds_see_what_each_sees_alone(variant: dict[str, Any]) -> None:
    seeds = (4, 1)
    alone = [make(variant, seed) for seed in seeds]
    rows = [make_updates(algorithm, (seed,)).make(3) for algorithm, seed in zip(alone, seeds, strict=True)]
    together = make_updates(stack_algorithms([make(variant, seed) for seed in seeds]), seeds).make(3)
    assert together.shape == (3, rows[0].shape[1], 2)
    for index, expected in enumerate(rows):
        torch.testing.assert_close(together[..., index], expected, **ROUNDING)


@pytest.mark.parametrize(
    ("variant", "stacked"),
    [*((variant, False) for variant in ALGORITHMS), (ALGORITHMS[0], True), (ALGORITHMS[-1], True)],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "stacked" * value,
)
def test_a_compiled_loss_is_the_loss(variant: dict[str, Any], stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced, differentiated ahead of time and run operation by operation: all of a compiler but its C++.
    monkeypatch.setattr(updates_module.torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    eager, compiled = make(variant), make(variant)
    seeds = (0,)
    if stacked:
        seeds = (0, 1)
        eager, compiled = (stack_algorithms([make(variant, seed) for seed in seeds]) for _ in range(2))
    expected = make_updates(eager, seeds).make(3)
    found = make_updates(compiled, seeds, compiled=True).make(3)
    assert compiled.compiled_loss is not None
    assert {network.form for network in compiled.networks.values()} == {"plain"}
    torch.testing.assert_close(found, expected, **ROUNDING)
    assert_same(compiled, eager, **ROUNDING)


@pytest.mark.slow
def test_the_program_that_a_compiler_makes_is_the_update() -> None:
    torch.compiler.reset()
    eager, compiled = make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(eager).make(3)
    torch.testing.assert_close(make_updates(compiled, compiled=True).make(3), expected, rtol=1e-8, atol=1e-10)
    assert compiled.compiled_loss is not None
    assert_same(compiled, eager, rtol=1e-8, atol=1e-10)


def test_without_a_compiler_updates_go_on_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            raise RuntimeError("no C++ compiler was found\nand more")

        return call

    monkeypatch.setattr(updates_module.torch, "compile", broken)
    eager, other = make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(eager).make(3)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(make_updates(other, compiled=True).make(3), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "compile: torch.compile failed (RuntimeError: no C++ compiler was found); going on without"
    ]
    assert {network.form for network in other.networks.values()} == {"fastest"}
    assert_same(other, eager, **EXACT)


class Launches:
    """Stands for a GPU: a captured launch makes its updates when it is launched, and not when it is captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> None:
        self.made: list[int] = []
        self.captured: list[int] = []
        self.fails_at = fails_at
        monkeypatch.setattr(updates_module._Captured, "_warm_up", lambda captured: captured._one())
        monkeypatch.setattr(updates_module._Captured, "_capture", lambda captured, size: self.capture(captured, size))

    def capture(self, captured: Any, size: int) -> Callable[[], torch.Tensor]:
        if size == self.fails_at:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.captured.append(size)

        def launch() -> torch.Tensor:
            self.made.append(size)
            return torch.stack([captured._one() for _ in range(size)])

        return launch

    def make(self, algorithm: Any) -> Updates:
        updates = make_updates(algorithm)
        updates._captures = True
        updates.use(updates._sampler)
        return updates


def test_captured_updates_are_launched_ten_at_a_time_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    launches, eager, captured = Launches(monkeypatch), make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(eager).make(60)
    updates = launches.make(captured)
    rows = torch.cat([updates.make(count) for count in (2, 26, 32)])
    assert torch.equal(rows, expected)
    assert_same(captured, eager, **EXACT)
    assert launches.captured == [10, 1]
    assert launches.made == [10, 10] + 5 * [1] + 3 * [10] + 2 * [1]


def test_other_data_are_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    launches, algorithm = Launches(monkeypatch), make(ALGORITHMS[0])
    updates = launches.make(algorithm)
    updates.make(20)
    updates.use(updates._sampler)
    updates.make(20)
    assert launches.captured == [10, 1, 10, 1]


@pytest.mark.parametrize("fails_at", [10, 1])
def test_where_a_capture_fails_updates_go_on_and_none_is_lost(
    fails_at: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launches, eager, captured = Launches(monkeypatch, fails_at), make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(eager).make(40)
    updates = launches.make(captured)
    with caplog.at_level(logging.WARNING):
        rows = torch.cat([updates.make(count) for count in (1, 27, 12)])
    assert torch.equal(rows, expected)
    assert_same(captured, eager, **EXACT)
    assert [record.getMessage() for record in caplog.records] == [
        "cuda_graphs: the updates cannot be captured (operation not permitted when stream is capturing); "
        "going on without"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cuda_graphs": True}, "cuda_graphs: cpu is no GPU"),
        ({"precision": "tf32"}, "precision: cpu has no tf32"),
    ],
)
def test_what_a_cpu_has_not_is_said_and_done_without(
    options: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    eager, other = make(ALGORITHMS[0]), make(ALGORITHMS[0])
    expected = make_updates(eager).make(2)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(make_updates(other, **options).make(2), expected)
    assert len(caplog.records) == 1
    assert said in caplog.text


def test_a_cpu_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert updates_module.available_precision(torch.device("cpu"), "bf16") == "float32"
    assert "precision: cpu has no bf16; computing in float32" in caplog.text


def test_a_precision_holds_for_updates_alone() -> None:
    before = torch.get_float32_matmul_precision()
    seen = []
    for precision in ("float32", "tf32", "bf16"):
        with computing_in(torch.device("cpu"), precision):  # type: ignore[arg-type]
            seen.append(torch.get_float32_matmul_precision())
    assert seen == ["highest", "high", "medium"]
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="needs a CPU with bf16 matrix products (AMX or AVX-512 bf16)",
)
def test_bf16_updates_are_float32_updates_to_bf16s_rounding() -> None:
    # Smaller products are computed in float32 anyway.
    exact, rounded = (make(ALGORITHMS[0], dtype=torch.float32, width=64) for _ in range(2))
    expected = make_updates(exact).make(3)
    found = make_updates(rounded, precision="bf16").make(3)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_bf16_of_a_gpu_sees_the_weights_of_every_update_however_they_are_sliced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The same context as on a GPU, on the CPU, which has it too.
    monkeypatch.setattr(updates_module, "computing_in", lambda device, precision: updates_module.autocast("cpu"))
    rows = []
    for sizes in ([20], [1] * 20):
        algorithm = make({"algorithm": "rql", "learning_rate": 0.01}, dtype=torch.float32, width=16)
        updates = make_updates(algorithm)
        rows.append(torch.cat([updates.make(size) for size in sizes]))
    assert torch.equal(*rows)
    exact = make_updates(make({"algorithm": "rql", "learning_rate": 0.01}, dtype=torch.float32, width=16))
    monkeypatch.undo()
    expected = exact.make(20)
    assert not torch.equal(rows[0], expected)
    torch.testing.assert_close(rows[0], expected, rtol=0.1, atol=0.1)


def test_a_loss_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def backend(graph: Any, example_inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(updates_module.torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    updates = make_updates(make(ALGORITHMS[0]), compiled=True)
    updates.make(1)
    first = len(compiled)
    assert first > 0
    updates.make(5)
    assert len(compiled) == first
