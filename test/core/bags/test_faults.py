"""What goes wrong with bags in the field, in one list: each fault is refused or read by a rule, named and counted.

Three tables. BAD: faults for which a bag is not used; by default one stops the conversion, and with `bad_bags: skip`
the others make the dataset. READ: faults that are read around by a rule, and what the report says of them. REFUSED:
what is wrong before any bag is read, which nothing skips. More about single faults is in test_bag_faults.py (reading),
test_convert.py (converting) and test/core/contract.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from faults import (
    COMMAND,
    GRIPPER,
    JOINTS,
    POSE,
    Make,
    a_recording,
    as_it_is,
    at_goal,
    at_tick,
    cut,
    dropping,
    inside,
    joints_turned_round,
    jump,
    lying_count,
    mixed_storages,
    no_yaml,
    noise,
    recorded,
    setting,
    spoilt,
    stamped,
    storage_file,
    with_gripper,
    without_metadata,
    without_square_root,
    write_topics,
)
from synthetic import CONTRACT

from rql_core.bags import convert, parts
from rql_core.data.minari_io import load_dataset, read_metadata
from rql_core.errors import BagError, ContractError, DatasetError, RqlError

SUCCESS = "success: {rule: within, feature: tool_position, target: [0.4, 0.2, 0.0], tolerance: 0.04}"
NAN_REWARD = (
    SUCCESS + "\n  at_success: 0.0\n  otherwise: -1.0",
    SUCCESS + "\n  value: {rule: expression, expression: sqrt(tool_position.x)}",
)
AT = r"\d\.\d{3} s from the bag's start \(1793534\d{3}\.\d{9} s\): "
GRIPPER_TOPIC = f"""    - topic: /gripper
      type: {GRIPPER}
      clock: receive
      align: {{method: hold, max_age: 0.1}}
      features:
        - {{name: grip, unit: m, fields: [grip]}}
