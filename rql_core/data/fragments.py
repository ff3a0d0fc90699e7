"""Cut episodes into short fragments, so that none shows a whole task: what learns from them must stitch.

Every step of a fragment is one of the data's; only the knowledge that one fragment went on into the next is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rql_core.data.minari_io import DatasetWriter, dataset_directory, load_dataset
from rql_core.errors import ConfigError


def cut_fragments(source: Path, destination: Path, steps: int, *, overwrite: bool = False) -> tuple[int, int]:
    """Write each episode's consecutive fragments of ``steps`` steps as episodes; return how many, and steps left over.

    What remains at an episode's end and is shorter is left out.  Raises ConfigError or DatasetError.
    """
    from minari.dataset.minari_storage import MinariStorage

    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected at least 1")
    trajectories, contract_text, metadata = load_dataset(source)  # which checks every number
    if int(trajectories.lengths.max()) < steps:
        raise ConfigError(f"steps is {steps}, but the longest episode of {source} has {trajectories.lengths.max()}")
    storage = MinariStorage.read(dataset_directory(source) / "data")
    with DatasetWriter(destination, contract_text, overwrite=overwrite) as writer:
        for index, episode in enumerate(storage.get_episodes(range(storage.total_episodes))):
            masks = _masks(episode)
            (about_it,) = storage.get_episode_metadata([index])
            for first in range(0, len(masks) - steps + 1, steps):
                rows = slice(first, first + steps)
                ends = first + steps == len(masks) and bool(episode["terminations"][-1])
                writer.add(
                    np.ascontiguousarray(episode["observations"][first : first + steps + 1]),
                    np.ascontiguousarray(episode["actions"][rows]),
                    np.ascontiguousarray(episode["rewards"][rows], dtype=np.float32),
                    np.ascontiguousarray(masks[rows]),
                    terminal=ends,
                    origin={"episode": index, "first_step": first, **_end(about_it, masks, rows)},
                )
        episodes, kept = writer.episodes, writer.steps
        about = {
            "source": str(source),
            "source_content_sha256": metadata.get("content_sha256"),
            "fragment_steps": steps,
        }
        writer.finish({"fragments": about}, {})
    return episodes, trajectories.steps - kept


def _end(about: dict[str, Any], masks: np.ndarray, rows: slice) -> dict[str, str | int]:
    """Why the fragment ends and how many of its steps solve the task, as far as the episode says it of itself."""
    if not {"cut", "solved_steps"} <= about.keys():
        return {}
    last = rows.stop == len(masks)
    # The last mask of an episode is 0 also where a terminal end was no success.
    unsolved = int((masks == 0).sum()) - int(about["solved_steps"]) if last else 0
    return {
        "cut": str(about["cut"]) if last else "fragment",
        "solved_steps": int((masks[rows] == 0).sum()) - unsolved,
    }


def _masks(episode: dict[str, Any]) -> np.ndarray:
    infos = episode.get("infos") or {}
    masks = infos["mask"] if "mask" in infos else 1.0 - episode["terminations"]
    return np.asarray(masks, dtype=np.float32)
