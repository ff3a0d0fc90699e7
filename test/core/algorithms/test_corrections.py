"""What the published code gets wrong: each mistake is there in `paper`, gone in `corrected`, and can be mended alone.

The sixth, that a published run saves no checkpoint and cannot go on, is not one of the update: in this project a run of
either form saves and resumes (test_every_algorithm.py, test_loop.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_algorithms import make_batch, make_rql

from rql_core.algorithms import CORRECTIONS, RQLConfig
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import ChunkSampler

HORIZON = 3
LENGTHS = (4, 30)


def place(observations: torch.Tensor) -> list[tuple[int, int]]:
    """Return the episode and the step that each observation says it is from."""
    return [divmod(int(number), 100) for number in observations[:, 0]]


def sampler(settings: dict[str, Any]) -> ChunkSampler:
    """Return a sampler of a short and a long episode, whose observations say where they are from."""
    config = RQLConfig(horizon=HORIZON, **settings)
    episodes = []
    for episode, steps in enumerate(LENGTHS):
        observations = 100.0 * episode + np.arange(steps + 1.0)[:, None]
        episodes.append((observations, np.zeros((steps, 1)), -np.ones(steps), np.ones(steps)))
    data = Trajectories.from_episodes(episodes)
    statistics = Statistics.of(data.observations).without_scaling()
    corrections = [name for name in CORRECTIONS if config.corrects(name)]
    return ChunkSampler(data, statistics, HORIZON, config.form, corrections=corrections)


def every_last_chunk_ends_at_the_observation_after_its_last_action(settings: dict[str, Any]) -> bool:
    batch = sampler(settings).sample(2000, torch.Generator().manual_seed(0))
    ends = {
        start: end
        for start, end, valid in zip(
            place(batch.observations), place(batch.next_observations), batch.valid, strict=True
        )
        if valid
    }
    return all(ends[episode, steps - HORIZON] == (episode, steps) for episode, steps in enumerate(LENGTHS))


def no_reward_counts_after_a_terminal_within_a_chunk(settings: dict[str, Any]) -> bool:
    algorithm, batch = make_rql(horizon=HORIZON, **settings), make_batch(HORIZON)
    draws = algorithm.sample_draws(12, torch.Generator().manual_seed(0))
    later = replace(batch, rewards=batch.rewards.clone(), next_observations=batch.next_observations.clone())
    later.rewards[0, 1:] -= 0.5  # row 0 has its terminal at its first step
    later.next_observations[0] += 1.0
    return torch.equal(algorithm.target(batch, draws)[0], algorithm.target(later, draws)[0])


def every_start_is_equally_likely(settings: dict[str, Any]) -> bool:
    batch = sampler(settings).sample(40_000, torch.Generator().manual_seed(0))
    counts = Counter(place(batch.observations))
    short = np.mean([count for (episode, _), count in counts.items() if episode == 0])
    long = np.mean([count for (episode, _), count in counts.items() if episode == 1])
    return bool(0.9 < short / long < 1.1)


def targets_stay_inside_what_the_rewards_allow(settings: dict[str, Any]) -> bool:
    algorithm, batch = make_rql(horizon=HORIZON, gamma=0.9, **settings), make_batch(HORIZON)
    with torch.no_grad():
        algorithm.networks["critic_target"].biases[-1].fill_(-924.0)  # type: ignore[union-attr, operator, index]
    target = algorithm.target(batch, algorithm.sample_draws(12, torch.Generator().manual_seed(0)))
    return float(target.min()) >= -10.0 - 1e-9


def the_pull_towards_the_data_does_not_depend_on_the_scale_of_the_rewards(settings: dict[str, Any]) -> bool:
    algorithm, batch = make_rql(horizon=HORIZON, **settings), make_batch(HORIZON)
    draws = algorithm.sample_draws(12, torch.Generator().manual_seed(0))
    points = algorithm.reverse(batch, draws)
    before = algorithm.actor_loss(batch, draws, points)[1]["policy_loss"].clone()
    with torch.no_grad():
        for parameter in (algorithm.networks["critic"].weights[-1], algorithm.networks["critic"].biases[-1]):  # type: ignore[union-attr, index]
            parameter.mul_(50.0)
    after = algorithm.actor_loss(batch, draws, points)[1]["policy_loss"]
    return bool(torch.isclose(before, after))


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "chunk_ends": every_last_chunk_ends_at_the_observation_after_its_last_action,
    "first_terminal": no_reward_counts_after_a_terminal_within_a_chunk,
    "uniform_starts": every_start_is_equally_likely,
    "target_range": targets_stay_inside_what_the_rewards_allow,
}


def test_every_correction_has_a_check() -> None:
    assert tuple(CHECKS) == CORRECTIONS


@pytest.mark.parametrize("name", CORRECTIONS)
def test_what_paper_gets_wrong_corrected_gets_right(name: str) -> None:
    assert not CHECKS[name]({"form": "paper"})
    assert CHECKS[name]({"form": "corrected"})


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction_can_be_made_alone_and_left_out_alone(name: str) -> None:
    for other, check in CHECKS.items():
        assert check({"form": "paper", "corrections": (name,)}) is (other == name), other
        rest = tuple(correction for correction in CORRECTIONS if correction != name)
        assert check({"form": "corrected", "corrections": rest}) is (other != name), other


def test_q_normalisation_frees_alpha_from_the_scale_of_the_rewards() -> None:
    check = the_pull_towards_the_data_does_not_depend_on_the_scale_of_the_rewards
    assert not check({"form": "paper"})
    assert check({"form": "corrected", "q_normalisation": True})