action:
"""

# Faults for which a bag is not used


@dataclass(frozen=True)
class Bad:
    """`words`: what the error says, which begins with the bag. `changes`: of the contract, for all bags."""

    name: str
    make: Make
    words: str
    changes: tuple[tuple[str, str], ...] = ()


NAN, INF = np.array([0.0, np.nan]), np.array([np.inf, 0.0])
BAD = [
    Bad("truncated mcap", spoilt(cut), r"run_1\.mcap: its end is missing \(\d+ bytes are there\)"),
    Bad("truncated sqlite3", spoilt(cut, "sqlite3"), r": damaged or no bag: .*malformed"),
    Bad("truncated sqlite3, no metadata", spoilt(partial(cut, metadata=False), "sqlite3"), r"run_1\.db3: not readable"),
    Bad("noise in mcap", spoilt(noise), r": damaged or no bag: "),
    Bad("noise in sqlite3", spoilt(noise, "sqlite3"), r": damaged or no bag: "),
    Bad("metadata that is no YAML", spoilt(no_yaml), r": damaged or no bag: .*metadata\.yaml.*line 1"),
    Bad("a file that metadata names is missing", spoilt(lambda bag: storage_file(bag).unlink()), r"files are missing"),
    Bad("a file of 0 bytes", spoilt(lambda bag: storage_file(bag).write_bytes(b"")), r"\(0 bytes are there\)"),
    Bad(
        "an empty bag", recorded(lambda recording: recording.messages.clear()), "no usable step: no messages on /joint"
    ),
    Bad("a required topic is absent", recorded(as_it_is, leave_out=(POSE,)), "topic /tool_pose .* is not in the bag"),
    Bad("a required topic has no message", recorded(dropping(POSE, range(40))), "no messages on /tool_pose"),
    Bad(
        "an unknown type",
        partial(with_gripper, embedded=False),
        f"/gripper: {GRIPPER} cannot be decoded: .*message_definitions",
        (("action:\n", GRIPPER_TOPIC),),
    ),
    Bad(
        "a type that changed between bags",
        partial(write_topics, kinds={POSE: "std_msgs/msg/Header"}),
        "topic /tool_pose has std_msgs/msg/Header, expected geometry_msgs/msg/PoseStamped",
    ),
    Bad(
        "a joint is missing",
        recorded(at_tick(JOINTS, 9, setting(name=["shoulder_joint", "wrist"]))),
        AT + r"/joint_states: joint 'elbow_joint' is there 0 times",
    ),
    Bad(
        "a joint is doubled",
        recorded(at_tick(JOINTS, 9, setting(name=["elbow_joint", "elbow_joint"]))),
        AT + r"/joint_states: joint '\w+' is there [02] times",
    ),
    Bad(
        "an array is shorter than the names",
        recorded(at_tick(JOINTS, 9, setting(velocity=np.zeros(1)))),
        AT + r"/joint_states: velocity has 1 values for 2 joint names",
    ),
    Bad("a stamp of zero", recorded(at_tick(POSE, 9, stamped(None))), AT + r"/tool_pose: header\.stamp is 0 ns"),
    Bad("a rate below the contract's", recorded(dropping(POSE, range(1, 40, 2))), r"/tool_pose has 10 Hz \(median\)"),
    Bad(
        "NaN in an observation",
        recorded(at_tick(JOINTS, 9, setting(position=NAN))),
        AT + r"/joint_states: joint_position\.position\.elbow_joint is nan",
    ),
    Bad(
        "Inf in an observation",
        recorded(at_tick(JOINTS, 9, setting(velocity=INF))),
        AT + r"/joint_states: joint_velocity\.velocity\.shoulder_joint is inf",
    ),
    Bad(
        "NaN in an action",
        recorded(at_tick(COMMAND, 9, inside(setting(velocities=NAN)))),
        r"\d\.\d{3} s from the bag's start .*/command: step 0, elbow_joint is nan",
    ),
    Bad(
        "a reward that is NaN",
        recorded(without_square_root),
        r"episode 1 of the bag \(starts at \d+\.\d{3} s\), step 8: expression .* is nan",
        (NAN_REWARD,),
    ),
    Bad("episodes shorter than a chunk", recorded(dropping(COMMAND, range(1, 40))), "has 1 steps, min_steps is 2"),
]


class Good:
    """Bags without a fault, which the tests share and only read, and what they come to by themselves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents: dict[tuple[tuple[str, str], ...], str] = {}

    def bags(self, changes: tuple[tuple[str, str], ...] = ()) -> list[Path]:
        """Two bags, one in each storage, for the contract with these changes."""
        gripper = any(GRIPPER in new for _, new in changes)
        bags = [self._folder / ("gripper" if gripper else "plain") / f"run_{seed}" for seed in (0, 2)]
        for bag, seed, storage in zip(bags, (0, 2), ("mcap", "sqlite3"), strict=True):
            if not bag.exists():
                with_gripper(bag, embedded=True, seed=seed) if gripper else a_recording(seed).write(bag, storage)
        return bags

    def content(self, changes: tuple[tuple[str, str], ...] = ()) -> str:
        """The hash of the dataset that they are by the contract with these changes."""
        if changes not in self._contents:
            bags, contract = self.bags(changes), synthetic.contract_file(self._folder, *changes)
            report = convert(bags, contract, self._folder / f"good-v{len(self._contents)}", progress=False)
            self._contents[changes] = report.content_sha256
        return self._contents[changes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return Good(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.name)
def test_a_bad_bag_is_named_and_stops_the_conversion_or_is_skipped(tmp_path: Path, good: Good, fault: Bad) -> None:
    first, last = good.bags(fault.changes)
    bad = tmp_path / "bad" / "run_1"
    fault.make(bad)
    contract = synthetic.contract_file(tmp_path, *fault.changes)
    bags = [first, bad, last]
    with pytest.raises(BagError, match=fault.words) as caught:
        convert(bags, contract, tmp_path / "arm-v0", progress=False)
    assert not (tmp_path / "arm-v0").exists()
    report = convert(bags, contract, tmp_path / "arm-v0", progress=False, bad_bags="skip")
    assert [each.path for each in report.skipped] == [str(bad)]
    error = report.skipped[0].error
    assert error.startswith(str(bad))
    assert "\n" not in error
    # The same words, but for what the conversion adds about the bag before it.
    assert str(caught.value).startswith(error)
    assert [bag.path for bag in report.bags] == [str(first), str(last)]
    assert report.content_sha256 == good.content(fault.changes)
    assert read_metadata(tmp_path / "arm-v0")["skipped_bags"][0]["error"] == error


def test_a_bag_that_another_process_still_writes_is_named_and_skipped(
    tmp_path: Path, good: Good, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was flushed before it was opened is read (test_bag_faults.py); not what changes meanwhile."""
    bad = a_recording().write(tmp_path / "bad" / "run_1")
    original = parts.convert_bag

    def and_write(path: Path, *arguments: Any, **options: Any) -> Any:
        report = original(path, *arguments, **options)
        if path == bad:
            with storage_file(path).open("ab") as file:
                file.write(b"\n")
        return report

    monkeypatch.setattr(parts, "convert_bag", and_write)
    contract = synthetic.contract_file(tmp_path)
    report = convert([*good.bags(), bad], contract, tmp_path / "arm-v0", progress=False, bad_bags="skip")
    assert [each.error for each in report.skipped] == [
        f"{bad}: changed while it was read; convert it when nothing writes it any more"
    ]
    assert report.content_sha256 == good.content()


# Faults that are read around by a rule


@dataclass(frozen=True)
class Read:
    """`lengths`: steps of its episodes; `notes` (patterns), `left_out`, `cuts`, `dropped`: how the report counts it.

    `solved`: how many of its steps arrive at the goal, `terminals`: how many of its episodes end there for good.
    """

    name: str
    make: Make
    lengths: list[int]
    notes: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    solved: int = 0
    terminals: int = 0
    changes: tuple[tuple[str, str], ...] = ()


END = (("at_success: continue", "at_success: end"),)
READ = [
    Read(
        "no metadata",
        spoilt(without_metadata),
        [19, 19],
        ("unfinished, 122 messages read",),
    ),
    Read(
        "truncated mcap, no metadata",
        spoilt(partial(cut, metadata=False)),
        [19, 13],
        (r"unfinished, \d+ messages read, \d+ bytes cut",),
    ),
    Read(
        "a message_count that lies",
        spoilt(lying_count),
        [19, 19],
        tuple(
            f"{topic}: {count} messages read, but the bag's index says 7"
            for topic, count in (("/episode", 2), (COMMAND, 40), (JOINTS, 40), (POSE, 40))
        ),
    ),
    Read("both storages in one bag", mixed_storages, [19, 19], ("unfinished, 122 messages read",)),
    Read("joints in another order", recorded(joints_turned_round), [19, 19]),
    Read("a path with spaces and signs", recorded(as_it_is), [19, 19]),
    Read("a stamp that goes back", recorded(at_tick(POSE, 9, stamped(-0.12))), [19, 19], left_out={"out_of_order": 1}),
    Read(
        "a stamp in the future",
        recorded(at_tick(POSE, 9, stamped(3600))),
        [10, 8, 19],
        left_out={"clock_jump": 1, "gap": 1, "ticks_without_action": 1},
        cuts={"no action in force": 1},
    ),
    Read(
        "a command's stamp in the future",
        recorded(at_tick(COMMAND, 9, stamped(3600))),
        [9, 8, 19],
        left_out={"clock_jump": 1, "ticks_without_action": 2},
        cuts={"no action in force": 1},
    ),
    Read("stamps that jump back", recorded(jump(-5)), [9, 29], left_out={"clock_jump": 1}, cuts={"clock jump": 1}),
    Read(
        "stamps that jump ahead",
        recorded(jump(5)),
        [10, 29],
        left_out={"gap": 1, "ticks_without_action": 2},
        cuts={"no action in force": 1},
    ),
    Read("a gap", recorded(dropping(POSE, range(10, 16))), [11, 3, 19], left_out={"gap": 1}, cuts={"no /tool_pose": 1}),
    Read(
        "a gap in the commands",
        recorded(dropping(COMMAND, range(10, 16))),
        [10, 3, 19],
        left_out={"ticks_without_action": 6},
        cuts={"no action in force": 1},
    ),
    Read(
        "an episode shorter than a chunk",
        recorded(dropping(COMMAND, [1])),
        [17, 19],
        left_out={"short_episodes": 1, "steps_in_short_episodes": 1, "ticks_without_action": 1},
        cuts={"no action in force": 1},
        dropped=1,
    ),
    Read("no terminal", recorded(as_it_is), [19, 19], changes=END),
    Read(
        "two terminals in an episode",
        recorded(at_goal(5, 9)),
        [5, 19],
        left_out={"steps_after_success": 14},
        cuts={"success": 1},
        solved=1,
        terminals=1,
        changes=END,
    ),
    Read("success in the middle of an episode that goes on", recorded(at_goal(5, 6)), [19, 19], solved=2),
]


@pytest.mark.parametrize("fault", READ, ids=lambda fault: fault.name)
def test_what_a_rule_says_how_to_read_is_converted_and_counted(tmp_path: Path, good: Good, fault: Read) -> None:
    first, last = good.bags()
    bag = tmp_path / "Grüße 机器人 #1" / "run_1" if "path" in fault.name else tmp_path / "odd" / "run_1"
    fault.make(bag)
    contract = synthetic.contract_file(tmp_path, *fault.changes)
    report = convert([first, bag, last], contract, tmp_path / "arm-v0", progress=False, bad_bags="skip")
    assert report.skipped == []
    about = report.bags[1]
    assert about.path == str(bag)
    assert load_dataset(tmp_path / "arm-v0")[0].lengths.tolist() == [19, 19, *fault.lengths, 19, 19]
    assert len(about.notes) == len(fault.notes)
    assert all(map(re.fullmatch, fault.notes, about.notes))
    assert about.left_out == fault.left_out
    assert {why: count for why, count in about.cuts.items() if why not in ("marker", "end of bag")} == fault.cuts
    assert len(about.dropped) == fault.dropped
    assert (report.solved_steps, report.terminal_episodes) == (fault.solved, fault.terminals)
    page = (tmp_path / "arm-v0" / "report.html").read_text(encoding="utf-8")
    for words in (*about.notes, str(bag)):
        assert escape(words) in page
    if "order" in fault.name:
        whole = a_recording().write(tmp_path / "whole" / "run_1")
        same = convert([first, whole, last], contract, tmp_path / "same-v0", progress=False)
        assert same.content_sha256 == report.content_sha256


def test_where_no_step_of_any_bag_is_solved_the_report_asks_whether_that_is_meant(tmp_path: Path, good: Good) -> None:
    report = convert(good.bags(), synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)
    assert report.findings[0].text.startswith("No step solves the task: is the success rule right")


# What is wrong before any bag is read

BOMB = "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
REFUSED = [
    ("'..' in a dataset id", CONTRACT, "lab/../arm-v0", DatasetError, r"has '\.\.' within it"),
    ("an id without -vN", CONTRACT, "arm", DatasetError, "expected name-vN such as 'arm-v0'"),
    ("an unknown key", CONTRACT + "qualty: {}\n", "arm-v0", ContractError, "unknown key 'qualty'"),
    ("a doubled key", CONTRACT + "rate: 30\n", "arm-v0", ContractError, r"line \d+: key 'rate' is there twice"),
    ("anchors that multiply", f"a: &a [x, x]\n{BOMB}", "arm-v0", ContractError, r"line 2: aliases \(\*a\)"),
    ("10 MB of YAML", CONTRACT + "#" * 10**7, "arm-v0", ContractError, r"\d{8} bytes, expected at most 1000000"),
]


@pytest.mark.parametrize(
    ("text", "output", "error", "words"), [pytest.param(*each[1:], id=each[0]) for each in REFUSED]
)
def test_what_is_wrong_with_contract_or_output_is_never_skipped(
    tmp_path: Path, good: Good, text: str, output: str, error: type[RqlError], words: str
) -> None:
    bags = good.bags()
    (tmp_path / "contract.yaml").write_text(text)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(error, match=words) as caught:
        convert(bags, tmp_path / "contract.yaml", tmp_path / output, progress=False, bad_bags="skip")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
