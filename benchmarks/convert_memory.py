"""The peak memory of a conversion by the size of the bag: whether it grows, and what it comes to."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from benchmarks.bench_convert import GB, OUT, peak_mb
from benchmarks.synthetic_bags import DENSE, FIELD
from rql_core.bags.writer import Storage

RATES = {"field": FIELD, "dense": DENSE}


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one bag of each size, each in a process of its own, and print its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0], help="GB")
    parser.add_argument("--storage", choices=get_args(Storage), default="mcap")
    parser.add_argument("--rates", choices=RATES, default="field")
    parser.add_argument("--folder", type=Path, default=OUT, help="where bags are written for a while")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    measured: list[tuple[float, float]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            measured.append(peak_mb(Path(place).resolve(), options.storage, round(size * GB), RATES[options.rates]))
        gigabytes, peak = measured[-1]
        slope = "" if len(measured) == 1 else f", {(peak - measured[0][1]) / (gigabytes - measured[0][0]):.1f} MB a GB"
        print(f"{options.storage}, {options.rates}: {gigabytes:.2f} GB, peak {peak:.0f} MB{slope}", flush=True)


if __name__ == "__main__":
    main()
