"""Random recordings with everything that goes wrong have the episodes that looking at all of them at once says.

Losses, silences of one topic or both, stamps beside the ticks, chunks of any length, commands that stop, markers and
resets anywhere and on ticks, rewards and successes that are missing or doubled: under every combination of rules.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from episode_oracle import SOLVED_ABOVE, End, Expected, Oracle, Recorded, Rules
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CONTRACT, PERIOD_NS, START_NS, action_message, contract_text, joint_state, pose

from rql_core.bags.episodes import Episode, EpisodeCutter
from rql_core.contract import Contract, parse_contract
from rql_core.contract.reward_signals import RewardSignals

MS = 1_000_000
MARKER = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
REWARD = CONTRACT[CONTRACT.index("  success:") : CONTRACT.index("episodes:")].rstrip()

ends: st.SearchStrategy[End] = st.sampled_from(["terminal", "truncation"])
rules = st.builds(
    Rules,
    bag_end=ends,
    marker_end=st.none() | ends,
    reset_end=st.none() | ends,
    gap=st.none() | st.tuples(st.sampled_from([100 * MS, 200 * MS, 300 * MS]), ends),
    time_limit=st.none() | st.tuples(st.integers(4, 14), ends),
    end_at_success=st.booleans(),
    min_steps=st.integers(1, 3),
    success=st.sampled_from(["never", "expression", "topic, cut", "topic, unsolved"]),
    reward=st.sampled_from(["numbers", "expression", "sum, cut", "sum, zero", "last, cut"]),
    held=st.booleans(),
    max_command_age_ns=st.sampled_from([0, 50 * MS, 120 * MS]),
).filter(lambda rules: not rules.held or rules.max_command_age_ns > 0)


def contract_of(rules: Rules) -> Contract:
    """The contract that says these rules."""
    cuts = []
    if rules.gap is not None:
        cuts.append(f"{{by: gap, seconds: {rules.gap[0] / 1e9}, end: {rules.gap[1]}}}")
    if rules.reset_end is not None:
        cuts.append(f"{{by: reset, topic: /reset, type: std_msgs/msg/Empty, clock: receive, end: {rules.reset_end}}}")
    if rules.time_limit is not None:
        steps, end = rules.time_limit
        cuts.append(f"{{by: time_limit, seconds: {steps * PERIOD_NS / 1e9:.2f}, end: {end}}}")
    boundary = f"boundary: {{by: bag, end: {rules.bag_end}}}"
    if rules.marker_end is not None:
        boundary = f"{MARKER[:-1]}, end: {rules.marker_end}}}"
    return parse_contract(
        contract_text(
            (MARKER, f"{boundary}\n  cuts: [{', '.join(cuts)}]"),
            (REWARD, f"  success: {success_rule(rules)}\n{reward_rule(rules)}"),
            ("min_steps: 2", f"min_steps: {rules.min_steps}"),
            ("at_success: continue", f"at_success: {'end' if rules.end_at_success else 'continue'}"),
            (
                "  hold: zero\n",
                f"  hold: zero\n  resolve: {'hold' if rules.held else 'chunk'}\n"
                f"  max_age: {rules.max_command_age_ns / 1e9}\n",
            ),
        )
    )


def success_rule(rules: Rules) -> str:
    kind, _, missing = rules.success.partition(", ")
    if kind == "never":
        return "{rule: never}"
    if kind == "expression":
        return f'{{rule: expression, expression: "tool_position.x > {SOLVED_ABOVE}"}}'
    topic = "topic: /success, type: std_msgs/msg/Bool, field: data, clock: receive"
    return f"{{rule: topic, {topic}, in_step: any, missing: {missing}}}"


def reward_rule(rules: Rules) -> str:
    kind, _, missing = rules.reward.partition(", ")
    if kind == "numbers":
        return "  at_success: 1.5\n  otherwise: -1.0"
    if kind == "expression":
        return '  value: {rule: expression, expression: "tool_position.y * 2"}'
    topic = "topic: /reward, type: std_msgs/msg/Float64, field: data, clock: receive"
    return f"  value: {{rule: topic, {topic}, in_step: {kind}, missing: {missing}}}"


def recording(rules: Rules, rng: np.random.Generator) -> Recorded:
    """20 to 119 ticks of which much may be missing."""
    ticks = int(rng.integers(20, 120))
    made = Recorded()
    lost, silent = float(rng.choice([0, 0.02, 0.1])), silences(ticks, rng)
    both = rng.random() < 0.5
    for tick in range(ticks):
        for said, width, stops in ((made.joints, 4, both), (made.poses, 3, True)):
            values = rng.uniform(2, 3, width) if width == 3 else rng.uniform(-1, 1, width)
            if rng.random() >= lost and not (stops and tick in silent):
                said.append((beside_tick(tick, rng), values))
    made.joints, made.poses = by_stamp(made.joints), by_stamp(made.poses)
    made.chunks = commands(ticks, rng)
    on_ticks = bool(rng.random() < 0.5)
    made.markers = [] if rules.marker_end is None else events(ticks, on_ticks, rng)
    made.resets = [] if rules.reset_end is None else events(ticks, on_ticks, rng)
    made.rewards = [(time, float(rng.normal())) for time in label_times(ticks, rng)]
    made.successes = [(time, bool(rng.random() < 0.1)) for time in label_times(ticks, rng)]
    return made


def silences(ticks: int, rng: np.random.Generator) -> set[int]:
    silent: set[int] = set()
    for _ in range(int(rng.integers(0, 3))):
        begin = int(rng.integers(5, ticks))
        silent |= set(range(begin, begin + int(rng.integers(2, 12))))
    return silent


def beside_tick(tick: int, rng: np.random.Generator) -> int:
    """Half of all stamps are on the tick itself."""
    before, after = int(rng.integers(1, PERIOD_NS // 2)), int(rng.integers(1, PERIOD_NS // 3))
    return START_NS + tick * PERIOD_NS + int(rng.choice([0, 0, -before, after]))


def by_stamp(said: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Without those that another one has overtaken."""
    kept: list[tuple[int, Any]] = []
    for each in said:
        if not kept or each[0] > kept[-1][0]:
            kept.append(each)
    return kept


