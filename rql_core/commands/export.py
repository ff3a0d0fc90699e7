"""`rql export`: what a robot without torch acts by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Write a checkpoint's policy into it as ONNX graphs, and check that they compute what torch computes.

    A finished training has done so. For a checkpoint that is older, or from the middle of a run.

    Example: rql export runs/arm/checkpoint
    """

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """The checkpoint directory, such as RUN/checkpoint."""

    def run(self) -> None:
        """Export, and say what was written."""
        from rql_core.export.checkpoint import export_checkpoint

        exported = export_checkpoint(self.checkpoint)
        done = "written" if exported.changed else "there already"
        print(f"{self.checkpoint}: {', '.join(exported.files)} {done}; at most {exported.difference:.1e} from torch")
