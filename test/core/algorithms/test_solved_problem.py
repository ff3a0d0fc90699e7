"""A problem whose value is known exactly: the critics find it, and with reversal more flow steps cost nothing."""

from __future__ import annotations

import pytest
import torch
from solved_mdp import Learning, Reversal, SeparateRuns, SingleStep, SolvedMDP, learn, policy_points, value_spread
from torch import Tensor

from rql_core.algorithms import RQL, Batch
from rql_core.flow import integrate, reverse, solve
from rql_core.networks import CriticEnsemble

MDP = SolvedMDP()
# Enough for reversal to converge, and for TD to get there with 2 flow steps and not with 20.
# The error is a mean over the last of them: at one update it wavers by a fifth.
MARKS, FEW, MANY = range(600, 1_001, 50), 2, 20
LEARNERS = (Reversal, SingleStep)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_by_the_flow(states: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Return the actions (rows,) that the product's Euler steps make of noise (rows,)."""
    observations = MDP.observe(states).double()
    return integrate(lambda x, time: MDP.velocity(observations, x, time), noise[:, None], steps)[:, 0]


@pytest.fixture(scope="module")
def errors() -> dict[tuple[type[Reversal], int], float]:
    """RMS error over the value's spread, mean of three runs and the marks, by learner and number of flow steps."""
    spread, learning, threads = value_spread(MDP), Learning(runs=3), torch.get_num_threads()
    # The networks are too small for a second thread to be of use.
    torch.set_num_threads(1)
    found = {
        (learner, steps): float(learn(learner, MDP, steps, MARKS, learning).mean()) / spread
        for learner in LEARNERS
        for steps in (FEW, MANY)
    }
    torch.set_num_threads(threads)
    return found


def test_the_quadrature_has_converged() -> None:
    assert torch.allclose(MDP.solve(60), MDP.solve(200), rtol=0, atol=1e-11)


def test_the_state_values_are_the_mean_of_the_action_values() -> None:
    noise = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * noise.square())
    states = torch.arange(MDP.states)[:, None]
    # A sum over an even grid is exact to rounding for a smooth function that vanishes at both ends.
    mean = MDP.action_value(states, MDP.action(states, noise)) @ (weight / weight.sum())
    assert torch.allclose(mean, MDP.state_values, rtol=0, atol=1e-10)


def test_discounted_returns_of_the_flow_policy_are_the_exact_values() -> None:
    each, generator = 20_000, seeded(3)
    starts = [(0, -1.0, 0.0), (1, 0.4, 0.3), (2, 1.2, 0.7), (3, -0.8, 0.5), (4, 0.9, 1.0)]
    states, x, time = (torch.tensor(column).repeat_interleave(each) for column in zip(*starts, strict=True))
    x, time = x.double()[:, None], time.double()[:, None]
    expected = MDP.value(states, x[:, 0], time[:, 0])
    observations = MDP.observe(states).double()
    # The flow is finished from (x, t), the action done, and the policy followed.
    actions = solve(lambda x, time: MDP.velocity(observations, x, time), x, time, torch.ones_like(time), 4)[:, 0]
    returns = torch.zeros_like(actions)
    alive = torch.ones_like(states, dtype=torch.bool)
    # What comes after 100 steps is discounted by 3e-5.
    for step in range(100):
        returns += MDP.gamma**step * MDP.reward(states, actions) * alive
        after = MDP.step(states, actions, generator)
        alive &= after < MDP.states
        states = after.clamp(max=MDP.states - 1)
        actions = made_by_the_flow(states, torch.randn(len(states), generator=generator, dtype=torch.float64), 1)
    groups = returns.view(len(starts), each)
    standard_error = groups.std(dim=1) / each**0.5
    assert bool((standard_error < 0.02).all())
    assert bool(((groups.mean(dim=1) - expected.view(len(starts), each)[:, 0]).abs() < 4 * standard_error).all())


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_any_number_of_flow_steps_makes_the_same_action_and_goes_back_to_the_same_noise(steps: int) -> None:
    states = torch.randint(MDP.states, (500,), generator=seeded())
    noise = torch.randn(500, generator=seeded(1), dtype=torch.float64)
    actions = made_by_the_flow(states, noise, steps)
    assert torch.allclose(actions, MDP.action(states, noise), rtol=0, atol=1e-12)
    observations, depth = MDP.observe(states).double(), torch.ones(500, 1, dtype=torch.float64)
    back = reverse(lambda x, time: MDP.velocity(observations, x, time), actions[:, None], depth, steps)
    assert torch.allclose(back[:, 0], noise, rtol=0, atol=1e-12)


def test_the_value_stays_the_same_along_the_flow() -> None:
    states, x, time = policy_points(MDP, 10, 2_000)
    observations = MDP.observe(states).double()
    end = torch.ones_like(time)
    actions = solve(lambda x, time: MDP.velocity(observations, x, time), x[:, None], time[:, None], end[:, None], 3)[
        :, 0
    ]
    assert torch.allclose(MDP.value(states, x, time), MDP.action_value(states, actions), rtol=0, atol=1e-12)


