"""How well estimates from logs rank checkpoints by their true success, which episodes in simulation tell.

Of every checkpoint of some runs, `rql report`'s figures are estimated from one dataset, and its success is counted over
episodes in a world.  Printed are the rank correlations of each figure with success, and what one would lose by taking
the checkpoint that the figure likes best.  What was measured is kept in a JSON file, so that it can be stopped and gone
on with, and more runs can be added.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "rank_estimates.png"

# Estimates, how they are called, and whether more of it should mean more success (1) or less (-1).
ESTIMATES = {
    "fqe_value": ("value, fitted afresh (FQE)", 1),
    "own_value": ("value, own critics", 1),
    "promise": ("own value minus FQE", -1),
    "td_rms": ("TD error, RMS", -1),
    "td_share": ("TD error, of targets' spread", -1),
    "distance_mean": ("distance to logged actions, mean", -1),
    "distance_nearest": ("distance, nearest sample", -1),
    "saturation": ("actions at a limit", -1),
    # Whoever has no estimates takes the last checkpoint: what the others must beat.
    "step": ("updates of training", 1),
}
# Those in the picture.
SHOWN = ("fqe_value", "own_value", "td_share", "distance_nearest")
RESAMPLES = 2000
# Seven of the eight colours of Okabe and Ito, which people with every kind of colour vision tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = "osD^vPX"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A checkpoint: what it is, what is true of it, and what was estimated."""

    run: str
    algorithm: str
    step: int
    success: float
    mean_steps: float
    figures: dict[str, float | None]

    def estimate(self, name: str) -> float:
        """An estimate by name; nan where this checkpoint has none."""
        value = float(self.step) if name == "step" else self.figures.get(name)
        return float("nan") if value is None else value


@dataclass(frozen=True)
class Job:
    """What is to be measured of one checkpoint, and how: the same job has the same result."""

    checkpoint: Path
    dataset: Path
    world: str
    episodes: int
    first_seed: int
    updates: int
    seed: int

    def key(self) -> str:
        """Its name in the cache: from the checkpoint's own hashes and from the settings, not from where things lie."""
        manifest = (self.checkpoint / "manifest.json").read_bytes()
        data = (self.dataset / "data" / "metadata.json").read_bytes()
        rest = (self.world, self.episodes, self.first_seed, self.updates, self.seed)
        return hashlib.sha256(manifest + data + repr(rest).encode()).hexdigest()


def measure(job: Job) -> Measured:
    """Estimate, and count successes."""
    import torch

    from rql_core.evaluation.fitted_q import FittedQSettings
    from rql_core.evaluation.logs import open_logs
    from rql_core.evaluation.off_policy import EstimateSettings, estimate
    from rql_core.evaluation.rollout import contract_session, evaluate
    from rql_core.runtime.policy import DeployedPolicy
    from rql_core.training.checkpoint import load_checkpoint

    # Processes run beside each other, and networks this small are slower on two threads.
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(job.checkpoint)
    trajectories, _ = open_logs(checkpoint, job.dataset)
    # Episodes are not followed for a picture here, but one is the least.
    settings = EstimateSettings(seed=job.seed, episodes=1, fitted_q=FittedQSettings(updates=job.updates))
    figures = estimate(checkpoint.policy, trajectories, checkpoint.config.reward_range, settings).figures()
    policy = DeployedPolicy.load(job.checkpoint)
    session = contract_session(policy.contract, job.world)
    seeds = range(job.first_seed, job.first_seed + job.episodes)
    truth = evaluate(session, policy, seeds, controller=policy.algorithm).statistics()
    run = job.checkpoint.parent.parent
    return Measured(
        str(run), policy.algorithm, checkpoint.manifest.step, truth["success"], truth["mean_steps"], figures
    )


