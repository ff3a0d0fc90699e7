"""`rql fragment`: a dataset whose episodes are short pieces of another's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Fragment:
    """Cut a dataset's episodes into short fragments, to see whether a learner can put tasks together from pieces.

    Example: rql fragment datasets/planar_arm-v0 --steps 15 --out datasets/stitching-v0
    """

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Dataset directory."""
    out: Path
    """Dataset directory to write; its name must end in -v0, -v1, ... as Minari's do."""
    steps: int = 15
    """Steps of each fragment; what is left of an episode at its end is left out."""
    overwrite: bool = False
    """Replace a dataset that is there."""

    def run(self) -> None:
        """Cut and say how many fragments there are."""
        from rql_core.data.fragments import cut_fragments

        fragments, left_out = cut_fragments(self.dataset, self.out, self.steps, overwrite=self.overwrite)
        print(f"{self.out}: {fragments} fragments of {self.steps} steps, {left_out} steps left out")
