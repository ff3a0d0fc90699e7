"""The benchmark of conversion: its bags are what they should be, and it writes what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_convert
from benchmarks.synthetic_bags import FIELD, JOINTS, START_NS, TYPES, Rates, contract_text, write_bag
from rql_core.bags import convert, read_bag
from rql_core.data.minari_io import load_dataset


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_its_bags_have_all_messages_with_the_numbers_of_their_time(tmp_path: Path, storage: str) -> None:
    rates = Rates(joint_states=100, pose=50, control=10)
    assert write_bag(tmp_path / "bag", storage, 2, rates, first_second=3) == 2 * rates.total  # type: ignore[arg-type]
    counts = dict.fromkeys(TYPES, 0)
    for topic, receive_ns, message in read_bag(tmp_path / "bag", TYPES):
        counts[topic] += 1
        phase = (receive_ns - START_NS) / 1e9
        if topic == "/joint_states":
            assert message.name == list(JOINTS)
            expected = np.sin(phase * np.arange(1, 13) * 0.37)
            np.testing.assert_array_equal(np.concatenate([message.position, message.velocity]), expected)
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == receive_ns
    assert counts == {"/joint_states": 200, "/tool_pose": 100, "/command": 20}


def test_its_contract_makes_one_episode_of_a_bag(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", "mcap", 3, FIELD)
    contract = tmp_path / "contract.yaml"
    contract.write_text(contract_text(FIELD))
    convert(tmp_path / "bag", contract, tmp_path / "arm-v0", progress=False)
    data = load_dataset(tmp_path / "arm-v0")[0]
    assert data.lengths.tolist() == [3 * FIELD.control - 1]
    assert np.ptp(data.observations, axis=0).min() > 0
    assert np.ptp(data.actions, axis=0).min() > 0


def test_it_measures_both_storages_and_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "convert.json"
    bench_convert.main(["--size", "0.001", "--pairs", "1", "--folder", str(tmp_path / "bags"), "--out", str(out)])
    result = json.loads(out.read_text())
    assert {"one_core_to_plain_decoding", "two_workers_to_one"} <= set(result["ratios"])
    assert min(result["ratios"].values()) > 0
    assert {"mcap_one_core", "mcap_two_workers", "sqlite3_one_core", "sqlite3_plain_decoding"} <= set(
        result["seconds_per_gb"]
    )
    assert result["peak_mb"] == max(memory["gb_and_peak_mb"][-1][1] for memory in result["memory"].values()) > 30
    for row in (*result["field"].values(), *result["dense"].values()):
        times = row["times"]
        assert row["one_core_to_plain_decoding"] == times["plain"]["cpu"] / times["one"]["cpu"]
        assert row["two_workers_to_one"] == times["one"]["wall"] / times["two"]["wall"]
        assert times["two"]["children_cpu"] > 0
    assert sum(row["bytes"] for row in result["field"].values()) == pytest.approx(2e6, rel=0.3)
    assert list((tmp_path / "bags").iterdir()) == []
    assert "sqlite3" in capsys.readouterr().out
