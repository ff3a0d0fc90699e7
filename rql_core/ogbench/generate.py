"""Play data of OGBench's manipulation domains, made by the oracles in OGBench's wheel: what `rql generate` does.

An episode follows from the seed and its number alone, so the files are the same, byte for byte, however many processes
play and however often they were stopped (test/core/ogbench/test_generate.py). Finished episodes are files of their own
until they are joined to one; every file is written under another name and renamed, and NAME.json says with which
settings the rest was begun.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rql_core
from rql_core.errors import ConfigError, DatasetError
from rql_core.ogbench.columns import Columns, join_columns, write_columns
from rql_core.ogbench.environments import DOMAINS, require_packages
from rql_core.ogbench.minari_form import write_minari
from rql_core.ogbench.play import OraclePlayer
from rql_core.progress import progress_bar
from rql_core.whole_files import write_whole
from rql_core.workers import WorkerPool

FAMILIES = (
    "cube-single",
    "cube-double",
    "cube-triple",
    "cube-quadruple",
    "scene",
    "puzzle-3x3",
    "puzzle-4x4",
    "puzzle-4x5",
    "puzzle-4x6",
)
# The official data sets have one episode for validation to ten for training.
_TRAIN_PER_VALIDATION = 10
_SPLITS = ("train", "validation")
# What decides the numbers of an episode, apart from this package's own code.
_SOFTWARE = ("ogbench", "mujoco", "numpy", "scipy")


@dataclass(frozen=True)
class PlaySettings:
    """What decides the contents of the files, and so must be the same when a run is gone on with."""

    name: str
    episodes: int
    validation_episodes: int
    steps: int
    seed: int
    software: dict[str, str]

    def count(self, split: int) -> int:
        """Episodes of a split, 0 for training and 1 for validation."""
        return (self.episodes, self.validation_episodes)[split]


@dataclass(frozen=True)
class PlayEpisode:
    """One episode to be played."""

    split: int
    index: int

    def __str__(self) -> str:
        return f"{_SPLITS[self.split]} episode {self.index}"


@dataclass(frozen=True)
class PlayFiles:
    """Where everything goes."""

    directory: Path
    name: str

    def data(self, split: int) -> Path:
        """The .npz file of a split, named as the official ones are."""
        return self.directory / f"{self.name}-play-v0{('', '-val')[split]}.npz"

    def minari(self, split: int) -> Path:
        """The Minari dataset of a split; `directory / "minari"` can be Minari's root."""
        return self.directory / "minari" / f"{self.name}-play{('', '-val')[split]}-v0"

    @property
    def manifest(self) -> Path:
        """Says with which settings the rest was made."""
        return self.directory / f"{self.name}-play-v0.json"

    @property
    def episodes(self) -> Path:
        """Directory of the episodes that are finished, until they are joined."""
        return self.directory / f".{self.name}-play-v0.episodes"

    def episode(self, episode: PlayEpisode) -> Path:
        """The file of one episode."""
        return self.episodes / f"{_SPLITS[episode.split]}-{episode.index:06d}.npz"

    @property
    def lock(self) -> Path:
        """Held while a process is at work here."""
        return self.directory / f".{self.name}-play-v0.lock"


def family_of(name: str) -> str:
    """The family that a name means: cube-double for cube-double, cube-double-play and cube-double-play-v0.

    Raises ConfigError that lists the names, and for mazes says where their data come from.
    """
    family = name.removesuffix("-v0").removesuffix("-play")
    if family in FAMILIES:
        return family
    if "maze" in name:
        domain = name.removesuffix("-v0")
        example = domain if domain in DOMAINS else DOMAINS[0]
        raise ConfigError(
            f"name is {name!r}: the experts that walk OGBench's mazes are not in its wheel, so their data cannot be "
            f"made here; put the official files ({example}-v0.npz and {example}-v0-val.npz from "
            "https://rail.eecs.berkeley.edu/datasets/ogbench) into ~/.ogbench/data, or give their path to rql train"
        )
    raise ConfigError(f"name is {name!r}; expected one of {', '.join(FAMILIES)}")


