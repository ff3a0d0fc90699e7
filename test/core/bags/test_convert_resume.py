"""A conversion killed at any moment and given again makes the dataset of an undisturbed one, from what was finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic

from rql_core.bags import convert, convert_bag, engines, software
from rql_core.bags.parts import PartFolder, make_part
from rql_core.data.minari_io import load_dataset, read_metadata
from rql_core.data.output_lock import OutputLock
from rql_core.errors import BagError, DatasetError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def bags(folder: Path, count: int = 3) -> Path:
    for seed in range(count):
        synthetic.record(30, markers=(0, 10), seed=seed).write(folder / "bags" / f"run_{seed}")
    return folder / "bags"


def python(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=110,
        check=check,
    )


@pytest.fixture
def read_bags(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the bags whose messages are read from now on."""
    read: list[str] = []
    original = convert_bag.BagReader.__enter__

    def enter(self: Any) -> Any:
        read.append(self.path.name)
        return original(self)

    monkeypatch.setattr(convert_bag.BagReader, "__enter__", enter)
    return read


@pytest.mark.parametrize(("how", "replaced"), [("random", False), ("every", False), ("every", True)])
def test_killed_at_any_moment_and_given_again_the_dataset_is_that_of_an_undisturbed_run(
    tmp_path: Path, how: str, replaced: bool
) -> None:
    contract = synthetic.contract_file(tmp_path)
    expected = convert(bags(tmp_path), contract, tmp_path / "expected-v0", progress=False).content_sha256
    old = None
    if replaced:
        old = convert(tmp_path / "bags" / "run_1", contract, tmp_path / "old-v0", progress=False).content_sha256
    output = tmp_path / "out" / "arm-v0"
    script = HERE / "killed_conversions.py"
    result = python(script, tmp_path / "bags", contract, output, tmp_path / ("old-v0" if replaced else "none"), how)
    trials = [json.loads(line) for line in result.stdout.splitlines()]
    for trial in trials:
        assert (trial["again"], trial["final"]) == (0, expected), (trial, result.stderr)
        assert trial["killed"] in (0, -signal.SIGKILL), (trial, result.stderr)
        # Never something half done under the name, and what was there before is there or put aside.
        assert trial["content"] in (None, old, expected)
        assert trial["content"] is not None or not replaced or trial["old"]
    killed = [trial for trial in trials if trial["killed"]]
    assert len(killed) >= 5
    if how == "random":
        assert len(trials) == 20
    else:
        assert {trial["parts"] for trial in killed} == {0, 1, 2, 3}
        assert {trial["content"] for trial in killed} == ({old, None, expected} if replaced else {None, expected})
    assert os.listdir(output.parent) == ["arm-v0"]


def test_with_two_workers_a_kill_takes_the_workers_along_and_the_command_goes_on(tmp_path: Path) -> None:
    contract = synthetic.contract_file(tmp_path)
    expected = convert(bags(tmp_path), contract, tmp_path / "expected-v0", progress=False)
    output = tmp_path / "arm-v0"
    code = f"from rql_core.bags import convert\nconvert({str(tmp_path / 'bags')!r}, {str(contract)!r}, "
    code += f"{str(output)!r}, progress=False, workers=2)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    manifest = tmp_path / ".arm-v0.parts" / "manifest.json"
    while not manifest.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    again = convert(tmp_path / "bags", contract, output, progress=False, workers=2)
    assert again.content_sha256 == expected.content_sha256
    assert sorted(os.listdir(tmp_path)) == ["arm-v0", "bags", "contract.yaml", "expected-v0"]


class Stopped(Exception):
    """Stands for whatever ends a conversion between two bags."""


def stop_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Let the manifest take so many parts, once."""
    original = PartFolder.add

    def add(self: PartFolder, *arguments: Any) -> None:
        original(self, *arguments)
        if len(self.parts) == parts:
            monkeypatch.setattr(PartFolder, "add", original)
            raise Stopped

    monkeypatch.setattr(PartFolder, "add", add)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conversion of three bags that ended after two; returns its output."""
    contract = synthetic.contract_file(tmp_path)
    stop_after(monkeypatch, 2)
    with pytest.raises(Stopped):
        convert(bags(tmp_path), contract, tmp_path / "arm-v0", progress=False)
    assert not (tmp_path / "arm-v0").exists()
    return tmp_path / "arm-v0"


