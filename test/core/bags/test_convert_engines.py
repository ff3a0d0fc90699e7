"""Whoever converts the bags, one process, several or a cluster: the dataset is the same, bit for bit."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic

from rql_core.bags import convert
from rql_core.bags.engines import answer
from rql_core.bags.parts import BadBag, Part, PartTask
from rql_core.bags.software import software_versions
from rql_core.errors import BagError, ConfigError
from rql_core.workers import WorkerError

BAGS = 5
# The package has the function under the module's name.
conversion = importlib.import_module("rql_core.bags.convert")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five bags of different lengths and storages, a contract, and what one worker makes of them."""
    place = tmp_path_factory.mktemp("engines")
    for seed in range(BAGS):
        recording = synthetic.record(60 - 8 * seed, markers=(0, 20), seed=seed)
        recording.write(place / "bags" / f"run_{seed}", "sqlite3" if seed % 2 else "mcap")
    contract = synthetic.contract_file(place)
    convert(place / "bags", contract, place / "one-v0", progress=False)
    return place


def assert_as_by_one_worker(place: Path, made: Path) -> None:
    """All files are equal to the byte, but for the dataset's own name."""
    names = sorted(str(file.relative_to(made)) for file in made.rglob("*") if file.is_file())
    assert names == ["data/main_data.hdf5", "data/metadata.json", "report.html", "report.json", "report.txt"]
    for name in names:
        expected = (place / "one-v0" / name).read_bytes()
        assert (made / name).read_bytes().replace(made.name.encode(), b"one-v0") == expected, name


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_so_many_workers_make_the_same_files_as_one(place: Path, tmp_path: Path, workers: int) -> None:
    convert(place / "bags", place / "contract.yaml", tmp_path / f"w{workers}x-v0", progress=False, workers=workers)
    assert_as_by_one_worker(place, tmp_path / f"w{workers}x-v0")
    assert [child.name for child in tmp_path.iterdir()] == [f"w{workers}x-v0"]