def generate(
    name: str,
    out: Path | str,
    *,
    episodes: int = 1000,
    steps: int = 1000,
    seed: int = 0,
    workers: int = 1,
    minari: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> PlayFiles:
    """Make `episodes` episodes of `steps` steps for training and a tenth of that for validation, at least one.

    What is there already, of a run that was stopped, is kept; `overwrite` begins anew. Raises ConfigError for values
    that make no sense, DatasetError where `out` cannot be written or holds data of other settings, and SimulationError
    where OGBench is not installed.
    """
    family = family_of(name)
    for field, value, least in (
        ("episodes", episodes, 1),
        ("steps", steps, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ConfigError(f"{field} is {value}, expected at least {least}")
    require_packages()
    validation = max(1, episodes // _TRAIN_PER_VALIDATION)
    settings = PlaySettings(family, episodes, validation, steps, seed, _software(_SOFTWARE))
    files = PlayFiles(Path(out), family)
    with _at_work(files):
        if overwrite:
            _remove(files)
        _begin(files, settings)
        missing = [split for split in (0, 1) if not files.data(split).exists()]
        _play(files, settings, missing, workers, progress)
        _join(files, settings, missing, progress)
        shutil.rmtree(files.episodes, ignore_errors=True)
        for split in (0, 1) if minari else ():
            if not files.minari(split).exists():
                write_minari(files.data(split), files.minari(split), _description(settings, split), progress=progress)
    return files


def transitions(files: PlayFiles) -> tuple[int, int]:
    """Steps in the training and in the validation file."""
    counts = []
    for split in (0, 1):
        with Columns(files.data(split)) as columns:
            terminals = columns.read("terminals")
        counts.append(len(terminals) - int(terminals.sum()))
    return counts[0], counts[1]


def _play(files: PlayFiles, settings: PlaySettings, splits: list[int], workers: int, progress: bool) -> None:
    """Play what is not there yet."""
    wanted = [PlayEpisode(split, index) for split in splits for index in range(settings.count(split))]
    if not wanted:
        return
    try:
        files.episodes.mkdir(exist_ok=True)
        for abandoned in files.episodes.glob(".*.partial"):  # of processes that were killed
            abandoned.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"{files.episodes}: cannot be written: {error.strerror}") from None
    todo = [episode for episode in wanted if not files.episode(episode).exists()]
    total, done = len(wanted) * settings.steps, (len(wanted) - len(todo)) * settings.steps
    with (
        WorkerPool(partial(_make_player, files, settings), workers) as pool,
        progress_bar(total=total, initial=done, unit="step", desc=settings.name, disable=not progress) as bar,
    ):
        for _ in pool.run(todo):
            bar.update(settings.steps)


def _make_player(files: PlayFiles, settings: PlaySettings) -> Callable[[PlayEpisode], None]:
    """What a worker calls for each episode."""
    player = OraclePlayer(settings.name, settings.steps)

    def play(episode: PlayEpisode) -> None:
        write_columns(files.episode(episode), player.play(settings.seed, episode.split, episode.index))

    return play


def _join(files: PlayFiles, settings: PlaySettings, splits: list[int], progress: bool) -> None:
    for split in splits:
        parts = [files.episode(PlayEpisode(split, index)) for index in range(settings.count(split))]
        with Columns(parts[0]) as columns:
            total = len(parts) * len(columns.names)
        with progress_bar(total=total, unit="array", desc="joining", disable=not progress) as bar:
            join_columns(files.data(split), parts, bar.update)


@contextmanager
def _at_work(files: PlayFiles) -> Iterator[None]:
    """Hold the directory's lock; the kernel frees it when its holder dies."""
    try:
        files.directory.mkdir(parents=True, exist_ok=True)
        lock = files.lock.open("a+")
    except OSError as error:
        raise DatasetError(
            f"{files.directory}: cannot be written: {error.strerror}; give another directory with --out"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"{files.directory}: another process is making {files.name} here; wait for it, or use another directory"
            ) from None
        yield


def _begin(files: PlayFiles, settings: PlaySettings) -> None:
    """Write down the settings, or see that they are those that the rest was begun with."""
    wanted = {"made_by": "rql generate", **asdict(settings)}
    if not files.manifest.exists():
        for path in (files.data(0), files.data(1), files.minari(0), files.minari(1)):
            if path.exists():
                raise DatasetError(
                    f"{path}: exists, and {files.manifest.name} does not say that rql generate made it; give another "
                    "directory with --out"
                )
        shutil.rmtree(files.episodes, ignore_errors=True)
        _write_manifest(files.manifest, wanted)
        return
    try:
        found = json.loads(files.manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{files.manifest}: cannot be read as JSON: {error}; begin anew with --overwrite") from None
    before, now = _flat(found), _flat(wanted)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise DatasetError(
                f"{files.manifest}: was begun with {key} {before.get(key, 'unknown')}, and {key} is "
                f"{now.get(key, 'unknown')} now; give the same, another directory with --out, or --overwrite"
            )


def _flat(manifest: Any) -> dict[str, Any]:
    """The settings one by one, the versions of software by `software NAME`."""
    if not isinstance(manifest, dict):
        return {}
    software = manifest.get("software")
    versions = software if isinstance(software, dict) else {}
    rest = {key: value for key, value in manifest.items() if key != "software"}
    return {**rest, **{f"software {name}": value for name, value in versions.items()}}


def _write_manifest(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")


def _remove(files: PlayFiles) -> None:
    """Remove what was made here; the manifest goes last, as without it nothing here is known to be ours."""
    if not files.manifest.exists():
        return
    for folder in (files.episodes, files.minari(0), files.minari(1)):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (files.data(0), files.data(1), files.manifest):
        path.unlink(missing_ok=True)


def _description(settings: PlaySettings, split: int) -> dict[str, Any]:
    """The metadata of a Minari dataset."""
    return {
        "description": (
            f"OGBench's {settings.name} played by the plan oracles of its wheel, {_SPLITS[split]} episodes. "
            "Rewards are 0: play has no task."
        ),
        "algorithm_name": "plan oracles with noise, after OGBench's generate_manipspace.py",
        "environment": f"{settings.name}-v0",
        "settings": asdict(settings),
        "software": {"rql_core": rql_core.__version__, **_software(("minari", "gymnasium"))},
    }


def _software(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # installed in another way than by pip
            found[package] = "unknown"
    return found
