"""`rql relabel`: a dataset with another reward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Relabel:
    """Label a dataset's episodes with another reward, without reading bags again.

    Example: rql relabel datasets/arm-v0 --out datasets/arm-v1 --reward "-1 + (hypot(tip.x - 0.4, tip.y - 0.22) < 0.04)"
    """

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Dataset directory; it stays as it is."""
    reward: str
    """A contract file, whose reward and success are taken, or an expression over the dataset's features. One that
    begins with a minus is written --reward=-tip.z."""
    out: Path
    """Dataset directory to write; its name must end in -v0, -v1, ... as Minari's do."""
    success: str | None = None
    """A condition over features that says when the task is solved; without it, as the contract says."""
    overwrite: bool = False
    """Replace a dataset that is there."""

    def run(self) -> None:
        """Label and say what changed."""
        from rql_core.bags.relabel import relabel

        made = relabel(self.dataset, self.reward, self.out, success=self.success, overwrite=self.overwrite)
        print(f"{made.path}: {made.episodes} episodes, {made.steps} steps, {made.changed_steps} labelled differently")
        print(
            f"success in {made.episodes_with_success} episodes, {made.solved_steps} steps solved, "
            f"return mean {made.mean_return:.4g} ({made.lowest_return:.4g} to {made.highest_return:.4g})"
        )
        if made.dropped_steps:
            print(f"left out: {made.dropped_steps} steps after success, {made.dropped_episodes} whole episodes")
