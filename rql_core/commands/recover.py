"""`rql recover`: a readable copy of an unfinished bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Recover:
    """Make a readable bag of one whose recorder was killed: whole messages are kept, the cut one is left out."""

    source: Annotated[Positional[Path], arg(metavar="BAG")]
    """The unfinished bag."""
    destination: Annotated[Positional[Path], arg(metavar="COPY")]
    """Where the readable copy goes."""

    def run(self) -> None:
        """Recover and say what was kept."""
        from rql_core.bags.recover import recover_bag

        print(recover_bag(self.source, self.destination))
