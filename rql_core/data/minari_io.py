"""Minari datasets in and out: episodes in physical units on disk, `Trajectories` with normalised actions in memory.

Minari checks next to nothing and its own `create_dataset_from_buffers` holds everything in memory, so the writer here
appends through Minari's storage class, batch by batch, in a hidden folder that is renamed at the end: a dataset is
there whole or not at all. What Minari has no place for (contract, sources, versions) stands in its metadata.

An episode of T steps has T + 1 observations and T actions, rewards, terminations, truncations, and `infos["mask"]`,
which like the rewards is T long: mask i is 0 where the task was solved by step i, at observation i + 1.
`minari` is imported when a function needs it, so that training from arrays does without.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract import ActionScale, Contract, parse_contract
from rql_core.data.trajectories import Trajectories
from rql_core.errors import ContractError, DatasetError

Float32 = npt.NDArray[np.float32]

# Minari opens the file, and rewrites its metadata, once a batch; 20,000 steps of 50 numbers are 4 MB of memory.
_BATCH_STEPS = 20_000
_BATCH_EPISODES = 500

# What HDF5 adds to the numbers of an episode was 18 to 23 kB in files of 10 to 3,000 episodes; the rest is margin.
_OVERHEAD_BYTES = 32_768
_RESERVE = "reserve"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*-v\d+")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def dataset_directory(path_or_id: Path | str) -> Path:
    """The directory of a dataset: a path as it is, a bare name such as `arm-v0` below Minari's own root.

    Minari's root is $MINARI_DATASETS_PATH, or ~/.minari/datasets.
    """
    if isinstance(path_or_id, str) and os.sep not in path_or_id and not Path(path_or_id).is_dir():
        return _minari_root() / path_or_id
    # Minari joins relative paths twice.
    return Path(path_or_id).absolute()


def checked_directory(path_or_id: Path | str) -> Path:
    """The directory of a dataset that is to be written.

    Raises DatasetError when Minari could not list it: its name is not `name-vN`, `..` stands within the path, or a
    folder between Minari's root and it has a name that Minari does not take.
    """
    path = dataset_directory(path_or_id)
    given = Path(path_or_id).parts
    # "../sets/arm-v0" is a place; "sets/../arm-v0" is two names for one dataset, one of them no id.
    if ".." in given[next((i for i, part in enumerate(given) if part != ".."), len(given)) :] or path.name == "..":
        raise DatasetError(f"{path_or_id}: has '..' within it, expected a plain path or id such as 'sets/arm-v0'")
    if not _NAME.fullmatch(path.name):
        raise DatasetError(f"{path}: name is {path.name!r}, expected name-vN such as 'arm-v0' (Minari's rule)")
    identity = _dataset_id(path)
    for folder in identity.split("/")[:-1]:
        if not _NAMESPACE.fullmatch(folder):
            raise DatasetError(
                f"{path}: folder {folder!r} below Minari's root {_minari_root()} is no namespace of Minari, which has "
                "letters, digits, - and _; rename it"
            )
    return path


def _minari_root() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _dataset_id(directory: Path) -> str:
    """What `minari.load_dataset` calls it: the path below Minari's root, or the name for a root yet to be set."""
    try:
        return directory.resolve().relative_to(_minari_root().resolve()).as_posix()
    except ValueError:
        return directory.name


