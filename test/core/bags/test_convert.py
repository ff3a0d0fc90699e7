"""A converted dataset has the numbers that made the bag, step for step, or it is not there at all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
import synthetic

from rql_core.bags import ConversionReport, convert
from rql_core.contract import ActionScale, parse_contract
from rql_core.data.minari_io import load_dataset
from rql_core.data.trajectories import Trajectories
from rql_core.errors import BagError, ContractError, DatasetError

JOINTS, POSE, COMMAND = "/joint_states", "/tool_pose", "/command"


def run(
    tmp_path: Path, recording: synthetic.Recording, *changes: tuple[str, str], storage: str = "mcap"
) -> tuple[Trajectories, ConversionReport]:
    """Write the recording, convert it by the contract with `changes`, load the dataset."""
    recording.write(tmp_path / "bag", storage)
    report = convert(tmp_path / "bag", synthetic.contract_file(tmp_path, *changes), tmp_path / "arm-v0", progress=False)
    return load_dataset(tmp_path / "arm-v0")[0], report


def normalised(recording: synthetic.Recording) -> np.ndarray:
    return ActionScale(recording.contract).normalise(recording.actions)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_observations_and_actions_are_those_that_made_the_bag(tmp_path: Path, storage: str) -> None:
    recording = synthetic.record(30)
    data, report = run(tmp_path, recording, storage=storage)
    assert data.lengths.tolist() == [29]
    np.testing.assert_array_equal(data.observations, recording.observations)
    np.testing.assert_array_equal(data.actions, normalised(recording)[:29])
    np.testing.assert_array_equal(data.rewards, np.full(29, -1.0))
    np.testing.assert_array_equal(data.masks, np.ones(29))
    assert (report.episodes, report.steps, report.bags[0].messages) == (1, 29, 90)
    assert report.bags[0].topics[0].rate_hz == pytest.approx(20)


def test_minari_loads_the_dataset_with_physical_actions_contract_and_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = synthetic.record(30, markers=(0, 12))
    _, report = run(tmp_path, recording)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset("arm-v0")
    assert list(minari.list_local_datasets()) == ["arm-v0"]
    assert (dataset.total_episodes, dataset.total_steps) == (2, 28)
    first, second = dataset
    assert first.observations.shape == (12, 7)
    assert first.observations.dtype == first.rewards.dtype == np.float32
    np.testing.assert_array_equal(first.actions, recording.actions[:11])
    np.testing.assert_array_equal(second.observations, recording.observations[12:])
    assert first.truncations.tolist() == [False] * 10 + [True]
    assert not first.terminations.any()
    assert first.infos["mask"].shape == (11,)
    assert dataset.action_space.high.tolist() == [2.0, 4.0]
    metadata = dataset.storage.metadata
    assert parse_contract(metadata["contract"]) == recording.contract
    assert metadata["contract_sha256"] == report.contract_sha256
    assert metadata["source_bags"][0]["sha256"] == report.bags[0].sha256
    assert metadata["observation_names"][0] == "joint_position.position.shoulder_joint"
    origin = next(iter(dataset.storage.get_episode_metadata([1])))
    assert (origin["start_ns"], origin["end_ns"]) == (recording.stamp(12), recording.stamp(29))
    assert json.loads((tmp_path / "arm-v0" / "report.json").read_text())["steps"] == 28
    assert "28 steps" in (tmp_path / "arm-v0" / "report.txt").read_text()
    np.testing.assert_array_equal(load_dataset("arm-v0")[0].observations[:12], first.observations)


def test_a_marker_starts_an_episode_at_its_stamp(tmp_path: Path) -> None:
    recording = synthetic.record(30, markers=(0, 12))
    data, report = run(tmp_path, recording)
    assert data.lengths.tolist() == [11, 17]
    np.testing.assert_array_equal(data.observations, recording.observations)
    np.testing.assert_array_equal(data.actions, np.delete(normalised(recording), [11, 29], axis=0))
    assert report.bags[0].cuts == {"end of bag": 1, "marker": 1}


def test_a_marker_between_ticks_starts_the_episode_at_the_next_tick(tmp_path: Path) -> None:
    recording = synthetic.record(30, markers=())
    stamp = recording.stamp(11) + 1
    recording.add("/episode", stamp, synthetic.header(stamp))
    assert run(tmp_path, recording)[0].lengths.tolist() == [11, 17]


def test_markers_may_be_late_latched_and_doubled(tmp_path: Path) -> None:
    recording = synthetic.record(30, markers=())
    for stamp, received in ((-5, 0), (12, 25), (12, 26), (0, 29)):
        recording.add("/episode", recording.stamp(received), synthetic.header(recording.stamp(stamp)))
    data, _ = run(tmp_path, recording)
    assert data.lengths.tolist() == [11, 17]
    np.testing.assert_array_equal(data.observations, recording.observations)


def test_by_bag_a_bag_is_an_episode(tmp_path: Path) -> None:
    marker = "boundary: {by: marker, topic: /episode, type: std_msgs/msg/Header}"
    recording = synthetic.record(30, markers=(0, 12))
    assert run(tmp_path, recording, (marker, "boundary: {by: bag}"))[0].lengths.tolist() == [29]


def test_a_missing_action_ends_the_episode_with_that_observation(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    recording.drop(COMMAND, [10])
    data, report = run(tmp_path, recording)
    assert data.lengths.tolist() == [10, 18]
    np.testing.assert_array_equal(data.observations, recording.observations)
    np.testing.assert_array_equal(data.actions, np.delete(normalised(recording), [10, 29], axis=0))
    assert report.bags[0].cuts["no action in force"] == 1


def test_a_gap_in_an_observation_ends_the_episode_before_it(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    recording.drop(POSE, range(10, 16))  # held for max_age, 2 periods: ticks 10 and 11 still have an observation
    data, report = run(tmp_path, recording)
    assert data.lengths.tolist() == [11, 13]
    np.testing.assert_array_equal(data.observations[:12, :4], recording.observations[:12, :4])
    np.testing.assert_array_equal(data.observations[10:12, 4:], recording.observations[[9, 9], 4:])
    np.testing.assert_array_equal(data.observations[12:], recording.observations[16:])
    np.testing.assert_array_equal(data.actions, normalised(recording)[[*range(11), *range(16, 29)]])
    assert report.bags[0].left_out["gap"] == 1


def test_chunks_give_the_same_actions_as_single_points(tmp_path: Path) -> None:
    (tmp_path / "single").mkdir()
    (tmp_path / "chunks").mkdir()
    single, _ = run(tmp_path / "single", synthetic.record(32))
    chunks, _ = run(tmp_path / "chunks", synthetic.record(32, horizon=4))
    np.testing.assert_array_equal(single.actions, chunks.actions)
    np.testing.assert_array_equal(single.observations, chunks.observations)


def test_an_action_received_after_later_observations_still_belongs_to_its_tick(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    recording.messages = [(t, stamp + (t == COMMAND) * 120_000_000, m) for t, stamp, m in recording.messages]
    data, _ = run(tmp_path, recording)
    np.testing.assert_array_equal(data.actions, normalised(recording)[:29])


def test_success_gives_reward_and_mask_where_the_step_arrives(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    recording = with_goal(recording, [10, 11])
    data, report = run(tmp_path, recording)
    assert data.lengths.tolist() == [29]
    assert np.flatnonzero(data.masks == 0).tolist() == [9, 10]
    assert np.flatnonzero(data.rewards == 0).tolist() == [9, 10]
    assert (report.episodes_with_success, report.solved_steps, report.terminal_episodes) == (1, 2, 0)
    assert report.mean_return == -27


def test_success_ends_the_episode_where_the_contract_says_so(tmp_path: Path) -> None:
    recording = with_goal(synthetic.record(40, markers=(0, 20)), [10, 11])
    data, report = run(tmp_path, recording, ("at_success: continue", "at_success: end"))
    assert data.lengths.tolist() == [10, 19]
    np.testing.assert_array_equal(data.observations, recording.observations[[*range(11), *range(20, 40)]])
    assert np.flatnonzero(data.masks == 0).tolist() == [9]
    assert (report.terminal_episodes, report.bags[0].left_out["steps_after_success"]) == (1, 9)
    with h5py.File(tmp_path / "arm-v0" / "data" / "main_data.hdf5") as file:
        assert np.flatnonzero(file["episode_0/terminations"]).tolist() == [9]
        assert not file["episode_0/truncations"][:].any()


def with_goal(recording: synthetic.Recording, ticks: list[int]) -> synthetic.Recording:
    recording.tool[ticks] = synthetic.GOAL
    poses = iter(recording.tool)
    recording.messages = [
        (topic, stamp, synthetic.pose(stamp, next(poses)) if topic == POSE else message)
        for topic, stamp, message in recording.messages
    ]
    return recording


def test_the_order_of_joints_in_the_message_does_not_matter(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    for i, (topic, stamp, message) in enumerate(recording.messages):
        if topic == JOINTS and i % 2:
            parts = (message.name[::-1], message.position[::-1], message.velocity[::-1])
            recording.messages[i] = (topic, stamp, synthetic.joint_state(stamp, *parts))
        if topic == COMMAND:
            message.joint_names = message.joint_names[::-1]
            message.points[0].velocities = message.points[0].velocities[::-1].copy()
    data, _ = run(tmp_path, recording)
    np.testing.assert_array_equal(data.observations, recording.observations)
    np.testing.assert_array_equal(data.actions, normalised(recording)[:29])


def test_a_clock_that_jumps_back_starts_a_new_episode(tmp_path: Path) -> None:
    recording, later = synthetic.record(30), synthetic.record(40, seed=1)
    recording.messages += [(topic, stamp + 10**10, message) for topic, stamp, message in later.messages]
    data, report = run(tmp_path, recording)
    assert data.lengths.tolist() == [29, 39]
    np.testing.assert_array_equal(data.observations[30:], later.observations)
    np.testing.assert_array_equal(data.actions[29:], normalised(later)[:39])
    assert report.bags[0].left_out["clock_jump"] == 1


def test_several_bags_make_one_dataset(tmp_path: Path) -> None:
    recordings = [synthetic.record(20, seed=seed) for seed in range(3)]
    for seed, recording in enumerate(recordings):
        recording.write(tmp_path / "bags" / f"run_{seed}")
    contract = synthetic.contract_file(tmp_path)
    report = convert([tmp_path / "bags"], contract, tmp_path / "arm-v0", progress=False)
    data = load_dataset(tmp_path / "arm-v0")[0]
    assert data.lengths.tolist() == [19] * 3
    np.testing.assert_array_equal(data.observations, np.concatenate([each.observations for each in recordings]))
    numbers = report.observations[4]
    column = np.concatenate([each.observations[:, 4] for each in recordings]).astype(np.float64)
    assert (numbers.minimum, numbers.maximum) == (column.min(), column.max())
    assert (numbers.mean, numbers.std) == pytest.approx((column.mean(), column.std()))


def spoil(recording: synthetic.Recording, topic: str, tick: int, change: object) -> None:
    message = next(m for t, stamp, m in recording.messages if t == topic and stamp == recording.stamp(tick))
    change(message)  # type: ignore[operator]


def nan_position(message: object) -> None:
    message.position[1] = np.nan  # type: ignore[attr-defined]


def other_joint(message: object) -> None:
    message.name = ["shoulder_joint", "elbow"]  # type: ignore[attr-defined]


def no_stamp(message: object) -> None:
    message.header.stamp = synthetic.time_of(0)  # type: ignore[attr-defined]


def short_array(message: object) -> None:
    message.velocity = message.velocity[:1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nan_position, "/joint_states: joint_position.position.elbow_joint is nan"),
        (other_joint, "/joint_states: joint 'elbow_joint' is there 0 times"),
        (no_stamp, "/joint_states: header.stamp is 0 ns"),
        (short_array, "/joint_states: velocity has 1 values for 2 joint names"),
    ],
)
def test_a_message_that_breaks_the_contract_is_named_and_nothing_is_written(
    tmp_path: Path, change: object, words: str
) -> None:
    recording = synthetic.record(30)
    spoil(recording, JOINTS, 20, change)
    with pytest.raises(BagError) as caught:
        run(tmp_path, recording)
    assert words in str(caught.value)
    assert f"{tmp_path / 'bag'}: 1.000 s from the bag's start (1793534401.000000000 s): " in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["bag", "contract.yaml"]


def test_an_action_that_is_not_finite_is_named(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    message = [m for t, _, m in recording.messages if t == COMMAND][4]
    message.points[0].velocities[1] = np.inf
    with pytest.raises(BagError, match="/command: step 0, elbow_joint is inf"):
        run(tmp_path, recording)


def test_a_marker_without_a_stamp_is_refused(tmp_path: Path) -> None:
    recording = synthetic.record(30, markers=())
    recording.add("/episode", recording.stamp(3), synthetic.header(0))
    with pytest.raises(BagError, match="/episode: stamp is 0 ns"):
        run(tmp_path, recording)


def test_a_missing_topic_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    synthetic.record(30).write(tmp_path / "bag", leave_out=[POSE])
    with pytest.raises(BagError, match=r"topic /tool_pose .* is not in the bag"):
        convert(tmp_path / "bag", synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)


def test_a_topic_slower_than_the_control_rate_is_refused_with_both_rates(tmp_path: Path) -> None:
    recording = synthetic.record(60)
    recording.drop(POSE, range(1, 60, 2))
    with pytest.raises(
        BagError, match=r"/tool_pose has 10 Hz \(median\), expected at least the contract's rate of 20 Hz"
    ):
        run(tmp_path, recording)


def test_a_topic_that_is_said_to_be_slow_is_converted_with_the_observations_that_it_gave(tmp_path: Path) -> None:
    recording = synthetic.record(60)
    recording.drop(POSE, [tick for tick in range(60) if tick % 4])
    slow = ("type: geometry_msgs/msg/PoseStamped\n", "type: geometry_msgs/msg/PoseStamped\n      min_rate: 5\n")
    path = synthetic.contract_file(tmp_path, slow, ("max_age: 0.1", "max_age: 0.2"))
    recording.write(tmp_path / "bag")
    report = convert(tmp_path / "bag", path, tmp_path / "arm-v0", progress=False)
    assert (report.episodes, report.steps) == (1, 56)  # nothing says any more where the tool is after tick 56
    expected = recording.observations[:57].copy()
    expected[:, 4:] = recording.observations[np.arange(57) // 4 * 4, 4:]
    np.testing.assert_array_equal(load_dataset(tmp_path / "arm-v0")[0].observations, expected)
    path.write_text(path.read_text().replace("min_rate: 5", "min_rate: 6"))
    with pytest.raises(BagError, match=r"/tool_pose has 5 Hz \(median\), expected at least its min_rate of 6 Hz"):
        convert(tmp_path / "bag", path, tmp_path / "arm-v1", progress=False)


@pytest.mark.parametrize(
    ("ticks", "dropped", "reason"),
    [
        (30, {COMMAND: range(30)}, "no messages on /command"),
        (30, {COMMAND: range(1, 30)}, "the longest episode has 1 steps, min_steps is 2"),
        (30, {POSE: range(15), JOINTS: range(10, 30)}, "at no time were there messages of all observation topics"),
        (2, {}, "the longest episode has 1 steps, min_steps is 2"),
    ],
)
def test_a_bag_without_a_usable_step_says_why(
    tmp_path: Path, ticks: int, dropped: dict[str, range], reason: str
) -> None:
    recording = synthetic.record(ticks)
    for topic, where in dropped.items():
        recording.drop(topic, where)
    with pytest.raises(BagError, match=f"no usable step: .*{reason}"):
        run(tmp_path, recording)
    assert not (tmp_path / "arm-v0").exists()


def test_an_existing_dataset_is_refused_or_replaced_when_asked(tmp_path: Path) -> None:
    run(tmp_path, synthetic.record(30))
    synthetic.record(20).write(tmp_path / "other")
    contract = tmp_path / "contract.yaml"
    with pytest.raises(DatasetError, match="exists already"):
        convert(tmp_path / "other", contract, tmp_path / "arm-v0", progress=False)
    with pytest.raises(BagError):
        convert(tmp_path / "absent", contract, tmp_path / "arm-v0", progress=False, overwrite=True)
    assert load_dataset(tmp_path / "arm-v0")[0].steps == 29
    convert(tmp_path / "other", contract, tmp_path / "arm-v0", progress=False, overwrite=True)
    assert load_dataset(tmp_path / "arm-v0")[0].steps == 19
    assert sorted(os.listdir(tmp_path)) == ["arm-v0", "bag", "contract.yaml", "other"]


@pytest.mark.parametrize("name", ["arm", "arm-v", "arm v0", "arm-v0.1"])
def test_a_name_that_minari_cannot_list_is_refused(tmp_path: Path, name: str) -> None:
    synthetic.record(30).write(tmp_path / "bag")
    with pytest.raises(DatasetError, match="expected name-vN"):
        convert(tmp_path / "bag", synthetic.contract_file(tmp_path), tmp_path / name, progress=False)


KILLED = """
import os, signal
from rql_core.bags import convert
from rql_core.data import minari_io
minari_io._BATCH_EPISODES = 1
flush = minari_io.DatasetWriter._flush
def flush_then_die(self):
    flush(self)
    if self.episodes == 2:
        os.kill(os.getpid(), signal.SIGKILL)
