"""Run directories written by hand, for the tests of comparisons: what training and evaluation would leave behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_run(
    path: Path,
    *,
    seed: int = 0,
    algorithm: Mapping[str, Any] | None = None,
    rates: Sequence[float] = (0.2, 0.5, 0.8),
    episodes: int | None = 50,
    every: int = 1000,
    updates: int | None = None,
    evaluation: Mapping[str, Any] | None = None,
    losses: bool = True,
    **settings: Any,
) -> Path:
    """A run that was evaluated every `every` updates with these success rates; `settings` go into train.json."""
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "algorithm": {"algorithm": "rql", "form": "corrected", "kappa": 0.9, "actor_hidden": [8, 8]}
        if algorithm is None
        else dict(algorithm),
        "updates": every * len(rates) if updates is None else updates,
        "seed": seed,
        "log_every": every,
        **settings,
    }
    (path / "train.json").write_text(json.dumps(config))
    rows: list[dict[str, Any]] = []
    for index, rate in enumerate(rates, 1):
        step = index * every
        if losses:
            rows.append(
                {"step": step, "critic_loss": 3 / index, "value": -float(index) - seed / 10, "seconds": step / 10}
            )
        row = {"step": step, "evaluation/success_rate": rate, "evaluation/mean_steps": 100 - 50 * rate}
        if episodes is not None:
            row["evaluation/episodes"] = float(episodes)
        rows.append(row)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if evaluation is not None:
        (path / "evaluation.json").write_text(json.dumps(evaluation))
    return path


def records(successes: int, episodes: int, **others: Any) -> dict[str, Any]:
    """What evaluation.json holds: so many successes among so many episodes."""
    listed = [
        {"seed": index, "steps": 40, "total_reward": -39.0, "success": index < successes, "path": []}
        for index in range(episodes)
    ]
    return {"controller": "rql", "over": "in_process", "records": listed, **others}


def learning(final: float, points: int, seed: int, episodes: int = 50) -> list[float]:
    """Success rates that rise to `final`, with the noise of so many episodes."""
    generator = np.random.default_rng(seed)
    chances = final / (1 + np.exp(-10 * (np.linspace(0, 1, points) - 0.4)))
    return [float(generator.binomial(episodes, chance)) / episodes for chance in np.clip(chances, 0, 1)]
