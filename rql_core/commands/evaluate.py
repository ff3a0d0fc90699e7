"""`rql evaluate`: how good trained policies are, in episodes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from rql_core.errors import ConfigError

if TYPE_CHECKING:
    from rql_core.algorithms import Acting
    from rql_core.evaluation.episodes import EpisodeSettings
    from rql_core.evaluation.results import Evaluation
    from rql_core.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Evaluate:
    """Run episodes with trained policies, in a simulated world or a Gymnasium environment, without ROS.

    In a world the same seeds give the same successes as the evaluator node does over ROS in lockstep. In an
    environment it is the published protocol: 50 episodes, solved where the last step says success. How many workers
    run the episodes changes nothing but the time.

    Example: rql evaluate runs/rql --world ur5e_ring --episodes 50 --workers 2

    Example: rql evaluate runs/puzzle-3x3-* --workers 2 --samples 1 4 16 --plot samples.png
    """

    runs: Annotated[Positional[list[Path]], arg(metavar="RUN ...")]
    """Run directories (or directories of runs), whose newest checkpoint is taken, or checkpoints."""
    world: Literal["planar_arm", "ur5e_ring"] | None = None
    """Simulated world, for checkpoints with a contract."""
    environment: str | None = None
    """OGBench name or Gymnasium id (MODULE:NAME-v0), instead of the one that a checkpoint without a contract names."""
    episodes: int = 50
    """Number of episodes."""
    first_seed: int = 0
    """Seed of the first episode; then counted up."""
    workers: int = 1
    """Processes that run episodes; 1: this one."""
    samples: tuple[int, ...] = ()
    """Best of so many samples by the critics; several numbers: try each. Default: as the algorithm acts by itself."""
    rho: float | None = None
    """Samples are ranked by mean - rho * std over the critics."""
    flow_steps: tuple[int, ...] = ()
    """Flow steps from noise to action; several numbers: try each. Default: as many as in training."""
    replan_every: int = 0
    """Steps between plans; 0: the whole chunk."""
    out: Path | None = None
    """JSON file for the results, of several runs together. Each of several runs, or the only one without this option,
    keeps its own in RUN/evaluation.json (RUN/evaluation-acting.json where several ways of acting are tried)."""
    plot: Path | None = None
    """Picture file (.png) of success against samples and flow steps."""
    video: Path | None = None
    """Film (.gif or .mp4) of the first episodes of a single run."""
    video_episodes: int = 1
    """Number of episodes in the film."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        """Evaluate, write a file for each run as soon as it is done, and print tables."""
        if self.video is not None and sys.platform == "linux":
            # MuJoCo reads it when it is imported; without it, it looks for a display.
            os.environ.setdefault("MUJOCO_GL", "egl")
        from rql_core.evaluation.episodes import describe, episode_pool, evaluate_all, seed_range
        from rql_core.evaluation.film import check_film, film_episodes
        from rql_core.training.checkpoint import load_checkpoint

        seeds = seed_range(self.episodes, self.first_seed)
        runs = self._find()
        plans = []
        for run, directory in runs:
            # Read here, to be found whole before the first episode, and then let go: fifty policies are gigabytes.
            checkpoint = load_checkpoint(directory)
            for settings in self._settings(checkpoint):
                plans.append((run, settings, describe(checkpoint, settings, self.first_seed)))
        if self.plot is not None:
            _check_plot(self.plot)
        if self.video is not None:
            check_film(self.video, [settings for _, settings, _ in plans], self.video_episodes)
        evaluations: dict[int, Evaluation] = {}
        with episode_pool(self.workers) as pool:
            for index, evaluation in evaluate_all([plan[1:] for plan in plans], seeds, pool):
                evaluations[index] = evaluation
                run = plans[index][0]
                done = [evaluations[each] for each in sorted(evaluations) if plans[each][0] == run]
                if (self.out is None or len(runs) > 1) and len(done) * len(runs) == len(plans):
                    _write_run(run, done)
        ordered = [evaluations[index] for index in range(len(plans))]
        print(_as_json(ordered) if self.json else _as_text(ordered, [str(run) for run, _, _ in plans]), flush=True)
        self._write(ordered)
        if self.video is not None:
            film_episodes(plans[0][1], seeds[: self.video_episodes], self.video)

    def _find(self) -> list[tuple[Path, Path]]:
        """The runs (or checkpoints) as they were named, each once, and the directories of their checkpoints."""
        from rql_core.checkpoint_files import MANIFEST
        from rql_core.evaluation.runs import find_runs

        if not self.runs:
            raise ConfigError("no run is named; give run directories or checkpoints, such as runs/rql")
        named: list[Path] = []
        for path in self.runs:
            whole = not path.is_dir() or any(os.path.lexists(path / name) for name in (MANIFEST, "checkpoint"))
            named += [path] if whole else find_runs([path])
        found = []
        for path in dict.fromkeys(named):
            link = path / "checkpoint"
            # What the link points to now, so that all workers load the same one while a training goes on.
            found.append((path, path / os.readlink(link) if link.is_symlink() else link if link.exists() else path))
        return found

    def _settings(self, checkpoint: Checkpoint) -> list[EpisodeSettings]:
        from rql_core.acting import check_rho
        from rql_core.evaluation.episodes import EpisodeSettings, place

        world, environment = place(checkpoint, self.world, self.environment)
        horizon = checkpoint.policy.horizon
        if not 0 <= self.replan_every <= horizon:
            raise ConfigError(
                f"replan_every is {self.replan_every}, expected 0 (the whole chunk) to {horizon}, the policy's horizon"
            )
        every_acting = self._acting(checkpoint)
        if self.rho is not None:
            check_rho(self.rho, every_acting)
        for acting in every_acting:
            checkpoint.policy.algorithm.check_acting(acting)
        return [
            EpisodeSettings(checkpoint.directory, acting, world, environment, self.replan_every)
            for acting in every_acting
        ]

    def _acting(self, checkpoint: Checkpoint) -> list[Acting]:
        """Every combination that was asked for; what was not asked for is the algorithm's own."""
        own: Acting = checkpoint.policy.algorithm.default_acting
        return [
            own.changed(samples=samples, rho=self.rho, flow_steps=steps)
            for samples in dict.fromkeys(self.samples or (None,))
            for steps in dict.fromkeys(self.flow_steps or (None,))
        ]

    def _write(self, evaluations: Sequence[Evaluation]) -> None:
        from rql_core.evaluation.results import write_evaluation, write_evaluations
        from rql_core.evaluation.tables import acting_points, plot_acting

        if self.out is not None and len(evaluations) == 1:
            write_evaluation(evaluations[0], self.out)
        elif self.out is not None:
            write_evaluations(evaluations, self.out)
        if self.plot is not None:
            plot_acting(acting_points(evaluations), self.plot)


