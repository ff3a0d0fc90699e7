"""FQL, IFQL, QC and BC flow are what is published: losses, gradients, updates and choices equal formulas written here
in NumPy and float64, given the same weights, batch and draws.  Derivatives are complex steps, as in `paper_oracle`:
weights that learn are complex, those taken as constants are real.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from paper_oracle import ADAM_EPSILON, COMPLEX_STEP, Array, Arrays, actor, critics
from pydantic import TypeAdapter
from small_algorithms import ACTION_DIM, OBSERVATION_DIM

from rql_core.algorithms import Acting, AnyAlgorithmConfig, Batch, RewardRange, make_algorithm

pytestmark = pytest.mark.usefixtures("form")

SIZE, GAMMA, FLOW_STEPS = 16, 0.9, 3
# Returns from -1 to .1 are allowed, and the networks' values go beyond both.
REWARDS = RewardRange(-0.1, 0.01, can_end=True)
FOLLOWERS = {"actor": "actor_average", "critic": "critic_target"}

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("fql", {"rho": 0.0, "alpha": 0.7}),
    ("fql", {"rho": 0.5, "alpha": 0.7, "q_normalisation": True}),
    ("ifql", {"rho": 0.0, "kappa": 0.9}),
    ("ifql", {"rho": 0.5, "kappa": 0.3}),
    ("qc", {"rho": 0.0, "target_samples": 1}),
    ("qc", {"rho": 0.0, "target_samples": 5}),
    ("qc", {"rho": 0.5, "target_samples": 5}),
    ("bc_flow", {}),
]
FORMS: list[tuple[str, ...] | None] = [None, (), ("first_terminal",), ("target_range",)]


def make(name: str, horizon: int, **settings: Any) -> Any:
    """Return a small algorithm all of whose networks differ, averages too."""
    values = {"algorithm": name, "horizon": horizon, "flow_steps": FLOW_STEPS, "actor_hidden": (5, 4)} | settings
    if name != "bc_flow":
        values = {"critic_hidden": (4, 3), "critics": 3, "gamma": GAMMA} | values
    config: Any = TypeAdapter(AnyAlgorithmConfig).validate_python(values)
    algorithm = make_algorithm(config, OBSERVATION_DIM, ACTION_DIM, REWARDS, seed=1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(16)
    with torch.no_grad():
        for parameter in (parameter for network in algorithm.networks.values() for parameter in network.parameters()):
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return algorithm


def make_data(horizon: int) -> dict[str, Array]:
    """Return chunks with terminals at the first, middle and last step, at two, and at none; and some not all valid."""
    random = np.random.default_rng(horizon)
    masks, inside = np.ones((SIZE, horizon)), np.ones((SIZE, horizon))
    masks[0, 0] = masks[1, horizon // 2] = masks[2, -1] = masks[3, 0] = masks[3, -1] = masks[4, 0] = 0
    inside[4:6, -1] = inside[6, 1:] = 0
    return {
        "observations": random.normal(size=(SIZE, OBSERVATION_DIM)),
        "actions": random.uniform(-1, 1, size=(SIZE, horizon * ACTION_DIM)),
        "rewards": random.uniform(REWARDS.minimum, REWARDS.maximum, size=(SIZE, horizon)) * inside,
        "masks": masks,
        "next_observations": random.normal(size=(SIZE, OBSERVATION_DIM)),
        "valid": inside[:, -1],
        "step_mask": inside,
    }


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith("adam.")}


def case(name: str, horizon: int, **settings: Any) -> tuple[Any, Batch, Any, Arrays, Arrays, Arrays]:
    """Return an algorithm, a batch and draws; and weights, batch and draws as arrays."""
    algorithm, data = make(name, horizon, **settings), make_data(horizon)
    batch = Batch(**{key: torch.from_numpy(array) for key, array in data.items()})
    draws = algorithm.sample_draws(SIZE, torch.Generator().manual_seed(3))
    return algorithm, batch, draws, arrays(algorithm.training_state()), data, arrays(vars(draws))


# The formulas: s is an observation, a a chunk, z noise; w are the weights, c the same where they are constants.


def clip(a: Array) -> Array:
    return np.where(np.abs(a.real) <= 1, a, np.sign(a.real))


def one_step(w: Arrays, name: str, s: Array, z: Array) -> Array:
    return actor(w, name, s, z, np.zeros((SIZE, 1)))


def flow(w: Arrays, name: str, s: Array, z: Array) -> Array:
    for step in range(FLOW_STEPS):
        z = z + actor(w, name, s, z, np.full((SIZE, 1), step / FLOW_STEPS)) / FLOW_STEPS
    return clip(z)


def q(w: Arrays, name: str, s: Array, a: Array) -> Array:
    return critics(w, name, s, a, np.ones((SIZE, 1)))


def bound(values: Array, rho: float) -> Array:
    mean = sum(values) / len(values)
    return np.asarray(mean - rho * np.sqrt(sum((member - mean) ** 2 for member in values) / len(values)))


def choose(w: Arrays, s: Array, candidates: list[Array], rho: float, name: str = "critic") -> Array:
    """Return of each row's candidates the one that the critics, as a rule the online ones, like best."""
    best = np.argmax([bound(q(w, name, s, chunks), rho) for chunks in candidates], axis=0)
    return np.stack([candidates[n][row] for row, n in enumerate(best)])


