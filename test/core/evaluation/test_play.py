"""Play made in process: what training reads, the world's own observations and the contract's rewards, by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rql_core.contract import Contract, RewardRule
from rql_core.data.minari_io import load_dataset
from rql_core.errors import ConfigError, DatasetError
from rql_core.evaluation.play import CONTRACTS, PlayRecorder, record_play
from rql_core.sim import WORLD_NAMES, make_world


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_play_is_a_dataset_that_training_reads(world: str, tmp_path: Path) -> None:
    summary = record_play(world, tmp_path / "play-v0", episodes=3, steps=12, seed=4, progress=False)
    trajectories, text, metadata = load_dataset(tmp_path / "play-v0")
    assert (summary.episodes, summary.steps) == (3, 36)
    np.testing.assert_array_equal(trajectories.lengths, [12, 12, 12])
    assert f"name: {CONTRACTS[world]}" in text
    assert metadata["made_by"] == "rql generate"
    assert metadata["settings"] == metadata["settings"] | {"world": world, "episodes": 3, "steps": 12, "seed": 4}
    starts = trajectories.observations[trajectories.observation_offsets]
    assert len(np.unique(starts[:, 0])) == 3  # every episode starts elsewhere


def test_the_same_actions_give_the_same_observations_in_the_world_itself(contract: Contract) -> None:
    observations, actions = PlayRecorder("planar_arm", contract, 30).play(11, 12)
    world = make_world("planar_arm", terminate_on_success=False, max_episode_steps=30)
    expected = [world.reset(seed=11, options={"start": "anywhere"})[0]]
    expected += [world.step(action)[0] for action in actions]
    np.testing.assert_array_equal(observations, np.stack(expected))


def test_episodes_follow_from_their_seeds_alone(contract: Contract) -> None:
    recorder = PlayRecorder("planar_arm", contract, 20)
    first = recorder.play(1, 2)
    recorder.play(3, 4)
    for again, before in zip(recorder.play(1, 2), first, strict=True):
        np.testing.assert_array_equal(again, before)
    assert not np.array_equal(recorder.play(1, 5)[1], first[1])


def test_the_same_seed_gives_the_same_data_and_another_one_others(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a-v0", 0), ("b-v0", 0), ("c-v0", 1)):
        record_play("planar_arm", tmp_path / name, episodes=2, steps=10, seed=seed, progress=False)
        hashes.append(load_dataset(tmp_path / name)[2]["content_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_goes_on_after_success_and_the_contract_labels_the_rewards(contract: Contract, tmp_path: Path) -> None:
    summary = record_play("planar_arm", tmp_path / "play-v0", episodes=6, steps=200, seed=0, progress=False)
    trajectories, _, _ = load_dataset(tmp_path / "play-v0")
    assert 0 < summary.successes == (trajectories.masks == 0).sum()
    assert f"6 episodes, 1200 steps, {summary.successes / 1200:.1%} of them at the goal" in summary.text()
    rule = RewardRule(contract)
    for index in range(6):
        observations, actions, rewards, masks = trajectories.episode(index)
        assert len(actions) == 200
        np.testing.assert_array_equal(rewards, rule.label(observations)[0])
        np.testing.assert_array_equal(masks, rule.label(observations)[1])
    # The walk uses a good part of the joints' range, and is written in physical units.
    assert 0.3 < np.abs(trajectories.actions).mean() < 0.8


def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "play-v0"
    for change, message in (
        ({"steps": 5}, "steps is 5, expected at least 8, the min_steps of contract 'planar_arm'"),
        ({"episodes": 0}, "episodes is 0, expected at least 1"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            record_play("planar_arm", out, **{"episodes": 1, "steps": 10, "progress": False, **change})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="world is 'moon'; expected one of planar_arm, ur5e_ring"):
        record_play("moon", out, episodes=1, steps=10)
    with pytest.raises(DatasetError, match="expected name-vN"):
        record_play("planar_arm", tmp_path / "play", episodes=1, steps=10, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_is_there_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "play-v0"
    record_play("planar_arm", out, episodes=1, steps=10, progress=False)
    with pytest.raises(DatasetError, match="exists already"):
        record_play("planar_arm", out, episodes=2, steps=10, progress=False)
    record_play("planar_arm", out, episodes=2, steps=10, overwrite=True, progress=False)
    assert load_dataset(out)[0].episodes == 2
