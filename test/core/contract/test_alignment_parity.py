"""A running node and a conversion see the same observations, for every alignment, and both see what numpy says.

Within the rule, that is: each topic's messages come in one order to both, and none later than `max_wait` allows. Drawn
at random are rates, jitter, delays, drops, duplicates, what overtakes what, and when the node looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from rql_core.contract import Contract, TickAssembler, parse_contract

MS = 1_000_000
PERIOD = 50
# 2026-11-01 12:00 UTC, a whole number of control periods.
START = 1_793_534_400_000 * MS
FIRST_TICK = START // (PERIOD * MS)
LATEST_MS = 40
JOINTS = ("elbow", "wrist")

CONTRACT = """
schema: 1
name: three_topics
description: A point, a pose and joints in several messages at 20 Hz, for tests.
rate: 20
clock: header
observation:
  max_wait: {max_wait}
  topics:
    - topic: /point
      type: geometry_msgs/msg/PointStamped
      align: {point}
      features: [{{name: point, unit: m, fields: [point.x]{past}}}]
    - topic: /pose
      type: geometry_msgs/msg/PoseStamped
      align: {pose}
      features:
        - {{name: height, unit: mm, scale: 1000.0, fields: [pose.position.z]}}
        - {{name: turn, unit: "1", fields: [pose.orientation], rotation: 6d}}
    - topic: /joints
      type: sensor_msgs/msg/JointState
      joints: partial
      align: {joints}
      features: [{{name: q, unit: rad, fields: [position.elbow, position.wrist]}}]
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features: [{{name: elbow, lower: -2.0, upper: 2.0}}]
reward:
  success: {{rule: within, feature: q, target: [0.0, 0.0], tolerance: 0.1}}
  at_success: 0.0
  otherwise: -1.0
episodes: {{boundary: {{by: bag}}, min_steps: 1, at_success: continue}}
"""
PASTS = {"": (0, 1), ", history: 3": (0, 3), ", difference: true": (1, 1), ", difference: true, history: 2": (1, 2)}


@cache
def values_of(topic: str, what: str | None, stamp: int) -> npt.NDArray[np.float64]:
    """Numbers that follow from stamp and joint, so that a duplicate says the same and nothing else does."""
    rng = np.random.default_rng([stamp, 0 if what is None else 1 + JOINTS.index(what), len(topic)])
    if topic != "/pose":
        return rng.normal(size=1)
    quaternion = rng.normal(size=4)
    return np.concatenate([rng.normal(size=1), quaternion / np.linalg.norm(quaternion)])


@dataclass(frozen=True)
class Sent:
    """A message: its stamp in ms from the start, when recorder and node get it, and what is in it."""

    stamp: int
    recorded: float
    live: float
    topic: str
    what: str | None = None

    @property
    def values(self) -> npt.NDArray[np.float64]:
        return values_of(self.topic, self.what, self.stamp)

    @property
    def message(self) -> Any:
        sec, nanosec = divmod(START + self.stamp * MS, 10**9)
        header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
        values = self.values.tolist()
        if self.topic == "/point":
            return SimpleNamespace(header=header, point=SimpleNamespace(x=values[0]))
        if self.topic == "/joints":
            return SimpleNamespace(header=header, name=["other", self.what], position=[9.0, values[0]])
        quaternion = SimpleNamespace(**dict(zip("xyzw", values[1:], strict=True)))
        position = SimpleNamespace(z=values[0])
        return SimpleNamespace(header=header, pose=SimpleNamespace(position=position, orientation=quaternion))


@st.composite
def recordings(draw: st.DrawFn, topic: str, latest_ms: int = LATEST_MS) -> list[Sent]:
    """Messages of a topic in the order in which they arrive; all stamps lie within a second, so that none is a jump."""
    messages = []
    for what in JOINTS if topic == "/joints" else (None,):
        period, phase = draw(st.sampled_from([15, 20, 25, 40, 50, 60])), draw(st.integers(0, 60))
        jitter, delay = draw(st.integers(0, period // 3)), draw(st.integers(0, latest_ms))
        dropped, doubled = draw(st.sampled_from([0.0, 0.02, 0.2])), draw(st.sampled_from([0.0, 0.1]))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        for regular in range(phase, 950, period):
            stamp = max(0, regular + int(rng.integers(-jitter, jitter + 1)))
            late = int(rng.integers(0, delay + 1))
            if rng.random() >= dropped:
                messages.append((stamp + late, stamp, rng.random(), what))
            if rng.random() < doubled:
                messages.append((stamp + latest_ms, stamp, 0.0, what))
    messages.sort(key=lambda message: message[0])
    sent: list[Sent] = []
    live = 0.0
    for recorded, stamp, share, what in messages:
        # The node gets it at most as late as the recorder, never before its stamp, and in the recorder's order.
        live = max(live, recorded - share * (recorded - stamp))
        sent.append(Sent(stamp, recorded, live, topic, what))
    return sent


alignments = st.one_of(
    st.builds("{{method: hold, max_age: {}}}".format, st.sampled_from([0.03, 0.06, 0.2])),
    st.builds("{{method: nearest, tolerance: {}}}".format, st.sampled_from([0.015, 0.03, 0.07])),
    st.builds("{{method: linear, tolerance: {}}}".format, st.sampled_from([0.07, 0.15, 0.3])),
)


def align_of(contract: Contract, topic: str) -> Any:
    return next(spec.align for spec in contract.observation.topics if spec.topic == topic)


def used(sent: Sequence[Sent], what: str | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Stamps in ms and values of the messages that are newer than all before them."""
    newest = -1
    kept = []
    for message in sent:
        if message.what == what and message.stamp > newest:
            newest = message.stamp
            kept.append(message)
    return np.array([m.stamp for m in kept], dtype=np.int64), np.array([m.values for m in kept])