def backup(config: Any, data: Arrays, next_values: Array) -> Array:
    """Return R + gamma^h m V' a chunk; uncorrected, R is of all its steps, m the last mask, and nothing is cut."""
    made = FORMS[2] + FORMS[3] if config.corrections is None else config.corrections  # type: ignore[operator]
    targets = []
    for rewards, masks, next_value in zip(data["rewards"], data["masks"], next_values, strict=True):
        total, alive = 0.0, True
        for step, reward in enumerate(rewards):
            total += GAMMA**step * reward if alive or "first_terminal" not in made else 0.0
            alive = alive and masks[step] == 1
        if alive if "first_terminal" in made else masks[-1] == 1:
            total += GAMMA**config.horizon * next_value
        low, high = min(REWARDS.minimum / (1 - GAMMA), 0.0), max(REWARDS.maximum / (1 - GAMMA), 0.0)
        targets.append(min(max(total, low), high) if "target_range" in made else total)
    return np.array(targets)


def critic_terms(w: Arrays, data: Arrays, y: Array) -> dict[str, Any]:
    values = q(w, "critic", data["observations"], data["actions"])
    return {
        "critic_loss": sum(((y - member) ** 2 * data["valid"]).sum() for member in values) / values.size,
        "value": values.mean(),
        "value_spread": np.sqrt(((values.real - values.real.mean(axis=0)) ** 2).mean(axis=0)).mean(),
        "target": y.mean(),
    }


def matching(w: Arrays, name: str, data: Arrays, draws: Arrays) -> dict[str, Any]:
    z, t, a = draws["flow_noise"], draws["flow_time"], data["actions"]
    gap = (actor(w, name, data["observations"], (1 - t) * z + t * a, t) - (a - z)) ** 2
    return {"flow_loss": (gap * np.repeat(data["step_mask"], ACTION_DIM, axis=1)).sum() / gap.size}


def fql(config: Any, w: Arrays, c: Arrays, data: Arrays, draws: Arrays) -> tuple[Any, dict[str, Any]]:
    s, after, z = data["observations"], data["next_observations"], draws["actor_noise"]
    next_chunks = clip(one_step(c, "actor", after, draws["target_noise"]))
    y = backup(config, data, bound(q(c, "critic_target", after, next_chunks), config.rho))
    mu = one_step(w, "actor", s, z)
    liked = q(c, "critic", s, clip(mu))
    scale = np.abs(liked.real).mean() if config.q_normalisation else 1.0
    terms = critic_terms(w, data, y) | matching(w, "flow", data, draws)
    terms["policy_loss"] = -(liked.mean(axis=0) * data["valid"]).sum() / SIZE / scale
    terms["distance"] = ((mu - flow(c, "flow", s, z)) ** 2).sum() / mu.size
    return terms["critic_loss"] + terms["flow_loss"] + terms["policy_loss"] + config.alpha * terms["distance"], terms


def ifql(config: Any, w: Arrays, c: Arrays, data: Arrays, draws: Arrays) -> tuple[Any, dict[str, Any]]:
    s, after = data["observations"], data["next_observations"]
    value = q(w, "value", s, s[:, :0])[0]
    error = bound(q(c, "critic_target", s, data["actions"]), config.rho) - value
    weight = np.where(error.real >= 0, config.kappa, 1 - config.kappa)
    terms = critic_terms(w, data, backup(config, data, q(c, "value", after, after[:, :0])[0]))
    terms |= matching(w, "actor", data, draws) | {"value": value.mean()}
    terms["value_loss"] = (weight * error**2 * data["valid"]).sum() / SIZE
    del terms["target"]
    return terms["value_loss"] + terms["critic_loss"] + terms["flow_loss"], terms


