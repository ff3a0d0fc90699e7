"""What every algorithm is to the rest of the project: update on a batch, act, value a state, give and take its tensors.

An algorithm builds its online networks, names the averages it keeps of them, and writes down its losses; storage,
optimiser, averages, acting and state are here, once.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rql_core.acting import Acting
from rql_core.algorithms.batch import Batch
from rql_core.algorithms.parameters import AdamOptimizer, ParameterVector
from rql_core.errors import ConfigError
from rql_core.flow import Integrator, integrate
from rql_core.guidance import Guidance, integrate_guided
from rql_core.networks import Perceptrons

Metrics = dict[str, Tensor]
# A width above 8192 or more than 16 layers is a typing error, or a file that means to exhaust the memory.
Width = Annotated[int, Field(ge=1, le=8192)]
HiddenSizes = Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]

# Rows of a block of samples on a CPU: what a layer makes of them stays in a core's cache, which makes 8,192 samples of
# networks of 128 units 1.5 times faster.
BLOCK_ROWS = 1024

# What the published code gets wrong and the corrected form puts right, each by itself: chunks that end where an episode
# does are drawn, with the observation after them; a return stops at the first terminal; every start is equally likely;
# a target stays in the range that the rewards allow.
Correction = Literal["chunk_ends", "first_terminal", "uniform_starts", "target_range"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)


class AlgorithmConfig(BaseModel):
    """The settings that all algorithms have; each algorithm adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Which algorithm this configures.
    algorithm: str
    # `corrected`, or `paper`: exactly what the published numbers were made with.
    form: Literal["corrected", "paper"] = "corrected"
    # Corrections to make, to measure them one by one; null is all of them in `corrected` and none in `paper`.
    corrections: tuple[Correction, ...] | None = None
    # Steps in an action chunk (h).
    horizon: int = Field(default=5, ge=1, le=1024)
    # Flow steps (F) from noise to action.
    flow_steps: int = Field(default=10, ge=1, le=1000)
    # Widths of the actor's hidden layers.
    actor_hidden: HiddenSizes = (512, 512, 512, 512)
    # Adam's step size.
    learning_rate: float = Field(default=3e-4, gt=0)
    # Decay of the average of the actor that acts.
    act_average: float = Field(default=0.999, ge=0, lt=1)
    # How acting integrates the flow.
    act_integrator: Integrator = "euler"

    @property
    def acting_steps(self) -> int:
        """Flow steps that acting takes unless it is told otherwise."""
        return self.flow_steps

    def corrects(self, correction: Correction) -> bool:
        """Whether one of the published code's mistakes is put right."""
        by_form = CORRECTIONS if self.form == "corrected" else ()
        return correction in (by_form if self.corrections is None else self.corrections)


ConfigT = TypeVar("ConfigT", bound=AlgorithmConfig)
DrawsT = TypeVar("DrawsT")


@dataclass(frozen=True)
class Average:
    """A network that starts as an online one and follows it: after every update, average += rate (online - average)."""

    source: str
    rate: float