def test_relative_paths_leave_for_a_cluster_as_absolute_ones(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current directory of its workers is another one."""
    tasks: list[PartTask] = []

    def elsewhere(tasks_of_run: list[PartTask]) -> Iterator[tuple[int, Part | BadBag]]:
        tasks.extend(tasks_of_run)
        monkeypatch.chdir(tmp_path / "away")
        for index, task in enumerate(tasks_of_run):
            part, error, _ = answer(task)
            assert part is not None, error
            yield index, part

    (tmp_path / "away").mkdir()
    (tmp_path / "here").symlink_to(place)
    monkeypatch.setattr(conversion, "make_engine", lambda *_: elsewhere)
    monkeypatch.chdir(tmp_path)
    report = convert("here/bags/run_*", "here/contract.yaml", "sets/x-v0", progress=False, engine="ray")
    assert [task.bag for task in tasks] == [str(tmp_path / "here" / "bags" / f"run_{i}") for i in range(BAGS)]
    assert [bag.path for bag in report.bags] == [task.bag for task in tasks]
    assert report.episodes == 2 * BAGS
    # The same command from the same place finds its dataset.
    monkeypatch.chdir(tmp_path)
    again = convert("here/bags", "here/contract.yaml", "sets/x-v0", progress=False, engine="ray")
    assert again == report


def test_an_error_in_a_worker_process_is_the_error_of_one_worker(place: Path, tmp_path: Path) -> None:
    contract = synthetic.contract_file(tmp_path, ("topic: /tool_pose", "topic: /tool"))
    messages = []
    for workers in (1, 2):
        with pytest.raises(BagError) as caught:
            convert(place / "bags" / "run_0", contract, tmp_path / "x-v0", progress=False, workers=workers)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "topic /tool (geometry_msgs/msg/PoseStamped) is not in the bag" in messages[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"address": "auto"}, "address is 'auto', which the engine 'local' has no use for; add --engine ray"),
        ({"engine": "spark"}, "engine is 'spark', expected one of local, ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    place: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        convert(place / "bags", place / "contract.yaml", tmp_path / "x-v0", progress=False, **options)  # type: ignore[arg-type]


def test_without_ray_the_engine_says_what_to_install(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs the package ray, .*'rql_ros\[cluster\]'"):
        convert(place / "bags", place / "contract.yaml", tmp_path / "x-v0", progress=False, engine="ray")


def test_a_worker_with_other_software_is_refused(place: Path, tmp_path: Path) -> None:
    other = {**software_versions(), "rosbags": "0.0.1"}
    task = PartTask(str(place / "bags" / "run_0"), synthetic.CONTRACT, str(tmp_path), other)
    part, error, _ = answer(task)
    assert part is None
    assert isinstance(error, ConfigError)
    assert f"rosbags {software_versions()['rosbags']} (expected 0.0.1)" in str(error)
    assert list(tmp_path.iterdir()) == []


class Reference:
    """Stands for a task that was started."""

    def __init__(self, function: object, task: PartTask) -> None:
        self.function, self.task = function, task


class FakeRay:
    """The few functions of Ray that the engine uses, in this process; tasks end in the opposite order.

    It stands for Ray where Ray is not installed, and for what no test does to a real one: a machine that dies.
    """

    def __init__(self, dies_at: str = "") -> None:
        self.dies_at = dies_at
        self.at_once = 0
        self.running: list[object] = []
        self.calls: list[str] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str | None, log_to_driver: bool) -> None:
        if address == "ray://nowhere:1":
            raise ConnectionError("ray client connection timeout")
        self.calls.append(f"init {address}")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def remote(self, max_retries: int) -> object:
        def decorate(function: object) -> object:
            return SimpleNamespace(remote=lambda task: self._start(function, task))

        return decorate

    def _start(self, function: object, task: PartTask) -> object:
        reference = Reference(function, task)
        self.running.append(reference)
        self.at_once = max(self.at_once, len(self.running))
        return reference

    def wait(self, references: list[object], num_returns: int) -> tuple[list[object], list[object]]:
        return references[-1:], references[:-1]

    def get(self, reference: Reference) -> tuple[Part | None, object, str | None]:
        self.running.remove(reference)
        if self.dies_at and reference.task.bag.endswith(self.dies_at):
            raise RuntimeError("The node was lost")
        return reference.function(reference.task)  # type: ignore[operator]

    def cancel(self, reference: object, force: bool) -> None:
        self.calls.append("cancel")


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


@pytest.mark.parametrize(("workers", "at_once"), [(None, BAGS), (2, 2)])
def test_the_cluster_engine_makes_the_same_files_in_whatever_order_tasks_end(
    place: Path, tmp_path: Path, fake_ray: FakeRay, workers: int | None, at_once: int
) -> None:
    options = {"engine": "ray", "address": "ray://head:10001", "workers": workers}
    convert(place / "bags", place / "contract.yaml", tmp_path / "ray-v0", progress=False, **options)  # type: ignore[arg-type]
    assert_as_by_one_worker(place, tmp_path / "ray-v0")
    assert fake_ray.at_once == at_once
    assert fake_ray.calls == ["init ray://head:10001", "shutdown"]


def test_a_machine_that_dies_is_named_and_what_others_finished_is_kept(
    place: Path, tmp_path: Path, fake_ray: FakeRay
) -> None:
    fake_ray.dies_at = "run_2"
    words = r"run_2: its Ray worker failed: RuntimeError: The node was lost; .* \(2 of 5 bags are finished and kept in "
    with pytest.raises(WorkerError, match=words):
        convert(place / "bags", place / "contract.yaml", tmp_path / "ray-v0", progress=False, engine="ray")
    assert fake_ray.calls == ["init local", "cancel", "cancel", "shutdown"]
    fake_ray.dies_at = ""
    convert(place / "bags", place / "contract.yaml", tmp_path / "ray-v0", progress=False, engine="ray")
    assert_as_by_one_worker(place, tmp_path / "ray-v0")


def test_a_cluster_that_does_not_answer_is_an_error_with_its_address(
    place: Path, tmp_path: Path, fake_ray: FakeRay
) -> None:
    options = {"engine": "ray", "address": "ray://nowhere:1"}
    with pytest.raises(ConfigError, match="address is 'ray://nowhere:1', where Ray does not answer: ConnectionError"):
        convert(place / "bags", place / "contract.yaml", tmp_path / "x-v0", progress=False, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_real_ray_makes_the_same_files(place: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra 'cluster' (ray)")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        convert(place / "bags", place / "contract.yaml", tmp_path / "ray-v0", progress=False, engine="ray")
        assert ray.is_initialized(), "what was there before stays"
        assert_as_by_one_worker(place, tmp_path / "ray-v0")
        contract = synthetic.contract_file(tmp_path, ("topic: /tool_pose", "topic: /tool"))
        with pytest.raises(BagError, match=r"topic /tool .* is not in the bag"):
            convert(place / "bags", contract, tmp_path / "x-v0", progress=False, engine="ray")
    finally:
        ray.shutdown()
