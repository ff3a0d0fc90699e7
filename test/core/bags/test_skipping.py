"""With `bad_bags: skip` a bad bag is named and left out and the others make the dataset; some errors stop it all."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic
from test_convert_engines import FakeRay

from rql_core.bags import ConversionReport, convert, convert_bag, parts, reader
from rql_core.bags.skipping import is_the_bags_own
from rql_core.cli import main
from rql_core.data.minari_io import load_dataset, read_metadata
from rql_core.errors import BagError, ConfigError, ContractError, DatasetError

ROOT = Path(__file__).resolve().parents[3]
SKIP = "quality: {bad_bags: skip}\n"
ENDS = ("at_success: continue", "at_success: continue\n" + SKIP)
BAD = ("run_1", "run_3")


def cut(bag: Path) -> None:
    """Damage a bag so that it is not read."""
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:5000])


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five whole bags, to be copied."""
    folder = tmp_path_factory.mktemp("five")
    for seed in range(5):
        synthetic.record(40 - 5 * seed, markers=(0, 10), seed=seed).write(folder / f"run_{seed}")
    return folder


@pytest.fixture
def place(tmp_path: Path, five: Path) -> Path:
    """Five bags, two of them cut, and a contract that skips such."""
    for name in ("bags", "whole"):
        shutil.copytree(five, tmp_path / name)
    for name in BAD:
        cut(tmp_path / "bags" / name)
    synthetic.contract_file(tmp_path, ENDS)
    return tmp_path


def converted(place: Path, name: str = "arm-v0", bags: Any = None, **options: Any) -> ConversionReport:
    return convert(bags or place / "bags", place / "contract.yaml", place / name, progress=False, **options)


def good_bags(place: Path) -> list[Path]:
    return [place / "bags" / f"run_{seed}" for seed in (0, 2, 4)]


def test_the_dataset_is_that_of_the_good_bags_and_the_others_are_named_everywhere(place: Path) -> None:
    report = converted(place)
    assert report.content_sha256 == converted(place, "good-v0", good_bags(place)).content_sha256
    assert [Path(bag.path).name for bag in report.bags] == ["run_0", "run_2", "run_4"]
    assert [Path(each.path).name for each in report.skipped] == list(BAD)
    for each in report.skipped:
        assert each.error.startswith(f"{each.path}/{Path(each.path).name}.mcap: its end is missing (5000 bytes are")
        assert list(each.sha256) == [f"{Path(each.path).name}.mcap"]
    beside = place / "arm-v0"
    assert json.loads((beside / "report.json").read_text())["skipped"] == report.to_dict()["skipped"]
    assert "SKIPPED 2 of 5 bags, which cannot be used:" in (beside / "report.txt").read_text()
    page = (beside / "report.html").read_text()
    section = page[page.index("<h2>Bags that were skipped") : page.index("<h2>What is not in the dataset")]
    for each in report.skipped:
        assert each.error in report.text()
        assert each.path in section
    assert section.count("its end is missing (5000 bytes are there)") == 2
    assert "from 3 bags (of 5) by the contract" in page
    assert "2 of 5 bags cannot be used and were skipped" in page
    metadata = read_metadata(beside)
    assert metadata["skipped_bags"] == report.to_dict()["skipped"]
    assert metadata["bad_bags"] == {"rule": "skip", "said_by": "contract"}
    assert [Path(source["path"]).name for source in metadata["source_bags"]] == ["run_0", "run_2", "run_4"]


def test_where_all_bags_are_good_the_report_says_nothing_of_others(place: Path) -> None:
    report = converted(place, bags=good_bags(place))
    assert report.skipped == []
    for name in ("report.txt", "report.html"):
        assert "skipped" not in (place / "arm-v0" / name).read_text().lower()
    assert read_metadata(place / "arm-v0")["skipped_bags"] == []


@pytest.mark.parametrize("said", ["default", "contract", "caller"])
def test_unless_asked_to_skip_a_bad_bag_stops_the_conversion(place: Path, said: str) -> None:
    changes = () if said == "default" else ((ENDS[0], ENDS[1].replace("skip", "stop")),)
    synthetic.contract_file(place, *(changes if said != "caller" else (ENDS,)))
    with pytest.raises(BagError, match=r"run_1\.mcap: its end is missing"):
        converted(place, bad_bags="stop" if said == "caller" else None)
    assert not (place / "arm-v0").exists()