def test_the_log_is_of_this_problem_and_ends_where_the_last_state_is_left() -> None:
    batch = MDP.log(50_000, seeded())
    states, ended = batch.observations.argmax(dim=1), batch.masks[:, 0] == 0
    last = states == MDP.states - 1
    assert not bool(ended[~last].any())
    right = MDP.right(batch.actions[last, 0])
    # 10,000 rows: four standard errors of a frequency.
    assert float(ended[last].double().mean()) == pytest.approx(float(right.mean()), abs=0.02)
    wide = batch.actions[last, 0]
    assert float(wide.std()) == pytest.approx(MDP.logged_width * MDP.deviations[-1], rel=0.03)
    low, high = MDP.reward_range().minimum, MDP.reward_range().maximum
    assert low <= float(batch.rewards.min()) <= float(batch.rewards.max()) <= high


def test_runs_side_by_side_have_the_values_of_runs_apart() -> None:
    runs, critics, rows = 3, 2, 5
    together = CriticEnsemble(MDP.states, 1, (8, 8), runs * critics, seeded())
    states = torch.randint(MDP.states, (runs * rows,), generator=seeded(1))
    x = torch.randn(runs * rows, 1, generator=seeded(2))
    inputs = MDP.observe(states), x, torch.rand(runs * rows, 1, generator=seeded(3))
    values = SeparateRuns(together, runs)(*inputs)
    assert values.shape == (critics, runs * rows)
    every = together(*inputs)
    for run in range(runs):
        here = slice(run * rows, (run + 1) * rows)
        assert torch.allclose(values[:, here], every[run * critics : (run + 1) * critics, here], atol=1e-6)


def test_the_learner_with_reversal_is_the_product_and_its_rows_targets_are_their_own_runs() -> None:
    for name in ("update", "reverse", "target", "critic_loss", "sample_draws"):
        assert getattr(Reversal, name) is getattr(RQL, name), name
    algorithm = Reversal(MDP, Learning().config(MDP.gamma, 4), runs=2, seed=0)
    batch = MDP.log(12, seeded())
    draws = algorithm.sample_draws(12, seeded(1))
    values = algorithm.networks["critic_target"](batch.next_observations, draws.target_noise, torch.zeros(12, 1))
    expected = batch.rewards[:, 0] + MDP.gamma * batch.masks[:, 0] * values.mean(dim=0)
    assert torch.allclose(algorithm.target(batch, draws), expected, atol=1e-6)


def test_single_step_td_learns_from_the_next_point_of_the_same_path_and_at_its_end_from_the_log() -> None:
    steps = 4
    algorithm = SingleStep(MDP, Learning().config(MDP.gamma, steps), runs=1, seed=0)
    with_reversal = Reversal(MDP, Learning().config(MDP.gamma, steps), runs=1, seed=0)
    batch: Batch = MDP.log(200, seeded())
    draws = algorithm.sample_draws(200, seeded(1))
    states, time = batch.observations.argmax(dim=1), 1.0 - draws.depth
    at_end = draws.depth[:, 0] == 0
    assert 0 < int(at_end.sum()) < 200
    noise = draws.flow_noise
    path = (1 - time) * noise + time * MDP.action(states, noise[:, 0])[:, None]
    points, target = algorithm.reverse(batch, draws), algorithm.target(batch, draws)
    assert torch.allclose(points, torch.where(at_end[:, None], batch.actions, path), atol=1e-6)
    assert torch.allclose(target[at_end], with_reversal.target(batch, draws)[at_end], atol=1e-6)
    time = (time + 1 / steps).clamp(max=1.0)
    path = (1 - time) * noise + time * MDP.action(states, noise[:, 0])[:, None]
    values = algorithm.networks["critic_target"](batch.observations, path, time).mean(dim=0)
    assert torch.allclose(target[~at_end], values[~at_end], atol=1e-5)


def test_the_critics_find_the_exact_value(errors: dict[tuple[type[Reversal], int], float]) -> None:
    # Measured: .18 and .19. A constant would have 1, and untrained critics more.
    assert errors[Reversal, FEW] < 0.25
    assert errors[Reversal, MANY] < 0.25


def test_with_reversal_ten_times_the_flow_steps_leave_the_error_as_it_is(
    errors: dict[tuple[type[Reversal], int], float],
) -> None:
    assert errors[Reversal, MANY] / errors[Reversal, FEW] < 1.3


def test_without_reversal_ten_times_the_flow_steps_make_the_error_much_larger(
    errors: dict[tuple[type[Reversal], int], float],
) -> None:
    assert errors[SingleStep, MANY] / errors[SingleStep, FEW] > 2.0
    assert errors[SingleStep, MANY] > 2.0 * errors[Reversal, MANY]
