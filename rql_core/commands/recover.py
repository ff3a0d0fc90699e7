"""`rql recover`: a readable copy of an unfinished bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Recover:
    """Make a readable bag of one whose recorder was killed: whole messages are kept, the cut one is left out."""

    source: Positional[Path]
    """The unfinished bag."""
    destination: Positional[Path]
    """Where the readable copy goes."""

    def run(self) -> None:
        """Recover and say what was kept."""
        from rql_core.bags.recover import recover_bag

        print(recover_bag(self.source, self.destination))
