"""What logs alone say of a checkpoint, before anything moves: its value, the errors of its critics, how far it strays.

Every figure comes from whole chunks of the logs (h real actions and the observation after them) and is an estimate:
what a policy does where no log has been, no log can say. `estimates.FIGURES` tells what each means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rql_core.algorithms import Acting, Batch, CriticConfig, RewardRange
from rql_core.data.chunks import ChunkSampler, reward_range
from rql_core.data.normalisation import Statistics
from rql_core.data.trajectories import Trajectories
from rql_core.errors import ConfigError, DatasetError
from rql_core.evaluation.estimates import Array, Distances, EpisodeTrace, Estimates, OwnCritics
from rql_core.evaluation.fitted_q import FittedQ, FittedQSettings, chunk_return, fit_q, in_blocks, policy_chunks
from rql_core.training.policy import Policy

# For algorithms that have no discount of their own; the shipped presets of the arms train with it.
DEFAULT_GAMMA = 0.99
# An action number this close to 1 is at its limit: float32 and a round trip through a bag's physical units take off
# less.
SATURATED = 0.999
# Draws of the policy over which FQE's value of an observation is a mean: its own noise is then below that of the fit.
# A policy that takes the best of several samples varies less, and one draw of it costs as much as so many.
_VALUE_DRAWS = 8


@dataclass(frozen=True)
class EstimateSettings:
    """How much is looked at."""

    gamma: float | None = None
    """Discount of FQE; None: the algorithm's own, or .99 where it has none."""
    windows: int = 4096
    """Chunks for errors and values; their means are then known to 1/64 of the spread."""
    distance_windows: int = 512
    """Chunks for distances, each compared with `noises` samples."""
    noises: int = 16
    starts: int = 512
    """Episode starts at most; of more, so many are drawn."""
    episodes: int = 3
    """Logged episodes whose values are followed."""
    seed: int = 0
    fitted_q: FittedQSettings = field(default_factory=FittedQSettings)

    def __post_init__(self) -> None:
        """Raise ConfigError for a number that makes no sense."""
        if self.gamma is not None and not 0.0 < self.gamma < 1.0:
            raise ConfigError(f"gamma is {self.gamma}: expected a number between 0 and 1")
        # A chunk alone has none to be compared with.
        least = {"windows": 1, "distance_windows": 2, "noises": 1, "starts": 1, "episodes": 1, "seed": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least {minimum}")


def estimate(
    policy: Policy,
    trajectories: Trajectories,
    trained_on: RewardRange,
    settings: EstimateSettings | None = None,
    *,
    acting: Acting | None = None,
    progress: bool = False,
) -> Estimates:
    """Estimate all figures of a policy from episodes.

    `trained_on` is the range of the rewards in its training data, `acting` how it acts (None: as its algorithm does by
    itself). The same seed gives the same figures on a CPU. Raises DatasetError where the episodes do not fit the policy
    or are too short for a chunk, and ConfigError for settings that make no sense.
    """
    return _Estimator(policy, trajectories, trained_on, settings or EstimateSettings(), acting).run(progress)


class _Estimator:
    def __init__(
        self,
        policy: Policy,
        trajectories: Trajectories,
        trained_on: RewardRange,
        settings: EstimateSettings,
        acting: Acting | None,
    ) -> None:
        algorithm = policy.algorithm
        for name, found, expected in (
            ("an observation", trajectories.observation_dim, algorithm.observation_dim),
            ("an action", trajectories.action_dim, algorithm.action_dim),
        ):
            if found != expected:
                raise DatasetError(
                    f"{name} of the dataset has {found} numbers, but the checkpoint was trained with {expected}; "
                    "use logs of the robot that it was trained for"
                )
        self.algorithm, self.statistics = algorithm, policy.statistics
        self.trajectories, self.settings = trajectories, settings
        self.acting = acting or algorithm.default_acting
        config = algorithm.config
        self.own_gamma = config.gamma if isinstance(config, CriticConfig) else None
        self.gamma = settings.gamma if settings.gamma is not None else self.own_gamma or DEFAULT_GAMMA
        logged = reward_range(trajectories)
        self.rewards = RewardRange(
            min(logged.minimum, trained_on.minimum),
            max(logged.maximum, trained_on.maximum),
            logged.can_end or trained_on.can_end,
        )
        self.sampler = ChunkSampler(
            trajectories, policy.statistics, config.horizon, device=algorithm.device, dtype=algorithm.dtype
        )
        self.generator = torch.Generator(algorithm.device).manual_seed(settings.seed)

    def run(self, progress: bool) -> Estimates:
        settings, algorithm = self.settings, self.algorithm
        starts = self._starts()
        fitted = fit_q(
            algorithm,
            self.sampler,
            starts,
            self.rewards,
            self.gamma,
            settings=settings.fitted_q,
            acting=self.acting,
            seed=settings.seed,
            progress=progress,
        )
        windows = self.sampler.sample(settings.windows, self.generator)
        low, high = self.rewards.return_bounds(self.gamma)
        return Estimates(
            algorithm=algorithm.name,
            gamma=self.gamma,
            low=low,
            high=high,
            noises=settings.noises,
            same_data=self._same_data(),
            unfamiliar=self._unfamiliar(),
            curve_updates=fitted.curve_updates,
            curve=_numbers(fitted.curve),
            start_values=_numbers(self._fitted_values(fitted, starts)),
            state_spread=float(self._fitted_values(fitted, windows.observations).mean(dim=1).std(correction=0)),
            own=self._own(starts, windows),
            distances=self._distances(),
            traces=tuple(self._trace(fitted, int(index)) for index in self._chosen_episodes()),
            comparable=self._comparable(),
            rewards_differ=float(np.ptp(self.trajectories.rewards)) > 0.0,
        )

    def _comparable(self) -> bool:
        """Whether the fit and the own critics are about the same policy and the same discount."""
        return self.own_gamma == self.gamma and self.acting == self.algorithm.valued_acting

    def _starts(self) -> Tensor:
        rows = self.trajectories.observation_offsets
        if len(rows) > self.settings.starts:
            rows = np.sort(np.random.default_rng(self.settings.seed).choice(rows, self.settings.starts, replace=False))
        return self._normalised(self.trajectories.observations[rows])

    def _normalised(self, observations: NDArray[np.float32]) -> Tensor:
        normalised = self.statistics.normalise(observations)
        return torch.as_tensor(normalised, dtype=self.algorithm.dtype, device=self.algorithm.device)

    def _fitted_values(self, fitted: FittedQ, observations: Tensor) -> Tensor:
        draws = max(1, _VALUE_DRAWS // self.acting.samples)
        repeated = observations.repeat_interleave(draws, dim=0)
        chunks = policy_chunks(self.algorithm, repeated, self.generator, self.acting)
        return fitted.action_value(repeated, chunks).view(len(observations), draws, -1).mean(dim=1)

    def _own_values(self, observations: Tensor) -> Tensor:
        return in_blocks(lambda rows: self.algorithm.value(observations[rows]), len(observations))

    def _own(self, starts: Tensor, windows: Batch) -> OwnCritics | None:
        start_values = self._own_values(starts)
        if start_values.shape[1] == 0 or self.own_gamma is None:
            return None
        returns, remaining = chunk_return(windows, self.own_gamma)
        targets = returns + remaining * self._own_values(windows.next_observations).mean(dim=1)
        values = in_blocks(
            lambda rows: self.algorithm.action_value(windows.observations[rows], windows.actions[rows]),
            len(windows.actions),
        ).mean(dim=1)
        every = torch.cat((start_values.mean(dim=1), self._own_values(windows.observations).mean(dim=1), values))
        errors, bounds = targets - values, self.rewards.return_bounds(self.own_gamma)
        return OwnCritics(_numbers(start_values), _numbers(every), _numbers(errors), _numbers(targets), *bounds)

    def _distances(self) -> Distances:
        settings, action_dim = self.settings, self.algorithm.action_dim
        windows = self.sampler.sample(settings.distance_windows, self.generator)
        logged = windows.actions
        repeated = windows.observations.repeat_interleave(settings.noises, dim=0)
        samples = policy_chunks(self.algorithm, repeated, self.generator, self.acting)
        samples = samples.view(len(logged), settings.noises, -1)
        device = logged.device
        # Anywhere else: a step of 1 to all but one further in the list never comes back to the chunk itself.
        steps = torch.randint(1, len(logged), (len(logged), settings.noises), generator=self.generator, device=device)
        other = (torch.arange(len(logged), device=device).unsqueeze(1) + steps) % len(logged)

        def by_dimension(each: Tensor) -> Array:
            return _numbers(each.view(-1, action_dim).mean(dim=0))

        def apart(chunks: Tensor) -> tuple[Tensor, Tensor]:
            every = (chunks - logged.unsqueeze(1)).abs()
            nearest = every.mean(dim=2).argmin(dim=1)
            return every, every[torch.arange(len(every), device=every.device), nearest]

        every, nearest = apart(samples)
        return Distances(
            by_dimension(every),
            by_dimension(nearest),
            by_dimension(apart(logged[other])[1]),
            float((samples.abs() >= SATURATED).double().mean()),
            float((logged.abs() >= SATURATED).double().mean()),
        )

    def _chosen_episodes(self) -> NDArray[np.int64]:
        """Evenly spread over those with a terminal, or over all where there is none."""
        trajectories = self.trajectories
        ended = [
            index for index in range(trajectories.episodes) if (trajectories.episode(index)[3] == 0).any()
        ] or range(trajectories.episodes)
        places = np.linspace(0, len(ended) - 1, min(self.settings.episodes, len(ended))).round().astype(int)
        chosen: NDArray[np.int64] = np.asarray(ended, dtype=np.int64)[places]
        return chosen

    def _trace(self, fitted: FittedQ, index: int) -> EpisodeTrace:
        observations, _, rewards, masks = self.trajectories.episode(index)
        normalised = self._normalised(observations[:-1])
        own = self._own_values(normalised)
        has_own = own.shape[1] > 0
        nothing = np.full(len(rewards), np.nan)
        return EpisodeTrace(
            index,
            _numbers(self._fitted_values(fitted, normalised).mean(dim=1)),
            _numbers(own.mean(dim=1)) if has_own else nothing,
            _numbers(own.std(dim=1, correction=0)) if has_own else nothing,
            logged_return(rewards, masks, self.gamma),
            np.flatnonzero(masks == 0),
        )

    def _same_data(self) -> bool:
        """By statistics that stay as they are where observations are not normalised."""
        found = Statistics.of(self.trajectories.observations)
        names = ("minimum", "maximum", "count")
        return all(np.array_equal(getattr(found, name), getattr(self.statistics, name)) for name in names)

    def _unfamiliar(self) -> float:
        """Share of observations with a number further outside the training data's range than a tenth of its width."""
        low, high = self.statistics.minimum, self.statistics.maximum
        room = 0.1 * (high - low) + 1e-6 * np.maximum(np.abs(low), np.abs(high))
        observations = self.trajectories.observations
        return float(((observations < low - room) | (observations > high + room)).any(axis=1).mean())


def logged_return(rewards: Sequence[float] | NDArray[np.float32], masks: NDArray[np.float32], gamma: float) -> Array:
    """Return the discounted return from each step of an episode (T,) to its next terminal; nan where none follows."""
    returns = np.empty(len(masks))
    after = np.nan
    for step in reversed(range(len(masks))):
        after = float(rewards[step]) + gamma * (0.0 if masks[step] == 0 else after)
        returns[step] = after
    return returns


def _numbers(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
