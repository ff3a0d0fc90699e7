"""The benchmark of inference delay: a delay is what it says, and the table counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")
from inference_delay import MODES, Block, Episode, against, run_episode, summarise, table

from rql_core.contract import load_contract
from rql_core.evaluation.rollout import contract_session
from rql_core.resources import config_file
from rql_core.runtime.plan import Guide, Plan


class Still:
    """A policy that says in each action how many chunks it has made, and does next to nothing."""

    horizon = 6

    def __init__(self) -> None:
        self.contract = load_contract(config_file("contracts", "planar_arm"))
        self.guides: list[Guide | None] = []

    def reset(self, seed: int | None) -> None:
        self.guides.clear()

    def plan(self, observation: Any, guide: Guide | None = None) -> Plan:
        self.guides.append(guide)
        return Plan(np.full((self.horizon, self.contract.action_dim), 1e-6 * len(self.guides)))


@pytest.fixture(scope="module")
def session() -> Any:
    return contract_session(load_contract(config_file("contracts", "planar_arm")), "planar_arm", max_episode_steps=24)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("delay", [0, 2])
def test_the_robot_waits_for_the_first_plan_and_never_again(session: Any, mode: str, delay: int) -> None:
    policy = Still()
    episode = run_episode(session, policy, Block(Path(), mode, delay, (), 0), 3)
    assert (episode.steps, episode.success) == (24, False)
    assert (episode.waited, episode.starved) == (delay, 0)
    assert episode.plans == len(policy.guides)
    assert len(episode.moves) == 24 - delay - 1
    held = [guide is not None for guide in policy.guides]
    assert held == [mode.startswith("rtc") and number > 0 for number in range(episode.plans)]
    # Open loop: 6 steps a chunk, of which the delay is over when it comes; the others ask after 3 steps, or at once.
    every = {"open_loop": 6 - delay, "ensemble": max(1, delay)}.get(mode, 3)
    assert episode.plans == -(-24 // every)


def test_a_delay_that_no_chunk_survives_starves(session: Any) -> None:
    episode = run_episode(session, Still(), Block(Path(), "receding", 7, (), 0), 3)
    assert (episode.waited, episode.starved) == (24, 0)
    # It arrives with its last step, again and again.
    episode = run_episode(session, Still(), Block(Path(), "receding", 5, (), 0), 3)
    assert (episode.waited, episode.starved) == (5, 15)


def episode(mode: str, delay: int, seed: int, *, success: bool, steps: int, seams: list[float]) -> Episode:
    return Episode(mode, delay, seed, success, steps, 1, 2, 3, seams, [0.1, 0.1], [0.3, 0.4])


def test_the_table_counts_episodes_cells_and_pairs() -> None:
    episodes = [
        episode("receding", 2, 0, success=True, steps=40, seams=[0.2]),
        episode("receding", 2, 1, success=True, steps=60, seams=[0.4]),
        episode("rtc_prefix", 2, 0, success=True, steps=50, seams=[0.1]),
        episode("rtc_prefix", 2, 1, success=False, steps=100, seams=[0.1]),
    ]
    rows = summarise(episodes, 0.05)
    assert [(row["mode"], row["delay_ms"], row["success"], row["completion_s"]) for row in rows] == [
        ("receding", 100, 1.0, 2.5),
        ("rtc_prefix", 100, 0.5, 2.5),
    ]
    assert rows[0]["seam_mean"] == pytest.approx(0.3)
    assert rows[0]["move_rms"] == pytest.approx(np.sqrt(0.125))
    assert rows[1]["plans_per_s"] == pytest.approx(6 / 7.5)
    assert "| receding | 100 | 1.00 (0.34 to 1.00) | 2.50 | 0.300, 0.390, 0.400 | 3.9 |" in table(rows)
    assert "only the former 1, only the latter 0, p 1" in against(episodes, "receding", "rtc_prefix")
