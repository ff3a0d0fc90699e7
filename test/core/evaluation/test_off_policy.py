"""Estimates from logs agree with values that are known, and warn where, and only where, something is wrong."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import line_walk
import numpy as np
import pytest
import torch
from line_walk import GAMMA, PLACES, REWARDS, Walker, go_right, mostly_right

from rql_core.algorithms import Acting, Batch, BCFlowConfig, IFQLConfig, RewardRange, RQLConfig, make_algorithm
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import ChunkSampler
from rql_core.errors import ConfigError, DatasetError
from rql_core.evaluation.checks import run_checks
from rql_core.evaluation.estimates import FIGURES, Distances, EpisodeTrace, Estimates, OwnCritics
from rql_core.evaluation.fitted_q import FittedQ, FittedQSettings, chunk_return, fit_q
from rql_core.evaluation.off_policy import EstimateSettings, estimate, logged_return
from rql_core.training.policy import Policy

FIT = FittedQSettings(updates=1000, batch_size=256, hidden=(64,), critics=4, tau=0.03)
# Where what is fitted does not matter.
SHORT = EstimateSettings(windows=300, distance_windows=100, fitted_q=replace(FIT, updates=5))


def small_config(horizon: int) -> BCFlowConfig:
    return BCFlowConfig(horizon=horizon, actor_hidden=(32,))


def critic_config(**settings: Any) -> RQLConfig:
    return RQLConfig(gamma=GAMMA, actor_hidden=(8,), **settings)


def fit(walker: Any, trajectories: Trajectories, rewards: RewardRange = REWARDS, **options: Any) -> FittedQ:
    statistics = Statistics.of(trajectories.observations).without_scaling()
    sampler = ChunkSampler(trajectories, statistics, walker.config.horizon)
    starts = torch.eye(line_walk.END + 1)[:1].repeat(200, 1)
    return fit_q(walker, sampler, starts, rewards, GAMMA, **({"settings": FIT} | options))


@pytest.fixture(scope="module")
def logs() -> Trajectories:
    return line_walk.walk()


# Fitted Q evaluation


@pytest.mark.parametrize("horizon", [1, 2])
def test_fitted_values_are_those_of_dynamic_programming(horizon: int, logs: Trajectories) -> None:
    fitted = fit(Walker(small_config(horizon), mostly_right), logs)
    known = line_walk.values(0.8)
    pairs = [(place, chunk) for place in PLACES for chunk in product((-1.0, 1.0), repeat=horizon)]
    observations = torch.eye(len(PLACES))[[place for place, _ in pairs]]
    found = fitted.action_value(observations, torch.tensor([chunk for _, chunk in pairs])).mean(dim=1)
    expected = [line_walk.chunk_value(place, chunk, known) for place, chunk in pairs]
    np.testing.assert_allclose(found.numpy(), expected, atol=0.25)
    assert fitted.curve[-1].mean() == pytest.approx(known[0], abs=0.2)
    # The values that are told apart here span from 0 to -4.7: a constant would not do.
    assert np.ptp(expected) > 3.5


def test_a_worse_policy_is_worth_less(logs: Trajectories) -> None:
    def go_left(places: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return -torch.ones_like(noise)

    right = fit(Walker(small_config(2), go_right), logs).curve[-1].mean()
    left = fit(Walker(small_config(2), go_left), logs, settings=replace(FIT, updates=800)).curve[-1].mean()
    assert right == pytest.approx(line_walk.values(1.0)[0], abs=0.2)
    assert left < right - 3


def test_the_policy_is_asked_as_it_is_told_to_act(logs: Trajectories) -> None:
    walker = Walker(small_config(2), go_right)
    fit(walker, logs, settings=replace(FIT, updates=2), acting=Acting(samples=3, rho=0.5, flow_steps=7))
    assert walker.asked_for == {(3, 0.5, 7)}


def test_targets_keep_to_what_the_rewards_allow(logs: Trajectories) -> None:
    # Rewards of -1 that are said to be of -.1 at most: no return is below -1 then.
    fitted = fit(Walker(small_config(1), mostly_right), logs, RewardRange(-0.1, 0.0, can_end=True))
    assert -1.1 < float(fitted.curve[-1].mean()) < -0.9


def test_a_chunks_return_ends_at_its_first_terminal() -> None:
    batch = Batch(
        observations=torch.zeros(3, 1),
        actions=torch.zeros(3, 3),
        rewards=torch.tensor([[-1.0, -2.0, -4.0]]).repeat(3, 1),
        masks=torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        next_observations=torch.zeros(3, 1),
        valid=torch.ones(3),
        step_mask=torch.ones(3, 3),
    )
    returns, remaining = chunk_return(batch, 0.5)
    assert returns.tolist() == [-3.0, -2.0, -3.0]
    assert remaining.tolist() == [0.125, 0.0, 0.0]


def test_the_curve_ends_with_the_last_update(logs: Trajectories) -> None:
    fitted = fit(Walker(small_config(1), go_right), logs, settings=replace(FIT, updates=7, measurements=3))
    assert fitted.curve_updates == (2, 4, 7)
    assert fitted.curve.shape == (3, FIT.critics)


def test_the_policy_is_not_trained(logs: Trajectories) -> None:
    config = critic_config(horizon=2, critic_hidden=(8,), critics=2, flow_steps=2)
    algorithm = make_algorithm(config, line_walk.END + 1, 1, REWARDS)
    before = algorithm.training_state()
    estimate(Policy(algorithm, Statistics.of(logs.observations)), logs, REWARDS, SHORT)
    after = algorithm.training_state()
    assert all(torch.equal(before[name], after[name]) for name in before)


# The checkpoint's own critics


@pytest.mark.parametrize("form", ["corrected", "paper"])
@pytest.mark.parametrize("horizon", [1, 3])
def test_exact_critics_have_no_td_error(form: str, horizon: int, logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=horizon, form=form), go_right, right=1.0)
    figures = estimate(line_walk.policy(walker, logs), logs, REWARDS, SHORT).figures()
    assert figures["td_rms"] == pytest.approx(0.0, abs=1e-5)
    assert figures["td_share"] == pytest.approx(0.0, abs=1e-5)
    assert figures["outside"] == 0.0
    starts = logs.observations[logs.observation_offsets].argmax(axis=1)
    assert figures["own_value"] == pytest.approx(line_walk.values(1.0)[starts].mean(), abs=1e-5)
    assert figures["own_spread"] == pytest.approx(0.1)


def test_an_error_of_the_critics_is_found(logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=2), go_right, right=1.0, error=0.5)
    estimates = estimate(line_walk.policy(walker, logs), logs, REWARDS, SHORT)
    figures = estimates.figures()
    assert estimates.own is not None
    assert figures["td_rms"] == pytest.approx(0.5, abs=1e-5)
    assert figures["td_mean"] == pytest.approx(0.5, abs=1e-5)
    assert figures["td_share"] == pytest.approx(0.5 / estimates.own.targets.std(), abs=1e-5)


def test_another_gamma_is_for_the_fit_alone(logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=2), go_right, right=1.0)
    estimates = estimate(line_walk.policy(walker, logs), logs, REWARDS, replace(SHORT, gamma=0.5))
    figures = estimates.figures()
    assert (estimates.low, estimates.high) == (-2.0, 0.0)
    assert figures["td_rms"] == pytest.approx(0.0, abs=1e-5)
    assert figures["promise"] is None  # values at different discounts cannot be compared


def test_everything_but_the_own_critics_is_about_the_policy_as_it_is_told_to_act(logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=2), go_right, right=1.0)
    acting = Acting(samples=3, rho=0.5, flow_steps=7)
    figures = estimate(line_walk.policy(walker, logs), logs, REWARDS, SHORT, acting=acting).figures()
    assert walker.asked_for == {(3, 0.5, 7)}
    assert figures["own_value"] is not None
    assert figures["promise"] is None  # the own critics know nothing of the choice


@pytest.mark.parametrize(("config", "samples"), [(RQLConfig, 1), (IFQLConfig, 4)])
def test_what_own_values_are_the_value_of(config: Any, samples: int) -> None:
    settings = config(horizon=2, act_samples=4, flow_steps=2, actor_hidden=(4,), critic_hidden=(4,), critics=1)
    algorithm = make_algorithm(settings, 3, 1, REWARDS)
    assert algorithm.default_acting.samples == 4
    assert algorithm.valued_acting.samples == samples


def test_a_checkpoint_without_critics_has_no_figures_of_them(logs: Trajectories) -> None:
    estimates = estimate(line_walk.policy(Walker(small_config(2), go_right), logs), logs, REWARDS, SHORT)
    of_critics = {"own_value", "own_spread", "promise", "outside", "td_rms", "td_mean", "td_share"}
    assert {name for name, value in estimates.figures().items() if value is None} == of_critics
    assert list(estimates.figures()) == list(FIGURES)
    assert estimates.gamma == 0.99
    assert not any("checkpoint's critics" in check.name for check in run_checks(estimates))


# Distances


def test_a_policy_that_does_what_was_logged_has_no_distance_to_it() -> None:
    def logged(place: int, coin: float) -> float:
        return 1.0 if place < 2 else -1.0

    def same(places: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return torch.where(places < 2, 1.0, -1.0).unsqueeze(1)

    trajectories = line_walk.walk(decide=logged)
    walker = Walker(small_config(1), same)
    distances = estimate(line_walk.policy(walker, trajectories), trajectories, REWARDS, SHORT).distances
    assert distances.mean.tolist() == [0.0]
    assert distances.nearest.tolist() == [0.0]
    assert distances.saturation == distances.logged_saturation == 1.0


def test_distances_are_means_over_samples_and_of_the_nearest(logs: Trajectories) -> None:
    def half_or_quarter(places: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return torch.where(noise > 0, 0.5, 0.25)

    walker = Walker(small_config(1), half_or_quarter)
    distances = estimate(line_walk.policy(walker, logs), logs, REWARDS, replace(SHORT, noises=64)).distances
    # Logged is 1 or -1, each as often: .5 and .75 from the one, 1.5 and 1.25 from the other.
    assert float(distances.mean.mean()) == pytest.approx(1.0, abs=0.1)
    windows = np.array([0.5, 1.25])
    shares = np.array([(logs.actions > 0).mean(), (logs.actions < 0).mean()])
    assert float(distances.nearest.mean()) == pytest.approx(float(windows @ shares), abs=0.15)
    assert distances.random.tolist() == [0.0]
    assert distances.saturation == 0.0


# Along episodes, and what does not fit


def test_a_logged_return_ends_at_each_terminal() -> None:
    rewards, masks = np.float32([-1, -1, 0, -1, -1]), np.float32([1, 1, 0, 1, 1])
    np.testing.assert_allclose(logged_return(rewards, masks, 0.5), [-1.5, -1.0, 0.0, np.nan, np.nan])


def test_traces_follow_episodes_that_ended(logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=2), go_right, right=1.0)
    traces = estimate(line_walk.policy(walker, logs), logs, REWARDS, SHORT).traces
    assert len(traces) == SHORT.episodes
    for trace in traces:
        observations, _, _, masks = logs.episode(trace.index)
        assert trace.terminals.tolist() == np.flatnonzero(masks == 0).tolist() != []
        np.testing.assert_allclose(trace.own, line_walk.values(1.0)[observations[:-1].argmax(axis=1)], atol=1e-5)


def test_the_same_seed_gives_the_same_figures(logs: Trajectories) -> None:
    walker = Walker(critic_config(horizon=2), mostly_right, right=1.0)

    def figures(seed: int) -> dict[str, float | None]:
        return estimate(line_walk.policy(walker, logs), logs, REWARDS, replace(SHORT, seed=seed)).figures()

    assert figures(0) == figures(0)
    assert figures(0)["fqe_value"] != figures(1)["fqe_value"]


def test_it_knows_the_data_that_it_was_trained_on(logs: Trajectories) -> None:
    policy = line_walk.policy(Walker(small_config(1), go_right), logs)
    assert estimate(policy, logs, REWARDS, SHORT).same_data
    assert not estimate(policy, line_walk.walk(episodes=29), REWARDS, SHORT).same_data


def test_logs_of_another_size_are_refused(logs: Trajectories) -> None:
    wide = replace(logs, actions=np.repeat(logs.actions, 2, axis=1))
    with pytest.raises(DatasetError, match="an action of the dataset has 2 numbers, but the checkpoint was trained"):
        estimate(line_walk.policy(Walker(small_config(1), go_right), logs), wide, REWARDS, SHORT)


@pytest.mark.parametrize("settings", [{"gamma": 1.0}, {"gamma": 0.0}, {"windows": 0}, {"noises": 0}, {"seed": -1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        EstimateSettings(**settings)
    with pytest.raises(ConfigError, match="updates is 0"):
        FittedQSettings(updates=0)


# Checks

STARTS = np.linspace(-15.0, -5.0, 40).repeat(4).reshape(40, 4)
GOOD = Estimates(
    algorithm="rql",
    gamma=0.99,
    low=-100.0,
    high=0.0,
    noises=16,
    same_data=False,
    unfamiliar=0.0,
    curve_updates=tuple(range(100, 5100, 100)),
    curve=np.full((50, 4), -10.0),
    start_values=STARTS,
    state_spread=5.0,
    own=OwnCritics(
        STARTS[:, :2], np.linspace(-20.0, 0.0, 99), np.full(99, 0.2), np.linspace(-20.0, 0.0, 99), -100.0, 0.0
    ),
    distances=Distances(np.array([0.3, 0.4]), np.array([0.1, 0.2]), np.array([0.3, 0.2]), 0.02, 0.01),
    traces=(EpisodeTrace(0, np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2), np.array([1])),),
    comparable=True,
    rewards_differ=True,
)


def own(**changes: Any) -> OwnCritics:
    assert GOOD.own is not None
    return replace(GOOD.own, **changes)


def values_with(share: float) -> np.ndarray:
    values = np.full(1000, -10.0)
    values[: round(1000 * share)] = 2.0
    return values


def distances(**changes: Any) -> Distances:
    return replace(GOOD.distances, **changes)


def ramp(rise: float) -> np.ndarray:
    """A curve that is flat up to four fifths, and then rises."""
    curve = np.full((50, 4), -10.0)
    curve[40:] += np.linspace(rise / 10, rise, 10)[:, None]
    return curve


# What is just inside a limit, what is just beyond it, and what is then said.
LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the logs hold one reward alone": ({"rewards_differ": True}, {"rewards_differ": False}),
    "the observations do not look like those": ({"unfamiliar": 0.049}, {"unfamiliar": 0.051}),
    "fitted Q evaluation has not converged": ({"curve": ramp(0.49)}, {"curve": ramp(-0.51)}),
    "the critics of fitted Q evaluation disagree": (
        {"start_values": STARTS + np.array([-1.2, -1.2, 1.2, 1.2])},
        {"start_values": STARTS + np.array([-1.3, -1.3, 1.3, 1.3])},
    ),
    "critics give values that no return can have": (
        {"own": own(values=values_with(0.019))},
        {"own": own(values=values_with(0.021))},
    ),
    "critics do not fit these logs": (
        {"own": own(errors=np.full(99, 2.8))},
        {"own": own(errors=np.full(99, -3.0))},
    ),
    "critics promise more than the logs confirm": (
        {"own": own(start_values=STARTS[:, :2] + 4.9)},
        {"own": own(start_values=STARTS[:, :2] + 5.1)},
    ),
    "the actions are often at their limits": (
        {"distances": distances(saturation=0.39, logged_saturation=0.2)},
        {"distances": distances(saturation=0.11, logged_saturation=0.01)},
    ),
    "what was logged is not among what the policy does": (
        {"distances": distances(nearest=np.array([0.3, 0.19]))},
        {"distances": distances(nearest=np.array([0.31, 0.2]))},
    ),
}


def failures(estimates: Estimates) -> list[str]:
    return [check.warning() for check in run_checks(estimates) if not check.holds]


def test_nothing_is_said_of_good_estimates() -> None:
    assert failures(GOOD) == []
    assert len(run_checks(GOOD)) == len(LIMITS)


@pytest.mark.parametrize("failure", LIMITS)
def test_a_warning_is_given_beyond_its_limit_and_not_before(failure: str) -> None:
    inside, beyond = LIMITS[failure]
    assert failures(replace(GOOD, **inside)) == []
    (warning,) = failures(replace(GOOD, **beyond))
    assert failure in warning
    assert "expected" in warning


def test_a_fit_of_one_measurement_cannot_be_said_to_have_converged() -> None:
    (warning,) = failures(replace(GOOD, curve=GOOD.curve[:1], curve_updates=(100,)))
    assert "has not converged" in warning


def test_a_real_short_fit_is_told_from_a_long_one(logs: Trajectories) -> None:
    def converged(updates: int) -> bool:
        settings = replace(SHORT, gamma=GAMMA, fitted_q=replace(FIT, updates=updates))
        walker = Walker(small_config(1), mostly_right)
        checks = run_checks(estimate(line_walk.policy(walker, logs), logs, REWARDS, settings))
        return next(check for check in checks if check.name == "fitted Q evaluation has converged").holds

    assert not converged(60)
    assert converged(1000)
