"""A dataset labelled anew is the one that converting its bags by the new contract would have made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from synthetic import CONTRACT, Recording, contract_text, pose, record
from test_reward_topics import SUCCESS, converted, written

from rql_core.bags import ConversionReport, convert
from rql_core.bags.relabel import new_reward, relabel
from rql_core.cli import main
from rql_core.contract import load_contract, parse_contract
from rql_core.contract.rewrite import with_reward
from rql_core.data.fragments import cut_fragments
from rql_core.data.minari_io import load_dataset
from rql_core.errors import ConfigError, ContractError, DatasetError

RULE = CONTRACT[CONTRACT.index("  success:") : CONTRACT.index("episodes:")].rstrip()
# The tool is between 2 and 3 in each coordinate, so that this is true now and then.
NEAR = "hypot(tool_position.x - 2.5, tool_position.y - 2.5) < 0.4"
OTHER = f"""  success: {{rule: expression, expression: "{NEAR}"}}
  value: {{rule: expression, expression: "-tool_position.z + 10 * ({NEAR})"}}"""
CONTRACTS = sorted((Path(__file__).parents[3] / "config" / "contracts").glob("*.yaml"))


def dataset(folder: Path, name: str, recording: Recording, text: str) -> Path:
    (folder / f"{name}.yaml").write_text(text)
    bag = folder / "bag"
    if not bag.exists():
        recording.write(bag)
    convert(bag, folder / f"{name}.yaml", folder / f"{name}-v0", progress=False)
    return folder / f"{name}-v0"


def metadata(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((path / "data" / "metadata.json").read_text())
    return data


@pytest.mark.parametrize("at_success", ["continue", "end"])
def test_relabelling_equals_converting_anew_bit_for_bit(tmp_path: Path, at_success: str) -> None:
    ends = ("at_success: continue", f"at_success: {at_success}")
    recording = record(120, (0, 30, 60, 90), seed=3)
    # By the first contract nothing is ever solved, so that no step is lost that the second one would see.
    first = dataset(tmp_path, "first", recording, contract_text(ends))
    second = dataset(tmp_path, "second", recording, contract_text(ends, (RULE, OTHER)))
    expected = load_dataset(second)[0]
    assert 0 < (expected.masks == 0).sum() < expected.steps
    if at_success == "end":
        # Converting begins no new episode before the next marker; both leave what follows a success out.
        assert expected.steps < 116
    made = relabel(first, str(tmp_path / "second.yaml"), tmp_path / "third-v0")
    assert metadata(made.path)["content_sha256"] == metadata(second)["content_sha256"]
    assert load_dataset(made.path)[0].fingerprint() == expected.fingerprint()
    assert made.solved_steps == int((expected.masks == 0).sum())
    assert made.changed_steps == made.steps


@pytest.mark.parametrize(("limit_s", "end"), [(0.1, "terminal"), (0.25, "truncation"), (0.8, "terminal")])
def test_after_a_success_nothing_is_kept_up_to_the_next_boundary_whatever_a_time_limit_cut(
    tmp_path: Path, limit_s: float, end: str
) -> None:
    limit = f"cuts: [{{by: time_limit, seconds: {limit_s}, end: {end}}}]"
    changes = (("at_success: continue", f"at_success: end\n  {limit}"),)
    recording = record(120, (0, 30, 60, 90), seed=3)
    first = dataset(tmp_path, "first", recording, contract_text(*changes))
    second = dataset(tmp_path, "second", recording, contract_text(*changes, (RULE, OTHER)))
    made = relabel(first, str(tmp_path / "second.yaml"), tmp_path / "third-v0")
    assert metadata(made.path)["content_sha256"] == metadata(second)["content_sha256"]
    old, new = load_dataset(first)[0], load_dataset(made.path)[0]
    assert new.episodes < old.episodes
    assert (made.dropped_steps, made.episodes + made.dropped_episodes) == (old.steps - new.steps, old.episodes)
    (bag,) = report_of(made.path).bags
    whys = [dropped.why for dropped in bag.dropped]
    assert 0 < whys.count("after a success, before the next boundary") <= made.dropped_episodes


def test_the_new_dataset_carries_its_rule_its_parent_and_its_sources(tmp_path: Path) -> None:
    first = dataset(tmp_path, "first", record(40), CONTRACT)
    made = relabel(first, "-tool_position.z", tmp_path / "arm-v1", success="tool_position.x > 2.9")
    again = relabel(made.path, "tool_position[0]", tmp_path / "arm-v2")
    _, text, about = load_dataset(again.path)
    reward = parse_contract(text).reward
    assert reward.value is not None
    assert reward.value.model_dump() == {"rule": "expression", "expression": "tool_position[0]"}
    assert reward.success.model_dump() == {"rule": "expression", "expression": "tool_position.x > 2.9"}
    labels = about["labels"]
    assert [label["given"] for label in labels] == [
        "-tool_position.z; success tool_position.x > 2.9",
        "tool_position[0]",
    ]
    assert labels[0]["parent_content_sha256"] == metadata(first)["content_sha256"]
    assert labels[0]["parent_contract_sha256"] == metadata(first)["contract_sha256"]
    assert labels[1]["parent_content_sha256"] == metadata(made.path)["content_sha256"]
    assert about["source_bags"] == metadata(first)["source_bags"]
    data, old = load_dataset(again.path)[0], load_dataset(first)[0]
    np.testing.assert_array_equal(data.observations, old.observations)
    np.testing.assert_array_equal(data.actions, old.actions)
    np.testing.assert_array_equal(data.rewards, old.observations[1:, 4])
    # The first dataset is as it was.
    assert set(old.rewards.tolist()) == {-1.0}


def test_what_a_topic_had_said_stays_while_the_reward_changes(tmp_path: Path) -> None:
    said = [("/success", 4.5, True)]
    rule = f"  success: {SUCCESS}\n  at_success: 0.0\n  otherwise: -1.0"
    old, _ = converted(tmp_path, rule, said)
    made = relabel(tmp_path / "arm-v0", "3", tmp_path / "arm-v1")
    data = load_dataset(made.path)[0]
    assert data.rewards.tolist() == [3.0] * old.steps
    np.testing.assert_array_equal(data.masks, old.masks)
    assert int((old.masks == 0).sum()) == 1
    plain = dataset(tmp_path, "plain", record(12), CONTRACT)
    with pytest.raises(ContractError, match="comes from topic /success, which a dataset does not keep"):
        relabel(plain, str(tmp_path / "contract.yaml"), tmp_path / "arm-v2")
    assert not (tmp_path / "arm-v2").exists()


@pytest.mark.parametrize(
    ("reward", "options", "error", "words"),
    [
        ("sqrt(tool_position.x - 2.5)", {}, DatasetError, r"first-v0: episode 0, step \d+: expression .* is nan"),
        ("open('x')", {}, ContractError, "'open': is no function here"),
        ("gripper", {}, ContractError, "there is no 'gripper'"),
        ("1", {"success": "tool_position.x"}, ContractError, "expected a comparison"),
        ("planar_arm", {"changed": True}, ContractError, "its features are not those of the dataset"),
        ("absent.yaml", {}, ConfigError, r"'absent\.yaml' is no file and no name"),
    ],
)
def test_a_reward_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, reward: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    text = CONTRACT.replace("tool_position", "tip") if options.pop("changed", False) else CONTRACT
    first = dataset(tmp_path, "first", record(40), text)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(error, match=words):
        relabel(first, reward, tmp_path / "arm-v1", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_dataset_is_neither_its_own_child_nor_replaced_unasked(tmp_path: Path) -> None:
    first = dataset(tmp_path, "first", record(40), CONTRACT)
    with pytest.raises(ConfigError, match="is the dataset itself"):
        relabel(first, "1", first, overwrite=True)
    relabel(first, "1", tmp_path / "arm-v1")
    with pytest.raises(DatasetError, match="exists already"):
        relabel(first, "2", tmp_path / "arm-v1")
    relabel(first, "2", tmp_path / "arm-v1", overwrite=True)
    assert set(load_dataset(tmp_path / "arm-v1")[0].rewards.tolist()) == {2.0}


def test_episodes_that_become_too_short_are_left_out_and_counted(tmp_path: Path) -> None:
    recording = record(40, (0, 20))
    recording.tool[:] = 5.0
    recording.tool[1] = 2.0  # the first episode is solved by its first step; min_steps is 2
    recording.tool[25] = 2.0
    recording.messages = [message for message in recording.messages if message[0] != "/tool_pose"]
    for tick in range(40):
        recording.add("/tool_pose", recording.stamp(tick), pose(recording.stamp(tick), recording.tool[tick]))
    first = dataset(tmp_path, "first", recording, contract_text(("at_success: continue", "at_success: end")))
    made = relabel(first, "1", tmp_path / "arm-v1", success="tool_position.x < 3")
    assert (made.episodes, made.steps, made.dropped_episodes) == (1, 5, 1)
    assert made.dropped_steps == 19 + 14
    with pytest.raises(DatasetError, match="no episode is left of min_steps 2"):
        relabel(first, "1", tmp_path / "arm-v2", success="tool_position.x < 9")


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_a_rewritten_contract_differs_in_its_reward_alone(path: Path) -> None:
    text, contract = path.read_text(), load_contract(path)
    reward = new_reward(contract, "-tool_position.x", "tool_position.z > 0.3")
    new = with_reward(text, reward)
    assert parse_contract(new) == contract.model_copy(update={"reward": reward})
    old_lines, new_lines = text.splitlines(), new.splitlines()
    first, last = old_lines.index("reward:"), old_lines.index("episodes:")
    assert new_lines[:first] == old_lines[:first]
    assert new_lines[new_lines.index("episodes:") :] == old_lines[last:]


def test_comments_before_the_next_key_stay_with_it() -> None:
    text = CONTRACT.replace("episodes:", "\n# How it is cut:\n\nepisodes:")
    new = with_reward(text, new_reward(parse_contract(text), "1"))
    assert "\n\n# How it is cut:\n\nepisodes:" in new
    flow = json.dumps(parse_contract(CONTRACT).model_dump(mode="json", by_alias=True, exclude_none=True))
    assert parse_contract(with_reward(flow, new_reward(parse_contract(flow), "1"))).reward.value is not None


def report_of(path: Path) -> ConversionReport:
    return TypeAdapter(ConversionReport).validate_json((path / "report.json").read_text())


def test_the_report_has_the_new_labels_and_the_originals_bags_and_topics(tmp_path: Path) -> None:
    first = dataset(tmp_path, "first", record(60, (0, 30)), CONTRACT)
    made = relabel(first, "-tool_position.z", tmp_path / "arm-v1", success="tool_position.x > 2.9")
    old, new = report_of(first), report_of(made.path)
    returns = [float(part.sum(dtype=np.float64)) for part in np.split(load_dataset(made.path)[0].rewards, [29])]
    assert [episode.total_reward for episode in new.each_episode] == returns
    assert (new.mean_return, new.lowest_return) == (made.mean_return, made.lowest_return)
    assert (new.solved_steps, new.episodes_with_success) == (made.solved_steps, made.episodes_with_success)
    assert new.content_sha256 == metadata(made.path)["content_sha256"] != old.content_sha256
    assert new.contract_sha256 == metadata(made.path)["contract_sha256"]
    assert (new.observations, new.actions, new.bags, new.software) == (
        old.observations,
        old.actions,
        old.bags,
        old.software,
    )
    assert [episode.topics for episode in new.each_episode] == [episode.topics for episode in old.each_episode]
    assert new.relabelled is not None
    assert (new.relabelled.parent, new.relabelled.changed_steps) == ("first-v0", 58)
    assert (new.relabelled.mean_return_before, new.relabelled.mean_return) == (-29.0, made.mean_return)
    page = (made.path / "report.html").read_text()
    assert "<h1>Relabelling of arm-v1</h1>" in page
    assert "-tool_position.z; success tool_position.x &gt; 2.9" in page
    assert "58 of 58" in page
    assert "relabelled from first-v0 by" in (made.path / "report.txt").read_text()
    # And again, from the report that was made here.
    again = relabel(made.path, "0", tmp_path / "arm-v2")
    assert report_of(again.path).bags == old.bags


def test_the_report_of_episodes_that_end_earlier_counts_what_was_left_out(tmp_path: Path) -> None:
    recording = record(60, (0, 20, 40), seed=3)
    recording.tool[:] = 5.0
    recording.tool[[1, 30]] = 2.0  # the first episode is solved by its first step, the second by its tenth
    recording.messages = [message for message in recording.messages if message[0] != "/tool_pose"]
    for tick in range(60):
        recording.add("/tool_pose", recording.stamp(tick), pose(recording.stamp(tick), recording.tool[tick]))
    first = dataset(tmp_path, "first", recording, contract_text(("at_success: continue", "at_success: end")))
    made = relabel(first, "1", tmp_path / "arm-v1", success="tool_position.x < 3")
    report = report_of(made.path)
    assert [episode.steps for episode in report.each_episode] == [10, 19]
    assert [episode.cut for episode in report.each_episode] == ["success", "end of bag"]
    (bag,) = report.bags
    assert (bag.episodes, bag.steps, bag.cuts) == (2, 29, {"end of bag": 1, "success": 1})
    ((only),) = bag.dropped
    assert (only.start_ns, only.steps, only.cut) == (recording.stamp(0), 1, "success")
    assert only.why == "shorter than min_steps 2"
    assert report.each_episode[0].topics == report_of(first).each_episode[1].topics
    assert report.relabelled is not None
    assert (report.relabelled.dropped_episodes, report.relabelled.dropped_steps) == (1, 19 + 9)


@pytest.mark.parametrize("beside", ["none", "of other data", "no report"])
def test_without_the_originals_report_the_page_has_the_labels_alone(tmp_path: Path, beside: str) -> None:
    first = dataset(tmp_path, "first", record(60, (0, 30)), CONTRACT)
    file = first / "report.json"
    text = file.read_text()
    file.unlink()
    if beside == "of other data":
        file.write_text(text.replace(metadata(first)["content_sha256"], "0" * 64))
    elif beside == "no report":
        file.write_text("[]")
    made = relabel(first, "-tool_position.z", tmp_path / "arm-v1")
    report = report_of(made.path)
    assert [(bag.path, bag.episodes, bag.steps) for bag in report.bags] == [(str(tmp_path / "bag"), 2, 58)]
    assert report.bags[0].notes == ["what was found in it is not known here"]
    page = (made.path / "report.html").read_text()
    assert "<h2>Topics" not in page
    assert "<h2>Rewards and returns" in page


def test_what_was_skipped_when_the_original_was_made_is_still_named(tmp_path: Path) -> None:
    record(40).write(tmp_path / "bags" / "good")
    record(40).write(tmp_path / "bags" / "bad", leave_out=["/tool_pose"])
    (tmp_path / "c.yaml").write_text(CONTRACT)
    old = convert(tmp_path / "bags", tmp_path / "c.yaml", tmp_path / "arm-v0", progress=False, bad_bags="skip")
    made = relabel(tmp_path / "arm-v0", "1", tmp_path / "arm-v1")
    assert report_of(made.path).skipped == old.skipped != []
    for key in ("skipped_bags", "bad_bags"):
        assert metadata(made.path)[key] == metadata(tmp_path / "arm-v0")[key]


def test_the_command_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dataset(tmp_path, "first", record(40), CONTRACT)
    assert (
        main(["relabel", str(first), "--reward", "-1 + (tool_position.x > 2.5)", "--out", str(tmp_path / "arm-v1")])
        == 0
    )
    shown = capsys.readouterr().out
    assert "arm-v1: 1 episodes, 39 steps" in shown
    assert "labelled differently" in shown
    assert main(["relabel", str(first), "--reward", "oops(", "--out", str(tmp_path / "arm-v2")]) == 1
    assert "error: reward: expression 'oops(' is no single formula" in capsys.readouterr().err


@pytest.mark.parametrize("at_success", ["continue", "end"])
@pytest.mark.parametrize("end", ["terminal", "truncation"])
def test_ends_that_the_contract_calls_terminal_stay_so(tmp_path: Path, at_success: str, end: str) -> None:
    marker = "type: std_msgs/msg/Header}"
    ends = ("at_success: continue", f"at_success: {at_success}"), (marker, f"{marker[:-1]}, end: {end}}}")
    first = dataset(tmp_path, "first", record(120, (0, 30, 60, 90), seed=3), contract_text(*ends))
    second = dataset(tmp_path, "second", record(120), contract_text(*ends, (RULE, OTHER)))
    made = relabel(first, str(tmp_path / "second.yaml"), tmp_path / "third-v0")
    assert metadata(made.path)["content_sha256"] == metadata(second)["content_sha256"]
    report = json.loads((second / "report.json").read_text())
    assert made.solved_steps == report["solved_steps"]
    assert made.episodes_with_success == report["episodes_with_success"]
    # And back again, where nothing was lost on the way.
    if at_success == "continue":
        back = relabel(made.path, str(tmp_path / "first.yaml"), tmp_path / "fourth-v0")
        assert metadata(back.path)["content_sha256"] == metadata(first)["content_sha256"]


@pytest.mark.parametrize("at_success", ["continue", "end"])
def test_ends_that_the_contract_calls_terminal_stay_so_in_fragments(tmp_path: Path, at_success: str) -> None:
    marker = "type: std_msgs/msg/Header}"
    ends = ("at_success: continue", f"at_success: {at_success}"), (marker, f"{marker[:-1]}, end: terminal}}")
    # Three episodes of 20 steps; the end of the bag is no marker.
    first = dataset(tmp_path, "first", record(63, (0, 21, 42), seed=3), contract_text(*ends))
    cut_fragments(first, tmp_path / "cut-v0", 10)
    made = relabel(tmp_path / "cut-v0", "2", tmp_path / "made-v0")
    assert np.flatnonzero(load_dataset(made.path)[0].masks == 0).tolist() == [19, 39]
    assert (made.episodes, made.solved_steps) == (6, 0)
    # The steps that another rule calls solved are told from an end that was none also after that.
    again = relabel(made.path, "tool_position.x", tmp_path / "again-v0", success="tool_position.x > 2.9")
    if at_success == "continue":
        solved = load_dataset(first)[0].observations.reshape(3, 21, 7)[:, 1:, 4].ravel() > 2.9
        assert again.solved_steps == int(solved.sum()) > 0
        back = relabel(again.path, "2", tmp_path / "back-v0", success="tool_position.x > 9")
        assert metadata(back.path)["content_sha256"] == metadata(made.path)["content_sha256"]


def test_a_terminal_end_is_not_taken_for_a_success_that_a_topic_said(tmp_path: Path) -> None:
    marker = "type: std_msgs/msg/Header}"
    ended = (marker, "type: std_msgs/msg/Header, end: terminal}")
    rule = f"  success: {SUCCESS}\n  value: {{rule: expression, expression: '1'}}"
    recording = record(24, (0, 12))
    said = [("/success", 4.5, True), ("/success", 22.5, True)]
    bag = written(tmp_path, recording, said)
    for name, reward in (("old", rule), ("new", f"  success: {SUCCESS}\n  at_success: 5.0\n  otherwise: -1.0")):
        (tmp_path / f"{name}.yaml").write_text(contract_text((RULE, reward), ended))
        convert(bag, tmp_path / f"{name}.yaml", tmp_path / f"{name}-v0", progress=False)
    made = relabel(tmp_path / "old-v0", str(tmp_path / "new.yaml"), tmp_path / "made-v0")
    assert metadata(made.path)["content_sha256"] == metadata(tmp_path / "new-v0")["content_sha256"]
    assert load_dataset(made.path)[0].rewards.tolist().count(5.0) == made.solved_steps == 2