minari_io.DatasetWriter._flush = flush_then_die
convert({bag!r}, {contract!r}, {output!r}, progress=False)
"""


def test_a_killed_conversion_done_again_gives_the_same_content(tmp_path: Path) -> None:
    bag = synthetic.record(30, markers=(0, 10, 20)).write(tmp_path / "bag")
    contract = synthetic.contract_file(tmp_path)
    expected = convert(bag, contract, tmp_path / "expected-v0", progress=False)
    code = KILLED.format(bag=str(bag), contract=str(contract), output=str(tmp_path / "arm-v0"))
    result = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert (tmp_path / ".arm-v0.partial").exists()
    assert not (tmp_path / "arm-v0").exists()
    again = convert(bag, contract, tmp_path / "arm-v0", progress=False)
    assert again.content_sha256 == expected.content_sha256
    assert load_dataset(tmp_path / "arm-v0")[2]["content_sha256"] == expected.content_sha256
    assert not (tmp_path / ".arm-v0.partial").exists()


def test_a_bad_contract_file_stops_the_conversion(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        convert(tmp_path, tmp_path / "absent.yaml", tmp_path / "arm-v0")


def test_an_unfinished_bag_is_converted_and_the_report_says_so(tmp_path: Path) -> None:
    bag = synthetic.record(30).write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    report = convert(bag, synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)
    assert report.bags[0].notes == ["unfinished, 91 messages read"]
    assert "note: unfinished, 91 messages read" in (tmp_path / "arm-v0" / "report.txt").read_text()
    assert report.steps == 29


def test_a_bag_without_messages_is_refused(tmp_path: Path) -> None:
    synthetic.record(0, markers=()).write(tmp_path / "bag")
    with pytest.raises(BagError, match="no usable step: no messages on /joint_states, /tool_pose, /command"):
        convert(tmp_path / "bag", synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)


def test_by_the_receive_clock_an_action_is_in_force_from_when_it_was_received(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    data, _ = run(tmp_path, recording, ("clock: header", "clock: receive"))
    np.testing.assert_array_equal(data.observations, recording.observations[1:])
    np.testing.assert_array_equal(data.actions, normalised(recording)[:28])


def test_the_report_counts_actions_at_and_outside_their_limits(tmp_path: Path) -> None:
    recording = synthetic.record(21)
    recording.actions[:5, 0], recording.actions[5:10, 0] = 2.0, -2.5
    commands = iter(range(21))
    recording.messages = [
        (t, at, synthetic.action_message(recording.contract, recording.stamp(i), recording.actions[i]))
        if t == COMMAND and (i := next(commands)) >= 0
        else (t, at, m)
        for t, at, m in recording.messages
    ]
    data, report = run(tmp_path, recording)
    assert (report.actions[0].share_at_limits, report.actions[0].share_outside_limits) == (0.5, 0.25)
    assert (report.actions[1].share_at_limits, report.actions[1].share_outside_limits) == (0.0, 0.0)
    assert report.actions[0].minimum == -2.5
    assert np.abs(data.actions).max() <= 1.0


def test_of_two_actions_for_the_same_tick_the_one_received_last_counts(tmp_path: Path) -> None:
    recording = synthetic.record(30)
    first = synthetic.action_message(recording.contract, recording.stamp(7), [1.5, 1.5])
    recording.add(COMMAND, recording.stamp(7) + 1, first)
    data, report = run(tmp_path, recording)
    np.testing.assert_array_equal(data.actions, normalised(recording)[:29])
    assert report.bags[0].left_out == {"action_duplicate": 1}


def test_after_a_clock_jump_no_action_of_before_is_in_force(tmp_path: Path) -> None:
    recording, later = synthetic.record(30), synthetic.record(40, seed=1)
    later.drop(COMMAND, [29])
    recording.messages += [(topic, stamp + 10**10, message) for topic, stamp, message in later.messages]
    data, _ = run(tmp_path, recording)
    assert data.lengths.tolist() == [29, 29, 9]
