"""A walk on a line whose values can be worked out by hand: what estimates from logs are compared with.

Places 0 to END; an action above 0 goes right, others left, and nobody leaves the ends.  A step costs 1, and one that
reaches or stays at END costs nothing and is a terminal, after which the walk goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rql_core.algorithms import Acting, AlgorithmConfig, RewardRange
from rql_core.data import Statistics, Trajectories
from rql_core.training.policy import Policy

END = 4
PLACES = range(END + 1)
GAMMA = 0.9
REWARDS = RewardRange(-1.0, 0.0, can_end=True)

# From places (batch,) and noise (batch, h) to chunks (batch, h) of -1 and 1.
Decide = Callable[[Tensor, Tensor], Tensor]


def step(place: int, action: float) -> tuple[int, float, float]:
    """Return the next place, the reward and the mask."""
    after = min(max(place + (1 if action > 0 else -1), 0), END)
    return (after, 0.0, 0.0) if after == END else (after, -1.0, 1.0)


def walk(
    episodes: int = 30, steps: int = 15, seed: int = 0, decide: Callable[[int, float], float] | None = None
) -> Trajectories:
    """Logs of whoever tosses a coin, or of whoever decides by place and coin."""
    random = np.random.default_rng(seed)
    logged = []
    for _ in range(episodes):
        place = int(random.integers(END))
        places, actions, rewards, masks = [place], [], [], []
        for coin in random.random(steps):
            action = decide(place, coin) if decide else (1.0 if coin < 0.5 else -1.0)
            place, reward, mask = step(place, action)
            places.append(place)
            actions.append([action])
            rewards.append(reward)
            masks.append(mask)
        logged.append((np.eye(END + 1)[places], actions, rewards, masks))
    return Trajectories.from_episodes(logged)


def values(right: float) -> NDArray[np.float64]:
    """V (END + 1,) of going right with a chance that is the same everywhere, by dynamic programming."""
    found = np.zeros(END + 1)
    for _ in range(1000):
        there, back = ([chunk_value(place, (way,), found) for place in PLACES] for way in (1.0, -1.0))
        found = right * np.array(there) + (1.0 - right) * np.array(back)
    return found


def chunk_value(place: int, chunk: tuple[float, ...], after: NDArray[np.float64]) -> float:
    """Q of a chunk: its rewards to the first terminal, and V of where it ends."""
    total = 0.0
    for index, action in enumerate(chunk):
        place, reward, mask = step(place, action)
        total += GAMMA**index * reward
        if mask == 0:
            return total
    return total + GAMMA ** len(chunk) * float(after[place])


class Walker:
    """Acts, and values, as an algorithm does, without anything that was trained.

    With `right`, the chance of going right that `decide` has, its critics are exact but for `error`.
    """

    device, dtype = torch.device("cpu"), torch.float32
    observation_dim, action_dim = END + 1, 1
    name = "walker"

    def __init__(self, config: AlgorithmConfig, decide: Decide, right: float | None = None, error: float = 0.0) -> None:
        self.config = config
        self.chunk_dim = config.horizon
        self.default_acting = self.valued_acting = Acting()
        self.asked_for: set[tuple[int, float, int | None]] = set()
        self._decide = decide
        self._values = None if right is None else values(right)
        self._error = error

    def act(self, observations: Tensor, noise: Tensor, *, rho: float, flow_steps: int | None) -> Tensor:
        assert noise.shape[::2] == (len(observations), self.chunk_dim)
        self.asked_for.add((noise.shape[1], rho, flow_steps))
        return self._decide(observations.argmax(dim=1), noise[:, 0])

    def value(self, observations: Tensor) -> Tensor:
        if self._values is None:
            return observations.new_empty((len(observations), 0))
        return self._critics([float(self._values[place]) for place in observations.argmax(dim=1).tolist()])

    def action_value(self, observations: Tensor, chunks: Tensor) -> Tensor:
        assert self._values is not None
        pairs = zip(observations.argmax(dim=1).tolist(), chunks.tolist(), strict=True)
        return self._critics([chunk_value(place, tuple(chunk), self._values) - self._error for place, chunk in pairs])

    def _critics(self, found: list[float]) -> Tensor:
        """Two critics that differ by .2."""
        return torch.tensor(found).unsqueeze(1) + torch.tensor([-0.1, 0.1])


def policy(walker: Any, trajectories: Trajectories) -> Policy:
    """The walker behind observations that are taken as they are."""
    return Policy(walker, Statistics.of(trajectories.observations).without_scaling())


def go_right(places: Tensor, noise: Tensor) -> Tensor:
    return torch.ones_like(noise)


def mostly_right(places: Tensor, noise: Tensor) -> Tensor:
    """Right with a chance of .8 at each step."""
    return torch.where(noise < 0.8416, 1.0, -1.0)  # the normal distribution's 80 % quantile
