"""A point in a square that play data moves about at random: little of it goes to the goal, but it can be stitched."""

from __future__ import annotations

import numpy as np

from rql_core.data import Trajectories
from rql_core.training import Policy

GOAL = np.array([0.7, 0.7], np.float32)
RADIUS = 0.2
SPEED = 0.15


def play(episodes: int, steps: int, seed: int) -> Trajectories:
    """Walk towards way-points drawn anywhere; reward 0 and a mask of 0 at the goal, else -1, and play goes on."""
    generator = np.random.default_rng(seed)
    recorded = []
    for _ in range(episodes):
        position, target = generator.uniform(-1, 1, 2), generator.uniform(-1, 1, 2)
        observations, actions = [position], []
        for _ in range(steps):
            if np.linalg.norm(target - position) < 0.2:
                target = generator.uniform(-1, 1, 2)
            direction = (target - position) / np.linalg.norm(target - position)
            action = np.clip(direction + 0.3 * generator.standard_normal(2), -1, 1)
            position = np.clip(position + SPEED * action, -1, 1)
            observations.append(position)
            actions.append(action)
        reached = np.linalg.norm(np.array(observations[1:]) - GOAL, axis=1) < RADIUS
        recorded.append((np.array(observations), np.array(actions), reached - 1.0, 1.0 - reached))
    return Trajectories.from_episodes(recorded)


def success_rate(policy: Policy, episodes: int = 200, steps: int = 18) -> float:
    """Return how often the goal is reached from a start anywhere; 18 steps are just over the longest straight way."""
    generator = np.random.default_rng(1)
    position = generator.uniform(-1, 1, (episodes, 2)).astype(np.float32)
    reached = np.zeros(episodes, dtype=bool)
    for _ in range(steps // policy.horizon):
        chunk = policy.sample(position, generator)
        for step in range(policy.horizon):
            position = np.clip(position + np.float32(SPEED) * chunk[:, step], -1, 1)
            reached |= np.linalg.norm(position - GOAL, axis=1) < RADIUS
    return float(reached.mean())
