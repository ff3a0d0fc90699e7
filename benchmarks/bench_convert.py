"""How fast bags are converted: beside plain `rosbags` decoding of the same messages, and with two workers beside one.

What is compared is measured in turns, bag pair by bag pair. Times of one process are CPU times, which other work on
the machine disturbs little; times of two workers can only be wall times, and are worth something on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from benchmarks.synthetic_bags import DENSE, FIELD, Rates, bytes_of, contract_text, seconds_for, write_bag
from rql_core.bags import convert
from rql_core.bags.software import software_versions
from rql_core.bags.writer import Storage

OUT = Path("build/bench")
GB = 10**9
# Bags are converted in pairs, one for each of two workers; a pair is a turn.
PAIR = 2
# What every message is of a tick of its own is slower; a tenth of the size is enough to show how much.
DENSE_SHARE = 0.1
# The memory for a bag ten times as large is told from the slope between the whole size and this share of it.
SMALLER = 0.25
TOLD_GB = 10


@dataclass
class Times:
    """Seconds of the same work, added up over all turns: by the clock, of this process' CPU, and of its children's."""

    wall: float = 0.0
    cpu: float = 0.0
    children_cpu: float = 0.0

    def add(self, work: Callable[[], object]) -> None:
        """Do the work and count its times."""
        children = _children_cpu()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.children_cpu += _children_cpu() - children


@dataclass
class Measured:
    """One storage and mix of rates."""

    bytes: int = 0
    messages: int = 0
    plain: Times = field(default_factory=Times)
    one: Times = field(default_factory=Times)
    two: Times = field(default_factory=Times)

    @property
    def to_plain(self) -> float:
        """Rate of conversion on one core by the rate of plain decoding."""
        return self.plain.cpu / self.one.cpu

    @property
    def two_to_one(self) -> float:
        """Rate of two workers by the rate of one, by the clock."""
        return self.one.wall / self.two.wall

    @property
    def two_to_one_cpu(self) -> float:
        """What it would be on two idle cores: this process' CPU time, and half of the workers'."""
        return self.one.cpu / (self.two.cpu + self.two.children_cpu / PAIR)

    def summary(self) -> dict[str, Any]:
        """All figures."""
        gigabytes = self.bytes / GB
        return {
            "bytes": self.bytes,
            "messages": self.messages,
            "messages_per_cpu_second": {
                "plain_decoding": round(self.messages / self.plain.cpu),
                "one_core": round(self.messages / self.one.cpu),
            },
            "messages_per_second_two_workers": round(self.messages / self.two.wall),
            "seconds_per_gb": {
                "plain_decoding": self.plain.cpu / gigabytes,
                "one_core": self.one.cpu / gigabytes,
                "two_workers": self.two.wall / gigabytes,
            },
            "one_core_to_plain_decoding": self.to_plain,
            "two_workers_to_one": self.two_to_one,
            "two_workers_to_one_by_cpu_time": self.two_to_one_cpu,
            "times": {name: asdict(getattr(self, name)) for name in ("plain", "one", "two")},
        }


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def decode_plainly(bags: Sequence[Path]) -> int:
    """Decode all messages as the documentation of rosbags shows it; returns how many there were."""
    messages = 0
    for bag in bags:
        with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
            for connection, _, raw in reader.messages():
                reader.deserialize(raw, connection.msgtype)
                messages += 1
    return messages


def measure(folder: Path, storage: Storage, rates: Rates, size: int, pairs: int) -> Measured:
    """Write `pairs` pairs of bags, together about `size` bytes, and time everything on one pair after another."""
    measured = Measured()
    contract = folder / "contract.yaml"
    contract.write_text(contract_text(rates))
    seconds = max(2, seconds_for(folder, storage, size, rates) // (PAIR * pairs))
    for pair in range(pairs):
        bags = [folder / f"pair_{pair}" / f"bag_{i}" for i in range(PAIR)]
        bags[0].parent.mkdir()
        for i, bag in enumerate(bags):
            measured.messages += write_bag(bag, storage, seconds, rates, first_second=(PAIR * pair + i) * seconds)
            measured.bytes += bytes_of(bag)
        measured.plain.add(lambda bags=bags: decode_plainly(bags))  # type: ignore[misc]
        one = _converted(measured.one, bags, contract, folder / f"one-v{pair}", 1)
        two = _converted(measured.two, bags, contract, folder / f"two-v{pair}", PAIR)
        if one != two:
            raise SystemExit(f"{storage}: two workers made another dataset than one")
        shutil.rmtree(bags[0].parent)
        _say(f"{storage}, {rates}: pair {pair + 1} of {pairs}")
    return measured


def _converted(times: Times, bags: Sequence[Path], contract: Path, output: Path, workers: int) -> str:
    """Convert and throw away; returns the hash of what was in the dataset."""
    hashes: list[str] = []
    times.add(lambda: hashes.append(convert(bags, contract, output, workers=workers, progress=False).content_sha256))
    shutil.rmtree(output)
    return hashes[0]


def peak_mb(folder: Path, storage: Storage, size: int, rates: Rates) -> tuple[float, float]:
    """Convert one bag of about `size` bytes in a process of its own; returns its size in GB and that process' MB."""
    bag, output = folder / "large", folder / "large-v0"
    write_bag(bag, storage, seconds_for(folder, storage, size, rates), rates)
    contract = folder / "contract.yaml"
    contract.write_text(contract_text(rates))
    arguments = ["-m", "rql_core.cli", "convert", str(bag), "--contract", str(contract), "--out", str(output)]
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{bag}: the conversion ended with status {process.returncode}")
    gigabytes = bytes_of(bag) / GB
    shutil.rmtree(bag)
    shutil.rmtree(output)
    return gigabytes, used.ru_maxrss * 1024 / 10**6