class Algorithm(ABC, Generic[ConfigT, DrawsT]):
    """Networks, their optimiser and averages, and the loss that trains them.  One thread at a time may use it.

    ``networks`` holds every network by name, the online ones and their averages; the online ones share one Adam.
    """

    #: The networks that a policy needs; the rest serves training alone.
    acting: ClassVar[tuple[str, ...]] = ("actor_average",)

    def __init__(
        self,
        config: ConfigT,
        observation_dim: int,
        action_dim: int,
        *,
        online: Mapping[str, Perceptrons],
        averages: Mapping[str, Average],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.chunk_dim = config.horizon * action_dim
        self.device = torch.device(device)
        self.dtype = dtype
        self.average_of = dict(averages)
        self.compiled_loss: Callable[[Batch, DrawsT], tuple[Tensor, Metrics]] | None = None
        """What ``update`` takes instead of ``loss``: the same, made faster."""
        self.hold(online)

    def hold(self, online: Mapping[str, Perceptrons]) -> None:
        """Take over online networks, and make their averages and their optimiser."""
        self.networks: dict[str, Any] = dict(online)
        self._online = ParameterVector(online, self.device, self.dtype)
        self._averages: list[tuple[Tensor, Tensor, float]] = []
        for name, average in self.average_of.items():
            follower = copy.deepcopy(online[average.source]).requires_grad_(False)
            self.networks[name] = follower
            vector = ParameterVector({name: follower}, self.device, self.dtype)
            self._averages.append((vector.part(name), self._online.part(average.source), average.rate))
        self._optimizer = AdamOptimizer(self._online, self.config.learning_rate)

    def let_capture(self, capturing: bool) -> None:
        """Let updates be captured in a CUDA graph, or no more."""
        self._optimizer.let_capture(capturing)

    def state_tensors(self) -> list[Tensor]:
        """Return what training goes on from, live: the count of steps, and every parameter and moment in its shape."""
        state = self._optimizer.state()
        moments = [*self._online.views(state["first_moment"]), *self._online.views(state["second_moment"])]
        parameters = [parameter.detach() for network in self.networks.values() for parameter in network.parameters()]
        return [state["step"], *parameters, *moments]

    @property
    def name(self) -> str:
        """The algorithm's name in configurations."""
        return self.config.algorithm

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return int(self._optimizer.state()["step"].item())

    @property
    def default_acting(self) -> Acting:
        """How this algorithm acts unless it is told otherwise."""
        return Acting()

    @property
    def valued_acting(self) -> Acting:
        """The way of acting that ``value`` is the value of."""
        return self.default_acting

    def check_acting(self, acting: Acting) -> None:
        """Raise ConfigError where this algorithm cannot act like that."""
        if acting.flow_steps is not None and self.config.act_integrator == "dopri5":
            raise ConfigError(f"flow_steps is {acting.flow_steps}, but dopri5 chooses its own steps: leave it out")
        observation = torch.zeros((1, self.observation_dim), dtype=self.dtype, device=self.device)
        noise = torch.zeros((1, acting.samples, self.chunk_dim), dtype=self.dtype, device=self.device)
        self.act(observation, noise, rho=acting.rho, flow_steps=acting.flow_steps)

    @abstractmethod
    def sample_draws(self, batch_size: int, generator: torch.Generator) -> DrawsT:
        """Draw every random number that one update needs."""

    @abstractmethod
    def loss(self, batch: Batch, draws: DrawsT) -> tuple[Tensor, Metrics]:
        """Return the scalar that Adam minimises, and detached metrics of it; of stacked algorithms, (members,) of each.

        All randomness comes in as ``draws``, so that any other implementation can be compared on the same draws.
        """

    def update(self, batch: Batch, draws: DrawsT) -> Metrics:
        """Make one gradient step and move the averages; return detached scalars, without waiting for a device."""
        loss, metrics = (self.compiled_loss or self.loss)(batch, draws)
        # Stacked algorithms share no parameter, so the gradient of their sum is each one's own.
        self._optimizer.step(self._online.gradient(loss.sum()))
        for average, source, rate in self._averages:
            average.lerp_(source, rate)
        return metrics

    @torch.no_grad()
    def act(
        self,
        observations: Tensor,
        noise: Tensor,
        *,
        rho: float = 0.0,
        flow_steps: int | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Return chunks (batch, h * d) in [-1, 1] for normalised observations (batch, obs).

        ``noise`` is normal, (batch, h * d), or (batch, samples, h * d): of so many chunks the critics choose the one
        with the greatest mean - rho * std.  ``flow_steps`` None: as many as in training.  ``guidance`` holds every
        row's chunks to one of before.  Raises ConfigError where there are several samples and no critics, or guidance
        and no flow.
        """
        actor = self.networks["actor_average"]
        if noise.dim() == 2:
            return self._make_chunks(actor, observations, noise, flow_steps, guidance)
        return self._best_chunks(actor, observations, noise, rho, flow_steps, guidance)

    def _make_chunks(
        self,
        actor: Any,
        observations: Tensor,
        noise: Tensor,
        flow_steps: int | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Return the chunks (batch, h * d) that an actor makes of noise (batch, h * d), clipped to [-1, 1]."""
        steps, method, field = (
            flow_steps or self.config.flow_steps,
            self.config.act_integrator,
            partial(actor, observations),
        )
        if guidance is None:
            return integrate(field, noise, steps, method).clamp(-1.0, 1.0)
        return integrate_guided(field, noise, steps, guidance, method).clamp(-1.0, 1.0)

    def _best_chunks(
        self,
        actor: Any,
        observations: Tensor,
        noise: Tensor,
        rho: float = 0.0,
        flow_steps: int | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Return the chunk of greatest value among those made of each row's noises (batch, samples, h * d)."""
        batch, samples, chunk_dim = noise.shape[-3:]
        if samples == 1:
            return self._make_chunks(actor, observations, noise.squeeze(-2), flow_steps, guidance)
        rows = max(1, BLOCK_ROWS // samples) if self.device.type == "cpu" else batch
        best: list[Tensor] = []
        blocks = zip(torch.split(observations, rows, dim=-2), torch.split(noise, rows, dim=-3), strict=True)
        for number, (block, noises) in enumerate(blocks):
            repeated = block.repeat_interleave(samples, dim=-2)
            guide = None if guidance is None else guidance.rows(number * rows, rows).repeated(samples)
            chunks = self._make_chunks(actor, repeated, noises.flatten(-3, -2), flow_steps, guide)
            values = self.action_value(repeated, chunks)
            if values.shape[-1] == 0:
                raise ConfigError(f"{self.name} has no critics to choose among {samples} samples by: act with one")
            spread, mean = torch.std_mean(values, dim=-1, correction=0)
            chosen = torch.unflatten(mean - rho * spread, -1, (-1, samples)).argmax(dim=-1)
            index = chosen[..., None, None].expand(*chosen.shape, 1, chunk_dim)
            best.append(torch.unflatten(chunks, -2, (-1, samples)).gather(-2, index).squeeze(-2))
        return torch.cat(best, dim=-2)

    def value(self, observations: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of normalised observations (batch, obs); (batch, 0) without."""
        return observations.new_empty((observations.shape[0], 0))

    def action_value(self, observations: Tensor, chunks: Tensor) -> Tensor:
        """Return each critic's value (batch, critics) of doing chunks (batch, h * d) there; (batch, 0) without."""
        return chunks.new_empty((observations.shape[0], 0))

    def policy_state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU and by name, of what acting and valuing need."""
        return _copies(self._tensors(self.acting))

    def load_policy_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a policy; every other network starts from its acting counterpart, so that training can begin there.

        Raises ConfigError where a tensor is missing, unknown, or has another shape or type.
        """
        _copy_in(self._tensors(self.acting), tensors)
        counterparts = {name.split("_")[0]: name for name in self.acting}
        for name, network in self.networks.items():
            counterpart = counterparts.get(name.split("_")[0])
            if name not in self.acting and counterpart is not None:
                network.load_state_dict(self.networks[counterpart].state_dict())

    def training_state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU and by name, of everything that training goes on from."""
        return _copies(self._training_tensors())

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that ``training_state`` gave.

        Raises ConfigError where a tensor is missing, unknown, or has another shape or type.
        """
        _copy_in(self._training_tensors(), tensors)

    def _tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {f"{name}.{key}": tensor for name in names for key, tensor in self.networks[name].state_dict().items()}

    def _training_tensors(self) -> dict[str, Tensor]:
        return self._tensors(self.networks) | {f"adam.{key}": value for key, value in self._optimizer.state().items()}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy_in(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing:
        raise ConfigError(
            f"the tensor '{missing[0]}' is missing ({len(missing)} in all); was this made with other settings?"
        )
    if unknown:
        raise ConfigError(
            f"the tensor '{unknown[0]}' is unknown ({len(unknown)} in all); was this made with other settings?"
        )
    for name, target in expected.items():
        source = given[name]
        if source.shape != target.shape or source.dtype != target.dtype:
            raise ConfigError(
                f"the tensor '{name}' is {source.dtype} {tuple(source.shape)}, "
                f"but the settings make it {target.dtype} {tuple(target.shape)}"
            )
    for name, target in expected.items():
        target.copy_(given[name])
