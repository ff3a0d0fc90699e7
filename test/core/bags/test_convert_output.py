"""The dataset where others look for it: Minari's commands, TorchRL; its origin; a disk that is full or read-only."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import minari
import numpy as np
import pytest
import synthetic

from rql_core.bags import convert
from rql_core.bags.software import software_versions
from rql_core.data.minari_io import DatasetWriter, checked_directory, load_dataset, read_metadata
from rql_core.errors import DatasetError, SimulationError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's root, with a dataset of two bags in a namespace, and a conversion that was killed beside it."""
    root = tmp_path / "root"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    for seed in range(2):
        synthetic.record(30, markers=(0, 12), seed=seed).write(tmp_path / "bags" / f"run_{seed}")
    convert(tmp_path / "bags", synthetic.contract_file(tmp_path), root / "lab" / "arm-v0", progress=False)
    shutil.copytree(root / "lab" / "arm-v0", root / "lab" / ".arm-v1.partial")
    (root / "lab" / ".arm-v1.parts").mkdir()
    (root / "lab" / ".arm-v1.lock").touch()
    return root


def minari_command(*arguments: str) -> str:
    """What Minari's own command prints."""
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "minari.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_minari_lists_the_finished_dataset_and_no_other(root: Path) -> None:
    assert list(minari.list_local_datasets()) == ["lab/arm-v0"]
    rows = [line for line in minari_command("list", "local").splitlines() if "arm" in line]
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].strip("│ ").split("│")][:3] == ["lab/arm-v0", "4", "56"]


def test_minari_shows_the_dataset(root: Path) -> None:
    shown = minari_command("show", "lab/arm-v0")
    for words in ("Two joints and a tool, for tests.", "Box(-inf, inf, (7,), float32)", "Total Steps"):
        assert words in shown


def test_minari_samples_episodes_of_the_dataset(root: Path) -> None:
    dataset = minari.load_dataset("lab/arm-v0")
    dataset.set_seed(0)
    for episode in dataset.sample_episodes(3):
        assert episode.observations.shape == (len(episode.actions) + 1, 7)


def test_minari_recovers_an_environment_with_the_datasets_spaces_that_cannot_be_stepped(root: Path) -> None:
    dataset = minari.load_dataset("lab/arm-v0")
    environment = dataset.recover_environment()
    assert environment.observation_space == dataset.observation_space
    assert environment.action_space == dataset.action_space
    assert environment.action_space.high.tolist() == [2.0, 4.0]
    for use in (environment.unwrapped.reset, lambda: environment.unwrapped.step(np.zeros(2))):
        with pytest.raises(SimulationError, match="two_joints: a robot was recorded, which cannot be"):
            use()


def test_d3rlpy_loads_the_dataset(root: Path) -> None:
    datasets = pytest.importorskip("d3rlpy.datasets", reason="needs d3rlpy, which the project does without")
    buffer, environment = datasets.get_minari("lab/arm-v0")
    expected = load_dataset(root / "lab" / "arm-v0")[0]
    assert environment.observation_space.shape == (7,)
    assert [episode.size() for episode in buffer.episodes] == expected.lengths.tolist()
    physical = np.concatenate([episode.actions for episode in minari.load_dataset("lab/arm-v0")])
    np.testing.assert_array_equal(np.concatenate([episode.actions for episode in buffer.episodes]), physical)
    np.testing.assert_array_equal(
        np.concatenate([episode.rewards[:, 0] for episode in buffer.episodes]), expected.rewards
    )
    assert not any(episode.terminated for episode in buffer.episodes)
    observed = np.concatenate([episode.observations for episode in buffer.episodes])
    # One for each step: that at which the last step of an episode arrives is not kept.
    ends = np.cumsum(expected.lengths + 1) - 1
    wanted = np.delete(expected.observations, ends, axis=0)
    first = expected.lengths[0]
    np.testing.assert_array_equal(observed[:first], wanted[:first])
    if np.array_equal(observed, expected.observations[: len(observed)]):
        # 2.8.1 puts the T + 1 observations that every episode of Minari has beside its T actions.
        pytest.xfail("this d3rlpy shifts observations after the first episode: docs/design.md says what to do instead")
    np.testing.assert_array_equal(observed, wanted)


