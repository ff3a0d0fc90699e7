"""Bags to a Minari dataset: all of it or nothing, with a report.

A message that breaks the contract, a topic that is missing or too slow, or a bag without a usable step stops the
conversion: data that is quietly half wrong costs more than an error.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import rql_core
from rql_core.bags.episodes import Episode, EpisodeCutter
from rql_core.bags.reader import BagReader, find_bags
from rql_core.bags.recover import storage_files
from rql_core.bags.report import BagReport, ConversionReport, DatasetStatistics, TopicReport
from rql_core.contract.episode_schema import End
from rql_core.contract.load import parse_contract, read_contract_text
from rql_core.contract.messages import event_stamp
from rql_core.contract.schema import Contract, Linear, MarkerBoundary
from rql_core.contract.time import NANOSECONDS
from rql_core.data.minari_io import DatasetWriter
from rql_core.errors import BagError, ContractError
from rql_core.progress import progress_bar

# A topic at the control rate has a median period of one control period; 1.5 is midway to every second message missing.
_SLOWEST_PERIODS = 1.5
# The median of fewer periods says nothing about a rate.
_FEWEST_PERIODS = 5
# Telling the progress bar of every message would cost as much as a tenth of reading it.
_PROGRESS_MESSAGES = 1000


def convert(
    bags: Path | str | Iterable[Path | str],
    contract_path: Path | str,
    output: Path | str,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> ConversionReport:
    """Convert `bags` (see find_bags) by the contract to the Minari dataset `output`, and report.

    `output` is a directory `.../name-vN`, or a bare `name-vN` for a dataset below Minari's own root. The dataset holds
    physical float32 observations and float64 actions; report.json and report.txt lie in its directory beside `data/`.

    Raises BagError, ContractError or DatasetError; then nothing is left at `output`, and an older dataset there stays.
    """
    text = read_contract_text(contract_path)
    contract = parse_contract(text, str(contract_path))
    paths = find_bags([bags] if isinstance(bags, str | Path) else bags)
    if not paths:
        raise BagError("no bags were given; give at least one bag directory or file")
    statistics = DatasetStatistics(contract)
    reports: list[BagReport] = []
    with DatasetWriter(output, text, overwrite=overwrite) as writer, _Progress(paths, progress) as bar:
        for path in paths:
            reports.append(_convert_bag(path, contract, writer, statistics, bar))
        software = _software()
        report = statistics.report(
            writer.path.name, hashlib.sha256(text.encode()).hexdigest(), writer.content_sha256, reports, software
        )
        sources = [{"path": bag.path, "sha256": bag.sha256, "episodes": bag.episodes} for bag in reports]
        writer.finish(
            {"source_bags": sources, "software": software},
            {"report.json": json.dumps(report.to_dict(), indent=1) + "\n", "report.txt": report.text()},
        )
    return report


class _Progress:
    """A bar over the bytes of all bags, with rate and time left."""

    def __init__(self, paths: list[Path], enabled: bool) -> None:
        self._sizes = {path: sum(file.stat().st_size for file in _files(path)) for path in paths}
        total = sum(self._sizes.values())
        self._bar = progress_bar(total=total, unit="B", unit_scale=True, disable=not enabled, desc="convert")

    def bag_at(self, path: Path, start: int, share: float) -> None:
        """`share` of the bag at `path`, which begins `start` bytes into all bags, is done."""
        self._bar.update(start + min(share, 1.0) * self._sizes[path] - self._bar.n)

    def start_of(self, path: Path) -> int:
        """Bytes of the bags before this one."""
        sizes = 0
        for other, size in self._sizes.items():
            if other == path:
                break
            sizes += size
        return sizes

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _convert_bag(
    path: Path, contract: Contract, writer: DatasetWriter, statistics: DatasetStatistics, bar: _Progress
) -> BagReport:
    episodes_before, steps_before = writer.episodes, writer.steps
    sha256 = {file.name: _file_hash(file) for file in _files(path)}
    wanted = {spec.topic: spec.type for spec in contract.observation.topics}
    wanted[contract.action.topic] = contract.action.type
    name, digest = str(path), "+".join(sha256.values())

    def write(episodes: list[Episode]) -> None:
        for episode in episodes:
            span: dict[str, str | int] = {"start_ns": episode.start_ns, "end_ns": episode.end_ns}
            writer.add(
                episode.observations,
                episode.actions,
                episode.rewards,
                episode.masks,
                terminal=episode.terminal,
                origin={"bag": name, "bag_sha256": digest, "cut": episode.cut, **span},
            )
            statistics.add(episode)

    start = bar.start_of(path)
    first = last = None
    messages = 0
    with BagReader(path) as bag:
        cutter = EpisodeCutter(contract, *_events(bag, contract, wanted))
        for topic, receive_ns, message in bag.messages(wanted):
            try:
                cutter.push(topic, message, receive_ns)
            except ContractError as error:
                raise BagError(f"{path}: {bag.when(receive_ns)}: {error}") from None
            messages += 1
            first, last = receive_ns if first is None else first, receive_ns
            if messages % _PROGRESS_MESSAGES == 0:
                write(cutter.take())
                bar.bag_at(path, start, messages / max(bag.message_count, 1))
        cutter.finish()
        write(cutter.take())
        notes = bag.notes
    bar.bag_at(path, start, 1.0)
    topics = [TopicReport.of(topic, stamps, cutter.ages.get(topic)) for topic, stamps in cutter.stamps.items()]
    _check_rates(path, contract, topics)
    report = BagReport(
        path=name,
        sha256=sha256,
        notes=notes,
        messages=messages,
        seconds=0.0 if first is None or last is None else (last - first) / NANOSECONDS,
        episodes=writer.episodes - episodes_before,
        steps=writer.steps - steps_before,
        left_out=cutter.counts,
        cuts=dict(sorted(cutter.cuts.items())),
        topics=topics,
    )
    if report.steps == 0:
        raise BagError(
            f"{path}: no usable step: {_why_nothing(contract, report, cutter)}; mend it or leave the bag out"
        )
    return report


def _events(bag: BagReader, contract: Contract, wanted: dict[str, str]) -> tuple[list[int], list[tuple[int, End]]]:
    """Times in ns at which the bag's markers start episodes, and those at which resets end them with what that means.

    Read before everything else: markers are few, and may have been received long after their stamp. A marker that is
    there twice counts once, and one from before the recording divides nothing.
    """
    markers: list[int] = []
    resets: list[tuple[int, End]] = []
    for event in contract.episodes.events:
        for _, receive_ns, message in bag.messages({event.topic: event.type, **wanted}, only=event.topic):
            try:
                stamp = event_stamp(event, contract, message, receive_ns)
            except ContractError as error:
                raise BagError(f"{bag.path}: {bag.when(receive_ns)}: {error}") from None
            if isinstance(event, MarkerBoundary):
                markers.append(stamp)
            else:
                resets.append((stamp, event.end))
    return markers, resets


def _check_rates(path: Path, contract: Contract, topics: list[TopicReport]) -> None:
    rate = float(contract.rate_fraction)
    # How far apart the messages of an interpolated topic may be is what its tolerance says.
    held = {spec.topic for spec in contract.observation.topics if not isinstance(spec.align, Linear)}
    for topic in topics:
        if topic.topic not in held or topic.rate_hz is None or topic.messages_used <= _FEWEST_PERIODS:
            continue
        if topic.rate_hz < rate / _SLOWEST_PERIODS:
            raise BagError(
                f"{path}: topic {topic.topic} has {topic.rate_hz:.3g} Hz (median), expected at least the contract's "
                f"rate of {rate:.4g} Hz; publish it faster or lower the contract's rate"
            )


def _why_nothing(contract: Contract, report: BagReport, cutter: EpisodeCutter) -> str:
    empty = [topic.topic for topic in report.topics if topic.messages_used == 0]
    if empty:
        return f"no messages on {', '.join(empty)}"
    ticks = len(next(iter(cutter.ages.values())))
    if ticks == 0:
        return "at no time were there messages of all observation topics no older than max_age"
    if report.left_out.get("ticks_without_action", 0) >= ticks:
        return f"no action was in force at any of {ticks} observations; compare the stamps of {contract.action.topic}"
    if cutter.longest_run:
        return f"the longest episode has {cutter.longest_run} steps, min_steps is {contract.episodes.min_steps}"
    return f"{ticks} observations, but no two that follow each other with an action in force"


def _files(path: Path) -> list[Path]:
    """The storage files of a bag, compressed ones too."""
    return [*storage_files(path), *sorted(path.glob("*.zstd"))] if path.is_dir() else [path]


def _file_hash(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    except OSError as error:
        raise BagError(f"{file}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _software() -> dict[str, Any]:
    packages = ("rosbags", "minari", "h5py", "gymnasium")
    return {
        "rql_core": rql_core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{package: version(package) for package in packages},
    }