def oracle_at(align: Any, stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64], tick: int) -> Any:
    """What belongs to a tick by the words of the schema, from all samples at once; None where it is missing."""
    if align.method == "nearest":
        distance = np.abs(stamps - tick)
        best = int(np.argmin(distance))  # the first, and so the earlier, of two equally near
        return values[best] if distance[best] <= align.tolerance * 1000 else None
    before = np.flatnonzero(stamps <= tick)
    if len(before) == 0:
        return None
    low = int(before[-1])
    if align.method == "hold":
        return values[low] if tick - stamps[low] <= align.max_age * 1000 else None
    if stamps[low] == tick:
        return values[low]
    if low + 1 == len(stamps) or stamps[low + 1] - stamps[low] > align.tolerance * 1000:
        return None
    pair = stamps[low : low + 2]
    result = np.array([np.interp(tick, pair, values[low : low + 2, i]) for i in range(values.shape[1])])
    if values.shape[1] == 5:
        result[1:] = Slerp(pair, Rotation.from_quat(values[low : low + 2, 1:]))(tick).as_quat()
    return result


def oracle(contract: Contract, past: tuple[int, int], sent: dict[str, list[Sent]]) -> tuple[int, dict[int, Any]]:
    """Up to when every stream has a message, in ms, and tick in ms -> observation until then."""
    keys = [("/point", None), ("/pose", None), ("/joints", "elbow"), ("/joints", "wrist")]
    streams = {key: used(sent[key[0]], key[1]) for key in keys}
    if not all(len(stamps) for stamps, _ in streams.values()):
        return -1, {}
    reach = min(int(stamps[-1]) for stamps, _ in streams.values())
    difference, history = past
    points: dict[int, float] = {}
    observations: dict[int, Any] = {}
    for tick in range(-2 * PERIOD, reach + 1, PERIOD):
        parts = [oracle_at(align_of(contract, topic), *streams[topic, what], tick) for topic, what in keys]
        if any(part is None for part in parts):
            points = {}
            continue
        points[tick] = parts[0][0]
        needed = [tick - ago * PERIOD for ago in reversed(range(history + difference))]
        if not all(each in points for each in needed):
            continue
        line = np.array([points[each] for each in needed])
        matrix = Rotation.from_quat(parts[1][1:]).as_matrix()
        observations[tick] = np.concatenate(
            [np.diff(line) if difference else line, parts[1][:1] * 1000.0, matrix[:, 0], matrix[:, 1], *parts[2:]]
        )
    return reach, observations


def offline(contract: Contract, messages: Sequence[Sent]) -> dict[int, Any]:
    """Tick in ms -> observation, of a conversion."""
    assembler = TickAssembler(contract)
    ticks = []
    for sent in sorted(messages, key=lambda sent: sent.recorded):
        assembler.push(sent.topic, sent.message, 0)
        ticks += assembler.take()
    return by_time(ticks)


