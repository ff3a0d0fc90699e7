"""Whether bags have what a contract asks for: topics, types, and fields that can be read, by their first messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rql_core.bags.episodes import EpisodeCutter
from rql_core.bags.reader import BagReader
from rql_core.contract.messages import event_stamp
from rql_core.contract.reward_signals import RewardSignals
from rql_core.contract.schema import Contract, MarkerBoundary, ResetCut
from rql_core.errors import BagError, ContractError

# Names, fields and types are the same in all of a topic's messages; a few show what the first alone may not, such as
# joints that come in turns.
_MESSAGES = 5


@dataclass(frozen=True)
class Fault:
    """Something that a bag lacks, or that cannot be read in it."""

    bag: str
    text: str


def check_bag(path: Path, contract: Contract, definitions: Iterable[Path | str] = ()) -> list[Fault]:
    """All that keeps the bag at `path` from being read by the contract; empty when its first messages can be read.

    `definitions`: .msg files or directories for types that the bag does not define.
    """
    try:
        with BagReader(path, definitions) as bag:
            return [Fault(str(path), text) for text in _faults(bag, contract)]
    except BagError as error:
        return [Fault(str(path), str(error).removeprefix(f"{path}: "))]


def _faults(bag: BagReader, contract: Contract) -> Iterator[str]:
    signals = RewardSignals(contract)
    wanted = {spec.topic: spec.type for spec in contract.observation.topics}
    wanted[contract.action.topic] = contract.action.type
    events = {event.topic: event for event in contract.episodes.events}
    types = {topic: event.type for topic, event in events.items()}
    for topic, kind in {**wanted, **types, **signals.types}.items():
        there = bag.topics.get(topic)
        if there is None:
            listed = ", ".join(sorted(bag.topics)) or "none"
            yield f"topic {topic} ({kind}) is not in the bag; there are: {listed}"
        elif there.type != kind:
            yield f"topic {topic} has type {there.type or 'several types'}, the contract says {kind}"
        elif there.messages == 0 and topic not in signals.types and not isinstance(events.get(topic), ResetCut):
            yield f"topic {topic} has no messages"
        else:
            yield from _unreadable(bag, contract, topic, kind, topic in wanted, signals, events.get(topic))
    for topic in signals.silent():
        if topic in bag.topics and bag.topics[topic].messages == 0:
            yield f"topic {topic} has no messages, and reward or success needs one in each step"


def _unreadable(
    bag: BagReader,
    contract: Contract,
    topic: str,
    kind: str,
    observed: bool,
    signals: RewardSignals,
    event: MarkerBoundary | ResetCut | None,
) -> Iterator[str]:
    """What is wrong with the first messages of a topic that is there: the first fault alone, the others follow."""
    cutter = EpisodeCutter(contract)
    try:
        for count, (_, receive_ns, message) in enumerate(bag.messages({topic: kind})):
            if count == _MESSAGES:
                return
            try:
                if observed:
                    cutter.push(topic, message, receive_ns)
                if event is not None:
                    event_stamp(event, contract, message, receive_ns)
                if topic in signals.types:
                    signals.push(topic, message, receive_ns)
            except ContractError as error:
                yield f"{bag.when(receive_ns)}: {error}"
                return
    except BagError as error:
        yield str(error).removeprefix(f"{bag.path}: ")