def again(stopped: Path) -> str:
    """Give the same command again, and check its result against a run that was never disturbed."""
    folder = stopped.parent
    done = convert(folder / "bags", folder / "contract.yaml", stopped, progress=False).content_sha256
    fresh = convert(folder / "bags", folder / "contract.yaml", folder / "fresh-v0", progress=False).content_sha256
    assert done == fresh
    assert read_metadata(stopped)["content_sha256"] == fresh
    return done


def test_finished_bags_are_not_read_again(stopped: Path, read_bags: list[str]) -> None:
    again(stopped)
    assert read_bags == ["run_2", "run_0", "run_1", "run_2"], "first the one that was left, then all of the fresh run"


def test_a_bag_that_has_changed_is_read_again(stopped: Path, read_bags: list[str]) -> None:
    shutil.rmtree(stopped.parent / "bags" / "run_0")
    synthetic.record(40, markers=(0,), seed=9).write(stopped.parent / "bags" / "run_0")
    again(stopped)
    assert read_bags[:2] == ["run_0", "run_2"]
    assert load_dataset(stopped)[0].lengths.tolist() == [39, 9, 19, 9, 19]


def test_a_bag_whose_metadata_have_changed_is_read_again(stopped: Path, read_bags: list[str]) -> None:
    file = stopped.parent / "bags" / "run_0" / "metadata.yaml"
    file.write_text(file.read_text() + "# which files to read, and how, is said here\n")
    again(stopped)
    assert read_bags[:2] == ["run_0", "run_2"]


def test_with_another_contract_all_bags_are_read_again(stopped: Path, read_bags: list[str]) -> None:
    synthetic.contract_file(stopped.parent, ("otherwise: -1.0", "otherwise: -2.0"))
    again(stopped)
    assert read_bags[:3] == ["run_0", "run_1", "run_2"]
    assert set(load_dataset(stopped)[0].rewards.tolist()) == {-2.0}


def test_with_other_software_all_bags_are_read_again(
    stopped: Path, read_bags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**software.software_versions(), "rosbags": "0.0.1"}
    monkeypatch.setattr(sys.modules["rql_core.bags.convert"], "software_versions", lambda: other)
    monkeypatch.setattr(engines, "software_versions", lambda: other)
    again(stopped)
    assert read_bags[:3] == ["run_0", "run_1", "run_2"]
    assert read_metadata(stopped)["software"]["rosbags"] == "0.0.1"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_part_that_was_damaged_is_made_again(stopped: Path, read_bags: list[str], damage: str) -> None:
    folder = PartFolder(stopped)
    folder.open()
    part = next(folder.path.glob(f"{folder.parts[str(stopped.parent / 'bags' / 'run_1')].key}.zip"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    {"flip": lambda: part.write_bytes(data), "cut": lambda: part.write_bytes(data[:-9]), "remove": part.unlink}[
        damage
    ]()
    again(stopped)
    assert read_bags[:2] == ["run_1", "run_2"]


def test_a_manifest_that_cannot_be_read_costs_time_and_nothing_else(stopped: Path, read_bags: list[str]) -> None:
    (stopped.parent / f".{stopped.name}.parts" / "manifest.json").write_text('{"bags": [')
    again(stopped)
    assert read_bags[:3] == ["run_0", "run_1", "run_2"]


def test_a_part_that_is_damaged_while_it_is_needed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PartFolder.add

    def add(self: PartFolder, bag: str, part: Any) -> None:
        original(self, bag, part)
        file = self.path / f"{part.key}.zip"
        data = bytearray(file.read_bytes())
        data[200] ^= 1  # within the numbers of the first episode
        file.write_bytes(data)

    monkeypatch.setattr(PartFolder, "add", add)
    with pytest.raises(
        DatasetError, match=r"\.zip: damaged \(BadZipFile: .*; remove it and give the same command again"
    ):
        convert(bags(tmp_path, 1), synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)
    assert not (tmp_path / "arm-v0").exists()


def test_an_error_in_a_later_bag_keeps_what_is_finished_and_says_so(tmp_path: Path, read_bags: list[str]) -> None:
    contract = synthetic.contract_file(tmp_path)
    bags(tmp_path, 2)
    synthetic.record(1).write(tmp_path / "bags" / "run_2")
    with pytest.raises(
        BagError, match=r"run_2: no usable step: .* \(2 of 3 bags are finished and kept in .*arm-v0.parts"
    ):
        convert(tmp_path / "bags", contract, tmp_path / "arm-v0", progress=False)
    left_out = [tmp_path / "bags" / "run_0", tmp_path / "bags" / "run_1"]
    read_bags.clear()
    assert convert(left_out, contract, tmp_path / "arm-v0", progress=False).episodes == 4
    assert read_bags == []


def test_the_same_command_leaves_the_dataset_that_it_would_make_as_it_is(tmp_path: Path, read_bags: list[str]) -> None:
    contract = synthetic.contract_file(tmp_path)
    first = convert(bags(tmp_path), contract, tmp_path / "arm-v0", progress=False)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "arm-v0").rglob("*")}
    read_bags.clear()
    assert convert(tmp_path / "bags", contract, tmp_path / "arm-v0", progress=False) == first
    assert read_bags == []
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "arm-v0").rglob("*")} == before