def measure_all(jobs: Sequence[Job], cache: Path, workers: int) -> list[Measured]:
    """Measure what the cache does not have; every checkpoint is in the file as soon as it is done."""
    from rql_core.progress import progress_bar
    from rql_core.whole_files import write_whole

    known: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    keys = [job.key() for job in jobs]
    missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in known}
    bar = progress_bar(total=len(jobs), initial=len(jobs) - len(missing), unit="checkpoint", desc="measuring")
    with bar:
        for key, measured in _results(missing, workers):
            known[key] = vars(measured)
            write_whole(cache, json.dumps(known, indent=1))
            bar.update()
    # What has been moved since is called by where it lies.
    return [
        Measured(**{**known[key], "run": str(job.checkpoint.parent.parent)})
        for key, job in zip(keys, jobs, strict=True)
    ]


def _results(jobs: Mapping[str, Job], workers: int) -> Iterator[tuple[str, Measured]]:
    if workers == 1:
        yield from ((key, measure(job)) for key, job in jobs.items())
        return
    # A process that forks from one where torch has run may hang; a new one does not.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


@dataclass(frozen=True)
class Ranking:
    """How an estimate ranks checkpoints; intervals are (low, high), None where they cannot be had."""

    checkpoints: int
    spearman: float
    spearman_interval: tuple[float, float] | None
    kendall: float
    kendall_interval: tuple[float, float] | None
    regret: float
    """Success of the best checkpoint, minus that of the one which the estimate likes best."""
    spearman_steps: float
    """With the mean length of episodes instead, shorter being better: it tells apart what has the same success."""


def rank(measured: Sequence[Measured], name: str, seed: int = 0) -> Ranking | None:
    """Rank correlations of an estimate with success; None where fewer than three checkpoints have it, or all are alike.

    The sign is turned so that 1 is what one hopes for.  The 95 % intervals are percentiles of a bootstrap over runs,
    not over checkpoints: those of one run resemble each other.  With one run there is none.
    """
    rows = [each for each in measured if np.isfinite(each.estimate(name))]
    if len(rows) < 3:
        return None
    estimates = ESTIMATES[name][1] * np.array([each.estimate(name) for each in rows])
    success = np.array([each.success for each in rows])
    found = correlations(estimates, success)
    if found is None:
        return None
    # Of equals the mean: which of them is taken is a matter of chance.
    regret = float(success.max() - success[estimates == estimates.max()].mean())
    runs = [each.run for each in rows]
    members = [np.flatnonzero(np.array(runs) == run) for run in dict.fromkeys(runs)]
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES if len(members) > 1 else 0):
        chosen = np.concatenate([members[index] for index in random.integers(len(members), size=len(members))])
        both = correlations(estimates[chosen], success[chosen])
        if both is not None:
            drawn.append(both)
    intervals: list[tuple[float, float] | None] = [None, None]
    if drawn:
        low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
        intervals = [(float(low[index]), float(high[index])) for index in range(2)]
    by_steps = correlations(estimates, -np.array([each.mean_steps for each in rows]))
    steps = float("nan") if by_steps is None else by_steps[0]
    return Ranking(len(rows), found[0], intervals[0], found[1], intervals[1], regret, steps)


def correlations(estimates: Array, success: Array) -> tuple[float, float] | None:
    """Spearman's rho and Kendall's tau-b; None where either side is constant, as then nothing is ranked."""
    from scipy.stats import rankdata

    if np.ptp(estimates) == 0 or np.ptp(success) == 0:
        return None
    spearman = np.corrcoef(rankdata(estimates), rankdata(success))[0, 1]
    # Thousands of times as a bootstrap needs it, this is much faster than SciPy's, which also computes a p-value.
    left, right = (np.sign(each[:, None] - each[None, :]) for each in (estimates, success))
    kendall = (left * right).sum() / np.sqrt(np.square(left).sum() * np.square(right).sum())
    return float(spearman), float(kendall)