class DatasetWriter:
    """Writes one dataset; nothing of it is seen under its name before `finish`.

    Works as a context manager that throws away what was not finished.
    """

    def __init__(self, path_or_id: Path | str, contract_text: str, *, overwrite: bool = False) -> None:
        """Begin the dataset. Raises DatasetError when the name is not Minari's `name-vN`, or it exists already."""
        from minari.dataset.minari_storage import MinariStorage

        from rql_core.data.recorded_environment import environment_spec, spaces

        self.path = checked_directory(path_or_id)
        self._contract_text = contract_text
        self._contract = parse_contract(contract_text)
        self._overwrite = overwrite
        _bring_back(self.path.parent / f".{self.path.name}.old", self.path)
        if self.path.exists() and not overwrite:
            raise DatasetError(f"{self.path}: exists already; give a new version number, or ask to overwrite it")
        self._partial = self.path.parent / f".{self.path.name}.partial"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._partial.exists():  # of a run that was killed
                shutil.rmtree(self._partial)
            self._partial.mkdir()
            features = self._contract.action.features
            observation_space, action_space = spaces(
                self._contract.observation_dim,
                [feature.lower for feature in features],
                [feature.upper for feature in features],
            )
            self._storage = MinariStorage.new(
                self._partial / "data",
                observation_space=observation_space,
                action_space=action_space,
                env_spec=environment_spec(self._contract),
                data_format="hdf5",
            )
        except OSError as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise DatasetError(
                f"{self.path}: cannot be made: {error.strerror}; choose a directory that can be written and has space"
            ) from None
        self._buffers: list[Any] = []
        self._origins: list[dict[str, Any]] = []
        self._buffered_steps = self._buffered_bytes = 0
        self._hash = hashlib.sha256()
        self.episodes = 0
        self.steps = 0

    def add(
        self,
        observations: Float32,
        actions: npt.NDArray[np.float64],
        rewards: Float32,
        masks: Float32,
        *,
        terminal: bool,
        origin: Mapping[str, str | int],
    ) -> None:
        """Append an episode: (T + 1, o), (T, d) in physical units, (T,), (T,); `origin` says where it comes from.

        Raises DatasetError when shapes or types are wrong or a number is not finite.
        """
        from minari.data_collector.episode_buffer import EpisodeBuffer

        steps = len(actions)
        expected: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
            "observations": (observations, (steps + 1, self._contract.observation_dim)),
            "actions": (actions, (steps, self._contract.action_dim)),
            "rewards": (rewards, (steps,)),
            "masks": (masks, (steps,)),
        }
        for name, (array, shape) in expected.items():
            _check(f"{self.path}: episode {self.episodes}", name, array, shape)
            self._hash.update(f"{name}{shape}".encode())
            self._hash.update(np.ascontiguousarray(array).data)
        ends = np.zeros(steps, dtype=np.bool_)
        ends[-1] = True
        never = np.zeros(steps, dtype=np.bool_)
        self._hash.update(b"terminal" if terminal else b"truncated")
        self._buffers.append(
            EpisodeBuffer(
                id=self.episodes,
                observations=observations,
                actions=actions,
                rewards=rewards,
                terminations=ends if terminal else never,
                truncations=never if terminal else ends,
                infos={"mask": masks},
            )
        )
        self._origins.append(dict(origin))
        self.episodes += 1
        self.steps += steps
        self._buffered_steps += steps
        self._buffered_bytes += sum(array.nbytes for array, _ in expected.values()) + 2 * steps
        if self._buffered_steps >= _BATCH_STEPS or len(self._buffers) >= _BATCH_EPISODES:
            self._flush()

    @property
    def content_sha256(self) -> str:
        """Hash of all numbers added so far: equal data, equal hash, whenever and wherever it was made."""
        return self._hash.hexdigest()

    def finish(self, metadata: Mapping[str, Any], files: Mapping[str, str]) -> None:
        """Write what is left, the metadata, and `files` (name -> text) beside the data, and give it all its name."""
        import minari

        self._flush()
        contract = self._contract
        facts = {
            "dataset_id": _dataset_id(self.path),
            "minari_version": minari.__version__,
            "description": contract.description,
            "contract": self._contract_text,
            "contract_sha256": hashlib.sha256(self._contract_text.encode()).hexdigest(),
            "content_sha256": self.content_sha256,
            "observation_names": list(contract.observation_names),
            "action_names": list(contract.action.names),
            "actions": "physical units of the contract, not normalised",
            **metadata,
        }
        old = self.path.parent / f".{self.path.name}.old"
        try:
            self._storage.update_metadata(facts)
            for name, text in files.items():
                (self._partial / name).write_text(text, encoding="utf-8")
            if self._overwrite and self.path.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.path.rename(old)
            self._partial.rename(self.path)
        except OSError as error:
            _bring_back(old, self.path)
            raise DatasetError(f"{self.path}: cannot be completed: {error.strerror}; is the disk full?") from None
        shutil.rmtree(old, ignore_errors=True)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def _flush(self) -> None:
        if not self._buffers:
            return
        first = self.episodes - len(self._buffers)
        try:
            self._reserve(self._buffered_bytes + len(self._buffers) * _OVERHEAD_BYTES)
            self._storage.update_episodes(self._buffers)
            self._storage.update_episode_metadata(self._origins, range(first, self.episodes))
        except (OSError, RuntimeError) as error:  # h5py raises RuntimeError where a file cannot be closed
            detail = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise DatasetError(f"{self.path}: cannot be written: {detail}; is the disk full?") from None
        self._buffers, self._origins, self._buffered_steps, self._buffered_bytes = [], [], 0, 0

    def _reserve(self, size: int) -> None:
        """Raise OSError when the data file cannot grow by `size` bytes.

        Asked beforehand, because HDF5 may end the whole process with a segmentation fault when a write fails.
        """
        reserve = self._partial / _RESERVE
        now = sum(file.stat().st_size for file in (self._partial / "data").iterdir())
        try:
            with reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), now, size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a file system that cannot say
                raise
        finally:
            reserve.unlink(missing_ok=True)


