"""Fragments hold the very steps of the data they were cut from, and no task from start to goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rql_core.cli import main
from rql_core.contract import ActionScale, Contract
from rql_core.data.fragments import cut_fragments
from rql_core.data.minari_io import DatasetWriter, load_dataset
from rql_core.data.trajectories import Trajectories
from rql_core.errors import ConfigError, DatasetError
from rql_core.sim import world

STEPS = 15


@pytest.fixture(scope="module")
def dataset(
    play_data: Trajectories, contract: Contract, contract_text: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("data") / "play-v0"
    with DatasetWriter(path, contract_text) as writer:
        for index in range(play_data.episodes):
            observations, actions, rewards, masks = play_data.episode(index)
            physical = ActionScale(contract).physical(actions)
            writer.add(observations, physical, rewards, masks, terminal=index == 0, origin={"episode": index})
        writer.finish({}, {})
    return path


def test_fragments_are_the_datas_own_steps_in_order(dataset: Path, tmp_path: Path) -> None:
    fragments, left_out = cut_fragments(dataset, tmp_path / "cut-v0", STEPS)
    whole, (cut, text, metadata) = load_dataset(dataset)[0], load_dataset(tmp_path / "cut-v0")
    assert fragments == cut.episodes == sum(int(length) // STEPS for length in whole.lengths)
    assert left_out == whole.steps - cut.steps == sum(int(length) % STEPS for length in whole.lengths)
    assert text == load_dataset(dataset)[1]
    assert metadata["fragments"]["fragment_steps"] == STEPS
    number = 0
    for index in range(whole.episodes):
        observations, *rest = whole.episode(index)
        for first in range(0, len(rest[0]) - STEPS + 1, STEPS):
            found = cut.episode(number)
            np.testing.assert_array_equal(found[0], observations[first : first + STEPS + 1])
            for expected, array in zip(rest, found[1:], strict=True):
                np.testing.assert_array_equal(array, expected[first : first + STEPS])
            number += 1


def test_no_fragment_goes_even_half_way_from_start_to_goal(dataset: Path, contract: Contract, tmp_path: Path) -> None:
    cut_fragments(dataset, tmp_path / "cut-v0", STEPS)
    cut = load_dataset(tmp_path / "cut-v0")[0]
    ring = world("planar_arm").ring
    tool = contract.feature_slice("tool_position")
    way = abs(ring.angle(ring.goal_index) - ring.start_angle)
    way = min(way, 2 * np.pi - way)
    for index in range(cut.episodes):
        x, y = (cut.episode(index)[0][:, tool][:, :2] - np.array(ring.center)[:2]).T
        angles = np.unwrap(np.arctan2(y, x))
        assert abs(angles[-1] - angles[0]) < way / 2


def test_an_end_that_was_a_terminal_stays_one(dataset: Path, tmp_path: Path) -> None:
    import minari

    cut_fragments(dataset, tmp_path / "cut-v0", 250)
    storage = minari.dataset.minari_storage.MinariStorage.read(tmp_path / "cut-v0" / "data")
    ends = [bool(episode["terminations"][-1]) for episode in storage.get_episodes(range(storage.total_episodes))]
    assert ends == [False, True, *[False] * 6]


def test_what_cannot_be_cut_is_refused_and_nothing_is_left(dataset: Path, tmp_path: Path) -> None:
    for steps, words in ((0, "steps is 0"), (501, "steps is 501, but the longest episode .* has 500")):
        with pytest.raises(ConfigError, match=words):
            cut_fragments(dataset, tmp_path / "cut-v0", steps)
    with pytest.raises(DatasetError, match="no dataset there"):
        cut_fragments(tmp_path / "nothing-v0", tmp_path / "cut-v0", STEPS)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_made(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fragment", str(dataset), "--out", str(tmp_path / "cut-v0")]) == 0
    assert "132 fragments of 15 steps, 20 steps left out" in capsys.readouterr().out
