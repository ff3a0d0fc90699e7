"""`rql convert`: bags to a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Convert:
    """Turn rosbag2 recordings into a Minari dataset, by a contract.

    Example: rql convert recordings/ --contract ur5e --out datasets/ur5e-v0
    """

    bags: Annotated[Positional[list[Path]], arg(metavar="BAG ...")]
    """Bag directories, directories of bags, or loose .mcap and .db3 files."""
    contract: str
    """A contract file, or the name of one that comes with the project (ur5e, planar_arm)."""
    out: Path
    """Dataset directory to write; its name must end in -v0, -v1, ... as Minari's do."""
    overwrite: bool = False
    """Replace a dataset that is there."""

    def run(self) -> None:
        """Convert and print the report."""
        from rql_core.bags.convert import convert
        from rql_core.resources import config_file

        report = convert(self.bags, config_file("contracts", self.contract), self.out, overwrite=self.overwrite)
        print(report.text())
