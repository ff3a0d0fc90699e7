"""Writes a proposed contract as text that is meant to be edited.

What was guessed has `# check`, and what was left out is there as a comment that says why. The text says nothing about
bags that were not looked at.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import yaml

from rql_core.bags.inspection import MARKER_TYPE, BagInspection
from rql_core.bags.proposal import Proposal, TopicProposal, down, held_for, stated_rate, up
from rql_core.errors import ConfigError

# A topic faster than the contract may be nearly a control step late: it is still news.
_AGE_STEPS = 0.8
# Slower than ten steps a second nothing is controlled: what comes less often is observed as a slow topic.
_LOWEST_RATE = 10.0
# A running node that waits longer for what belongs to a tick acts late; two fifths of a step at 20 Hz.
_MAX_WAIT_S = 0.02
# A held command stays in force so many of its periods: two lost ones do not break an episode.
_HOLD_PERIODS = 3
# The goal of a task is seldom nearer than a twentieth of the way that was recorded.
_TOLERANCE_SHARE = 0.05
# Rates within 3 % are the same: the median of periods that jitter is off by so much.
_SAME_RATE = 0.97
# Clocks that differ by more cannot be mixed with receive times in one contract.
_SAME_CLOCK_S = 0.5


def contract_text(proposal: Proposal, name: str, definitions: Sequence[str] = ()) -> str:
    """The proposal as the text of a contract called `name`.

    `definitions`: paths for `message_definitions`, relative to where the contract will be. Raises ConfigError when no
    feature can have a target, which a reward needs.
    """
    bags, topics = proposal.bags, proposal.topics
    rate, why = _rate(proposal)
    clock = _clock(proposal)
    looked = ", ".join(bag.path for bag in bags[:3]) + (f" and {len(bags) - 3} more" if len(bags) > 3 else "")
    lines = [
        f"# A proposal, made from {_one_line(looked)}.",
        "# Look at every line that says check, then: rql contract check FILE BAG ...",
        "schema: 1",
        f"name: {_contract_name(name)}",
        "description: Say what the robot and the task are.  # check",
        f"rate: {rate:g}  # Hz, control steps a second; check: {why}",
        f"clock: {clock}  # {_CLOCKS[clock]}",
        *(["message_definitions:", *(f"  - {_scalar(path)}" for path in definitions)] if definitions else []),
        "",
        "observation:",
        f"  max_wait: {_MAX_WAIT_S:g}  # s; how long a running node waits after a tick for messages that belong to it",
        "  topics:",
    ]
    for topic in topics:
        lines += _topic_lines(topic, clock, rate)
    lines += [f"  # left out: {topic}: {why}" for topic, why in proposal.left_out]
    lines += ["", *_action_lines(proposal, rate, clock)]
    return "\n".join([*lines, "", *_reward_lines(topics), "", *_episode_lines(bags), ""])


_CLOCKS = {
    "header": "the stamps of the messages count, not when they were received",
    "receive": "when a message was received counts; check: not all topics have stamps that can be used",
}


def _rate(proposal: Proposal) -> tuple[float, str]:
    """The control rate and where it is from: as often as commands come, no oftener than anything but slow topics."""
    rates = {topic.topic: topic.rate_hz for topic in proposal.topics}
    fastest = max(rates.values())
    action = proposal.action
    if action is not None and action.held:
        commands = [each.rate_hz for each in proposal.of(action.topic) if each.rate_hz is not None]
        if commands:
            # A person who presses keys does not slow the control down.
            rates[action.topic] = max(min(commands), _LOWEST_RATE)
    steady = {topic: rate for topic, rate in rates.items() if rate >= min(_LOWEST_RATE, fastest)}
    slowest = min(steady, key=lambda topic: (steady[topic], topic))
    rate = _nice_rate(min(steady[slowest], fastest))
    if action is not None and slowest == action.topic:
        return rate, f"so often commands come on {slowest}"
    return rate, f"so often {slowest} comes"


def _clock(proposal: Proposal) -> str:
    """The header's, unless stamps are unset, or where they would be mixed with receive times of another clock."""
    stamped = [topic for topic in proposal.topics if topic.stamped]
    offsets = [each.offset_s or 0.0 for topic in stamped for each in proposal.of(topic.topic)]
    if len(stamped) == len(proposal.topics):
        return "header"
    return "header" if stamped and max(map(abs, offsets)) < _SAME_CLOCK_S else "receive"


def _topic_lines(topic: TopicProposal, clock: str, rate: float) -> list[str]:
    age = max(held_for(topic.rate_hz), up(_AGE_STEPS / rate))
    lines = [
        f"    - topic: {_scalar(topic.topic)}",
        f"      type: {topic.type}",
        f"      align: {{method: hold, max_age: {age:g}}}  # s; it comes with {topic.rate_hz:.4g} Hz",
    ]
    if topic.rate_hz < _SAME_RATE * rate:
        lines.append(f"      min_rate: {stated_rate(topic.rate_hz):g}  # Hz; it is slower than the control steps")
    if clock == "header" and not topic.stamped:
        lines.append("      clock: receive  # its messages have no stamps")
    elif clock == "header" and topic.delay_s is not None and _MAX_WAIT_S < topic.delay_s < _SAME_CLOCK_S:
        late = f"{topic.delay_s * 1e3:.0f} ms after its stamp, which is more than max_wait"
        lines.append(f"      clock: receive  # check: it comes {late}")
    if topic.partial:
        lines.append("      joints: partial  # not every message has all joints")
    lines.append("      features:")
    for feature in topic.features:
        check = "  # check" if feature.unit == "?" else ""
        lines += [f"        - name: {feature.name}", f"          unit: {_scalar(feature.unit)}{check}"]
        if feature.rotation:
            turns = "  # check: it turns past 180 degrees, where yaw jumps; 6d does not" if feature.turns_round else ""
            lines += [f"          fields: [{feature.fields[0]}]", f"          rotation: {feature.rotation}{turns}"]
            continue
        lines.append("          fields:")
        lines += [
            f"            - {_scalar(field)}  # {number.low:.3g} to {number.high:.3g}"
            for field, number in zip(feature.fields, feature.ranges, strict=True)
        ]
    lines += [f"      # left out: {path}: {_why_not(path)}" for path in topic.constant]
    return lines