def table(measured: Sequence[Measured]) -> str:
    """The rankings over all checkpoints and within each algorithm, as Markdown."""
    parts = []
    groups = {"all": list(measured)}
    algorithms = list(dict.fromkeys(each.algorithm for each in measured))
    if len(algorithms) > 1:
        groups |= {name: [each for each in measured if each.algorithm == name] for name in algorithms}
    for group, members in groups.items():
        success = [each.success for each in members]
        runs = len({each.run for each in members})
        span = f"success {min(success):.2f} to {max(success):.2f}"
        parts.append(
            f"### {group}: {len(members)} checkpoints of {runs} runs, {span}\n\n"
            "| estimate | checkpoints | Spearman | Kendall | regret | Spearman, steps |\n|---|---|---|---|---|---|"
        )
        for name, (label, _) in ESTIMATES.items():
            ranking = rank(members, name)
            if ranking is not None:
                rho = _with_interval(ranking.spearman, ranking.spearman_interval)
                tau = _with_interval(ranking.kendall, ranking.kendall_interval)
                cells = (label, ranking.checkpoints, rho, tau, f"{ranking.regret:.2f}", f"{ranking.spearman_steps:.2f}")
                parts[-1] += "\n| " + " | ".join(map(str, cells)) + " |"
    return "\n\n".join(parts)


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.2f}" + ("" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})")


def picture(measured: Sequence[Measured]) -> Any:
    """Success against some estimates, each checkpoint a mark: one colour and shape an algorithm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.3), layout="constrained")
    axes = figure.subplots(1, len(SHOWN), sharey=True)
    algorithms = list(dict.fromkeys(each.algorithm for each in measured))
    for axis, name in zip(axes, SHOWN, strict=True):
        for index, algorithm in enumerate(algorithms):
            rows = [each for each in measured if each.algorithm == algorithm and np.isfinite(each.estimate(name))]
            axis.plot(
                [each.estimate(name) for each in rows],
                [each.success for each in rows],
                MARKS[index % len(MARKS)],
                color=COLOURS[index % len(COLOURS)],
                label=algorithm,
                ms=5,
                mew=0,
                alpha=0.7,
            )
        ranking = rank(measured, name)
        label, sign = ESTIMATES[name]
        axis.set_xlabel(label)
        if ranking is not None:
            axis.set_title(f"ranks by Spearman {ranking.spearman:.2f}", fontsize=10)
        if sign < 0:
            axis.invert_xaxis()
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(-0.04, 1.04)
    axes[0].set_ylabel("true success")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(algorithms), frameon=False
    )
    return figure


def find_checkpoints(runs: Sequence[Path], every: int) -> list[Path]:
    """Every so many-th checkpoint of each run, counted back from its last."""
    from rql_core.errors import ConfigError

    found: list[Path] = []
    for run in runs:
        # Longer names are later ones: steps may have more digits than they are padded to.
        steps = sorted((run / "checkpoints").glob("step-*"), key=lambda path: (len(path.name), path.name))
        if not steps:
            raise ConfigError(
                f"{run}: has no checkpoints/step-*; name run directories, as `rql train --out` makes them"
            )
        found += steps[::-1][::every][::-1]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write the picture."""
    from rql_core.errors import RqlError

    parser = argparse.ArgumentParser(
        description="How well estimates from logs rank checkpoints by their true success.",
        epilog="Example: python -m benchmarks.rank_estimates runs/* --dataset datasets/held-out-v0 --jobs 2",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories with checkpoints/")
    parser.add_argument("--dataset", type=Path, required=True, help="dataset directory that figures are estimated from")
    parser.add_argument("--world", default="planar_arm", help="simulated world of the truth (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="episodes of the truth (default: %(default)s)")
    # Seeds that neither data nor evaluations elsewhere use.
    parser.add_argument("--first-seed", type=int, default=5000, help="seed of the first episode (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=1500, help="updates of each FQE (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="take every n-th checkpoint (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the estimates (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--json", type=Path, default=Path("build/rank_estimates.json"), help="cache (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=IMAGE, help="the PNG to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("episodes", "updates", "every", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}: expected at least 1")
    try:
        jobs = [
            Job(
                checkpoint,
                options.dataset,
                options.world,
                options.episodes,
                options.first_seed,
                options.updates,
                options.seed,
            )
            for checkpoint in find_checkpoints(options.runs, options.every)
        ]
        measured = measure_all(jobs, options.json, options.jobs)
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(measured))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture(measured).savefig(options.out, dpi=150)
    print(f"\n{options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
