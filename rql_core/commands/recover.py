"""`rql recover`: a readable copy of an unfinished bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Recover:
    """Make a readable bag of one whose recorder was killed: whole messages are kept, the cut one is left out.

    Example: rql recover recordings/run_0002 recordings/run_0002_whole
    """

    source: Annotated[Positional[Path], arg(metavar="BAG")]
    """The unfinished bag."""
    destination: Annotated[Positional[Path], arg(metavar="COPY")]
    """Where the readable copy goes."""

    def run(self) -> None:
        """Recover and say what was kept."""
        from rql_core.bags.recover import recover_bag

        kept = recover_bag(self.source, self.destination)
        print(f"{kept.path}: {kept.messages} messages kept")
        if kept.damage:
            cut = f", {kept.bytes_cut} bytes cut" if kept.bytes_cut else ""
            print(f"it was damaged: {kept.damage}{cut}")
        for topic, count in kept.not_cdr.items():
            print(f"left out: {count} messages on {topic}, which are not CDR or of no type")
