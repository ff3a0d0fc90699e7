"""The graphs of a policy: what ``Policy.act`` and ``Policy.action_value`` compute, as operations.

    policy            observation, noise                               -> chunk   all flow steps of training, unrolled
    policy_prefix     observation, noise, times, previous, weights     -> chunk   any flow steps, held by its prefix
    policy_jacobian   observation, noise, times, previous, weights     -> chunk   any flow steps, held by the Jacobian
    critics           observation, chunk                               -> values

Shapes: observation (batch, observation_dim), physical; noise (batch, horizon * action_dim); times (steps + 1,) from 0
to 1; previous and weights (batch, horizon * action_dim), as in rql_core/guidance.py; chunk (batch, horizon, action_dim)
in [-1, 1]; values (batch, critics).  With weights of 0, ``policy_prefix`` is the plain flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rql_core.acting import GUIDANCE_LIMIT
from rql_core.checkpoint_files import CRITICS, JACOBIAN, MODEL, PREFIX, SAMPLER, PolicyConfig
from rql_core.data import Statistics
from rql_core.errors import ConfigError
from rql_core.export.builder import Graph, floats, grid
from rql_core.mlp import GELU_CUBIC, GELU_SCALE, LAYER_NORM_EPSILON

ACTOR, CRITIC = "actor_average", "critic"


def make_graphs(
    directory: Path, config: PolicyConfig, statistics: Statistics, sources: dict[str, str]
) -> dict[str, bytes]:
    """Return the graphs' files by name; ``sources`` are the sha256 of the files that they are made of.

    Raises ConfigError where the policy cannot be written so.
    """
    algorithm = config.algorithm
    if algorithm.act_integrator == "dopri5":
        raise ConfigError(
            f"{directory}: act_integrator is dopri5, which chooses its flow steps while it runs and cannot be written "
            "as ONNX: act with backend torch, or train with 'euler' or 'midpoint'"
        )
    about = {
        "schema": 1,
        "algorithm": algorithm.algorithm,
        "observation_dim": config.observation_dim,
        "action_dim": config.action_dim,
        "horizon": config.horizon,
        "flow_steps": algorithm.flow_steps if algorithm.is_flow else 1,
        "integrator": algorithm.act_integrator,
        "critics": algorithm.critics,
        "acting": {"samples": algorithm.act_samples, "rho": algorithm.act_rho},
        "sources": sources,
    }
    names = [SAMPLER, *([PREFIX, JACOBIAN] if algorithm.is_flow else []), *([CRITICS] if algorithm.critics else [])]
    files = {}
    for name in names:
        writer = _Writer(Graph(directory / MODEL), config, statistics)
        make = {SAMPLER: writer.sampler, PREFIX: writer.prefix, JACOBIAN: writer.jacobian, CRITICS: writer.critics}[
            name
        ]
        files[name] = make({**about, "graph": name})
    return files


@dataclass(frozen=True)
class _Time:
    """Where a flow step is: names of its time (batch, 1), the time left (), and the strength of the pull ()."""

    column: str
    rest: str = ""
    gain: str = ""


class _Writer:
    """Writes one graph."""

    def __init__(self, graph: Graph, config: PolicyConfig, statistics: Statistics) -> None:
        self.graph = graph
        self.config = config
        self.algorithm = config.algorithm
        self.chunk_dim = config.horizon * config.action_dim
        self.layers = len(_layers(graph, ACTOR))
        mean, std = graph.constant(statistics.mean), graph.constant(statistics.std)
        self.observation = graph.op("Div", graph.op("Sub", "observation", mean), std)
        self.guided: str | None = None

    def sampler(self, about: dict[str, Any]) -> bytes:
        graph, x = self.graph, "noise"
        if not self.algorithm.is_flow:
            x = self._velocity(graph, x, self._column(graph, graph.constant(0.0)))[0]
            return self._finish(about, x, [])
        times = grid(self.algorithm.flow_steps)
        if self.algorithm.act_integrator == "euler" and len(_layers(graph, ACTOR)) > 1:
            return self._finish(about, self._euler(times), [])
        for start, end in pairwise(times):
            step = end - start
            here = _Time(self._column(graph, graph.constant(start)))
            middle = None
            if self.algorithm.act_integrator == "midpoint":
                middle = _Time(self._column(graph, graph.constant(start + np.float32(0.5) * step)))
            x = self._step(graph, x, graph.constant(step), here, middle, graph.constant(np.float32(0.5) * step))
        return self._finish(about, x, [])

    def _euler(self, times: NDArray[np.float32]) -> str:
        """Return x after Euler's steps between the times, by as few operations as there can be: each has its price.

        The first layer is three products: of the observation, the same in all steps; of time, a constant; and of x.
        What the last layer's biases add to x until a time is known beforehand, so that x is carried without it, and the
        last product adds itself to x.
        """
        graph, layers = self.graph, _layers(self.graph, ACTOR)
        observed, of_x = self._first_layer(0, self.config.observation_dim), self._rows_of_x()
        of_time = self._first_layer(self.config.observation_dim + self.chunk_dim, 1)
        weights, biases = (graph.weight(name) for name in layers[-1])
        seen = graph.op("Gemm", self.observation, observed, graph.weight(layers[0][1]))
        in_time = graph.op("Add", of_time, graph.op("MatMul", biases, of_x))
        x = "noise"
        for start, end in pairwise(times):
            shift = graph.op("Add", seen, graph.op("Mul", in_time, graph.constant(start))) if start > 0 else seen
            hidden = graph.op("Gelu", graph.op("Gemm", x, of_x, shift), approximate="tanh")
            for inner, inner_biases in layers[1:-1]:
                hidden = graph.op("Gemm", hidden, graph.weight(inner), graph.weight(inner_biases))
                hidden = graph.op("Gelu", hidden, approximate="tanh")
            x = graph.op("Gemm", hidden, weights, x, alpha=float(end - start))
        return graph.op("Add", x, biases)

    def prefix(self, about: dict[str, Any]) -> bytes:
        towards = self.graph.op("Sub", "previous", "noise")

        def held(body: Graph, x: str, time: str) -> str:
            path = body.op("Add", "noise", body.op("Mul", time, towards))
            return body.op("Add", x, body.op("Mul", "weights", body.op("Sub", path, x)))

        return self._any_steps(about, held)

    def jacobian(self, about: dict[str, Any]) -> bytes:
        self.guided = "weights"
        return self._any_steps(about, lambda body, x, time: x)

    def critics(self, about: dict[str, Any]) -> bytes:
        graph, config = self.graph, self.config
        flat = graph.op("Reshape", "chunk", graph.constant([-1, self.chunk_dim], np.int64))
        inputs = graph.op("Concat", self.observation, flat, self._column(graph, graph.constant(1.0)), axis=1)
        # (1, batch, in) against (critics, in, out): every critic in one product.
        hidden = graph.op("Unsqueeze", inputs, graph.constant([0], np.int64))
        layers = _layers(graph, CRITIC)
        for layer, (weights, biases) in enumerate(layers):
            hidden = graph.op("Add", graph.op("MatMul", hidden, graph.weight(weights)), graph.weight(biases))
            if layer == len(layers) - 1:
                break
            hidden = graph.op("Gelu", hidden, approximate="tanh")
            scales = f"{CRITIC}.scales.{layer}"
            # Runtimes differ in whether LayerNormalization takes a scale for each critic.
            plain = graph.constant(np.ones(graph.shape(scales)[-1]))
            hidden = graph.op("LayerNormalization", hidden, plain, axis=-1, epsilon=LAYER_NORM_EPSILON)
            hidden = graph.op("Mul", hidden, graph.weight(scales))
            hidden = graph.op("Add", hidden, graph.weight(f"{CRITIC}.shifts.{layer}"))
        values = graph.op("Transpose", graph.op("Squeeze", hidden, graph.constant([2], np.int64)), perm=[1, 0])
        chunk = floats("chunk", "batch", config.horizon, config.action_dim)
        inputs_of = [floats("observation", "batch", config.observation_dim), chunk]
        return graph.finish("critics", inputs_of, values, floats("values", "batch", self.algorithm.critics), about)

    def _any_steps(self, about: dict[str, Any], hold: Any) -> bytes:
        """Write a loop over the steps between the times given; what depends on time alone is computed before it."""
        graph = self.graph
        zero, one, end = (graph.constant([value], np.int64) for value in (0, 1, np.iinfo(np.int64).max))
        starts = graph.op("Slice", "times", zero, graph.constant([-1], np.int64))
        steps = graph.op("Sub", graph.op("Slice", "times", one, end), starts)
        halves = graph.op("Mul", steps, graph.constant(0.5))
        trips = graph.op("Size", starts)
        body, counter, state = graph.inner(), "flow_step_index", "x"

        def pick(vector: str) -> str:
            return body.op("Gather", vector, counter)

        here = self._time(body, starts, pick)
        middle = None
        if self.algorithm.act_integrator == "midpoint":
            middle = self._time(body, graph.op("Add", starts, halves), pick)
        x = hold(body, state, pick(starts))
        x = self._step(body, x, pick(steps), here, middle, pick(halves) if middle else "")
        x = graph.loop(body, counter, state, x, trips, "noise", self.chunk_dim)
        more = [floats("times", "times"), *(floats(name, "batch", self.chunk_dim) for name in ("previous", "weights"))]
        return self._finish(about, x, more)

    def _time(self, body: Graph, times: str, pick: Any) -> _Time:
        column = self._column(body, pick(times))
        if self.guided is None:
            return _Time(column)
        graph = self.graph
        rest = graph.op("Sub", graph.constant(1.0), times)
        squares = graph.op("Add", graph.op("Mul", times, times), graph.op("Mul", rest, rest))
        # Infinite at time 0, where the limit takes its place.
        gain = graph.op("Div", squares, graph.op("Mul", times, rest))
        return _Time(column, pick(rest), pick(graph.op("Min", gain, graph.constant(GUIDANCE_LIMIT))))

    def _step(self, graph: Graph, x: str, step: str, here: _Time, middle: _Time | None, half: str) -> str:
        """Return x after one step of Euler's method, or of the midpoint method."""
        velocity = self._field(graph, x, here)
        if middle is not None:
            point = graph.op("Add", x, graph.op("Mul", half, velocity))
            velocity = self._field(graph, point, middle)
        return graph.op("Add", x, graph.op("Mul", step, velocity))

    def _field(self, graph: Graph, x: str, time: _Time) -> str:
        """Return the velocity, with the pull of guidance where there is any."""
        velocity, linear = self._velocity(graph, x, time.column)
        if self.guided is None:
            return velocity
        predicted = graph.op("Add", x, graph.op("Mul", time.rest, velocity))
        error = graph.op("Mul", self.guided, graph.op("Sub", "previous", predicted))
        through = graph.op("Mul", time.rest, self._pullback(graph, error, linear))
        pull = graph.op("Mul", time.gain, graph.op("Add", error, through))
        return graph.op("Add", velocity, pull)

    def _velocity(self, graph: Graph, x: str, column: str) -> tuple[str, list[str]]:
        """Return the actor's output (batch, chunk_dim), and what its hidden layers gave before their GELU."""
        linear: list[str] = []
        hidden = graph.op("Concat", self.observation, x, column, axis=1)
        for weights, biases in _layers(graph, ACTOR):
            if linear:
                hidden = graph.op("Gelu", linear[-1], approximate="tanh")
            linear.append(graph.op("Gemm", hidden, graph.weight(weights), graph.weight(biases)))
        return linear[-1], linear[:-1]

    def _pullback(self, graph: Graph, cotangent: str, linear: list[str]) -> str:
        """Return the vector-Jacobian product (batch, chunk_dim) of the actor by x, all slopes of GELU at a time."""
        layers = _layers(graph, ACTOR)
        widths = [graph.shape(weights)[1] for weights, _ in layers[:-1]]
        joined = graph.op("Concat", *linear, axis=1) if len(linear) > 1 else linear[0]
        slope = _gelu_slope(graph, joined)
        sizes = graph.constant(widths, np.int64)
        slopes = graph.split("Split", len(linear), slope, sizes, axis=1) if len(linear) > 1 else [slope]
        for (weights, _), each in zip(reversed(layers[1:]), reversed(slopes), strict=True):
            cotangent = graph.op("Mul", graph.op("Gemm", cotangent, graph.weight(weights), transB=1), each)
        return graph.op("Gemm", cotangent, self._rows_of_x(), transB=1)

    def _rows_of_x(self) -> str:
        """Return the rows of the first layer's weights that x meets; a constant, of the main graph."""
        return self._first_layer(self.config.observation_dim, self.chunk_dim)

    def _first_layer(self, first: int, count: int) -> str:
        """Return some rows of the first layer's weights."""
        graph = self.graph
        ends = (graph.constant([first], np.int64), graph.constant([first + count], np.int64))
        return graph.op("Slice", graph.weight(f"{ACTOR}.weights.0"), *ends, graph.constant([0], np.int64))

    def _column(self, graph: Graph, time: str) -> str:
        """Return a time () as (batch, 1)."""
        if not hasattr(self, "_rows"):
            batch = self.graph.op("Shape", "observation", start=0, end=1)
            self._rows = self.graph.op("Concat", batch, self.graph.constant([1], np.int64), axis=0)
        return graph.op("Expand", time, self._rows)

    def _finish(self, about: dict[str, Any], x: str, more: list[Any]) -> bytes:
        graph, config = self.graph, self.config
        clipped = graph.op("Clip", x, graph.constant(-1.0), graph.constant(1.0))
        chunk = graph.op("Reshape", clipped, graph.constant([-1, config.horizon, config.action_dim], np.int64))
        noise = floats("noise", "batch", self.chunk_dim)
        inputs = [floats("observation", "batch", config.observation_dim), noise, *more]
        return graph.finish("policy", inputs, chunk, floats("chunk", "batch", config.horizon, config.action_dim), about)


def _layers(graph: Graph, network: str) -> list[tuple[str, str]]:
    """Return the names of each layer's weights and biases."""
    names: list[tuple[str, str]] = []
    while graph.has(f"{network}.weights.{len(names)}"):
        names.append((f"{network}.weights.{len(names)}", f"{network}.biases.{len(names)}"))
    return names


def _gelu_slope(graph: Graph, z: str) -> str:
    """Return the derivative of GELU's tanh form: s (1 + (1 - s)(3 q - 4 c z)), s = sigmoid(q), q = 2 c (z + k z^3)."""
    scale, one = 2.0 * GELU_SCALE, graph.constant(1.0)
    cubic = graph.op("Mul", graph.op("Mul", z, z), graph.constant(scale * GELU_CUBIC))
    q = graph.op("Mul", graph.op("Add", cubic, graph.constant(scale)), z)
    s = graph.op("Sigmoid", q)
    inner = graph.op("Sub", graph.op("Mul", q, graph.constant(3.0)), graph.op("Mul", z, graph.constant(2.0 * scale)))
    return graph.op("Mul", s, graph.op("Add", graph.op("Mul", inner, graph.op("Sub", one, s)), one))
