"""Run directories and results as the paper's tasks leave them, without any training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from benchmarks.paper_tasks_plan import Group, Places, Task
from benchmarks.paper_tasks_state import write_result
from rql_core.evaluation.results import EpisodeRecord, Evaluation

PUZZLE, SCENE = Task("puzzle-3x3", 1), Task("scene", 1)
PAPER, CORRECTED = Group(PUZZLE, "paper"), Group(PUZZLE, "corrected")


def make_checkpoint(run: Path, step: int, *, training_state: bool = True, size: int = 10) -> Path:
    """A checkpoint whose files hold nothing but are as its manifest says; the training state has `size` bytes."""
    directory = run / "checkpoints" / f"step-{step:08d}"
    files = {"model.safetensors": b"model", "config.json": b"{}", "stats.safetensors": b"stats"}
    if training_state:
        # What cannot be compressed, as weights cannot.
        noise = b"".join(
            hashlib.sha256(f"{run.name}{step}{count}".encode()).digest() for count in range(size // 32 + 1)
        )
        files |= {"training_state/tensors.safetensors": noise[:size], "training_state/state.json": b"{}"}
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest = {
        "step": step,
        "created": "now",
        "versions": {},
        "metrics": {},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def make_result(
    places: Places, group: Group, seed: int, step: int, successes: int, episodes: int, samples: int = 1
) -> Path:
    """The evaluation of a checkpoint in which so many of the episodes were solved."""
    records = [EpisodeRecord(episode, 10, 0.0, episode < successes) for episode in range(episodes)]
    evaluation = Evaluation(
        "rql", "in_process", records, environment=group.task.name, step=step, training_seed=seed, samples=samples
    )
    path = places.result(group, seed, step, samples)
    write_result(path, evaluation, 1.0)
    return path
