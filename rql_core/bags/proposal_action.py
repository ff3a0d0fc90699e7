"""Which topic of a bag most likely carries the commands, and what action it makes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rql_core.bags.samples import Range, TopicSample
from rql_core.contract.schema import JOINT_STATE, JOINT_TRAJECTORY

MULTI_ARRAY = "std_msgs/msg/Float64MultiArray"

# How likely a type is a command, and what names say; only who gets to the limit is proposed. A trajectory is a command
# whatever its name, a Twist or an array needs a name that says so, and a name of a state outweighs everything.
_TYPE_SCORES = {
    JOINT_TRAJECTORY: 5,
    "geometry_msgs/msg/Twist": 3,
    "geometry_msgs/msg/TwistStamped": 3,
    "geometry_msgs/msg/Wrench": 2,
    "geometry_msgs/msg/WrenchStamped": 1,
    MULTI_ARRAY: 3,
    "std_msgs/msg/Float32MultiArray": 3,
    "std_msgs/msg/Float64": 2,
    "std_msgs/msg/Float32": 2,
    "ackermann_msgs/msg/AckermannDriveStamped": 4,
    "control_msgs/msg/JointJog": 4,
    "geometry_msgs/msg/PoseStamped": 1,
    JOINT_STATE: 1,
}
_COMMAND_NAME = re.compile(r"cmd|command|action|control|target|goal|setpoint|set_point|desired|trajectory|teleop|servo")
_STATE_NAME = re.compile(r"state|status|feedback|odom|measured|actual|current|estimate|filtered")
_COMMAND_SCORE, _STATE_SCORE, _ENOUGH = 4, -6, 5

# What a group of joints is called, and its unit; positions first, as a trajectory that has velocities too follows them.
_GROUPS = {"positions": "rad", "velocities": "rad/s", "accelerations": "rad/s^2", "effort": "Nm"}
_SINGULAR = {"position": "positions", "velocity": "velocities", "effort": "effort"}
_WORDS = (("vel", "velocities"), ("twist", "velocities"), ("acc", "accelerations"), ("eff", "effort"))
_FORCES = re.compile(r"torque|force|wrench|current")


@dataclass(frozen=True)
class ActionNumber:
    """One number of the action: its name, the path it is read by ("" where joints are named), and its limits."""

    name: str
    field: str
    lower: float
    upper: float


@dataclass(frozen=True)
class ActionProposal:
    """What the action of a contract may be. `held`: a message is a single command and not a chunk."""

    topic: str
    type: str
    command: str
    unit: str
    numbers: tuple[ActionNumber, ...]
    held: bool


def command_topics(samples: dict[str, TopicSample]) -> list[str]:
    """The topics that may carry commands, the likeliest first."""
    scores = {topic: score(topic, sample) for topic, sample in samples.items()}
    likely = [topic for topic in samples if scores[topic] >= _ENOUGH and _usable(samples[topic])]
    return sorted(likely, key=lambda topic: (-scores[topic], -samples[topic].messages, topic))


def score(topic: str, sample: TopicSample) -> int:
    """How much speaks for a topic as the one that carries the commands."""
    name = topic.lower()
    said = _TYPE_SCORES.get(sample.type, 0)
    if not said:
        return 0
    return said + _COMMAND_SCORE * bool(_COMMAND_NAME.search(name)) + _STATE_SCORE * bool(_STATE_NAME.search(name))


def propose_action(topic: str, sample: TopicSample) -> ActionProposal | None:
    """The action that the topic's messages make; None when they have no numbers that are always there."""
    usable = _usable(sample)
    if not usable:
        return None
    if sample.type == JOINT_TRAJECTORY:
        group = next(group for group in _GROUPS if any(path.startswith(f"{group}.") for path in usable))
        of_group = {path.partition(".")[2]: number for path, number in usable.items() if path.startswith(f"{group}.")}
        # A point without a time is a command that holds from now on; with times the message is a chunk.
        held = sample.points == 1 and sample.at_once
        return _proposal(topic, sample, group, of_group, dict.fromkeys(of_group, ""), held)
    if sample.type == MULTI_ARRAY and len(sample.labels) == 2 and sample.labels[1].startswith("time,"):
        names = sample.labels[1].split(",")[1:]
        columns = [
            [number for path, number in usable.items() if _index(path) % (len(names) + 1) == column + 1]
            for column in range(len(names))
        ]
        of_names = {name: _joined(column) for name, column in zip(names, columns, strict=True) if column}
        return _proposal(topic, sample, _command(topic, sample.type), of_names, dict.fromkeys(of_names, ""), False)
    if sample.type == JOINT_STATE:
        first = next(group for group in _SINGULAR if any(path.startswith(f"{group}.") for path in usable))
        usable = {path: number for path, number in usable.items() if path.startswith(f"{first}.")}
        paths = {path.partition(".")[2]: path for path in usable}
        command = _SINGULAR[first]
    else:
        # What never changes is an axis that the robot does not have; all still means that nothing was commanded.
        changing = {path: number for path, number in usable.items() if not number.constant}
        usable = changing or usable
        paths = {re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_"): path for path in usable}
        command = _command(topic, sample.type)
    of_paths = {name: usable[path] for name, path in paths.items()}
    return _proposal(topic, sample, command, of_paths, paths, True)


def _usable(sample: TopicSample) -> dict[str, Range]:
    """The numbers that every message has; of a trajectory, every point of at least every message."""
    return {path: number for path, number in sample.numbers.items() if number.messages >= sample.messages}


def _proposal(
    topic: str, sample: TopicSample, command: str, ranges: dict[str, Range], fields: dict[str, str], held: bool
) -> ActionProposal:
    unit = _GROUPS[command]
    if sample.type not in (JOINT_TRAJECTORY, JOINT_STATE, MULTI_ARRAY) and command == "velocities":
        unit = "m/s, rad/s"
    numbers = [
        ActionNumber(name, fields[name], *outward(number, with_zero=command != "positions"))
        for name, number in ranges.items()
    ]
    return ActionProposal(topic, sample.type, command, unit, tuple(numbers), held)


def _command(topic: str, kind: str) -> str:
    """What is commanded, as far as the names say it; positions when they do not."""
    text = f"{topic} {kind}".lower()
    for word, command in _WORDS:
        if word in text:
            return command
    return "effort" if _FORCES.search(text) else "positions"


def outward(number: Range, with_zero: bool) -> tuple[float, float]:
    """The range, rounded outward to two figures of its span; around zero where standing still has to be possible."""
    low, high = number.low, number.high
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    if span == 0:
        return low - 1.0, high + 1.0
    digits = 1 - math.floor(math.log10(span))
    step = 10.0**-digits
    # What lies on a step but for rounding stays there.
    lower, upper = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return round(lower, max(digits, 0)) + 0.0, round(upper, max(digits, 0)) + 0.0


def _joined(ranges: Sequence[Range]) -> Range:
    whole = Range()
    for each in ranges:
        whole.low, whole.high, whole.last = min(whole.low, each.low), max(whole.high, each.high), each.last
        whole.messages = max(whole.messages, each.messages)
    return whole


def _index(path: str) -> int:
    return int(path.rpartition("[")[2][:-1])