def live(contract: Contract, messages: Sequence[Sent], looks: Sequence[int]) -> dict[int, Any]:
    """Tick in ms -> observation, of a node that looks after every message and at these times."""
    assembler = TickAssembler(contract)
    ticks = []
    arrivals: list[tuple[float, Sent | None]] = [(sent.live, sent) for sent in messages]
    looked: list[tuple[float, Sent | None]] = [(float(at), None) for at in [*looks, 3000]]
    for at, sent in sorted(arrivals + looked, key=lambda item: item[0]):
        if sent is not None:
            assembler.push(sent.topic, sent.message, 0)
        ticks += assembler.take(START + round(at * MS))
    assert [tick.index for tick in ticks] == sorted({tick.index for tick in ticks})
    return by_time(ticks)


def by_time(ticks: Sequence[Any]) -> dict[int, Any]:
    return {(tick.index - FIRST_TICK) * PERIOD: tick.observation for tick in ticks if tick.observation is not None}


def check_same(one: dict[int, Any], other: dict[int, Any]) -> None:
    assert list(one) == list(other)
    for tick, observation in one.items():
        np.testing.assert_array_equal(observation, other[tick])


@given(
    sent=st.fixed_dictionaries({topic: recordings(topic) for topic in ("/point", "/pose", "/joints")}),
    align=st.tuples(alignments, alignments, alignments),
    past=st.sampled_from(sorted(PASTS)),
    looks=st.lists(st.integers(0, 1000), max_size=20),
)
def test_live_and_offline_give_the_observations_that_numpy_gives(
    sent: dict[str, list[Sent]], align: tuple[str, str, str], past: str, looks: list[int]
) -> None:
    longest_look_ahead = 300
    contract = parse_contract(
        CONTRACT.format(
            max_wait=(longest_look_ahead + LATEST_MS + 1) / 1000,
            point=align[0],
            pose=align[1],
            joints=align[2],
            past=past,
        )
    )
    messages = [message for each in sent.values() for message in each]
    reach, expected = oracle(contract, PASTS[past], sent)
    converted = offline(contract, messages)
    assert list(converted) == list(expected)
    for tick, observation in converted.items():
        assert observation.dtype == np.float32
        np.testing.assert_allclose(observation, expected[tick], rtol=2e-6, atol=2e-6)
    seen = live(contract, messages, looks)
    check_same({tick: seen[tick] for tick in seen if tick <= reach}, converted)


@given(
    sent=st.fixed_dictionaries({topic: recordings(topic, latest_ms=400) for topic in ("/point", "/pose", "/joints")}),
    past=st.sampled_from(sorted(PASTS)),
    looks=st.lists(st.integers(0, 1000), max_size=20),
)
def test_interpolation_is_never_another_however_late_messages_come(
    sent: dict[str, list[Sent]], past: str, looks: list[int]
) -> None:
    """A held message may turn out to have been followed by another; between two neighbours there is only one line."""
    line = "{method: linear, tolerance: 0.25}"
    contract = parse_contract(CONTRACT.format(max_wait=0.251, point=line, pose=line, joints=line, past=past))
    messages = [message for each in sent.values() for message in each]
    converted = offline(contract, messages)
    seen = live(contract, messages, looks)
    check_same(seen, {tick: converted[tick] for tick in seen})


def test_the_property_has_something_to_say_for_every_alignment() -> None:
    """The cases that the schema's words decide, one by one, as the oracle above has them."""
    stamps, values = np.array([0, 40, 60, 200]), np.arange(4.0)[:, None]
    for text, tick, expected in (
        ("{method: hold, max_age: 0.02}", 60, 2.0),
        ("{method: hold, max_age: 0.01}", 50, 1.0),
        ("{method: hold, max_age: 0.009}", 50, None),
        ("{method: nearest, tolerance: 0.05}", 50, 1.0),
        ("{method: nearest, tolerance: 0.05}", 150, 3.0),
        ("{method: nearest, tolerance: 0.049}", 150, None),
        ("{method: linear, tolerance: 0.02}", 50, 1.5),
        ("{method: linear, tolerance: 0.019}", 50, None),
        ("{method: linear, tolerance: 0.019}", 60, 2.0),
        ("{method: linear, tolerance: 0.14}", 130, 2.5),
    ):
        contract = parse_contract(CONTRACT.format(max_wait=0.2, point=text, pose=text, joints=text, past=""))
        align = align_of(contract, "/point")
        found = oracle_at(align, stamps, values, tick)
        assert (None if found is None else found.tolist()) == (None if expected is None else [expected]), (text, tick)