def load_dataset(path_or_id: Path | str) -> tuple[Trajectories, str, dict[str, Any]]:
    """The episodes of a dataset with normalised actions, the text of its contract, and its metadata.

    Raises DatasetError that names the dataset, the episode and the field when it is missing, cut short, has no
    contract, or does not fit it.
    """
    path = dataset_directory(path_or_id)
    metadata = read_metadata(path)
    text = metadata.get("contract")
    if not isinstance(text, str):
        raise DatasetError(f"{path}: metadata.json has no contract; make the dataset with rql convert")
    try:
        contract = parse_contract(text, f"{path}: contract")
    except ContractError as error:
        raise DatasetError(str(error)) from None
    try:
        trajectories = _read(path, contract)
    except DatasetError as error:
        message = str(error)
        raise DatasetError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        # What h5py and Minari raise on a file that is cut, or that has another layout.
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise DatasetError(
            f"{path}: data cannot be read, the file is cut short or damaged ({detail}); copy or convert it again"
        ) from None
    return trajectories, text, metadata


def _bring_back(old: Path, path: Path) -> None:
    """Undo a replacement that was killed between taking the old dataset away and putting the new one in its place."""
    if old.exists() and not path.exists():
        old.rename(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the dataset in directory `path`. Raises DatasetError when it is missing or damaged."""
    file = path / "data" / "metadata.json"
    if not file.is_file():
        raise DatasetError(f"{path}: no dataset there ({file} is missing); give its directory, or its name in Minari")
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON: {error}; copy or convert the dataset again") from None
    if not isinstance(metadata, dict):
        raise DatasetError(f"{file}: has a {type(metadata).__name__} at the top, expected a mapping")
    return metadata


def _read(path: Path, contract: Contract) -> Trajectories:
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.read(path / "data")
    episodes = range(storage.total_episodes)
    lengths = np.array([int(each["total_steps"]) for each in storage.get_episode_metadata(episodes)], dtype=np.int64)
    if not len(lengths):
        raise DatasetError(f"{path}: has no episodes")
    steps = int(lengths.sum())
    observations = np.empty((steps + len(lengths), contract.observation_dim), dtype=np.float32)
    actions = np.empty((steps, contract.action_dim), dtype=np.float32)
    rewards, masks = np.empty(steps, dtype=np.float32), np.empty(steps, dtype=np.float32)
    scale = ActionScale(contract)
    begin = 0
    for index, episode in enumerate(storage.get_episodes(episodes)):
        length, where = int(lengths[index]), f"{path}: episode {index}"
        span = slice(begin, begin + length)
        infos = episode.get("infos") or {}
        mask = infos["mask"] if "mask" in infos else 1.0 - episode["terminations"].astype(np.float32)
        _check(where, "observations", episode["observations"], (length + 1, contract.observation_dim))
        _check(where, "actions", episode["actions"], (length, contract.action_dim))
        _check(where, "rewards", episode["rewards"], (length,))
        _check(where, "mask", mask, (length,))
        observations[begin + index : begin + index + length + 1] = episode["observations"]
        actions[span] = scale.normalise(episode["actions"])
        rewards[span] = episode["rewards"]
        masks[span] = mask
        begin += length
    return Trajectories(observations, actions, rewards, masks, lengths)


def _check(where: str, name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape or shape[0] == 0:
        raise DatasetError(f"{where}: {name} has shape {array.shape}, expected {shape} by the contract")
    # Commands keep the precision they had on the wire: what a policy gave out normalises back to the same bits.
    expected = np.float64 if name == "actions" else np.float32
    if array.dtype != expected:
        raise DatasetError(f"{where}: {name} is {array.dtype}, expected {np.dtype(expected)}")
    if not np.isfinite(array).all():
        row = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DatasetError(f"{where}: {name}{list(row)} is {array[row]}, expected a finite number")