def test_the_callers_word_counts_before_the_contracts_and_is_kept_in_the_metadata(place: Path) -> None:
    by_contract = converted(place)
    synthetic.contract_file(place)
    by_caller = converted(place, "arm-v1", bad_bags="skip")
    assert by_caller.content_sha256 == by_contract.content_sha256
    assert by_caller.bad_bags == "skip"
    assert read_metadata(place / "arm-v1")["bad_bags"] == {"rule": "skip", "said_by": "caller"}
    converted(place, "arm-v2", good_bags(place))
    assert read_metadata(place / "arm-v2")["bad_bags"] == {"rule": "stop", "said_by": "default"}
    with pytest.raises(ConfigError, match="bad_bags is 'drop', expected one of stop, skip"):
        converted(place, "arm-v3", bad_bags="drop")


def test_after_a_bad_bag_has_stopped_a_conversion_the_rest_goes_on_with_skip(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.contract_file(place)
    with pytest.raises(BagError, match=r"\(1 of 5 bags are finished and kept"):
        converted(place)
    read: list[str] = []
    original = convert_bag.BagReader.__enter__
    monkeypatch.setattr(
        convert_bag.BagReader, "__enter__", lambda self: (read.append(self.path.name), original(self))[1]
    )
    converted(place, bad_bags="skip")
    assert read == ["run_1", "run_2", "run_3", "run_4"]


def test_if_all_bags_are_bad_it_is_an_error_that_shows_some(place: Path) -> None:
    synthetic.contract_file(place, ENDS, ("topic: /tool_pose", "topic: /tool"))
    words = (
        r"none of 5 bags can be used, so there is nothing to convert: \S+run_0: topic /tool .*is not in the bag.*"
        r"run_2: .*; and 2 more; compare bags and contract with rql contract check"
    )
    with pytest.raises(BagError, match=words) as caught:
        converted(place)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(place)) == ["bags", "contract.yaml", "whole"]


# Whoever converts, however often interrupted


def assert_same_files(place: Path, made: str, expected: str) -> None:
    for name in ("data/main_data.hdf5", "data/metadata.json", "report.html", "report.json", "report.txt"):
        data = (place / made / name).read_bytes().replace(made.encode(), expected.encode())
        assert data == (place / expected / name).read_bytes(), name


