"""Write ONNX graphs node by node; weights stay where they are, in the checkpoint's model.safetensors.

A graph refers to its weights by file, place and length ("external data" of the ONNX format), so that four graphs of one
policy hold no copy of it, and none can be of another one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

import rql_core

# The first opset with Gelu, and the IR version that goes with it: old runtimes read it too.
OPSET, IR_VERSION = 20, 9


class Graph:
    """Collects nodes and constants; a name stands for a value, and every operation returns the name of its result."""

    def __init__(self, weights: Path, outer: Graph | None = None) -> None:
        self._weights = weights
        self._outer = outer
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._tensors = _places(weights) if outer is None else {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation with one result."""
        return self.split(kind, 1, *inputs, **attributes)[0]

    def split(self, kind: str, results: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operation with several results."""
        names = [f"{kind.lower()}_{self._next()}" for _ in range(results)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Return the name of a constant; equal ones are stored once, and those of a loop's body outside of it."""
        if self._outer is not None:
            return self._outer.constant(value, dtype)
        array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        # Small ones are named by their bytes, which makes equal ones the same.
        name = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        if array.size > 4:
            name = f"constant_{self._next()}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        """Return the name of a tensor of the checkpoint."""
        if self._outer is not None:
            return self._outer.weight(name)
        if name not in self._constants:
            shape, offset, length = self._tensors[name]
            tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", self._weights.name), ("offset", offset), ("length", length)):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
            self._constants[name] = tensor
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the checkpoint."""
        return self._outer.shape(name) if self._outer is not None else self._tensors[name][0]

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of that name."""
        return self._outer.has(name) if self._outer is not None else name in self._tensors

    def inner(self) -> Graph:
        """Return an empty graph that may use the values of this one: the body of a loop."""
        return Graph(self._weights, self)

    def loop(self, body: Graph, counter: str, state: str, result: str, trips: str, start: str, width: int) -> str:
        """Add a loop that makes ``result`` of ``state`` ((batch, width) both), ``trips`` times, from ``start`` on."""
        condition, same = f"condition_{self._next()}", f"condition_{self._next()}"
        graph = helper.make_graph(
            [*body._nodes, helper.make_node("Identity", [condition], [same])],
            "flow_step",
            [
                helper.make_tensor_value_info(counter, TensorProto.INT64, []),
                helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
                floats(state, "batch", width),
            ],
            [helper.make_tensor_value_info(same, TensorProto.BOOL, []), floats(result, "batch", width)],
        )
        return self.op("Loop", trips, "", start, body=graph)

    def finish(self, name: str, inputs: Sequence[Any], result: str, output: Any, about: dict[str, Any]) -> bytes:
        """Return the file: inputs and one output as ``floats`` says them, and what the graph is about."""
        self._nodes.append(helper.make_node("Identity", [result], [output.name]))
        graph = helper.make_graph(self._nodes, name, list(inputs), [output], list(self._constants.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rql",
            producer_version=rql_core.__version__,
        )
        helper.set_model_props(model, {"rql": json.dumps(about, sort_keys=True)})
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _next(self) -> int:
        if self._outer is not None:
            return self._outer._next()
        self._count += 1
        return self._count


def floats(name: str, *shape: int | str) -> Any:
    """Return a graph's float32 input or output; a dimension of any length has a name."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _places(weights: Path) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Return shape, place and length in bytes of every tensor in a safetensors file."""
    with weights.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_length))
    first = 8 + header_length
    return {
        name: (
            tuple(entry["shape"]),
            first + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def grid(steps: int) -> NDArray[np.float32]:
    """Return the times (steps + 1,) between which so many flow steps go."""
    return np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)