def qc(config: Any, w: Arrays, c: Arrays, data: Arrays, draws: Arrays) -> tuple[Any, dict[str, Any]]:
    after, noises = data["next_observations"], np.swapaxes(draws["target_noise"], 0, 1)
    assert len(noises) == config.target_samples
    next_chunks = choose(c, after, [flow(c, "actor", after, z) for z in noises], rho=0.0)
    y = backup(config, data, bound(q(c, "critic_target", after, next_chunks), config.rho))
    terms = critic_terms(w, data, y) | matching(w, "actor", data, draws)
    return terms["critic_loss"] + terms["flow_loss"], terms


def bc_flow(config: Any, w: Arrays, c: Arrays, data: Arrays, draws: Arrays) -> tuple[Any, dict[str, Any]]:
    return (terms := matching(w, "actor", data, draws))["flow_loss"], terms


FORMULAS = {"fql": fql, "ifql": ifql, "qc": qc, "bc_flow": bc_flow}


def slope(config: Any, w: Arrays, directions: Arrays, data: Arrays, random: Arrays) -> float:
    """Return the derivative of the whole loss as tensors move, each along a direction of its shape."""
    moved = {**w, **{key: w[key] + 1j * COMPLEX_STEP * direction for key, direction in directions.items()}}
    return float(FORMULAS[config.algorithm](config, moved, w, data, random)[0].imag / COMPLEX_STEP)


def test_no_clip_bound_or_choice_of_these_tests_is_without_effect() -> None:
    _, _, _, w, data, random = case("qc", 5, target_samples=5)
    s, after = data["observations"], data["next_observations"]
    candidates = [flow(w, "actor", s, random["target_noise"][:, sample]) for sample in range(5)]
    for other in (candidates[0], choose(w, s, candidates, 2.0), choose(w, s, candidates, 0.0, "critic_target")):
        assert 0 < (choose(w, s, candidates, 0.0) != other).any(axis=1).sum() < SIZE
    for chunks in (candidates[0], clip(one_step(w, "actor", s, random["flow_noise"]))):
        assert 0.05 < (np.abs(chunks) == 1).mean() < 0.7
    algorithm, _, _, w, _, _ = case("ifql", 5)
    cut = backup(algorithm.config, data, q(w, "value", after, after[:, :0])[0])
    low, high = (int(np.isclose(cut, end).sum()) for end in (-1.0, 0.1))
    assert 0 < low < SIZE - high < SIZE
    error = bound(q(w, "critic_target", s, data["actions"]), 0.5) - q(w, "value", s, s[:, :0])[0]
    assert 0.2 < (error[data["valid"] == 1] > 0).mean() < 0.8


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize("corrections", FORMS, ids=lambda names: "corrected" if names is None else "-".join(names))
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_loss_every_metric_and_the_gradient_of_every_network_are_the_formulas(
    name: str, settings: dict[str, Any], corrections: tuple[str, ...] | None, horizon: int
) -> None:
    form = "corrected" if corrections is None else "paper"
    algorithm, batch, draws, w, data, random = case(name, horizon, form=form, corrections=corrections, **settings)
    expected, terms = FORMULAS[name](algorithm.config, w, w, data, random)
    loss, metrics = algorithm.loss(batch, draws)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-10, atol=0)
    assert metrics.keys() == terms.keys()
    for key, metric in metrics.items():
        assert not metric.requires_grad, key
        np.testing.assert_allclose(metric.item(), terms[key], rtol=1e-10, atol=1e-14, err_msg=key)
    source = np.random.default_rng(2)
    for key in algorithm.networks.keys() - {*FOLLOWERS.values()}:
        parameters = dict(algorithm.networks[key].named_parameters(prefix=key))
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        directions = {name: source.standard_normal(parameter.shape) for name, parameter in parameters.items()}
        found = sum((g.numpy() * d).sum() for g, d in zip(gradients, directions.values(), strict=True))
        expected = slope(algorithm.config, w, directions, data, random)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13, err_msg=key)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_loss_teaches_one_network_and_none_a_follower(name: str) -> None:
    algorithm, batch, draws, *_ = case(name, 5)
    networks = {key: list(network.parameters()) for key, network in algorithm.networks.items()}
    for parameter in (parameter for key in networks.keys() & {*FOLLOWERS.values()} for parameter in networks[key]):
        assert not parameter.requires_grad
        parameter.requires_grad_(True)  # so that a path to it would show
    losses = [(algorithm.loss(batch, draws)[0], networks.keys() - {*FOLLOWERS.values()})]
    for learner in {"fql": ("critic", "actor"), "ifql": ("critic", "value")}.get(name, ()):
        arguments = (batch, draws) if name == "fql" else (batch,)
        losses.append((getattr(algorithm, f"{learner}_loss")(*arguments)[0], {learner}))
    for loss, learners in losses:
        for key, parameters in networks.items():
            for gradient in torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True):
                assert gradient.any() if key in learners else gradient is None, key


