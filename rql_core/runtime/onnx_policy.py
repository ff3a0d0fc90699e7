"""A checkpoint's policy on ONNX Runtime: what ``rql_core.training.policy.Policy`` does when acting, without torch.

The same seed draws the same noise and gives the same chunks to 1e-5.  Before anything acts, the graphs are compared
with the other files of the checkpoint, and what they compute on this machine with what torch computed at the export.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rql_core.acting import NO_FLOW_TO_GUIDE, Acting, GuideMethod
from rql_core.checkpoint_files import (
    CRITICS,
    JACOBIAN,
    MANIFEST,
    PREFIX,
    SAMPLER,
    SOURCES,
    TEST_VECTORS,
    Manifest,
    PolicyConfig,
    read,
)
from rql_core.errors import CheckpointError, ConfigError

Float32 = NDArray[np.float32]

# float32 rounds at 1e-7, ten flow steps add up to some 1e-6, and another processor sums in another order; a wrong
# graph or weight is off by far more.  Values are compared relative to their size where that is above 1.
TOLERANCE = 1e-5
# The form of the graphs' metadata.
ABOUT_SCHEMA = 1
# Only what makes a graph fail to load or run: warnings are of no use on a robot's console.
LOG_ERRORS = 3


class OnnxPolicy:
    """Acts and values by the graphs of a checkpoint.  One thread at a time may use it."""

    def __init__(self, directory: Path, config: PolicyConfig, sources: Mapping[str, str], threads: int = 1) -> None:
        """Load the graphs; ``sources`` are the sha256 of the checkpoint's other files, which they must have been made
        of.  Raises CheckpointError, or ConfigError where ONNX Runtime is not installed.
        """
        self.config = config
        self._directory = directory.resolve()
        self._settings = config.algorithm
        self._runtime, self._options = _runtime(threads)
        names = [SAMPLER, *([PREFIX, JACOBIAN] if self._settings.is_flow else [])]
        names += [CRITICS] if self._settings.critics else []
        self._sessions = {name: self._load(name, sources) for name in names}

    @classmethod
    def load(cls, directory: Path, config: PolicyConfig, manifest: Manifest, threads: int | None = None) -> OnnxPolicy:
        """Load the graphs that a verified manifest lists, and compare what they compute with what torch computed.

        ``threads`` None is one: the robot's other cores are its own.
        """
        if SAMPLER not in manifest.files:
            raise CheckpointError(
                f"{directory / SAMPLER}: is missing; run `rql export {directory}` where torch is installed, "
                "or act with backend torch"
            )
        policy = cls(directory, config, manifest.files, threads or 1)
        for name in (*policy._sessions, TEST_VECTORS):
            if name not in manifest.files:
                raise CheckpointError(f"{directory / MANIFEST}: files lacks '{name}': run `rql export {directory}`")
        policy.check(read(directory / TEST_VECTORS, lambda path: safetensors.numpy.load(path.read_bytes())))
        return policy

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return self._settings.algorithm

    @property
    def horizon(self) -> int:
        """Steps in a chunk."""
        return self.config.horizon

    @property
    def default_acting(self) -> Acting:
        """How the algorithm acts unless it is told otherwise."""
        return self._settings.default_acting

    @property
    def is_flow(self) -> bool:
        """Whether a flow makes the chunks, which can be guided."""
        return self._settings.is_flow

    def check_acting(self, acting: Acting) -> None:
        """Raise ConfigError where the algorithm cannot act like that."""
        if acting.samples > 1 and not self._settings.critics:
            raise ConfigError(f"{self.name} has no critics to choose among {acting.samples} samples by: act with one")
        if not self._settings.is_flow and acting.flow_steps not in (None, 1):
            raise ConfigError(f"{self.name} acts in one step, flow_steps is {acting.flow_steps}: leave it out")

    def act(
        self,
        observations: Float32,
        noise: Float32,
        acting: Acting | None = None,
        *,
        guide_previous: Float32 | None = None,
        guide_weights: Float32 | None = None,
        guide_method: GuideMethod = "jacobian",
    ) -> Float32:
        """Return chunks (batch, horizon, action_dim) in [-1, 1], as ``Policy.act`` does."""
        acting = acting or self.default_acting
        noise = noise[:, None] if noise.ndim == 2 else noise
        samples = noise.shape[1]
        if samples == 1 and acting.flow_steps is None and guide_previous is None and guide_weights is None:
            # What nearly every plan is: every algorithm can act like that, and there is nothing to choose from.
            return self._run(SAMPLER, {"observation": observations, "noise": noise[:, 0]})
        self.check_acting(acting.changed(samples=samples))
        rows = observations if samples == 1 else np.repeat(observations, samples, axis=0)
        inputs = {"observation": rows, "noise": noise.reshape(len(rows), -1)}
        if guide_previous is not None and guide_weights is not None:
            each = np.broadcast_to(np.expand_dims(guide_weights, -1), guide_previous.shape)
            held = (array.reshape(len(observations), -1) for array in (guide_previous, each))
            previous, weights = (np.repeat(array, samples, axis=0).astype(np.float32) for array in held)
            chunks = self._guided(inputs, acting.flow_steps, previous, weights, guide_method)
        elif guide_previous is not None or guide_weights is not None:
            raise ConfigError("guide_previous and guide_weights belong together: give both or neither")
        elif acting.flow_steps is None or acting.flow_steps == self._steps:
            chunks = self._run(SAMPLER, inputs)
        else:
            # Held by nothing, this graph is the plain flow in any number of steps.
            nothing = np.zeros_like(inputs["noise"])
            chunks = self._guided(inputs, acting.flow_steps, nothing, nothing, "prefix")
        if samples == 1:
            return chunks
        values = self.action_value(rows, chunks)
        score = (values.mean(axis=1) - acting.rho * values.std(axis=1)).reshape(-1, samples)
        best = np.arange(len(observations)) * samples + score.argmax(axis=1)
        chosen: Float32 = chunks[best]
        return chosen

    def sample(
        self,
        observations: Float32,
        generator: np.random.Generator,
        acting: Acting | None = None,
        **guide: Any,
    ) -> Float32:
        """Return chunks as ``act`` does, drawing the noise as ``Policy.sample`` draws it."""
        acting = acting or self.default_acting
        shape = (len(observations), acting.samples, self.config.horizon * self.config.action_dim)
        return self.act(observations, generator.standard_normal(shape, dtype=np.float32), acting, **guide)

    def action_value(self, observations: Float32, chunks: Float32) -> Float32:
        """Return each critic's value (batch, critics) of doing chunks (batch, horizon, action_dim) there."""
        if not self._settings.critics:
            return np.empty((len(observations), 0), dtype=np.float32)
        return self._run(CRITICS, {"observation": observations, "chunk": chunks})

    def check(self, vectors: Mapping[str, NDArray[Any]]) -> None:
        """Recompute what torch computed at the export; raises CheckpointError that names what differs, and by how much.

        ``vectors``: observation, noise, previous, weights, and of each graph what it gave, by the graph's file.
        """
        inputs = {name: vectors.get(name) for name in ("observation", "noise", "previous", "weights")}
        missing = [name for name in (*inputs, *self._sessions) if name not in vectors]
        if missing:
            raise CheckpointError(
                f"{self._directory / TEST_VECTORS}: the tensor '{missing[0]}' is missing: "
                f"run `rql export {self._directory}`"
            )
        try:
            observation, noise = vectors["observation"], vectors["noise"]
            guide: dict[str, Any] = {"guide_previous": vectors["previous"], "guide_weights": vectors["weights"]}
            found = {SAMPLER: self.act(observation, noise)}
            if self._settings.is_flow:
                found[PREFIX] = self.act(observation, noise, **guide, guide_method="prefix")
                found[JACOBIAN] = self.act(observation, noise, **guide, guide_method="jacobian")
            if self._settings.critics:
                found[CRITICS] = self.action_value(observation, vectors[SAMPLER])
        except (CheckpointError, ConfigError, ValueError) as error:
            raise CheckpointError(f"{self._directory / TEST_VECTORS}: does not fit the graphs ({error})") from error
        for name, array in found.items():
            compare(self._directory / name, vectors[name], array)

    @property
    def _steps(self) -> int:
        return self._settings.flow_steps if self._settings.is_flow else 1

    def _guided(
        self, inputs: dict[str, Float32], flow_steps: int | None, previous: Float32, weights: Float32, how: GuideMethod
    ) -> Float32:
        if not self._settings.is_flow:
            raise ConfigError(NO_FLOW_TO_GUIDE.format(self.name))
        times = np.linspace(0.0, 1.0, (flow_steps or self._steps) + 1, dtype=np.float32)
        graph = {"prefix": PREFIX, "jacobian": JACOBIAN}[how]
        return self._run(graph, inputs | {"times": times, "previous": previous, "weights": weights})

    def _run(self, name: str, inputs: dict[str, Float32]) -> Float32:
        try:
            output: Float32 = self._sessions[name].run(None, inputs)[0]
        except Exception as error:  # ONNX Runtime's own errors share no other base
            raise CheckpointError(f"{self._directory / name}: ONNX Runtime failed: {_one_line(error)}") from error
        return output

    def _load(self, name: str, sources: Mapping[str, str]) -> Any:
        path = self._directory / name
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; run `rql export {self._directory}`")
        try:
            session = self._runtime.InferenceSession(str(path), self._options, providers=["CPUExecutionProvider"])
            about = json.loads(session.get_modelmeta().custom_metadata_map["rql"])
        except Exception as error:  # as above; and a graph without our metadata is none of ours
            raise CheckpointError(
                f"{path}: cannot be loaded by ONNX Runtime {self._runtime.__version__}: {_one_line(error)}; "
                f"run `rql export {self._directory}`"
            ) from error
        self._check_about(path, name, about, sources)
        return session

    def _check_about(self, path: Path, name: str, about: Any, sources: Mapping[str, str]) -> None:
        """Compare what a graph says of itself with this checkpoint."""
        expected = {
            "schema": ABOUT_SCHEMA,
            "graph": name,
            "algorithm": self.name,
            "observation_dim": self.config.observation_dim,
            "action_dim": self.config.action_dim,
            "horizon": self.config.horizon,
            "flow_steps": self._steps,
            "critics": self._settings.critics,
        }
        for field, value in expected.items():
            if about.get(field) != value:
                raise CheckpointError(
                    f"{path}: {field} is {about.get(field)!r}, but this checkpoint's is {value!r}: "
                    f"run `rql export {self._directory}`"
                )
        for source in SOURCES:
            was, now = str(about.get("sources", {}).get(source)), sources[source]
            if was != now:
                raise CheckpointError(
                    f"{path}: was made of another {source} (sha256 {was[:12]}..., here {now[:12]}...): "
                    f"run `rql export {self._directory}`"
                )


def compare(path: Path, expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the greatest difference, relative to numbers above 1; raises CheckpointError above the tolerance."""
    if expected.shape != found.shape:
        raise CheckpointError(f"{path}: gives {found.shape}, but torch gave {expected.shape}")
    difference = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    worst = float(difference.max()) if difference.size else 0.0
    if not worst <= TOLERANCE:
        raise CheckpointError(
            f"{path}: differs from what torch computed by {worst:.3g}, allowed is {TOLERANCE:g}: this runtime and the "
            "graph do not agree; export again, or act with backend torch"
        )
    return worst


def _runtime(threads: int) -> tuple[Any, Any]:
    """Return ONNX Runtime and the options of its sessions."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "backend onnx needs the package onnxruntime, which is not installed: "
            "run `pip install -r requirements/robot.txt`, or act with backend torch"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Memory that an arena has taken is never given back, and here it makes nothing faster.
    options.enable_cpu_mem_arena = False
    # Threads that wait must not spin: a policy acts a few milliseconds in every fifty.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = LOG_ERRORS
    return onnxruntime, options


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
