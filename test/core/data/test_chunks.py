"""Sampled chunks are rows of the data in either form, and the two forms differ where the published one is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch

from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import PAPER_ACTION_LIMIT, ChunkSampler, reward_range
from rql_core.errors import DatasetError

LENGTHS = (2, 5, 9)


def make_trajectories() -> Trajectories:
    """Every number says where it comes from: step s of episode e has observation 100 e + s, and so on."""
    episodes = []
    for episode, steps in enumerate(LENGTHS):
        place = 100.0 * episode + np.arange(steps + 1)
        actions = np.stack([place[:-1] / 1000, -place[:-1] / 1000], axis=1)
        masks = np.ones(steps)
        masks[-1] = 0
        episodes.append((place[:, None], actions, place[:-1] + 1000, masks))
    return Trajectories.from_episodes(episodes)


# A normalisation that changes nothing, so that observations can be read.
IDENTITY = Statistics(
    np.zeros(1, np.float32), np.ones(1, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32), np.array(1)
)


def sampler(horizon: int, form: str) -> ChunkSampler:
    return ChunkSampler(make_trajectories(), IDENTITY, horizon, form)  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place_of(observations: torch.Tensor) -> list[tuple[int, int]]:
    return [divmod(int(value), 100) for value in observations[:, 0]]


@pytest.mark.parametrize("horizon", [1, 3])
def test_corrected_draws_every_start_with_h_real_actions_equally_often(horizon: int) -> None:
    expected = [(e, s) for e, steps in enumerate(LENGTHS) for s in range(steps - horizon + 1)]
    chunks = sampler(horizon, "corrected")
    assert chunks.starts == len(expected)
    counts = Counter(place_of(chunks.sample(20_000, generator()).observations))
    assert sorted(counts) == expected
    mean = 20_000 / len(expected)
    # Five standard deviations of a binomial count.
    assert all(abs(count - mean) < 5 * np.sqrt(mean) for count in counts.values())


def test_corrected_gives_the_true_next_observation_after_the_last_action() -> None:
    batch = sampler(3, "corrected").sample(500, generator())
    for row, (episode, step) in enumerate(place_of(batch.observations)):
        first = 100 * episode + step
        assert int(batch.next_observations[row, 0]) == first + 3
        actions = batch.actions[row].reshape(3, 2)[:, 0] * 1000
        np.testing.assert_allclose(actions, [first, first + 1, first + 2], rtol=1e-5, atol=1e-5)
        assert batch.rewards[row].tolist() == [first + 1000, first + 1001, first + 1002]
        assert batch.masks[row].tolist() == [1, 1, float(step + 3 != LENGTHS[episode])]
    assert batch.valid.all()
    assert batch.step_mask.shape == (500, 3)
    assert batch.step_mask.all()


def test_paper_draws_episodes_equally_and_never_starts_in_a_last_row() -> None:
    places = place_of(sampler(3, "paper").sample(30_000, generator()).observations)
    counts = Counter(places)
    assert sorted(counts) == [(e, s) for e, steps in enumerate(LENGTHS) for s in range(steps - 1)]
    for (episode, _), count in counts.items():
        mean = 30_000 / len(LENGTHS) / (LENGTHS[episode] - 1)
        assert abs(count - mean) < 5 * np.sqrt(mean)


def test_paper_repeats_the_last_row_past_the_end() -> None:
    batch = sampler(3, "paper").sample(500, generator())
    for row, (episode, step) in enumerate(place_of(batch.observations)):
        last = LENGTHS[episode] - 1
        rows = [min(step + j, last) for j in range(3)]
        inside = [float(step + j <= last) for j in range(3)]
        actions = batch.actions[row].reshape(3, 2)[:, 0] * 1000
        np.testing.assert_allclose(actions, [100 * episode + r for r in rows], rtol=1e-5, atol=1e-5)
        assert batch.step_mask[row].tolist() == inside
        assert float(batch.valid[row]) == inside[-1]
        assert batch.rewards[row].tolist() == [
            i * (100 * episode + r + 1000) for i, r in zip(inside, rows, strict=True)
        ]
        assert batch.masks[row].tolist() == [float(r != last) for r in rows]
        # The published form bootstraps from the observation before the last action, not the one after it.
        assert int(batch.next_observations[row, 0]) == 100 * episode + min(step + 3, last)


def test_only_the_corrected_form_reaches_an_episodes_last_step_and_last_observation() -> None:
    ends = {100 * episode + steps for episode, steps in enumerate(LENGTHS)}
    for form, reaches in (("corrected", True), ("paper", False)):
        batch = sampler(2, form).sample(5000, generator())
        assert (set(batch.next_observations[:, 0].int().tolist()) >= ends) is reaches, form
        assert bool(ends & set(batch.next_observations[:, 0].int().tolist())) is reaches, form


def test_paper_keeps_actions_a_little_inside_their_limits() -> None:
    trajectories = make_trajectories()
    trajectories.actions[:] = 1.0
    actions = {
        form: ChunkSampler(trajectories, IDENTITY, 2, form).sample(9, generator()).actions
        for form in ("paper", "corrected")
    }  # type: ignore[arg-type]
    assert actions["paper"].max() == np.float32(PAPER_ACTION_LIMIT)
    assert actions["corrected"].max() == 1.0
    assert (trajectories.actions == 1.0).all()


@pytest.mark.parametrize("form", ["corrected", "paper"])
def test_a_generators_state_is_all_that_sampling_depends_on(form: str) -> None:
    chunks, source = sampler(2, form), generator()
    chunks.sample(8, source)
    state = source.get_state()
    expected = chunks.sample(8, source)
    other = torch.Generator()
    other.set_state(state)
    again = sampler(2, form).sample(8, other)
    assert torch.equal(again.observations, expected.observations)
    assert torch.equal(again.actions, expected.actions)


def test_observations_come_normalised() -> None:
    trajectories = make_trajectories()
    statistics = Statistics.of(trajectories.observations)
    batch = ChunkSampler(trajectories, statistics, 2).sample(64, generator())
    raw = sampler(2, "corrected").sample(64, generator())
    np.testing.assert_array_equal(batch.observations, statistics.normalise(raw.observations.numpy()))
    np.testing.assert_array_equal(batch.next_observations, statistics.normalise(raw.next_observations.numpy()))


@pytest.mark.parametrize(("form", "lengths", "horizon"), [("corrected", (2, 3), 4), ("paper", (1, 1), 4)])
def test_episodes_too_short_for_the_horizon_are_refused_by_length(
    form: str, lengths: tuple[int, ...], horizon: int
) -> None:
    short = Trajectories.from_episodes(
        [(np.zeros((steps + 1, 1)), np.zeros((steps, 1)), np.zeros(steps), np.ones(steps)) for steps in lengths]
    )
    with pytest.raises(DatasetError, match=rf"horizon 4.*2 episodes have {min(lengths)} to {max(lengths)}"):
        ChunkSampler(short, IDENTITY, horizon, form)  # type: ignore[arg-type]


def test_the_reward_range_says_whether_episodes_can_end() -> None:
    found = reward_range(make_trajectories())
    assert (found.minimum, found.maximum, found.can_end) == (1000.0, 1208.0, True)


@pytest.mark.parametrize("form", ["corrected", "paper"])
def test_batches_of_several_generators_are_what_each_draws_alone(form: str) -> None:
    chunks = sampler(3, form)
    together = chunks.sample_each(20, [torch.Generator().manual_seed(seed) for seed in (5, 2)])
    for index, seed in enumerate((5, 2)):
        alone = chunks.sample(20, torch.Generator().manual_seed(seed))
        for field in fields(alone):
            assert torch.equal(getattr(together, field.name)[index], getattr(alone, field.name)), field.name
