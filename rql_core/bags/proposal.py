"""What of some bags a contract could observe and command, as far as the data tell it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rql_core.bags.inspection import MARKER_TYPE, BagInspection, TopicInspection
from rql_core.bags.proposal_action import ActionProposal, command_topics, propose_action
from rql_core.bags.recover import natural_order
from rql_core.bags.samples import LONGEST_ARRAY, Range, TopicSample
from rql_core.contract.schema import IMAGE_TYPES, JOINT_STATE
from rql_core.errors import ConfigError

# What comes less often is a status, such as a battery's; detectors that a task is about are faster.
_SLOWEST_HZ = 2.0
# So many of its periods may pass before a topic counts as missing. The rate that is stated is a fifth below what was
# seen, so that its period still is shorter.
_AGE_PERIODS, _STATED_SHARE = 1.5, 0.8
# Parts of a quaternion below this tilt by less than a quarter of a degree.
_LEVEL = 0.002

_NO_FEATURES = ("rcl_interfaces/", "rosgraph_msgs/", "tf2_msgs/", "diagnostic_msgs/", "lifecycle_msgs/")
_UNITS = {"position": "rad", "velocity": "rad/s", "effort": "Nm"}
_PARENT_UNITS = (
    (re.compile(r"angular_velocity$|angular$"), "rad/s"),
    (re.compile(r"linear_acceleration$"), "m/s^2"),
    (re.compile(r"linear$"), "m/s"),
    (re.compile(r"torque$"), "Nm"),
    (re.compile(r"force$"), "N"),
    (re.compile(r"position$|translation$|point$"), "m"),
)


@dataclass(frozen=True)
class FeatureProposal:
    """A feature: numbers that belong together, with the range each had.

    `rotation`: a quaternion's form, or ""; `turns_round`: a yaw that passes 180 degrees.
    """

    name: str
    unit: str
    fields: tuple[str, ...]
    ranges: tuple[Range, ...]
    rotation: str = ""
    turns_round: bool = False


@dataclass(frozen=True)
class TopicProposal:
    """An observation topic: what is read, how often it comes, whether its header's stamps can be used.

    `rate_hz`: of a topic whose joints come in several messages, that of the joint in the fewest. `delay_s`: median of
    receive time minus header stamp, the largest of the bags; None without stamps.
    """

    topic: str
    type: str
    rate_hz: float
    stamped: bool
    delay_s: float | None
    features: tuple[FeatureProposal, ...]
    constant: tuple[str, ...]
    partial: bool


@dataclass(frozen=True)
class Proposal:
    """What a contract for the bags could be made of.

    `action`: None when no topic looks like commands; `commands`: the topics that do, the likeliest first. `left_out`:
    (topic, why) of the topics that are not observed.
    """

    bags: tuple[BagInspection, ...]
    topics: tuple[TopicProposal, ...]
    left_out: tuple[tuple[str, str], ...]
    action: ActionProposal | None
    commands: tuple[str, ...]

    def of(self, topic: str) -> list[TopicInspection]:
        """The topic as it is in each bag that has it."""
        return inspections_of(self.bags, topic)


def propose(bags: Sequence[BagInspection], samples: dict[str, TopicSample], action: str | None = None) -> Proposal:
    """What a contract could be made of; `samples` should hold all messages of the topic of the action.

    `action`: that topic; by default the likeliest. Raises ConfigError when it is not there, or no topic has numbers.
    """
    if action is not None and action not in samples:
        raise ConfigError(f"action topic {action} has no messages that can be read; there are {', '.join(samples)}")
    commands = [action] if action is not None else command_topics(samples)
    chosen = propose_action(commands[0], samples[commands[0]]) if commands else None
    if action is not None and chosen is None:
        raise ConfigError(f"action topic {action} has no number that is in all of its messages; name another")
    topics, left_out = _observations(bags, samples, commands)
    if not topics:
        raise ConfigError(
            "no topic has numbers that could be observed: " + "; ".join(f"{topic}: {why}" for topic, why in left_out)
        )
    return Proposal(tuple(bags), tuple(topics), tuple(left_out), chosen, tuple(commands))


def inspections_of(bags: Sequence[BagInspection], topic: str) -> list[TopicInspection]:
    """A topic as it is in each of the bags that has it."""
    return [each for bag in bags for each in bag.topics if each.topic == topic]


def _observations(
    bags: Sequence[BagInspection], samples: dict[str, TopicSample], commands: Sequence[str]
) -> tuple[list[TopicProposal], list[tuple[str, str]]]:
    """The topics to observe, and (topic, why) of the others."""
    left_out: list[tuple[str, str]] = []
    rates: dict[str, float] = {}
    names = sorted({topic.topic for bag in bags for topic in bag.topics})
    for topic in names:
        kind = next(each.type for each in inspections_of(bags, topic))
        found = [each.rate_hz for each in inspections_of(bags, topic) if each.rate_hz is not None]
        if topic in commands:
            left_out.append((topic, "is the action" if topic == commands[0] else "carries commands"))
        elif kind == MARKER_TYPE:
            left_out.append((topic, "marks episodes"))
        elif kind in IMAGE_TYPES:
            left_out.append((topic, "images cannot be features"))
        elif kind.startswith(_NO_FEATURES):
            left_out.append((topic, f"{kind} is no measurement"))
        elif topic not in samples:
            none = all(each.messages == 0 for each in inspections_of(bags, topic))
            left_out.append((topic, "no messages" if none else f"no definition of {kind or 'one type'}"))
        elif any(topic not in {each.topic for each in bag.topics if each.messages} for bag in bags):
            left_out.append((topic, "not in every bag"))
        elif not found:
            left_out.append((topic, "a single message has no rate"))
        else:
            rates[topic] = min(found)
    topics = []
    used: set[str] = set()
    for topic, rate in rates.items():
        sample = samples[topic]
        features, constant, why = _features(topic, sample, used)
        if rate < _SLOWEST_HZ:
            needed = f"min_rate: {stated_rate(rate):g}, max_age: {held_for(rate):g}"
            left_out.append((topic, f"{rate:.3g} Hz is the rate of a status; as an observation it needs {needed}"))
        elif not features:
            left_out.append((topic, why))
        else:
            inspections = inspections_of(bags, topic)
            stamped = all(each.has_header and not each.stamps_unset for each in inspections)
            paths = {path for feature in features for path in feature.fields}
            partial = sample.type == JOINT_STATE and any(
                sample.numbers[path].messages < sample.messages for path in paths
            )
            if partial:
                rate *= min(sample.numbers[path].messages for path in paths) / sample.messages
            delay = max((each.offset_s or 0.0 for each in inspections), default=0.0) if stamped else None
            topics.append(TopicProposal(topic, sample.type, rate, stamped, delay, features, constant, partial))
            used |= {feature.name for feature in features}
    return topics, sorted(left_out)


def _features(
    topic: str, sample: TopicSample, used: set[str]
) -> tuple[tuple[FeatureProposal, ...], tuple[str, ...], str]:
    """Features of a topic, the paths that never changed, and why there are none."""
    joints = sample.type == JOINT_STATE
    groups: dict[str, list[str]] = {}
    for path, number in sample.numbers.items():
        if number.messages < sample.messages and not joints:
            continue
        parent = path.partition(".")[0] if joints else re.sub(r"(\[\d+\]|(^|\.)[^.\[]+)$", "", path)
        groups.setdefault(parent, []).append(path)
    features: list[FeatureProposal] = []
    constant: list[str] = []
    for parent, paths in groups.items():
        changing = [path for path in paths if not sample.numbers[path].constant]
        rotation, turns_round = "", False
        if [path.rpartition(".")[2] for path in paths] == ["x", "y", "z", "w"]:
            # What only turns about the vertical has one angle.
            level = all(abs(value) < _LEVEL for path in paths[:2] for value in _ends(sample.numbers[path]))
            rotation = "yaw" if level else "6d"
            # There w goes through zero, as yaw is twice the angle whose cosine it is.
            turns_round = level and sample.numbers[paths[3]].low < 0 < sample.numbers[paths[3]].high
        if not changing or (joints and parent == "effort"):
            constant.append(parent or ", ".join(paths))
            continue
        if not joints and not rotation:
            constant += [path for path in paths if path not in changing]
            paths = changing
        if joints and sample.shuffled:
            paths = sorted(paths, key=lambda path: natural_order(Path(path)))
        name = _feature_name(topic, parent, joints, used | {each.name for each in features})
        unit = "rad" if rotation == "yaw" else "1" if rotation else _unit(parent, joints)
        fields = (parent,) if rotation else tuple(paths)
        ranges = tuple(sample.numbers[path] for path in paths)
        features.append(FeatureProposal(name, unit, fields, ranges, rotation, turns_round))
    why = "no numbers"
    if sample.long_arrays:
        path, length = next(iter(sample.long_arrays.items()))
        why = f"{path} has {length} numbers, more than {LONGEST_ARRAY}; name a slice of it if you need it"
    elif constant:
        why = "its numbers never change"
    return tuple(features), tuple(constant), why


def stated_rate(rate_hz: float) -> float:
    """The min_rate of a topic that was seen to come so often: less, because rates give way when a robot is busy."""
    return down(_STATED_SHARE * rate_hz)


def held_for(rate_hz: float) -> float:
    """The max_age of a topic in s: less than one and a half of its periods breaks episodes at every jitter."""
    return up(_AGE_PERIODS / rate_hz)


def down(value: float) -> float:
    """Two figures, downward."""
    digits = 1 - math.floor(math.log10(value))
    return math.floor(value * 10.0**digits + 1e-9) / 10.0**digits


def up(value: float) -> float:
    """Two figures, upward, between 1 ms and 60 s."""
    digits = 1 - math.floor(math.log10(value)) if value > 0 else 2
    return min(max(math.ceil(value * 10.0**digits - 1e-9) / 10.0**digits, 0.001), 60.0)


def _ends(number: Range) -> tuple[float, float]:
    return number.low, number.high


def _feature_name(topic: str, parent: str, joints: bool, used: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9]+", "_", topic).strip("_") or "topic"
    last = re.sub(r"[^A-Za-z0-9]+", "_", parent.rpartition(".")[2]).strip("_")
    short = f"joint_{last}" if joints else base if last in ("", "data") or base.endswith(last) else f"{base}_{last}"
    name = short if short not in used else f"{base}_{last}"
    name = name if name[0].isalpha() else f"t_{name}"
    candidate, number = name[:60], 2
    while candidate in used:
        candidate, number = f"{name[:60]}_{number}", number + 1
    return candidate


def _unit(parent: str, joints: bool) -> str:
    if joints:
        return _UNITS[parent]
    return next((unit for pattern, unit in _PARENT_UNITS if pattern.search(parent)), "?")
