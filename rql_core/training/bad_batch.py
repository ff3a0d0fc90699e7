"""The batch at which training broke down: which chunks it held, and which of its numbers is the most extreme."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rql_core.data.chunks import ChunkSampler
from rql_core.training.metrics import NotFinite
from rql_core.whole_files import write_whole


@dataclass(frozen=True)
class BadBatch:
    """Where each chunk of a batch starts: ``steps[i]`` of ``episodes[i]``, in the order of the batch."""

    update: int
    reason: str
    shard: int
    episodes: list[int]
    steps: list[int]
    extremes: dict[str, dict[str, float]]
    """Of observations, actions and rewards: the greatest size in the batch, and the row and column it is at."""

    @classmethod
    def find(
        cls, sampler: ChunkSampler, batch_size: int, generator: torch.Generator, error: NotFinite, shard: int
    ) -> BadBatch:
        """Draw the batch again, with a generator in the state that it was drawn with."""
        state = generator.get_state()
        episodes, steps = sampler.locate(batch_size, generator)
        generator.set_state(state)
        batch = sampler.sample(batch_size, generator)
        extremes = {}
        for name in ("observations", "actions", "rewards", "next_observations"):
            sizes = getattr(batch, name).abs()
            row, column = divmod(int(sizes.argmax()), sizes.shape[1])
            extremes[name] = {"size": float(sizes[row, column]), "row": row, "column": column}
        return cls(error.update, str(error), shard, episodes, steps, extremes)

    def summary(self) -> str:
        """One phrase that says where to look."""
        extreme = self.extremes["observations"]
        row = int(extreme["row"])
        first = ", ".join(f"{episode}:{step}" for episode, step in zip(self.episodes[:3], self.steps[:3], strict=True))
        return (
            f"its batch has {len(self.episodes)} chunks (episode:step {first}, ...), and its most extreme observation "
            f"(normalised {extreme['size']:.3g}, number {int(extreme['column'])}) is at episode {self.episodes[row]}, "
            f"step {self.steps[row]}"
        )

    def write(self, path: Path) -> None:
        """Write as JSON, beside and then renamed."""
        write_whole(path, json.dumps(asdict(self)))
