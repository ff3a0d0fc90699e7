"""`rql convert`: bags to a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Convert:
    """Turn rosbag2 recordings into a Minari dataset, by a contract.

    Interrupted, the same command goes on where it stopped: bags that were finished are not read again. The dataset is
    the same however many workers made it, here or on a cluster.

    Example: rql convert recordings/ --contract ur5e --out datasets/ur5e-v0 --workers 4
    Example: rql convert /shared/bags --contract ur5e --out /shared/ur5e-v0 --engine ray --address ray://head:10001
    """

    bags: Annotated[Positional[list[Path]], arg(metavar="BAG ...")]
    """Bag directories, directories of bags, or loose .mcap and .db3 files."""
    contract: str
    """A contract file, or the name of one that comes with the project (ur5e, planar_arm)."""
    out: Path
    """Dataset directory to write; its name must end in -v0, -v1, ... as Minari's do."""
    overwrite: bool = False
    """Replace a dataset that is there."""
    strict: bool = False
    """Fail when the data is past a bound of the contract's `quality`; the dataset and its report are written anyway."""
    bad_bags: Literal["stop", "skip"] | None = None
    """A bag that is damaged or does not keep to the contract stops the conversion, or is skipped and named in the
    report. Without this option, as the contract's `quality` says."""
    workers: int | None = None
    """How many bags to convert at once. Without it: one here, as many as there are CPUs on a cluster."""
    engine: Literal["local", "ray"] = "local"
    """ray: on a Ray cluster, whose machines share the bags and the output's directory (needs the extra 'cluster')."""
    address: str | None = None
    """The Ray cluster's address, such as auto or ray://HOST:10001; without it Ray is started on this machine."""

    def run(self) -> None:
        """Convert and print the report."""
        from rql_core.bags.convert import convert
        from rql_core.errors import DatasetError
        from rql_core.resources import config_file

        contract = config_file("contracts", self.contract)
        report = convert(
            self.bags,
            contract,
            self.out,
            overwrite=self.overwrite,
            workers=self.workers,
            engine=self.engine,
            address=self.address,
            bad_bags=self.bad_bags,
        )
        print(report.text())
        if self.strict and report.broken:
            broken = "; ".join(
                f"{each.name} is {each.value:.4g}, set {each.bound:g} ({each.where})" for each in report.broken
            )
            raise DatasetError(f"{self.out}: past the contract's bounds: {broken}; look at {self.out / 'report.html'}")