@pytest.mark.parametrize("engine", ["two workers", "ray stand-in", "ray"])
def test_all_engines_skip_the_same_bags_and_make_the_same_files(
    place: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    converted(place, "one-v0")
    if engine == "ray":
        ray = pytest.importorskip("ray", reason="needs the extra 'cluster' (ray)")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    elif engine == "ray stand-in":
        monkeypatch.setitem(sys.modules, "ray", FakeRay())
    try:
        converted(place, "two-v0", **({"workers": 2} if engine == "two workers" else {"engine": "ray"}))
    finally:
        if engine == "ray":
            ray.shutdown()
    assert_same_files(place, "two-v0", "one-v0")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_given_again_it_is_the_dataset_of_an_undisturbed_run(place: Path, workers: int) -> None:
    converted(place, "one-v0")
    code = f"from rql_core.bags import convert\nconvert({str(place / 'bags')!r}, {str(place / 'contract.yaml')!r}, "
    code += f"{str(place / 'two-v0')!r}, progress=False, workers={workers})"
    manifest = place / ".two-v0.parts" / "manifest.json"
    for finished in (1, 2):
        process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
        while not (manifest.exists() and len(json.loads(manifest.read_text())) >= finished):
            if process.poll() is not None:
                break
            time.sleep(0.001)
        process.kill()
        process.wait()
    converted(place, "two-v0", workers=workers)
    assert_same_files(place, "two-v0", "one-v0")
    assert sorted(os.listdir(place)) == ["bags", "contract.yaml", "one-v0", "two-v0", "whole"]


@pytest.mark.parametrize("mended", ["file", "metadata alone"])
def test_a_bag_that_was_mended_is_read_by_the_next_run(place: Path, mended: str) -> None:
    if mended == "metadata alone":
        for name in BAD:
            shutil.rmtree(place / "bags" / name)
            shutil.copytree(place / "whole" / name, place / "bags" / name)
            (place / "bags" / name / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: [")
    before = converted(place)
    assert len(before.skipped) == 2
    assert converted(place) == before, "of the same bags the same dataset, without reading them"
    for name in BAD:
        shutil.rmtree(place / "bags" / name)
        shutil.copytree(place / "whole" / name, place / "bags" / name)
    with pytest.raises(DatasetError, match="exists already, made of other bags"):
        converted(place)
    after = converted(place, overwrite=True)
    assert after.skipped == []
    assert after.content_sha256 == converted(place, "whole-v0", place / "whole").content_sha256


def test_a_bag_that_was_mended_is_read_when_an_interrupted_run_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(convert_module(), "report_files", lambda report: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            converted(place)
    assert (place / ".arm-v0.parts").exists()
    shutil.rmtree(place / "bags" / "run_3")
    shutil.copytree(place / "whole" / "run_3", place / "bags" / "run_3")
    assert [Path(each.path).name for each in converted(place).skipped] == ["run_1"]


def convert_module() -> Any:
    return sys.modules["rql_core.bags.convert"]


def test_what_was_made_with_skip_is_not_what_stop_would_give(place: Path) -> None:
    converted(place)
    with pytest.raises(DatasetError, match="exists already"):
        converted(place, bad_bags="stop")


# The command


@pytest.mark.parametrize(("bound", "status"), [(2, 0), (1, 1), (None, 0)])
def test_strict_fails_past_so_many_skipped_bags(
    place: Path, capsys: pytest.CaptureFixture[str], bound: int | None, status: int
) -> None:
    set_bound = "" if bound is None else f", max_skipped_bags: {bound}"
    synthetic.contract_file(place, (ENDS[0], ENDS[1].replace("skip", f"skip{set_bound}")))
    command = ["convert", str(place / "bags"), "--contract", str(place / "contract.yaml"), "--strict"]
    assert main([*command, "--out", str(place / "arm-v0")]) == status
    out, err = capsys.readouterr()
    assert "SKIPPED 2 of 5 bags" in out
    assert err.count("skipped: ") == 2
    if status:
        line = (
            f"error: {place / 'arm-v0'}: past the contract's bounds: max_skipped_bags is 2, set 1 ({place}/bags/run_1, "
        )
        assert line in err
    assert load_dataset(place / "arm-v0")[0].episodes == 6


def test_the_option_skips_where_the_contract_does_not(place: Path) -> None:
    synthetic.contract_file(place)
    command = ["convert", str(place / "bags"), "--contract", str(place / "contract.yaml")]
    assert main([*command, "--out", str(place / "arm-v0")]) == 1
    assert main([*command, "--out", str(place / "arm-v0"), "--bad-bags", "skip"]) == 0


# What is never skipped


def caused(cause: BaseException, hidden: bool) -> BagError:
    """A BagError that came from `cause`, as readers raise it."""
    try:
        try:
            raise cause
        except BaseException as error:
            raise BagError("bag: damaged") from (None if hidden else error)
    except BagError as made:
        return made


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(
    ("cause", "own"),
    [
        (ValueError("bad magic"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), True),
        (OSError("Not a gzipped file"), True),
        (OSError(errno.EINVAL, "Invalid argument"), True),
        (sqlite3.DatabaseError("database disk image is malformed"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (sqlite3.OperationalError("database or disk is full"), False),
        (sqlite3.OperationalError("disk I/O error"), False),
        (MemoryError(), False),
    ],
    ids=str,
)
def test_errors_of_the_machine_are_told_from_those_of_the_bag(cause: BaseException, own: bool, hidden: bool) -> None:
    assert is_the_bags_own(caused(cause, hidden)) == own
    assert is_the_bags_own(caused(caused(cause, hidden), hidden)) == own


def stops(place: Path, error: type[BaseException], words: str) -> None:
    with pytest.raises(error, match=words):
        converted(place)
    assert not (place / "arm-v0").exists()


def test_a_file_that_may_not_be_read_stops_the_conversion(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no permission stops."""
    original = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "run_2.mcap":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    stops(place, BagError, r"run_2\.mcap: cannot be read: Permission denied")


def test_a_disk_that_is_full_while_a_bag_is_completed_stops_the_conversion(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "bags" / "run_0" / "metadata.yaml").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reader, "recover_bag", lambda *_: full())
    stops(place, DatasetError, "No space left on device")
    monkeypatch.undo()
    monkeypatch.setattr("rql_core.bags.recover._copy", full)
    stops(place, BagError, "run_0: cannot be copied to .*No space left on device")


def test_a_bag_that_vanishes_stops_the_conversion(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that is gone would otherwise leave out all that it held."""
    original = convert_bag.convert_bag

    def and_vanish(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "run_2":
            shutil.rmtree(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(parts, "convert_bag", and_vanish)
    stops(place, BagError, "run_2.* cannot be read on ")


def test_ctrl_c_stops_the_conversion(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "convert_bag", interrupt)
    stops(place, KeyboardInterrupt, "^$")


def test_definitions_that_cannot_be_read_stop_the_conversion(place: Path) -> None:
    synthetic.contract_file(place, ENDS, ("schema: 1", "schema: 1\nmessage_definitions: [msgs]"))
    (place / "msgs" / "msg").mkdir(parents=True)
    (place / "msgs" / "msg" / "Odd.msg").write_text("float64 grip\n[no definition]\n")
    stops(place, BagError, r"Odd\.msg: is no message definition")


def test_a_contract_that_is_wrong_stops_the_conversion(place: Path) -> None:
    synthetic.contract_file(place, ENDS, ("rate: 20", "rate: -20"))
    stops(place, ContractError, "rate")