def _write_run(run: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write into a run's directory; a checkpoint is not written into, its files are under hashes."""
    from rql_core.checkpoint_files import MANIFEST
    from rql_core.evaluation.results import write_evaluation, write_evaluations

    if (run / MANIFEST).exists():
        return
    if len(evaluations) == 1:
        write_evaluation(evaluations[0], run / "evaluation.json")
    else:
        write_evaluations(evaluations, run / "evaluation-acting.json")


def _check_plot(path: Path) -> None:
    """Raise ConfigError for a kind of picture that cannot be drawn, before the episodes are run."""
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ConfigError(f"plot is {path}, expected a file that ends in .png, or one of .{', .'.join(sorted(known))}")


def _several_actings(evaluations: Sequence[Evaluation]) -> bool:
    by_run: dict[tuple[str | None, str], int] = {}
    for each in evaluations:
        by_run[each.checkpoint, each.task] = by_run.get((each.checkpoint, each.task), 0) + 1
    return max(by_run.values()) > 1


def _as_text(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """The tables; of a single evaluation the line that sums it up comes last."""
    from rql_core.evaluation.tables import acting_points, acting_table, mean_table, means_over_seeds, run_table

    parts = [run_table(evaluations, names)]
    if len(evaluations) == 1:
        parts.append(evaluations[0].summary())
    elif _several_actings(evaluations):
        parts.append(acting_table(acting_points(evaluations)))
    else:
        parts.append(mean_table(means_over_seeds(evaluations)))
    return "\n\n".join(parts)


def _as_json(evaluations: Sequence[Evaluation]) -> str:
    """The same as JSON; the episodes' records are in the files."""
    from rql_core.evaluation.tables import acting_points, means_over_seeds

    rows: list[dict[str, Any]] = []
    for evaluation in evaluations:
        row = asdict(evaluation)
        del row["records"]
        rows.append(row | {"statistics": evaluation.statistics()})
    content: dict[str, Any] = {"evaluations": rows}
    if _several_actings(evaluations):
        content["acting"] = [asdict(point) for point in acting_points(evaluations)]
    else:
        content["means"] = [asdict(each) for each in means_over_seeds(evaluations)]
    return json.dumps(content, indent=2)
