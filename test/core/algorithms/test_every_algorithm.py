"""One tester for all algorithms: they learn, act, are stored, go on and repeat themselves in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_algorithms import ACTION_DIM, OBSERVATION_DIM, REWARDS, make_batch

from rql_core.algorithms import Acting, Algorithm, AnyAlgorithmConfig, CriticAlgorithm, make_algorithm
from rql_core.data import Trajectories
from rql_core.errors import ConfigError
from rql_core.guidance import Guidance
from rql_core.training import TrainConfig, train
from rql_core.training.checkpoint import load_checkpoint, load_training_state

CONFIGS = get_args(get_args(AnyAlgorithmConfig)[0])
NAMES = [config.model_fields["algorithm"].default for config in CONFIGS]
WITH_CRITICS = [name for name in NAMES if name != "bc_flow"]
both_horizons = pytest.mark.parametrize("horizon", [1, 5])
every_algorithm = pytest.mark.parametrize("name", NAMES)
every_algorithm_with_critics = pytest.mark.parametrize("name", WITH_CRITICS)


def make_config(name: str, horizon: int = 3, **settings: Any) -> dict[str, Any]:
    """Return settings of small networks."""
    values: dict[str, Any] = {"algorithm": name, "horizon": horizon, "flow_steps": 4, "actor_hidden": (32, 32)}
    if name in WITH_CRITICS:
        values |= {"critic_hidden": (16, 16), "critics": 2, "gamma": 0.9, "tau": 0.05}
    if name == "qc":
        values["target_samples"] = 4
    return values | {"learning_rate": 3e-3, "act_average": 0.9} | settings


def make(name: str, horizon: int = 3, *, seed: int = 1, **settings: Any) -> Algorithm[Any, Any]:
    config = CONFIGS[NAMES.index(name)].model_validate(make_config(name, horizon, **settings))
    return make_algorithm(config, OBSERVATION_DIM, ACTION_DIM, REWARDS, seed=seed)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(horizon: int) -> Any:
    return make_batch(horizon, dtype=torch.float32)


def after_updates(name: str, horizon: int, updates: int, seed: int = 1) -> Algorithm[Any, Any]:
    algorithm, generator = make(name, horizon, seed=seed), seeded(seed)
    for _ in range(updates):
        algorithm.update(batch_of(horizon), algorithm.sample_draws(12, generator))
    return algorithm


def test_the_algorithms_are_those_that_the_documentation_names() -> None:
    assert set(NAMES) == {"rql", "bc_flow", "ifql", "fql", "qc"}


@every_algorithm
@both_horizons
def test_it_learns_a_tiny_data_set_by_heart(name: str, horizon: int) -> None:
    """Two observations, one chunk each: with a strong pull to the data every algorithm must come to just these."""
    observations = torch.tensor([[-1.0, 0.5, 0.0], [1.0, -0.5, 1.0]]).repeat(8, 1)
    chunks = (torch.rand(2, horizon * ACTION_DIM, generator=seeded()) * 1.6 - 0.8).repeat(8, 1)
    ones = torch.ones(16, horizon)
    batch = type(batch_of(horizon))(
        observations, chunks, -ones, torch.zeros(16, horizon), observations, ones[:, 0], ones
    )
    algorithm = make(name, horizon, **({"alpha": 100.0} if name in ("rql", "fql") else {}))
    generator = seeded()
    noise = torch.randn(16, horizon * ACTION_DIM, generator=generator)
    before = (algorithm.act(observations, noise) - chunks).abs().mean()
    for _ in range(600):
        algorithm.update(batch, algorithm.sample_draws(16, generator))
    after = (algorithm.act(observations, noise) - chunks).abs().mean()
    assert float(after) < 0.1 < 0.3 < float(before)
    if name in WITH_CRITICS:
        # Every chunk ends at its first step with a reward of -1, which is then its value.
        torch.testing.assert_close(
            algorithm.action_value(observations, chunks), torch.full((16, 2), -1.0), rtol=0, atol=0.1
        )


@every_algorithm
def test_its_loss_is_the_one_of_its_draws(name: str) -> None:
    algorithm, batch = make(name), batch_of(3)
    draws = algorithm.sample_draws(12, seeded())
    first, again = algorithm.loss(batch, draws)[0], algorithm.loss(batch, draws)[0]
    other = algorithm.loss(batch, algorithm.sample_draws(12, seeded(1)))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_algorithm
@both_horizons
def test_one_seed_gives_one_policy(name: str, horizon: int) -> None:
    first, second, other = (after_updates(name, horizon, 5, seed).training_state() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_algorithm
@both_horizons
def test_it_goes_on_from_its_training_state_to_the_last_bit(name: str, horizon: int) -> None:
    straight, resumed = after_updates(name, horizon, 3), make(name, horizon, seed=9)
    resumed.load_training_state(straight.training_state())
    generator = seeded(5)
    draws = [straight.sample_draws(12, generator) for _ in range(3)]
    for algorithm in (straight, resumed):
        for draw in draws:
            algorithm.update(batch_of(horizon), draw)
    expected, found = straight.training_state(), resumed.training_state()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert resumed.updates == 6


@every_algorithm
@both_horizons
def test_it_acts_in_a_batch_as_it_acts_singly(name: str, horizon: int) -> None:
    algorithm, batch = after_updates(name, horizon, 20), batch_of(horizon)
    samples = algorithm.default_acting.samples
    noise = torch.randn(12, samples, algorithm.chunk_dim, generator=seeded())
    together = algorithm.act(batch.observations, noise)
    assert together.shape == (12, algorithm.chunk_dim)
    assert float(together.abs().max()) <= 1.0
    for row in range(12):
        alone = algorithm.act(batch.observations[row : row + 1], noise[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            algorithm.value(batch.observations[row : row + 1])[0], algorithm.value(batch.observations)[row]
        )


@every_algorithm
def test_a_policy_state_acts_and_values_the_same_elsewhere(name: str) -> None:
    source, other, batch = after_updates(name, 3, 5), make(name, seed=4), batch_of(3)
    other.load_policy_state(source.policy_state())
    noise = torch.randn(12, 2 if name in WITH_CRITICS else 1, source.chunk_dim, generator=seeded())
    assert torch.equal(other.act(batch.observations, noise), source.act(batch.observations, noise))
    assert torch.equal(other.value(batch.observations), source.value(batch.observations))


@every_algorithm
def test_no_parameter_learns_from_two_losses_and_no_average_from_any(name: str) -> None:
    algorithm, batch = make(name), batch_of(3)
    loss, _ = algorithm.loss(batch, algorithm.sample_draws(12, seeded()))
    online = [key for key in algorithm.networks if not key.endswith(("_average", "_target"))]
    for key, network in algorithm.networks.items():
        learns = [parameter.requires_grad for parameter in network.parameters()]
        assert all(learns) if key in online else not any(learns), key
    parameters = [parameter for key in online for parameter in algorithm.networks[key].parameters()]
    assert all(float(gradient.abs().max()) > 0 for gradient in torch.autograd.grad(loss, parameters))


@every_algorithm_with_critics
def test_the_best_of_many_samples_is_the_one_that_the_critics_like_best(name: str) -> None:
    algorithm, batch = after_updates(name, 3, 20), batch_of(3)
    noise = torch.randn(12, 700, algorithm.chunk_dim, generator=seeded())
    repeated = batch.observations.repeat_interleave(700, dim=0)
    chunks = algorithm.act(repeated, noise.flatten(0, 1)).view(12, 700, -1)
    values = algorithm.action_value(repeated, chunks.flatten(0, 1)).view(12, 700, -1)
    rows = torch.arange(12)
    for rho in (0.0, 2.0):
        best = (values.mean(2) - rho * values.std(2, correction=0)).argmax(dim=1)
        torch.testing.assert_close(
            algorithm.act(batch.observations, noise, rho=rho), chunks[rows, best], rtol=0, atol=1e-5
        )
    assert not torch.equal(best, (values.mean(2)).argmax(dim=1))


def test_without_critics_there_is_no_best_sample() -> None:
    algorithm = make("bc_flow")
    with pytest.raises(ConfigError, match="bc_flow has no critics to choose among 4 samples"):
        algorithm.check_acting(Acting(samples=4))
    algorithm.check_acting(Acting(flow_steps=2))


def test_an_integrator_that_chooses_its_own_steps_takes_no_number_of_them() -> None:
    algorithm = make("rql", act_integrator="dopri5")
    with pytest.raises(ConfigError, match="flow_steps is 2, but dopri5 chooses its own steps"):
        algorithm.check_acting(Acting(flow_steps=2))


@every_algorithm
def test_fewer_flow_steps_are_what_they_say(name: str) -> None:
    algorithm, batch = after_updates(name, 3, 20), batch_of(3)
    noise = torch.randn(12, algorithm.chunk_dim, generator=seeded())
    assert algorithm.config.acting_steps == (1 if name == "fql" else algorithm.config.flow_steps)
    if name == "fql":
        with pytest.raises(ConfigError, match="fql acts in one step"):
            algorithm.act(batch.observations, noise, flow_steps=2)
        return
    actor = algorithm.networks["actor_average"]
    with torch.no_grad():
        half = noise + 0.5 * actor(batch.observations, noise, torch.zeros(12, 1))
        whole = half + 0.5 * actor(batch.observations, half, torch.full((12, 1), 0.5))
    torch.testing.assert_close(algorithm.act(batch.observations, noise, flow_steps=2), whole.clamp(-1, 1))


@every_algorithm
@pytest.mark.parametrize("method", ["jacobian", "prefix"])
def test_every_flow_can_be_guided_and_what_is_no_flow_refuses(name: str, method: Any) -> None:
    algorithm = after_updates(name, 3, 3)
    generator = seeded(5)
    observations = torch.randn(5, algorithm.observation_dim, generator=generator, dtype=algorithm.dtype)
    noise = torch.randn(5, 1, algorithm.chunk_dim, generator=generator, dtype=algorithm.dtype)
    previous = torch.rand(5, algorithm.chunk_dim, generator=generator, dtype=algorithm.dtype) * 2 - 1
    weights = torch.zeros_like(previous)
    weights[:, :2] = 1.0
    guidance = Guidance(previous, weights, method)
    if name == "fql":
        with pytest.raises(ConfigError, match="fql acts in one step and has no flow to guide"):
            algorithm.act(observations, noise, guidance=guidance)
        return
    held, free = algorithm.act(observations, noise, guidance=guidance), algorithm.act(observations, noise)
    assert not torch.equal(held, free)
    assert float((held - previous)[:, :2].abs().mean()) < float((free - previous)[:, :2].abs().mean())
    if name == "bc_flow":
        return
    # Of several samples, each is held, and those of a row to the row's own chunk.
    many = noise.repeat(1, 3, 1)
    torch.testing.assert_close(algorithm.act(observations, many, guidance=guidance), held)


@every_algorithm_with_critics
def test_rewards_after_a_terminal_and_what_follows_it_count_nothing(name: str) -> None:
    """By the definition of a chunk's return, in a loop; the published form looks at the last mask alone."""
    algorithm, batch = make(name), batch_of(3)
    assert isinstance(algorithm, CriticAlgorithm)
    next_values = torch.linspace(-9, -1, 12)
    expected = []
    for row in range(12):
        total, alive = 0.0, 1.0
        for step in range(3):
            total += 0.9**step * alive * float(batch.rewards[row, step])
            alive *= float(batch.masks[row, step])
        expected.append(min(0.0, max(-10.0, total + 0.9**3 * alive * float(next_values[row]))))
    torch.testing.assert_close(algorithm.chunk_target(batch, next_values), torch.tensor(expected))