def test_d3rlpy_takes_the_episodes_as_the_docs_say(root: Path) -> None:
    d3rlpy = pytest.importorskip("d3rlpy.dataset", reason="needs d3rlpy, which the project does without")
    episodes = list(minari.load_dataset("lab/arm-v0"))
    dataset = d3rlpy.MDPDataset(
        observations=np.concatenate([e.observations[:-1] for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        terminals=np.concatenate([e.terminations for e in episodes]),
        timeouts=np.concatenate([e.truncations for e in episodes]),
    )
    for made, episode in zip(dataset.episodes, episodes, strict=True):
        np.testing.assert_array_equal(made.observations, episode.observations[:-1])
        np.testing.assert_array_equal(made.actions, episode.actions)
        np.testing.assert_array_equal(made.rewards[:, 0], episode.rewards)


def test_torchrl_loads_the_dataset(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchrl", reason="needs torchrl, which the project does without")
    from torchrl.data.datasets import MinariExperienceReplay

    loaded = MinariExperienceReplay("lab/arm-v0", 8, root=tmp_path / "torchrl", load_from_local_minari=True)[:]
    expected = load_dataset(root / "lab" / "arm-v0")[0]
    last = np.cumsum(expected.lengths) - 1
    assert loaded.batch_size == (expected.steps,)
    assert loaded["action"].shape == (expected.steps, 2)
    if not loaded["observation"].any():
        # 0.10 to 0.14 do so with a dataset of Minari's own too: memory is mapped anew after it was filled.
        pytest.xfail("this TorchRL hands out zeros for every local Minari dataset")
    ends = np.cumsum(expected.lengths + 1) - 1
    np.testing.assert_array_equal(loaded["observation"], np.delete(expected.observations, ends, axis=0))
    np.testing.assert_array_equal(
        loaded["next", "observation"], np.delete(expected.observations, ends - expected.lengths, axis=0)
    )
    np.testing.assert_array_equal(loaded["next", "reward"][:, 0], expected.rewards)
    assert np.flatnonzero(loaded["next", "truncated"][:, 0]).tolist() == last.tolist()


def test_the_metadata_says_of_what_by_what_and_from_when_everything_is(root: Path, tmp_path: Path) -> None:
    metadata = read_metadata(root / "lab" / "arm-v0")
    text = (tmp_path / "contract.yaml").read_text()
    assert metadata["dataset_id"] == "lab/arm-v0"
    assert metadata["contract"] == text
    assert metadata["contract_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert metadata["software"] == software_versions()
    assert set(metadata["software"]) >= {"rql_core", "rosbags", "minari", "h5py", "numpy", "python", "conversion_code"}
    first = synthetic.record(30).stamp
    for seed, source in enumerate(metadata["source_bags"]):
        file = next((tmp_path / "bags" / f"run_{seed}").glob("*.mcap"))
        assert source == {
            "path": str(tmp_path / "bags" / f"run_{seed}"),
            "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
            "episodes": 2,
            "steps": 28,
            "start_ns": first(0),
            "end_ns": first(29),
        }
    episodes = list(minari.load_dataset("lab/arm-v0").storage.get_episode_metadata(range(4)))
    assert [(each["start_ns"], each["end_ns"]) for each in episodes] == [
        (first(0), first(11)),
        (first(12), first(29)),
    ] * 2
    assert [each["bag"] for each in episodes] == [metadata["source_bags"][i]["path"] for i in (0, 0, 1, 1)]
    assert episodes[2]["bag_sha256"] == next(iter(metadata["source_bags"][1]["sha256"].values()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("..", "has '..' within it|expected name-vN"),
        ("lab/../arm-v0", "has '..' within it, expected a plain path or id"),
        ("../lab/../arm-v0", "has '..' within it"),
        ("lab/..", "has '..' within it"),
        ("arm", "name is 'arm', expected name-vN"),
        ("arm-v", "expected name-vN"),
        ("arm-v1x", "expected name-vN"),
        (".arm-v0", "expected name-vN"),
        ("my arm-v0", "expected name-vN"),
    ],
)
def test_an_id_that_minari_cannot_list_is_refused(tmp_path: Path, given: str, words: str) -> None:
    for path in (given, Path(given)):
        with pytest.raises(DatasetError, match=words):
            DatasetWriter(path, synthetic.CONTRACT)


def test_a_place_above_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert checked_directory(Path("../sets/arm-v0")).resolve() == tmp_path / "sets" / "arm-v0"
    assert checked_directory(Path("Türme und Arme/arm-v0")).name == "arm-v0"


def test_a_folder_below_minaris_root_must_be_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(DatasetError, match=r"folder 'my lab' below Minari's root .* is no namespace of Minari"):
        checked_directory(tmp_path / "my lab" / "arm-v0")
    assert checked_directory(tmp_path / "my_lab" / "arm-v0").name == "arm-v0"


def can_mount() -> bool:
    """Whether this user may mount a file system of its own, in a namespace that nobody else sees."""
    try:
        command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False


MOUNTED = """
import sys, subprocess
from pathlib import Path
from rql_core.bags import convert
from rql_core.errors import DatasetError, SimulationError
bags, contract, options = sys.argv[1:]
def mount(*options):
    subprocess.run(["mount", *options, "/mnt"], check=True)
"""
FULL = (
    MOUNTED
    + """
mount("-t", "tmpfs", "-o", "size=8k", "tmpfs")
for size in [8, 12, 16, 20, 24, 28, 32, 40, 60, 80, 100, 200, 400, 800, 1600]:
    mount("-o", f"remount,size={size}k")
    try:
        report = convert(bags, contract, "/mnt/arm-v0", progress=False)
    except DatasetError as error:
        assert "is the disk full" in str(error) or "has space" in str(error), error
        assert not Path("/mnt/arm-v0").exists()
        print("full", len(list(Path("/mnt").glob(".arm-v0.parts/*.zip"))))
    else:
        print("done", report.content_sha256)
        break
"""
)
READ_ONLY = (
    MOUNTED
    + """
mount("-t", "tmpfs", "tmpfs")
convert(Path(bags) / "run_0", contract, "/mnt/arm-v0", progress=False)
mount("-o", "remount,ro")
for overwrite in (False, True):
    for name in ("arm-v0", "new/arm-v1"):
        try:
            convert(bags, contract, f"/mnt/{name}", progress=False, overwrite=overwrite)
        except DatasetError as error:
            print(error)
print(sorted(path.name for path in Path("/mnt").iterdir()))
"""
)


def in_own_mounts(code: str, folder: Path) -> list[str]:
    """The lines that `code` prints in a process that sees a file system of its own at /mnt."""
    command = ["unshare", "-m", sys.executable, "-c", code, folder / "bags", folder / "contract.yaml", ""]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a tmpfs (root)")
def test_on_a_full_disk_the_error_says_so_and_with_more_space_the_command_goes_on(tmp_path: Path) -> None:
    for seed in range(3):
        synthetic.record(30, markers=(0, 10), seed=seed).write(tmp_path / "bags" / f"run_{seed}")
    contract = synthetic.contract_file(tmp_path)
    expected = convert(tmp_path / "bags", contract, tmp_path / "expected-v0", progress=False)
    lines = in_own_mounts(FULL, tmp_path)
    # Full while parts are written, and full while the dataset is.
    assert lines[-1] == f"done {expected.content_sha256}"
    counts = [line.split()[1] for line in lines[:-1]]
    assert counts == sorted(counts)
    assert set(counts) >= {"1", "3"}


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a tmpfs (root)")
def test_a_read_only_target_is_named_and_what_is_there_stays(tmp_path: Path) -> None:
    synthetic.record(30).write(tmp_path / "bags" / "run_0")
    synthetic.contract_file(tmp_path)
    lines = in_own_mounts(READ_ONLY, tmp_path)
    assert lines[:-1] == [
        f"/mnt/{name}: cannot be made: Read-only file system; choose a directory that can be written"
        for name in ("arm-v0", "new/arm-v1") * 2
    ]
    assert lines[-1] == "['arm-v0']"


LIMITED = """
import resource, sys
from rql_core.bags import convert
from rql_core.errors import DatasetError, SimulationError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    convert(*sys.argv[2:], progress=False, overwrite=True)
except DatasetError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "where", "kept"), [(1_000, r"\.arm-v0\.parts/[0-9a-f]+\.zip", 0), (60_000, "/arm-v0", 3)]
)
def test_where_no_more_can_be_written_the_old_dataset_stays(tmp_path: Path, limit: int, where: str, kept: int) -> None:
    """A limit on the size of a file stands for a full disk where nobody may mount one."""
    for seed in range(3):
        synthetic.record(30, markers=(0, 10), seed=seed).write(tmp_path / "bags" / f"run_{seed}")
    contract = synthetic.contract_file(tmp_path)
    old = convert(tmp_path / "bags" / "run_1", contract, tmp_path / "arm-v0", progress=False)
    arguments = [limit, tmp_path / "bags", contract, tmp_path / "arm-v0"]
    command = [sys.executable, "-c", LIMITED, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "cannot be written: File too large; is the disk full" in result.stdout
    assert re.search(where + ": cannot be written", result.stdout), result.stdout
    assert read_metadata(tmp_path / "arm-v0")["content_sha256"] == old.content_sha256
    assert (f"({kept} of 3 bags are finished and kept" in result.stdout) == (kept > 0)
    hidden = {".arm-v0.parts"} if kept else set()
    assert set(os.listdir(tmp_path)) == {"arm-v0", "bags", "contract.yaml", *hidden}
    assert convert(tmp_path / "bags", contract, tmp_path / "arm-v0", progress=False, overwrite=True).episodes == 6
