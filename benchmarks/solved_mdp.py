"""A small stochastic MDP with a flow policy whose value is known exactly, and two ways to learn that value.

In state s the policy is the Gaussian N(m, sigma^2), made from noise x_0 by the flow of optimal transport,

    x_t = t m + (1 - t + sigma t) x_0,    v(s, x, t) = m + (sigma - 1) (x - t m) / (1 - t + sigma t).

The velocity is constant along each path, so that Euler makes no error, forwards or backwards, for any number F of flow
steps: V(s, x, t) = Q(s, x + (1 - t) v(s, x, t)) is the same function for every F, and whatever depends on F in a
learned value comes from how it was learned.  Q follows from the values of the states, which solve a linear system.

``Reversal`` is the product's RQL, critics only, round the known flow.  ``SingleStep`` differs from it in two functions:
its points come from the flow run forwards from noise, and each learns from the next flow step's value.  What comes out
is measured by reversal_claim.py and pinned by test/core/algorithms/test_solved_problem.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rql_core.algorithms import RQL, Batch, RewardRange, RQLConfig
from rql_core.algorithms.algorithm import Metrics
from rql_core.algorithms.rql import RQLDraws
from rql_core.networks import CriticEnsemble

# Gauss-Hermite nodes for means over actions: 60 and 200 nodes give the same state values to 1e-13.
NODES = 100
# Updates' worth of logged steps that are drawn at once: drawing them one by one would take a third of the time.
BLOCK = 50
# Points a run at which its error is measured: their number puts 2 % of uncertainty on a root mean square.
EVALUATION_POINTS = 2000


@dataclass(frozen=True)
class SolvedMDP:
    """States 0, 1, ... in a row; actions push to the right, and the episode ends right of the last state."""

    # The policy's mean and standard deviation, by state.
    means: tuple[float, ...] = (0.3, -0.4, 0.5, 0.0, 0.6)
    deviations: tuple[float, ...] = (0.5, 0.8, 0.4, 0.9, 0.6)
    # The reward is base + bonus * exp(-(a - best)^2), by state.
    base: tuple[float, ...] = (-1.5, -1.0, -2.0, -1.0, 0.0)
    best: tuple[float, ...] = (0.0, 0.4, 0.2, -0.5, 0.3)
    bonus: float = 2.0
    # The probability of going right is 1 / (1 + exp(-push * a)); else left, or nowhere from state 0.
    push: float = 2.0
    # Discount a step.
    gamma: float = 0.9
    # Logged actions have the policy's mean and so many times its standard deviation: the log is not the policy's own.
    logged_width: float = 1.5
    #: (states,), float64: the exact values of the states.
    state_values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state_values", self.solve())

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.means)

    def reward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the rewards of actions in states, given by index."""
        base, best = _by_state(states, actions.dtype, self.base, self.best)
        return base + self.bonus * torch.exp(-(actions - best).square())

    def right(self, actions: Tensor) -> Tensor:
        """Return the probability of going right."""
        return torch.sigmoid(self.push * actions)

    def action(self, states: Tensor, noise: Tensor) -> Tensor:
        """Return the policy's actions for normal noise, without a flow."""
        mean, deviation = _by_state(states, noise.dtype, self.means, self.deviations)
        return mean + deviation * noise

    def solve(self, nodes: int = NODES) -> Tensor:
        """Return the values of the states (states,): V = mean over actions of (r + gamma P V), in float64."""
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        noise, weight = torch.from_numpy(points), torch.from_numpy(weights / math.sqrt(2.0 * math.pi))
        states = torch.arange(self.states)[:, None]
        actions = self.action(states, noise)
        reward, right = self.reward(states, actions) @ weight, self.right(actions) @ weight
        # One column more than states: the end, whose value is 0.
        chain = torch.zeros(self.states, self.states + 1, dtype=torch.float64)
        for state in range(self.states):
            chain[state, state + 1] += right[state]
            chain[state, max(state - 1, 0)] += 1.0 - right[state]
        system = torch.eye(self.states, dtype=torch.float64) - self.gamma * chain[:, :-1]
        return torch.linalg.solve(system, reward)

    def action_value(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the exact Q(s, a), in float64."""
        actions = actions.double()
        values = torch.cat((self.state_values, self.state_values.new_zeros(1)))
        right = self.right(actions)
        follows = right * values[states + 1] + (1.0 - right) * values[(states - 1).clamp(min=0)]
        return self.reward(states, actions) + self.gamma * follows

    def value(self, states: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return the exact V(s, x, t), in float64: the Q of the action that the flow makes of x."""
        x, time = x.double(), time.double()
        mean, deviation = _by_state(states, x.dtype, self.means, self.deviations)
        return self.action_value(states, x + (1.0 - time) * transport_velocity(x, time, mean, deviation))

    def velocity(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return the flow's velocity in an actor's form: (batch, 1) for (batch, states), (batch, 1) and (batch, 1)."""
        columns = torch.tensor((self.means, self.deviations), dtype=x.dtype)
        mean, deviation = (observations @ columns.T).split(1, dim=1)
        return transport_velocity(x, time, mean, deviation)

    def step(self, states: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the states that follow; the number of states stands for the end."""
        pushed = torch.rand(states.shape, generator=generator, dtype=actions.dtype) < self.right(actions)
        return torch.where(pushed, states + 1, (states - 1).clamp(min=0))

    def log(self, rows: int, generator: torch.Generator) -> Batch:
        """Draw logged steps: states uniform, one-hot as observations, and actions wider than the policy's."""
        states = torch.randint(self.states, (rows,), generator=generator)
        actions = self.action(states, self.logged_width * torch.randn(rows, generator=generator))
        after = self.step(states, actions, generator)
        ones = torch.ones(rows, 1)
        return Batch(
            observations=self.observe(states),
            actions=actions[:, None],
            rewards=self.reward(states, actions)[:, None],
            masks=(after < self.states).float()[:, None],
            next_observations=self.observe(after.clamp(max=self.states - 1)),
            valid=ones[:, 0],
            step_mask=ones,
        )

    def observe(self, states: Tensor) -> Tensor:
        """Return states one-hot (batch, states)."""
        return functional.one_hot(states, self.states).float()

    def reward_range(self) -> RewardRange:
        """Return the range of the rewards."""
        return RewardRange(min(self.base), max(self.base) + self.bonus, can_end=True)


def transport_velocity(x: Tensor, time: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the velocity that carries N(0, 1) to N(mean, deviation^2) in straight lines."""
    return mean + (deviation - 1.0) * (x - time * mean) / (1.0 - time + deviation * time)


def _by_state(states: Tensor, dtype: torch.dtype, *columns: Sequence[float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(column, dtype=dtype)[states] for column in columns)


class SeparateRuns(nn.Module):
    """The critics of several runs side by side, where the algorithm expects those of one.

    Its input is (runs * batch) rows, run by run; run r's critics see run r's rows alone. Its output (critics, runs *
    batch) looks like that of one ensemble, so each row's loss and target are made by its own run's critics, and runs
    share nothing but the time they take.
    """

    def __init__(self, ensemble: CriticEnsemble, runs: int) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.runs = runs

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return values (critics, runs * batch); the ensemble's member r * critics + k is run r's critic k."""
        net, critics = self.ensemble, self.ensemble.critics // self.runs
        inputs = torch.cat((observations, x, time), dim=1)
        values = net.outputs(inputs.view(self.runs, -1, inputs.shape[1])).view(self.runs, critics, -1)
        return values.transpose(0, 1).reshape(critics, -1)


class KnownFlow(nn.Module):
    """The policy's exact velocity in the place of an actor, whose parameters it keeps for the optimiser."""

    def __init__(self, actor: nn.Module, mdp: SolvedMDP) -> None:
        super().__init__()
        self.actor = actor
        self.mdp = mdp

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return the velocity (batch, 1)."""
        return self.mdp.velocity(observations, x, time)


class Reversal(RQL):
    """The product's RQL round a known flow: its reversal, target, critic loss, Adam and target average; no actor."""

    def __init__(self, mdp: SolvedMDP, config: RQLConfig, runs: int, seed: int) -> None:
        side_by_side = config.model_copy(update={"critics": config.critics * runs})
        generator = torch.Generator().manual_seed(seed)
        super().__init__(side_by_side, mdp.states, 1, mdp.reward_range(), generator=generator)
        self.networks["actor"] = KnownFlow(self.networks["actor"], mdp)
        for name in ("critic", "critic_target"):
            self.networks[name] = SeparateRuns(self.networks[name], runs)  # type: ignore[arg-type]

    def loss(self, batch: Batch, draws: RQLDraws) -> tuple[Tensor, Metrics]:
        """Return the critic loss; the actor that the product holds, and nobody asks, gets a gradient of 0."""
        loss, metrics = self.critic_loss(batch, draws, self.reverse(batch, draws))
        idle = torch.stack([parameter.sum() for parameter in self.networks["actor"].parameters()]).sum()
        return loss + 0.0 * idle, metrics


class SingleStep(Reversal):
    """One-step TD over flow steps, what is left without reversal: a point of the flow learns from the next point."""

    @torch.no_grad()
    def reverse(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return logged actions where the flow time is 1, else points on the way from noise, which is straight."""
        time = 1.0 - draws.depth
        velocity: Tensor = self.networks["actor"](batch.observations, draws.flow_noise, torch.zeros_like(time))
        return torch.where(draws.depth == 0.0, batch.actions, draws.flow_noise + time * velocity)

    @torch.no_grad()
    def target(self, batch: Batch, draws: RQLDraws) -> Tensor:
        """Return the value one flow step on, without reward or discount; where the flow time is 1, the product's."""
        x, time, step = self.reverse(batch, draws), 1.0 - draws.depth, 1.0 / self.config.flow_steps
        at_end = draws.depth == 0.0
        stepped = x + step * self.networks["actor"](batch.observations, x, time)
        values = self.networks["critic_target"](
            torch.where(at_end, batch.next_observations, batch.observations),
            torch.where(at_end, draws.target_noise, stepped),
            torch.where(at_end, 0.0, (time + step).clamp(max=1.0)),
        )
        following = self.lower_bound(values)
        return torch.where(at_end[:, 0], self.chunk_target(batch, following), following)


@dataclass(frozen=True)
class Learning:
    """What both learners are given alike."""

    # Independent runs: other first weights, other data, other draws.
    runs: int = 5
    # Logged steps an update and run.
    batch: int = 64
    # Critics, of two layers of 64 units: enough for a function of a state and two numbers.
    critics: int = 2
    critic_hidden: tuple[int, ...] = (64, 64)
    # Adam's step size and the target's rate are larger than for robots, because the problem is smaller; the target
    # then lags by 20 updates.
    learning_rate: float = 1e-3
    tau: float = 0.05
    # Determines all random numbers.
    seed: int = 0

    def config(self, gamma: float, flow_steps: int) -> RQLConfig:
        """Return the settings: no expectile, no pessimism, and depths on the flow's grid, which TD needs."""
        return RQLConfig(
            horizon=1,
            flow_steps=flow_steps,
            gamma=gamma,
            kappa=0.5,
            rho=0.0,
            tau=self.tau,
            learning_rate=self.learning_rate,
            critics=self.critics,
            critic_hidden=self.critic_hidden,
            actor_hidden=(1,),
            depth_sampling="grid",
        )


def learn(
    learner: type[Reversal],
    mdp: SolvedMDP,
    flow_steps: int,
    marks: Sequence[int],
    learning: Learning | None = None,
    on_update: Callable[[], Any] = lambda: None,
) -> Tensor:
    """Train, and return each run's RMS error (marks, runs) over the policy's flow points after so many updates."""
    learning = learning or Learning()
    algorithm = learner(mdp, learning.config(mdp.gamma, flow_steps), learning.runs, learning.seed)
    generator = torch.Generator().manual_seed(learning.seed + 1)
    rows, errors = learning.runs * learning.batch, []
    for update in range(max(marks)):
        if update % BLOCK == 0:
            block = mdp.log(BLOCK * rows, generator)
        first = update % BLOCK * rows
        batch = Batch(**{item.name: getattr(block, item.name)[first : first + rows] for item in fields(Batch)})
        algorithm.update(batch, algorithm.sample_draws(rows, generator))
        on_update()
        if update + 1 in marks:
            errors.append(rms_error(algorithm, mdp, learning.runs))
    return torch.stack(errors)


@torch.no_grad()
def rms_error(algorithm: Reversal, mdp: SolvedMDP, runs: int) -> Tensor:
    """Return the RMS error (runs,) of the critics' mean, on the flow's grid, at points that the policy meets."""
    states, x, time = policy_points(mdp, algorithm.config.flow_steps, runs * EVALUATION_POINTS)
    values: Tensor = algorithm.networks["critic"](mdp.observe(states), x[:, None].float(), time[:, None].float())
    error = values.double().mean(dim=0) - mdp.value(states, x, time)
    return error.view(runs, -1).square().mean(dim=1).sqrt()


def policy_points(mdp: SolvedMDP, flow_steps: int, count: int, seed: int = 12345) -> tuple[Tensor, Tensor, Tensor]:
    """Return states, x and flow times (count,) that the policy meets: states, noise and steps drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randint(mdp.states, (count,), generator=generator)
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    time = torch.randint(flow_steps + 1, (count,), generator=generator).double() / flow_steps
    return states, (1.0 - time) * noise + time * mdp.action(states, noise), time


def value_spread(mdp: SolvedMDP) -> float:
    """Return the standard deviation of the exact value over the policy's flow points: what an error is measured by."""
    return float(mdp.value(*policy_points(mdp, 1, 100_000)).std())