def run(folder: Path, size: int, pairs: int) -> dict[str, Any]:
    """Everything; the dictionary is what is written as JSON."""
    storages: tuple[Storage, ...] = get_args(Storage)
    rows: dict[str, Measured] = {}
    for storage in storages:
        rows[storage] = _in_place(folder, lambda place, storage=storage: measure(place, storage, FIELD, size, pairs))  # type: ignore[misc]
    dense = _in_place(folder, lambda place: measure(place, "mcap", DENSE, round(size * DENSE_SHARE), 1))
    memory = {
        storage: [
            _in_place(
                folder, lambda place, storage=storage, share=share: peak_mb(place, storage, round(size * share), FIELD)
            )  # type: ignore[misc]
            for share in (SMALLER, 1.0)
        ]
        for storage in storages
    }
    return {
        "ratios": {
            "one_core_to_plain_decoding": min(row.to_plain for row in rows.values()),
            "two_workers_to_one": min(row.two_to_one for row in rows.values()),
            "two_workers_to_one_by_cpu_time": min(row.two_to_one_cpu for row in rows.values()),
        },
        "seconds_per_gb": {
            f"{storage}_{name}": seconds
            for storage, row in rows.items()
            for name, seconds in row.summary()["seconds_per_gb"].items()
        },
        "peak_mb": max(points[-1][1] for points in memory.values()),
        "memory": {storage: _memory(points) for storage, points in memory.items()},
        "rates": {"field": asdict(FIELD), "dense": asdict(DENSE)},
        "field": {storage: row.summary() for storage, row in rows.items()},
        "dense": {"mcap": dense.summary()},
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load_average": os.getloadavg(),
            **software_versions(),
        },
    }


def _memory(points: list[tuple[float, float]]) -> dict[str, Any]:
    (small, small_mb), (large, large_mb) = points
    slope = (large_mb - small_mb) / (large - small)
    return {
        "gb_and_peak_mb": points,
        "mb_per_gb": slope,
        f"told_mb_for_{TOLD_GB}_gb": large_mb + slope * (TOLD_GB - large),
    }


def _in_place(folder: Path, work: Callable[[Path], Any]) -> Any:
    """Do the work in a directory of its own, which is then removed."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return work(Path(place))


def table(result: dict[str, Any]) -> str:
    """The result as a page to read."""
    lines = [f"{'':16s}{'GB':>7s}{'messages':>11s}{'plain/s':>10s}{'convert/s':>11s}{'ratio':>7s}{'2 workers':>11s}"]
    rows = {**result["field"], "dense, mcap": result["dense"]["mcap"]}
    for name, row in rows.items():
        rate = row["messages_per_cpu_second"]
        lines.append(
            f"{name:16s}{row['bytes'] / GB:7.3f}{row['messages']:11d}{rate['plain_decoding']:10d}{rate['one_core']:11d}"
            f"{row['one_core_to_plain_decoding']:7.2f}{row['two_workers_to_one']:8.2f} x"
            f"  (by CPU time {row['two_workers_to_one_by_cpu_time']:.2f})"
        )
    for name, memory in result["memory"].items():
        points = ", ".join(f"{gb:.2f} GB: {mb:.0f} MB" for gb, mb in memory["gb_and_peak_mb"])
        told = memory[f"told_mb_for_{TOLD_GB}_gb"]
        lines.append(f"peak memory, {name}: {points}; by their slope {told:.0f} MB for {TOLD_GB} GB")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="GB of bags a storage")
    # A worker takes half a second to start, in every turn: a quarter of a GB each takes twenty times as long.
    parser.add_argument("--pairs", type=int, default=2, help="in so many turns of two bags each")
    parser.add_argument("--folder", type=Path, default=OUT, help="where bags are written for a while")
    parser.add_argument("--out", type=Path, default=OUT / "convert.json")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    result = run(options.folder.resolve(), round(options.size * GB), options.pairs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
