"""The `paper` form is the published update: from raw episodes to the weights after a step it equals an oracle that
shares nothing with it, given the same weights and draws; and no network learns from a loss that is not its own.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import paper_oracle
import pytest
import torch
from paper_oracle import Episode, Settings
from small_algorithms import ACTION_DIM, OBSERVATION_DIM, make_batch, make_rql

from rql_core.algorithms import RQL, Batch
from rql_core.algorithms.rql import RQLDraws
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import ChunkSampler

pytestmark = pytest.mark.usefixtures("form")

# Of windows of 5: episodes of 2 to 4 steps end inside every one, 5 has one that ends with it, longer ones have all.
LENGTHS = (2, 4, 5, 6, 9, 14, 3, 11)
# Row numbers times 1/32 are exact in float32, and of the size of a normalised observation.
ROW_UNIT = 1 / 32
SIZE = 12

#: Where the episode ends: inside the chunk, with its last step, or after it; a chunk of one step is never drawn last.
ENDS = [(1, "after"), (5, "inside"), (5, "at"), (5, "after"), (5, "any")]
ends = pytest.mark.parametrize(("horizon", "end"), ENDS)
SETTINGS: list[dict[str, Any]] = [{"rho": rho, "kappa": kappa} for rho in (0.0, 0.5) for kappa in (0.5, 0.9)]
SETTINGS.append({"actor_gradient_at": "reversed"})
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(map(str, setting.values())))


@cache
def trajectories() -> Trajectories:
    """Episodes with terminals anywhere, actions at their limits, and observations that say which they are."""
    random = np.random.default_rng(5)
    episodes, first = [], 0
    for steps in LENGTHS:
        observations = random.normal(size=(steps + 1, OBSERVATION_DIM))
        observations[:, 0] = (first + np.arange(steps + 1)) * ROW_UNIT
        actions = np.clip(random.normal(size=(steps, ACTION_DIM)), -1, 1)
        masks = (random.random(steps) > 0.3).astype(float)
        episodes.append((observations, actions, random.normal(size=steps), masks))
        first += steps + 1
    return Trajectories.from_episodes(episodes)


@cache
def raw_episodes() -> tuple[Episode, ...]:
    return tuple(Episode(*trajectories().episode(index)) for index in range(len(LENGTHS)))


def places(batch: Batch) -> list[tuple[int, int]]:
    """Return the (episode, row) that each chunk starts in, read from its first observation."""
    firsts = np.cumsum([0, *(steps + 1 for steps in LENGTHS[:-1])])
    rows = np.rint(batch.observations[:, 0].numpy() / ROW_UNIT).astype(int)
    owners = np.searchsorted(firsts, rows, side="right") - 1
    return [(int(owner), int(row - firsts[owner])) for owner, row in zip(owners, rows, strict=True)]


def sampled(horizon: int, size: int = 1500, seed: int = 0) -> Batch:
    statistics = Statistics.of(trajectories().observations).without_scaling()
    sampler = ChunkSampler(trajectories(), statistics, horizon, "paper", dtype=torch.float64)
    return sampler.sample(size, torch.Generator().manual_seed(seed))


def sampled_where(horizon: int, end: str, seed: int = 0) -> tuple[Batch, dict[str, np.ndarray]]:
    """Return the sampler's batch of SIZE chunks at whose end the episode does as asked, and the oracle's own batch."""
    drawn = sampled(horizon, seed=seed)
    left = [LENGTHS[episode] - row - horizon for episode, row in places(drawn)]
    kinds = {"inside": lambda n: n < 0, "at": lambda n: n == 0, "after": lambda n: n > 0, "any": lambda n: True}
    rows = [index for index, n in enumerate(left) if kinds[end](n)][:SIZE]
    assert len(rows) == SIZE
    if end == "any" and horizon > 1:
        assert all(any(test(left[index]) for index in rows) for test in kinds.values())
    batch = Batch(**{field.name: getattr(drawn, field.name)[rows] for field in fields(drawn)})
    return batch, paper_oracle.windows(raw_episodes(), places(batch), horizon)


def arrays(value: Any) -> dict[str, np.ndarray]:
    return {field.name: getattr(value, field.name).numpy() for field in fields(value)}


def make_paper_rql(horizon: int, **settings: Any) -> RQL:
    return make_rql(form="paper", horizon=horizon, alpha=0.7, gamma=0.9, **settings)


def draw(algorithm: RQL, seed: int = 0) -> RQLDraws:
    draws = algorithm.sample_draws(SIZE, torch.Generator().manual_seed(seed))
    last_step = 1 - 1 / algorithm.config.flow_steps
    assert 0 < (draws.flow_time > last_step).sum() < SIZE, "both sides of min(1/F, 1 - t) must be seen"
    return draws


def settings_of(algorithm: RQL) -> Settings:
    return Settings(**{field.name: getattr(algorithm.config, field.name) for field in fields(Settings)})


def weights_of(algorithm: RQL) -> dict[str, np.ndarray]:
    state = algorithm.training_state()
    return {name: tensor.numpy() for name, tensor in state.items() if not name.startswith("adam.")}


def online(algorithm: RQL) -> dict[str, torch.nn.Parameter]:
    return {
        f"{network}.{key}": parameter
        for network in ("actor", "critic")
        for key, parameter in algorithm.networks[network].named_parameters()
    }


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_every_window_that_can_be_drawn_is_the_oracles_to_the_last_bit(horizon: int) -> None:
    batch = sampled(horizon)
    assert set(places(batch)) == {(e, row) for e, steps in enumerate(LENGTHS) for row in range(steps - 1)}
    assert batch.actions.abs().max() == 1 - 1e-5
    assert 0 < batch.masks[batch.valid == 1, -1].mean() < 1
    expected = paper_oracle.windows(raw_episodes(), places(batch), horizon)
    for name, array in arrays(batch).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@ends
@every_setting
def test_the_target_and_the_reversed_points_are_the_oracles(horizon: int, end: str, setting: dict[str, Any]) -> None:
    algorithm = make_paper_rql(horizon, **setting)
    batch, data = sampled_where(horizon, end)
    draws = draw(algorithm)
    expected = paper_oracle.constants(weights_of(algorithm), settings_of(algorithm), data, arrays(draws))
    np.testing.assert_allclose(algorithm.target(batch, draws), expected.target, rtol=1e-10)
    np.testing.assert_allclose(algorithm.reverse(batch, draws), expected.reversed_chunks, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(1 - draws.depth, expected.reversed_time, rtol=1e-10, atol=1e-12)


@ends
@every_setting
def test_the_losses_are_the_oracles(horizon: int, end: str, setting: dict[str, Any]) -> None:
    algorithm = make_paper_rql(horizon, **setting)
    batch, data = sampled_where(horizon, end)
    draws = draw(algorithm)
    weights, settings, random = weights_of(algorithm), settings_of(algorithm), arrays(draws)
    fixed = paper_oracle.constants(weights, settings, data, random)
    expected = paper_oracle.losses(weights, weights, fixed, settings, data, random)
    loss, metrics = algorithm.loss(batch, draws)
    found = [float(metrics[name]) for name in ("critic_loss", "flow_loss", "policy_loss")]
    np.testing.assert_allclose(found, [expected.critic, expected.flow, expected.policy], rtol=1e-10, atol=0)
    np.testing.assert_allclose(float(loss.detach()), paper_oracle.total(expected, settings), rtol=1e-10, atol=0)
    # Where the episode ends inside every chunk, no row is valid, and flow matching alone is left.
    assert bool(expected.critic == 0 and expected.policy == 0) == (end == "inside")


@pytest.mark.parametrize("horizon", [1, 5])
def test_float32_which_training_uses_has_the_same_losses_to_its_own_rounding(horizon: int) -> None:
    algorithm = make_paper_rql(horizon, dtype=torch.float32)
    batch, _ = sampled_where(horizon, "any")
    batch, draws = batch.to(torch.float32), draw(algorithm)
    weights, data, random = (
        {name: array.astype(np.float64) for name, array in part.items()}
        for part in (weights_of(algorithm), arrays(batch), arrays(draws))
    )
    settings = settings_of(algorithm)
    fixed = paper_oracle.constants(weights, settings, data, random)
    expected = paper_oracle.losses(weights, weights, fixed, settings, data, random)
    metrics = algorithm.loss(batch, draws)[1]
    found = [float(metrics[name]) for name in ("critic_loss", "flow_loss", "policy_loss")]
    np.testing.assert_allclose(found, [expected.critic, expected.flow, expected.policy], rtol=1e-5, atol=0)


@ends
@every_setting
def test_the_gradient_of_every_tensor_is_the_oracles(horizon: int, end: str, setting: dict[str, Any]) -> None:
    algorithm = make_paper_rql(horizon, **setting)
    batch, data = sampled_where(horizon, end)
    draws = draw(algorithm)
    weights, settings, random = weights_of(algorithm), settings_of(algorithm), arrays(draws)
    fixed = paper_oracle.constants(weights, settings, data, random)
    parameters = online(algorithm)
    gradients = torch.autograd.grad(algorithm.loss(batch, draws)[0], list(parameters.values()))
    source = np.random.default_rng(2)
    for name, gradient in zip(parameters, gradients, strict=True):
        shape = gradient.shape
        directions = [source.standard_normal(shape) for _ in range(2)]
        for entry in source.choice(gradient.numel(), size=min(3, gradient.numel()), replace=False):
            directions.append(np.eye(1, gradient.numel(), entry).reshape(shape))
        for direction in directions:
            slope = paper_oracle.slope(weights, name, direction, fixed, settings, data, random)
            np.testing.assert_allclose((gradient.numpy() * direction).sum(), slope, rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_oracles_slopes_are_its_own_difference_quotients(horizon: int) -> None:
    algorithm = make_paper_rql(horizon, kappa=0.9)
    _, data = sampled_where(horizon, ENDS[-1][1])
    weights, settings, random = weights_of(algorithm), settings_of(algorithm), arrays(draw(algorithm))
    fixed = paper_oracle.constants(weights, settings, data, random)
    source = np.random.default_rng(3)
    step = 1e-3
    for name in online(algorithm):
        direction = source.standard_normal(weights[name].shape)
        direction /= np.linalg.norm(direction)
        sums, errors = {}, {}
        for k in (-2, -1, 1, 2):
            moved = weights | {name: weights[name] + k * step * direction}
            sums[k] = paper_oracle.total(paper_oracle.losses(moved, weights, fixed, settings, data, random), settings)
            values = paper_oracle.critics(
                moved, "critic", data["observations"], fixed.reversed_chunks, fixed.reversed_time
            )
            errors[k] = fixed.target - values
        assert all(((errors[a] >= 0) == (errors[b] >= 0)).all() for a, b in pairwise(errors)), "a kink was crossed"
        quotient = (8 * (sums[1] - sums[-1]) - (sums[2] - sums[-2])) / (12 * step)
        slope = paper_oracle.slope(weights, name, direction, fixed, settings, data, random)
        np.testing.assert_allclose(slope, quotient, rtol=1e-6, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize(("rho", "kappa"), [(0.0, 0.9), (0.5, 0.5)])
def test_two_updates_are_the_oracles_from_its_own_gradient(horizon: int, rho: float, kappa: float) -> None:
    # A step as long as this moves the second gradient visibly, and averages this quick do so with the second target.
    rates = {"learning_rate": 0.01, "tau": 0.1, "act_average": 0.7}
    algorithm = make_paper_rql(horizon, rho=rho, kappa=kappa, actor_hidden=(5, 4), critic_hidden=(4, 3), **rates)
    settings = settings_of(algorithm)
    state = paper_oracle.first_state(weights_of(algorithm))
    for number in range(2):
        batch, data = sampled_where(horizon, "any", seed=number)
        draws = draw(algorithm, seed=number)
        gradients = paper_oracle.gradient(state.weights, settings, data, arrays(draws))
        state = paper_oracle.update(state, gradients, settings)
        algorithm.update(batch, draws)
        found = weights_of(algorithm)
        assert found.keys() == state.weights.keys()
        for name, expected in state.weights.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-12, err_msg=f"{name}, {number + 1}")
    assert algorithm.updates == state.step == 2


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_published_rates_are_the_defaults(horizon: int) -> None:
    algorithm = make_paper_rql(horizon)
    batch, _ = sampled_where(horizon, "any")
    draws, settings = draw(algorithm), settings_of(algorithm)
    assert (settings.learning_rate, settings.tau, settings.act_average) == (3e-4, 0.005, 0.999)
    before = paper_oracle.first_state(weights_of(algorithm))
    parameters = online(algorithm)
    gradients = torch.autograd.grad(algorithm.loss(batch, draws)[0], list(parameters.values()))
    given = {name: gradient.numpy() for name, gradient in zip(parameters, gradients, strict=True)}
    expected = paper_oracle.update(before, given, settings).weights
    algorithm.update(batch, draws)
    for name, found in weights_of(algorithm).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-10, atol=1e-14, err_msg=name)
        assert (found != before.weights[name]).any(), name


@pytest.mark.parametrize("form", ["paper", "corrected"])
@pytest.mark.parametrize("q_normalisation", [False, True])
@pytest.mark.parametrize("actor_gradient_at", ["interpolant", "reversed"])
def test_no_network_learns_from_a_loss_that_is_not_its_own(
    form: str, q_normalisation: bool, actor_gradient_at: str
) -> None:
    algorithm = make_rql(form=form, q_normalisation=q_normalisation, actor_gradient_at=actor_gradient_at)
    batch, draws = make_batch(), draw(algorithm)
    networks = {name: list(network.parameters()) for name, network in algorithm.networks.items()}
    followers = [*networks["critic_target"], *networks["actor_average"]]
    assert networks.keys() == {"actor", "critic", "critic_target", "actor_average"}
    assert not any(parameter.requires_grad for parameter in followers)
    for parameter in followers:  # so that a path to them would show
        parameter.requires_grad_(True)
    reversed_chunks = algorithm.reverse(batch, draws)
    terms = {
        "critic": algorithm.critic_loss(batch, draws, reversed_chunks)[0],
        "actor": algorithm.actor_loss(batch, draws, reversed_chunks)[0],
    }
    own = {}
    for learner, loss in terms.items():
        for name, parameters in networks.items():
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            if name == learner:
                assert all(gradient.any() for gradient in gradients), name
                own[name] = gradients
            else:
                assert all(gradient is None for gradient in gradients), f"{name} has a gradient of the {learner} loss"
    for name, expected in own.items():
        whole = torch.autograd.grad(algorithm.loss(batch, draws)[0], networks[name])
        for found, gradient in zip(whole, expected, strict=True):
            torch.testing.assert_close(found, gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize("actor_gradient_at", ["interpolant", "reversed"])
def test_q_normalisation_scales_the_policys_gradient_and_does_not_turn_it(actor_gradient_at: str) -> None:
    gradients, losses = [], []
    for q_normalisation in (False, True):
        algorithm = make_rql(alpha=0.0, q_normalisation=q_normalisation, actor_gradient_at=actor_gradient_at)
        batch, draws = make_batch(), draw(algorithm)
        loss, metrics = algorithm.actor_loss(batch, draws, algorithm.reverse(batch, draws))
        gradients.append(torch.autograd.grad(loss, list(algorithm.networks["actor"].parameters())))
        losses.append(metrics["policy_loss"])
    scale = losses[0] / losses[1]
    assert abs(float(scale) - 1) > 0.01
    for plain, normalised in zip(*gradients, strict=True):
        torch.testing.assert_close(normalised * scale, plain, rtol=1e-9, atol=1e-13)
