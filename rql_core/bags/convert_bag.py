"""One bag to its episodes and what there is to say about it; where the episodes go is the caller's business.

A message that breaks the contract, a topic that is missing or too slow, or a bag without a usable step is an error:
data that is quietly half wrong costs more than an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from rql_core.bags.episodes import Episode, EpisodeCutter
from rql_core.bags.reader import BagReader
from rql_core.bags.recover import storage_files
from rql_core.bags.report import BagReport, DroppedEpisode
from rql_core.bags.timing import TopicReport
from rql_core.contract.episode_schema import End
from rql_core.contract.messages import event_stamp
from rql_core.contract.rates import FEWEST_PERIODS, too_slow
from rql_core.contract.reward_signals import RewardSignals
from rql_core.contract.schema import Contract, MarkerBoundary
from rql_core.contract.time import NANOSECONDS
from rql_core.errors import BagError, ContractError

# Telling the progress bar of every message would cost as much as a tenth of reading it.
_PROGRESS_MESSAGES = 1000

EpisodeSink = Callable[[Episode], None]
ShareDone = Callable[[float], None]


def convert_bag(
    path: Path,
    contract: Contract,
    sha256: dict[str, str],
    sink: EpisodeSink,
    share_done: ShareDone = lambda share: None,
    *,
    definitions: Sequence[str] = (),
) -> BagReport:
    """Give the episodes of the bag at `path` to `sink`, one by one, and return the bag's report.

    `sha256`: the hashes of its files (see `bag_hashes`), for the report. `share_done` hears now and then which share
    of the messages was read, 0 to 1. `definitions`: .msg files or directories for types that the bag does not define.
    Raises BagError; what `sink` raises passes through.
    """
    episodes = steps = messages = 0
    first = last = None

    def write(done: list[Episode]) -> None:
        nonlocal episodes, steps
        for episode in done:
            sink(episode)
            episodes += 1
            steps += episode.steps

    wanted = {spec.topic: spec.type for spec in contract.observation.topics}
    wanted[contract.action.topic] = contract.action.type
    with BagReader(path, definitions) as bag:
        signals = _reward_signals(bag, contract)
        cutter = EpisodeCutter(contract, *_events(bag, contract, wanted), signals=signals)
        push = cutter.push
        for topic, receive_ns, message in bag.messages(wanted):
            try:
                push(topic, message, receive_ns)
            except ContractError as error:
                raise BagError(f"{path}: {bag.when(receive_ns)}: {error}") from None
            if first is None:
                first = receive_ns
            last = receive_ns
            messages += 1
            if messages % _PROGRESS_MESSAGES == 0:
                write(cutter.take())
                share_done(min(messages / max(bag.message_count, 1), 1.0))
        try:
            cutter.finish()
        except ContractError as error:
            raise BagError(f"{path}: at the bag's end: {error}") from None
        write(cutter.take())
        notes = bag.notes
    topics = cutter.timing.topics()
    _check_rates(path, contract, topics)
    report = BagReport(
        path=str(path),
        sha256=sha256,
        notes=notes,
        messages=messages,
        seconds=0.0 if first is None or last is None else (last - first) / NANOSECONDS,
        episodes=episodes,
        steps=steps,
        left_out=cutter.counts,
        cuts=dict(sorted(cutter.cuts.items())),
        topics=topics,
        start_ns=cutter.timing.start_ns,
        episode_topics=cutter.timing.episodes(),
        dropped=[
            DroppedEpisode(
                each.start_ns,
                each.end_ns,
                each.steps,
                each.cut,
                f"shorter than min_steps {contract.episodes.min_steps}",
            )
            for each in cutter.too_short
        ],
        labels=[] if signals is None else signals.uses(),
    )
    if report.steps == 0:
        raise BagError(
            f"{path}: no usable step: {_why_nothing(contract, report, cutter)}; mend it or leave the bag out"
        )
    return report


def bag_files(path: Path) -> list[Path]:
    """The storage files of a bag, compressed ones too."""
    return [*storage_files(path), *sorted(path.glob("*.zstd"))] if path.is_dir() else [path]


def bag_hashes(path: Path) -> dict[str, str]:
    """The SHA-256 of each storage file of a bag, by name. Raises BagError when one cannot be read."""
    return {file.name: file_hash(file) for file in bag_files(path)}


def file_hash(file: Path) -> str:
    """The SHA-256 of a file. Raises BagError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    except OSError as error:
        raise BagError(f"{file}: cannot be read: {error.strerror}; check the path and its permissions") from None
    return digest.hexdigest()


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


def _reward_signals(bag: BagReader, contract: Contract) -> RewardSignals | None:
    """What the bag's topics say about reward and success; None for a contract that asks none."""
    signals = RewardSignals(contract)
    for wanted in signals.types:
        for topic, receive_ns, message in bag.messages(signals.types, only=wanted):
            try:
                signals.push(topic, message, receive_ns)
            except ContractError as error:
                raise BagError(f"{bag.path}: {bag.when(receive_ns)}: {error}") from None
    if silent := signals.silent():
        raise BagError(
            f"{bag.path}: no messages on {', '.join(silent)}, which reward or success comes from, with missing: cut; "
            "record it, or leave the bag out"
        )
    return signals if signals.types else None


def _check_rates(path: Path, contract: Contract, topics: list[TopicReport]) -> None:
    observed = {spec.topic: spec for spec in contract.observation.topics}
    for topic in topics:
        if topic.topic not in observed or topic.rate_hz is None or topic.messages_used <= FEWEST_PERIODS:
            continue
        complaint = too_slow(contract, observed[topic.topic], topic.rate_hz)
        if complaint is not None:
            raise BagError(f"{path}: topic {complaint}")


def _why_nothing(contract: Contract, report: BagReport, cutter: EpisodeCutter) -> str:
    empty = [topic.topic for topic in report.topics if topic.messages_used == 0]
    if empty:
        return f"no messages on {', '.join(empty)}"
    ticks = cutter.timing.tick_count
    if ticks == 0:
        return "at no time were there messages of all observation topics no older than max_age"
    if report.left_out.get("ticks_without_action", 0) >= ticks:
        return f"no action was in force at any of {ticks} observations; compare the stamps of {contract.action.topic}"
    if cutter.longest_run:
        return f"the longest episode has {cutter.longest_run} steps, min_steps is {contract.episodes.min_steps}"
    if unsaid := report.left_out.get("steps_without_reward_message"):
        topics = ", ".join(dict.fromkeys(rule.topic for rule in contract.reward.topics if rule.missing == "cut"))
        return f"{unsaid} steps without a message of {topics}; compare its clock in the contract with the observations'"
    return f"{ticks} observations, but no two that follow each other with an action in force"