@every_algorithm
@both_horizons
def test_a_run_of_it_is_stored_loaded_and_resumed_to_the_last_bit(name: str, horizon: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0)
    episodes = [
        (data.normal(size=(13, 3)), data.uniform(-1, 1, (12, 2)), -np.ones(12), np.append(np.ones(11), 0.0))
        for _ in range(4)
    ]
    trajectories = Trajectories.from_episodes(episodes)

    def config(updates: int) -> TrainConfig:
        settings = {"log_every": 2, "checkpoint_every": 2, "tensorboard": False, "device": "cpu", "batch_size": 8}
        return TrainConfig.model_validate(
            {"algorithm": make_config(name, horizon), "updates": updates, "seed": 3, **settings}
        )

    train(trajectories, config(4), tmp_path / "straight", progress=False)
    train(trajectories, config(2), tmp_path / "resumed", progress=False)
    train(trajectories, config(4), tmp_path / "resumed", resume=True, progress=False)
    straight, resumed = (load_checkpoint(tmp_path / run / "checkpoint") for run in ("straight", "resumed"))
    expected, found = load_training_state(straight).tensors, load_training_state(resumed).tensors
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    observations = data.normal(size=(5, 3)).astype(np.float32)
    first, second = (
        checkpoint.policy.sample(observations, np.random.default_rng(1)) for checkpoint in (straight, resumed)
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, horizon, 2)
    assert straight.manifest.seed == 3