def _why_not(path: str) -> str:
    return "efforts are noisy" if path == "effort" else "never changes"


def _action_lines(proposal: Proposal, rate: float, clock: str) -> list[str]:
    action = proposal.action
    if action is None:
        return [
            "action:  # check: no topic of the bags looks like commands; this one is made up",
            "  topic: /name_the_command_topic",
            "  type: trajectory_msgs/msg/JointTrajectory",
            "  command: velocities",
            "  unit: rad/s",
            "  hold: zero",
            "  features:",
            "    - {name: joint, lower: -1.0, upper: 1.0}  # check",
        ]
    others = [topic for topic in proposal.commands if topic != action.topic]
    lines = ["action:" + (f"  # check: {', '.join(others)} may be commands too" if others else "")]
    hold = "last" if action.command == "positions" else "zero"
    lines += [
        f"  topic: {_scalar(action.topic)}",
        f"  type: {action.type}",
        f"  command: {action.command}  # check",
        f"  unit: {_scalar(action.unit)}  # check",
        f"  hold: {hold}  # the safe command: last for positions, zero for everything else",
    ]
    if action.held:
        inspections = proposal.of(action.topic)
        found = [each.rate_hz for each in inspections if each.rate_hz]
        age = up(_HOLD_PERIODS / min([*found, rate]))
        lines += [
            "  resolve: hold  # a message is a command, in force until the next",
            f"  max_age: {age:g}  # s; check: for how long at most",
        ]
        stamped = all(each.has_header and not each.stamps_unset for each in inspections)
        if clock == "header" and not stamped:
            lines.append("  clock: receive  # its messages have no stamps")
    lines.append("  features:  # check: limits are the range of the data, rounded outward; they normalise the action")
    for number in action.numbers:
        field = f", field: {_scalar(number.field)}" if number.field else ""
        lines.append(
            f"    - {{name: {_scalar(number.name)}{field}, lower: {number.lower!r}, upper: {number.upper!r}}}  # check"
        )
    return lines


def _reward_lines(topics: Sequence[TopicProposal]) -> list[str]:
    """Solved near where the last bag ended: in a position if there is one."""
    features = [feature for topic in topics for feature in topic.features if not feature.rotation]
    if not features:
        raise ConfigError("only rotations change in the bags; a reward needs a feature with a target, so write one")
    feature = next((each for each in features if each.unit == "m"), features[0])
    size = math.sqrt(sum((number.high - number.low) ** 2 for number in feature.ranges))
    tolerance = up(_TOLERANCE_SHARE * size)
    target = ", ".join(repr(float(f"{number.last:.4g}")) for number in feature.ranges)
    return [
        "reward:",
        f"  # check: the target is where the last bag ended; {feature.name} moved over {size:.3g} {feature.unit}",
        f"  success: {{rule: within, feature: {feature.name}, target: [{target}], tolerance: {tolerance!r}}}",
        "  at_success: 0.0",
        "  otherwise: -1.0",
    ]


def _episode_lines(bags: Sequence[BagInspection]) -> list[str]:
    markers: dict[str, int] = {}
    for bag in bags:
        for topic, number in bag.markers.items():
            markers[topic] = markers.get(topic, 0) + number
    lines = ["episodes:"]
    if markers:
        topic = min(markers, key=lambda each: ("episode" not in each, markers[each], each))
        lines.append(
            f"  boundary: {{by: marker, topic: {_scalar(topic)}, type: {MARKER_TYPE}}}  "
            f"# check: {markers[topic]} starts"
        )
    else:
        lines.append("  boundary: {by: bag}  # check: a bag is an episode, as no topic marks starts")
    return [*lines, "  min_steps: 8  # check: shorter episodes are left out", "  at_success: continue  # check"]


def _nice_rate(rate: float) -> float:
    """The rate without its jitter: a whole number within 3 %, else two figures, downward."""
    whole = round(rate)
    if whole and abs(rate - whole) <= (1 - _SAME_RATE) * rate:
        return float(min(whole, 1000))
    return min(down(rate), 1000.0)


def _scalar(text: str) -> str:
    """`text` as a YAML value, in quotes where it would mean something else."""
    try:
        plain = yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(f"a: {text}") == {"a": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _contract_name(name: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60]
    return cleaned if cleaned and cleaned[0].isalpha() else f"robot_{cleaned}".rstrip("_")


def _one_line(text: str) -> str:
    return " ".join(text.split())