def commands(ticks: int, rng: np.random.Generator) -> list[tuple[int, Any]]:
    """Chunks of one to four steps that overlap, follow each other, or leave some ticks without."""
    stop = int(rng.integers(0, ticks))
    stopped = range(stop, stop + int(rng.integers(1, 8))) if rng.random() < 0.5 else range(0)
    made, tick = [], 0
    while tick < ticks:
        horizon = int(rng.integers(1, 5))
        if tick not in stopped and rng.random() > 0.03:
            made.append((START_NS + tick * PERIOD_NS, rng.uniform(-1, 1, (horizon, 2))))
        tick += int(rng.integers(1, horizon + 1)) if rng.random() < 0.9 else horizon + 1
    return made


def events(ticks: int, on_ticks: bool, rng: np.random.Generator) -> list[int]:
    """Up to three, also some from before the recording or after it."""
    times = [int(at) for at in rng.integers(-5 * PERIOD_NS, (ticks + 3) * PERIOD_NS, int(rng.integers(0, 4)))]
    return [START_NS + (at // PERIOD_NS * PERIOD_NS if on_ticks else at) for at in times]


def label_times(ticks: int, rng: np.random.Generator) -> list[int]:
    """Mostly one a step, sometimes none or two, a fifth of them exactly on the tick."""
    times = []
    for tick in range(ticks + 2):
        for _ in range(int(rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))):
            early = int(rng.integers(0, PERIOD_NS)) if rng.random() < 0.8 else 0
            times.append(START_NS + tick * PERIOD_NS - early)
    return sorted(times)


def cut(rules: Rules, made: Recorded, rng: np.random.Generator) -> list[Episode]:
    """What the cutter makes of the recording, whose messages arrive up to 3 ms late."""
    contract = contract_of(rules)
    names = contract.action.names
    messages: list[tuple[int, str, Any]] = []
    for stamp, values in made.joints:
        messages.append((late(stamp, rng), "/joint_states", joint_state(stamp, names, values[:2], values[2:])))
    messages += [(late(stamp, rng), "/tool_pose", pose(stamp, values)) for stamp, values in made.poses]
    messages += [(stamp + 3 * MS, "/command", action_message(contract, stamp, each)) for stamp, each in made.chunks]
    signals = RewardSignals(contract)
    said: dict[str, list[tuple[int, Any]]] = {"/reward": list(made.rewards), "/success": list(made.successes)}
    for topic in signals.types:
        for stamp, value in said[topic]:
            signals.push(topic, SimpleNamespace(data=value), stamp)
    resets = [(stamp, rules.reset_end or "truncation") for stamp in made.resets]
    cutter = EpisodeCutter(contract, made.markers, resets, signals=signals if signals.types else None)
    for receive_ns, topic, message in sorted(messages, key=lambda each: each[0]):
        cutter.push(topic, message, receive_ns)
    cutter.finish()
    return cutter.take()


def late(stamp: int, rng: np.random.Generator) -> int:
    return stamp + int(rng.integers(0, 2 * MS))


def assert_same(found: Episode, expected: Expected) -> None:
    assert (found.start_ns, found.end_ns) == (expected.ticks[0], expected.ticks[-1])
    assert (found.terminal, "missing" if found.cut.startswith("no /") else found.cut) == (
        expected.terminal,
        expected.why,
    )
    np.testing.assert_array_equal(found.observations, expected.observations.astype(np.float32))
    np.testing.assert_allclose(found.actions, expected.actions)
    np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-5, atol=1e-6)
    masks = np.where(expected.solved, 0.0, 1.0)
    masks[-1] *= not expected.terminal
    np.testing.assert_array_equal(found.masks, masks)
    assert found.solved_steps == sum(expected.solved)


@given(rules=rules, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_episodes_are_those_of_looking_at_the_whole_recording_at_once(rules: Rules, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = recording(rules, rng)
    expected = Oracle(rules, made).episodes()
    found = cut(rules, made, rng)
    assert [(each.steps, each.start_ns) for each in found] == [(len(each.actions), each.ticks[0]) for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
