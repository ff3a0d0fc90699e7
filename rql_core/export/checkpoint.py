"""Put a policy's ONNX graphs into its checkpoint, once they have been found to compute what torch computes.

At every moment the directory is a whole checkpoint, with its graphs or without: files are written first, each in one
rename, and listed in the manifest last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from rql_core.acting import Acting
from rql_core.checkpoint_files import (
    CRITICS,
    EXPORTED,
    JACOBIAN,
    PREFIX,
    SAMPLER,
    SOURCES,
    TEST_VECTORS,
    PolicyConfig,
    list_files,
    read_config,
    sha256,
)
from rql_core.errors import CheckpointError
from rql_core.export.graphs import make_graphs
from rql_core.runtime.onnx_policy import OnnxPolicy, compare
from rql_core.training.checkpoint import Checkpoint, load_checkpoint
from rql_core.training.policy import Policy
from rql_core.whole_files import write_whole

# Rows that are compared at the export: batches of one, of a few and of many take different paths in a runtime.
BATCHES = (1, 2, 64)
# Numbers of flow steps that are compared besides those of training, with as many rows as numbers: the least, and more
# than most are trained with.
FLOW_STEPS = (1, 20)
# Rows that are kept to be computed again when the graphs are loaded: enough that no unit of a network is never used.
KEPT_ROWS = 8


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    difference: float
    """The greatest difference to torch that was found."""
    changed: bool
    """False where the checkpoint had these very files."""


def export_checkpoint(directory: Path) -> Exported:
    """Write the graphs of a checkpoint into it.

    Raises CheckpointError where it is damaged or the graphs do not compute what torch does, and ConfigError where its
    policy cannot be written as ONNX or a package is missing.
    """
    checkpoint = load_checkpoint(directory)
    manifest = checkpoint.manifest
    config = read_config(directory, PolicyConfig, manifest)
    sources = {name: manifest.files[name] for name in SOURCES}
    graphs = make_graphs(directory, config, checkpoint.policy.statistics, sources)
    if (
        all(manifest.files.get(name) == sha256(graph) for name, graph in graphs.items())
        and TEST_VECTORS in manifest.files
    ):
        onnx = OnnxPolicy.load(directory, config, manifest)
        return Exported((*graphs, TEST_VECTORS), _compare_all(checkpoint, onnx), changed=False)
    manifest = list_files(directory, manifest, EXPORTED, {})
    for name, graph in graphs.items():
        write_whole(directory / name, graph)
    onnx = OnnxPolicy(directory, config, sources)
    try:
        difference = _compare_all(checkpoint, onnx)
        vectors = _test_vectors(checkpoint.policy)
        onnx.check(vectors)
    except CheckpointError:
        for name in graphs:
            (directory / name).unlink()
        raise
    files = {**graphs, TEST_VECTORS: safetensors.numpy.save(vectors)}
    write_whole(directory / TEST_VECTORS, files[TEST_VECTORS])
    list_files(directory, manifest, EXPORTED, {name: sha256(content) for name, content in files.items()})
    return Exported(tuple(files), difference, changed=True)


def _compare_all(checkpoint: Checkpoint, onnx: OnnxPolicy) -> float:
    """Return the greatest difference between both over batches, steps, guides and samples."""
    policy, directory = checkpoint.policy, checkpoint.directory
    settings = onnx.config.algorithm
    worst = 0.0
    for number, batch in enumerate(BATCHES):
        inputs = _inputs(policy, batch, seed=number)
        others = FLOW_STEPS if settings.is_flow and batch == len(FLOW_STEPS) else ()
        every = [Acting(), *(Acting(flow_steps=steps) for steps in others)]
        for acting in every:
            for graph, guide in _guides(inputs, flow=settings.is_flow):
                arguments = (inputs["observation"], inputs["noise"], acting)
                expected, found = policy.act(*arguments, **guide), onnx.act(*arguments, **guide)
                worst = max(worst, compare(directory / graph, expected, found))
        if settings.critics:
            chunks = policy.act(inputs["observation"], inputs["noise"])
            values = (each.action_value(inputs["observation"], chunks) for each in (policy, onnx))
            worst = max(worst, compare(directory / CRITICS, *values))
    return worst


def _test_vectors(policy: Policy) -> dict[str, np.ndarray]:
    """Return inputs and what torch makes of them, as ``OnnxPolicy.check`` wants them."""
    vectors = _inputs(policy, KEPT_ROWS, seed=len(BATCHES))
    observation, noise = vectors["observation"], vectors["noise"]
    is_flow = policy.name != "fql"
    outputs = {graph: policy.act(observation, noise, **guide) for graph, guide in _guides(vectors, flow=is_flow)}
    values = policy.action_value(observation, outputs[SAMPLER])
    if values.shape[1]:
        outputs[CRITICS] = values
    # safetensors writes memory as it lies, and a transposed array does not lie in its own order.
    return {name: np.ascontiguousarray(array) for name, array in (vectors | outputs).items()}


def _guides(inputs: dict[str, np.ndarray], *, flow: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the arguments of ``act`` that each graph of chunks answers."""
    held = {"guide_previous": inputs["previous"], "guide_weights": inputs["weights"]}
    guided = [(PREFIX, {**held, "guide_method": "prefix"}), (JACOBIAN, {**held, "guide_method": "jacobian"})]
    return [(SAMPLER, {}), *(guided if flow else [])]


def _inputs(policy: Policy, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Return observations as the statistics have them, noise, chunks of before, and weights that fall from 1 to 0."""
    generator, statistics = np.random.default_rng(seed), policy.statistics
    horizon, action_dim = policy.horizon, policy.algorithm.action_dim
    spread = generator.standard_normal((batch, statistics.observation_dim))
    # Without normalisation mean and std are 0 and 1, and the range says where observations are.
    observation = np.clip(statistics.mean + statistics.std * spread, statistics.minimum, statistics.maximum)
    weights = np.clip(np.linspace(1.5, -0.5, horizon), 0.0, 1.0)
    inputs = {
        "observation": observation,
        "noise": generator.standard_normal((batch, horizon * action_dim)),
        "previous": generator.uniform(-1.0, 1.0, (batch, horizon, action_dim)),
        "weights": np.tile(weights, (batch, 1)),
    }
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in inputs.items()}