@pytest.mark.parametrize("name", FORMULAS)
def test_an_update_is_adams_first_step_and_then_the_followers(name: str) -> None:
    rates = {"learning_rate": 0.01, "act_average": 0.7} | ({"tau": 0.1} if name != "bc_flow" else {})
    settings = rates | ({"target_samples": 2} if name == "qc" else {})
    algorithm, batch, draws, w, data, random = case(name, 2, actor_hidden=(3,), **settings)
    expected = dict(w)
    for key in w.keys() - {key for key in w if key.startswith(tuple(FOLLOWERS.values()))}:
        units = np.eye(w[key].size).reshape(-1, *w[key].shape)
        gradient = [slope(algorithm.config, w, {key: unit}, data, random) for unit in units]
        # From moments of 0 the corrected ones are the gradient and its square, whatever the betas.
        step = np.array(gradient) / (np.abs(gradient) + ADAM_EPSILON)
        expected[key] = w[key] - 0.01 * step.reshape(w[key].shape)
        network, tensor = key.split(".", 1)
        if network in FOLLOWERS:
            follower, rate = f"{FOLLOWERS[network]}.{tensor}", {"actor": 0.3, "critic": 0.1}[network]
            expected[follower] = w[follower] + rate * (expected[key] - w[follower])
    algorithm.update(batch, draws)
    for key, array in arrays(algorithm.training_state()).items():
        np.testing.assert_allclose(array, expected[key], rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("samples", "rho"), [(1, 0.0), (6, 0.0), (6, 2.0)])
def test_the_average_acts_and_the_critics_choose(name: str, samples: int, rho: float) -> None:
    algorithm, batch, _, w, data, _ = case(name, 5)
    samples, s = samples if name != "bc_flow" else 1, data["observations"]
    noise = np.random.default_rng(1).normal(size=(samples, SIZE, 5 * ACTION_DIM))
    candidates = [clip((one_step if name == "fql" else flow)(w, "actor_average", s, z)) for z in noise]
    expected = choose(w, s, candidates, rho) if samples > 1 else candidates[0]
    given = torch.from_numpy(noise.swapaxes(0, 1) if samples > 1 else noise[0])
    np.testing.assert_allclose(algorithm.act(batch.observations, given, rho=rho), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_draws_are_normal_noises_and_uniform_times_each_its_own(name: str) -> None:
    random = arrays(vars(make(name, 1).sample_draws(4000, torch.Generator().manual_seed(0))))
    time = random.pop("flow_time")
    np.testing.assert_allclose([time.min(), time.max(), time.mean(), time.std()], [0, 1, 0.5, 12**-0.5], atol=0.02)
    columns = np.concatenate([array.reshape(4000, -1) for array in random.values()], axis=1)
    assert (time.shape, columns.shape[1]) == ((4000, 1), {"fql": 6, "qc": 66}.get(name, 2))
    moments = [columns.mean(axis=0), columns.var(axis=0) - 1, (columns**4).mean(axis=0) / 3 - 1]
    np.testing.assert_allclose(moments, 0, atol=0.3)
    np.testing.assert_allclose(np.corrcoef(columns.T), np.eye(columns.shape[1]), atol=0.1)


def test_the_published_settings_are_the_defaults() -> None:
    fql, ifql, qc, cloned = (make(name, 1) for name in FORMULAS)
    assert (fql.config.rho, fql.config.alpha, fql.config.q_normalisation, ifql.config.kappa) == (0.0, 10.0, False, 0.9)
    assert (qc.config.rho, qc.config.target_samples) == (0.0, 32)
    assert fql.default_acting == cloned.default_acting == Acting(samples=1, rho=0.0)
    assert ifql.default_acting == qc.default_acting == Acting(samples=32, rho=0.0)