@pytest.mark.parametrize("change", ["bag", "contract", "other bags", "report"])
def test_a_dataset_made_of_anything_else_is_not_taken_for_it(tmp_path: Path, change: str) -> None:
    contract = synthetic.contract_file(tmp_path)
    convert(bags(tmp_path), contract, tmp_path / "arm-v0", progress=False)
    given = tmp_path / "bags"
    if change == "bag":
        file = next((given / "run_0").glob("*.mcap"))
        file.write_bytes(file.read_bytes() + b"\n")
    elif change == "contract":
        synthetic.contract_file(tmp_path, ("otherwise: -1.0", "otherwise: -2.0"))
    elif change == "other bags":
        given = given / "run_0"
    else:
        (tmp_path / "arm-v0" / "report.json").unlink()
    with pytest.raises(DatasetError, match="exists already, made of other bags, contract or software"):
        convert(given, contract, tmp_path / "arm-v0", progress=False)


def test_of_two_conversions_of_one_output_the_second_refuses_and_names_the_first(tmp_path: Path) -> None:
    contract = synthetic.contract_file(tmp_path)
    with (
        OutputLock(tmp_path / "arm-v0"),
        pytest.raises(DatasetError, match=f"arm-v0: process {os.getpid()} on .* is writing it at this moment; wait"),
    ):
        convert(bags(tmp_path), contract, tmp_path / "arm-v0", progress=False)
    convert(tmp_path / "bags", contract, tmp_path / "arm-v0", progress=False)
    assert sorted(os.listdir(tmp_path)) == ["arm-v0", "bags", "contract.yaml"]


def test_a_killed_owner_locks_nobody_out(tmp_path: Path) -> None:
    code = "import os, signal, sys\nfrom pathlib import Path\nfrom rql_core.data.output_lock import OutputLock\n"
    code += "lock = OutputLock(Path(sys.argv[1]))\nos.kill(os.getpid(), signal.SIGKILL)"
    assert python("-c", code, tmp_path / "arm-v0", check=False).returncode == -signal.SIGKILL
    assert (tmp_path / ".arm-v0.lock").exists()
    OutputLock(tmp_path / "arm-v0").release()
    assert os.listdir(tmp_path) == []


def test_many_at_once_are_never_two_at_once(tmp_path: Path) -> None:
    """Four processes take and release the lock of one output fifty times each; each adds one under the lock."""
    code = """
import sys
from pathlib import Path
from rql_core.data.output_lock import OutputLock
from rql_core.errors import DatasetError
output, done = Path(sys.argv[1]), 0
count = output.parent / "count"
while done < 50:
    try:
        lock = OutputLock(output)
    except DatasetError:
        continue
    count.write_text(str(int(count.read_text()) + 1))
    lock.release()
    done += 1
"""
    (tmp_path / "count").write_text("0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", code, str(tmp_path / "arm-v0")]
    processes = [subprocess.Popen(arguments, env=environment) for _ in range(4)]
    assert [process.wait(100) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "200"


def test_a_bag_that_is_written_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = convert_bag.convert_bag

    def and_write(path: Path, *arguments: Any, **options: Any) -> Any:
        report = original(path, *arguments, **options)
        with next(path.glob("*.mcap")).open("ab") as file:
            file.write(b"\n")
        return report

    monkeypatch.setattr(sys.modules[make_part.__module__], "convert_bag", and_write)
    with pytest.raises(BagError, match="run_0: changed while it was read; convert it when nothing writes it any more"):
        convert(bags(tmp_path, 1), synthetic.contract_file(tmp_path), tmp_path / "arm-v0", progress=False)
    assert sorted(os.listdir(tmp_path)) == ["bags", "contract.yaml"]
