"""`rql generate`: play data from simulation, for OGBench's domains or for the project's own worlds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from rql_core.errors import ConfigError

_WORLDS = ("planar_arm", "ur5e_ring")
_OGBENCH_STEPS, _WORLD_STEPS = 1000, 200


@dataclass(frozen=True)
class Generate:
    """Make play data in simulation: nobody has a task, everything gets done now and then.

    An OGBench domain (cube-single, -double, -triple, -quadruple, scene, puzzle-3x3, -4x4, -4x5, -4x6) is played by the
    oracles that come with OGBench, into files of OGBench's own form. The same command goes on where it was stopped, and
    the same seed gives the same bytes, however many workers play. One of the project's worlds (planar_arm, ur5e_ring)
    is played by the demonstrator, into a dataset as `rql convert` makes them.

    Examples: rql generate cube-double --episodes 1000 --workers 2 --out ~/.ogbench/data
              rql generate planar_arm --episodes 200 --steps 200 --out datasets/planar_arm-v0
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """OGBench domain, or world."""
    out: Path
    """Directory for the domain's files (NAME-play-v0.npz, NAME-play-v0-val.npz, minari/), or dataset directory
    ending in -v0 for a world."""
    episodes: int = 1000
    """Episodes; a domain gets a tenth of that more for validation. Official: 1,000, for cube-triple and puzzle-4x5
    3,000, for cube-quadruple and puzzle-4x6 5,000."""
    steps: int | None = None
    """Steps of an episode. Default 1,000 as in the official data, 200 for a world."""
    seed: int = 0
    """Seed."""
    workers: int = 1
    """Processes that play a domain; a world needs no second one."""
    minari: bool = True
    """Write a domain's data as Minari datasets too."""
    overwrite: bool = False
    """Replace what is there instead of going on with it."""

    def run(self) -> None:
        """Make the data and say what there is."""
        if self.name in _WORLDS:
            self._play_world()
        else:
            self._play_domain()

    def _play_world(self) -> None:
        from rql_core.evaluation.play import record_play

        if self.workers != 1:
            raise ConfigError(f"workers is {self.workers}, expected 1: {self.name} is played in this process")
        steps = _WORLD_STEPS if self.steps is None else self.steps
        summary = record_play(
            self.name, self.out, episodes=self.episodes, steps=steps, seed=self.seed, overwrite=self.overwrite
        )
        print(summary.text())

    def _play_domain(self) -> None:
        from rql_core.ogbench.generate import family_of, generate, transitions

        try:
            family_of(self.name)
        except ConfigError as error:
            worlds = "" if "maze" in self.name else f", or one of the worlds {', '.join(_WORLDS)}"
            raise ConfigError(f"{error}{worlds}") from None
        files = generate(
            self.name,
            self.out,
            episodes=self.episodes,
            steps=_OGBENCH_STEPS if self.steps is None else self.steps,
            seed=self.seed,
            workers=self.workers,
            minari=self.minari,
            overwrite=self.overwrite,
        )
        for split, count in enumerate(transitions(files)):
            print(f"{files.data(split)}: {count} steps")
            if self.minari:
                print(f"{files.minari(split)}: the same as a Minari dataset")
