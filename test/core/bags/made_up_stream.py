"""Messages as long as wanted, pushed one by one, of which a test knows every stamp and when it was received."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from synthetic import PERIOD_NS, START_NS, contract_text

from rql_core.bags.episodes import Episode, EpisodeCutter
from rql_core.contract import Contract, parse_contract

MS = 1_000_000
JOINT_STATES, POSE, COMMAND = "/joint_states", "/tool_pose", "/command"
HOLD = "{method: hold, max_age: 0.1}"
TOPICS = (JOINT_STATES, POSE, COMMAND)


def stream_contract(*changes: tuple[str, str], joints: str = HOLD, pose: str = HOLD) -> Contract:
    """The two joints of `synthetic`, cut into episodes of 100 steps unless changed, with these alignments."""
    boundary = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
    limited = "boundary: {by: bag}\n  cuts: [{by: time_limit, seconds: 5.0, end: truncation}]"
    first, second = contract_text((boundary, limited), ("max_wait: 0.02", "max_wait: 0.5"), *changes).split(POSE, 1)
    return parse_contract(first.replace(HOLD, joints) + POSE + second.replace(HOLD, pose))


@dataclass(frozen=True, order=True)
class Sent:
    """A message: when it is received, its stamp, both in ns, and its topic."""

    receive_ns: int
    stamp_ns: int
    topic: str


def regular(topic: str, period_ms: float, first_ms: float, last_ms: float, late_ms: float = 0.0) -> Iterator[Sent]:
    """Messages at a steady rate, from the first up to before the last time after START_NS."""
    for i in range(round((last_ms - first_ms) / period_ms)):
        stamp = START_NS + round((first_ms + i * period_ms) * MS)
        yield Sent(stamp + round(late_ms * MS), stamp, topic)


def message(sent: Sent) -> Any:
    """Numbers that follow from the stamp."""
    sec, nanosec = divmod(sent.stamp_ns, 10**9)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    x = (sent.stamp_ns - START_NS) / 1e9
    names = ["shoulder_joint", "elbow_joint"]
    if sent.topic == JOINT_STATES:
        return SimpleNamespace(header=header, name=names, position=np.array([x, -x]), velocity=np.array([x, 2 * x]))
    if sent.topic == POSE:
        position = SimpleNamespace(x=10 + x, y=0.0, z=x)
        orientation = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        return SimpleNamespace(header=header, pose=SimpleNamespace(position=position, orientation=orientation))
    after = SimpleNamespace(sec=0, nanosec=PERIOD_NS)
    point = SimpleNamespace(velocities=np.array([np.sin(x), np.cos(x)]), time_from_start=after)
    return SimpleNamespace(header=header, joint_names=names, points=[point])


@dataclass
class Cut:
    """What a cutter made of a stream."""

    cutter: EpisodeCutter
    episodes: list[Episode] = field(default_factory=list)

    def facts(self) -> list[tuple[Any, ...]]:
        """All about the episodes, to be compared."""
        return [
            (e.start_ns, e.end_ns, e.cut, e.terminal, *(a.tobytes() for a in (e.observations, e.actions, e.masks)))
            for e in self.episodes
        ]


def cut(contract: Contract, messages: Iterable[Sent], markers: Iterable[int] = ()) -> Cut:
    """Push all messages, in the order given."""
    made = Cut(EpisodeCutter(contract, markers))
    for sent in messages:
        made.cutter.push(sent.topic, message(sent), sent.receive_ns)
        made.episodes += made.cutter.take()
    made.cutter.finish()
    made.episodes += made.cutter.take()
    return made
