"""Statistics over seeds: what a handful of trained seeds, each tried in some episodes, allows to be said.

Two things vary: training again with another seed gives another policy, and trying a policy again gives other episodes.
The bootstrap here is therefore hierarchical: seeds are drawn anew within each task (stratified, as in Agarwal et al.
2021, "Deep RL at the edge of the statistical precipice"), and then episodes within each drawn seed.  Drawing seeds
alone is too sure of itself: its 95 % intervals over five seeds of 50 episodes that differ mildly cover the truth 84
times in 100, the hierarchical ones 92 times (test_statistics.py measures both).  Neither can know of a seed that fails
altogether before one has been seen; more seeds are the only remedy.

Where every episode of a task ended alike a bootstrap has no width.  The interval is then Wilson's of the pooled
episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rql_core.evaluation.results import wilson_interval

Array = npt.NDArray[np.float64]

#: Everywhere: 95 % intervals, as Wilson's of a single evaluation.
LEVEL = 0.95
# SciPy's default; the ends of a 95 % interval then move by about a hundredth of its width from one seed to the next.
RESAMPLES = 9999
# All 2^16 sign patterns take half a second; each further pair doubles that.
EXACT_PAIRS = 16
# The same data give the same report.
GENERATOR_SEED = 0
# Rates are ratios of small whole numbers; sums that are equal to so many decimals differ by rounding alone.
_DECIMALS = 12


@dataclass(frozen=True)
class SeedScore:
    """Success of one trained seed on one task: the rate in [0, 1], and of how many episodes, where that is known."""

    rate: float
    episodes: int | None = None


#: Scores of one method by task; at least one seed a task.
Scores = Mapping[str, Sequence[SeedScore]]
#: Scores of a method and of its baseline for the same task and seed, by task; at least one pair a task.
Pairs = Mapping[str, Sequence[tuple[SeedScore, SeedScore]]]

#: What an interval was made from.
Source = Literal["seeds and episodes", "episodes", "seeds"]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, and what it was made from."""

    low: float
    high: float
    source: Source


@dataclass(frozen=True)
class PairedTest:
    """A method against its baseline over (task, seed) pairs: the mean difference, its interval, and how likely it is.

    `p` is two-sided: how often a difference this large comes about where the method makes none, so that each pair's
    difference could as well have the other sign.  `interval` is None where the data give none.
    """

    difference: float
    interval: Interval | None
    p: float
    pairs: int
    exact: bool

    @property
    def smallest_p(self) -> float:
        """The smallest p that so many pairs can reach."""
        return smallest_p(self.pairs)


def mean_success(scores: Scores) -> float:
    """Mean over tasks of the mean over seeds: each task counts alike, however many seeds it has."""
    return float(np.mean([np.mean(_rates(seeds)) for seeds in scores.values()]))


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end (SciPy)."""
    from scipy.stats import trim_mean

    return float(trim_mean(np.asarray(values, float), 0.25))


def mean_interval(scores: Scores, resamples: int = RESAMPLES) -> Interval | None:
    """The interval of `mean_success`: from seeds and episodes where there are several seeds, else from episodes.

    From seeds alone where the number of episodes is unknown; None where even these are one, or all alike.
    """
    several = any(len(seeds) > 1 for seeds in scores.values())
    if all(seed.episodes for seeds in scores.values() for seed in seeds):
        if several:
            generator = np.random.default_rng(GENERATOR_SEED)
            interval = _percentiles(hierarchical_means(scores, resamples, generator), "seeds and episodes")
            if interval is not None:
                return interval
        return episodes_interval(scores)
    return seed_bootstrap(scores, resamples=resamples) if several else None


def hierarchical_means(scores: Scores, resamples: int, generator: np.random.Generator) -> Array:
    """Bootstrap distribution of `mean_success`: seeds drawn within tasks, then episodes within seeds; (resamples,)."""
    means = []
    for seeds in scores.values():
        drawn = generator.integers(0, len(seeds), (resamples, len(seeds)))
        means.append(_redraw_episodes(seeds, drawn, generator).mean(axis=1))
    return np.asarray(np.mean(means, axis=0), float)


def seed_bootstrap(
    scores: Scores, method: Literal["percentile", "BCa"] = "percentile", resamples: int = RESAMPLES
) -> Interval | None:
    """Stratified bootstrap over seeds alone (SciPy); None where no task has two seeds that differ.

    For scores whose numbers of episodes are unknown, and to compare with published intervals of this kind.
    """
    from scipy.stats import bootstrap

    tasks = [_rates(seeds) for seeds in scores.values()]
    # SciPy wants two of each at least; a task with one seed, or with equal ones, adds the same to every resample.
    varied = tuple(task for task in tasks if np.ptp(task) > 0)
    if not varied:
        return None
    constant = sum(float(task.mean()) for task in tasks if np.ptp(task) == 0)

    def mean(*samples: Array, axis: int = -1) -> Any:
        return (np.sum([sample.mean(axis=axis) for sample in samples], axis=0) + constant) / len(tasks)

    result = bootstrap(
        varied,
        mean,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=LEVEL,
        method=method,
        rng=np.random.default_rng(GENERATOR_SEED),
    ).confidence_interval
    return Interval(float(result.low), float(result.high), "seeds")


def episodes_interval(scores: Scores) -> Interval:
    """The interval of `mean_success` from episodes alone: Wilson's of each task's pooled episodes, tasks combined.

    For one task it is Wilson's interval itself.  It says nothing of seeds that were not trained.
    """
    pooled = [_pooled(seeds) for seeds in scores.values()]
    low, high = combine_intervals([1 / len(pooled)] * len(pooled), pooled)
    return Interval(low, high, "episodes")


def combine_intervals(weights: Sequence[float], estimates: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Interval of a weighted sum of independent estimates (value, low, high), each with its own interval.

    Zou and Donner 2008 (MOVER); with weights 1 and -1 and Wilson's intervals it is Newcombe's (1998) of a difference.
    """
    total = below = above = 0.0
    for weight, (value, low, high) in zip(weights, estimates, strict=True):
        ends = sorted((weight * low, weight * high))
        total += weight * value
        below += (weight * value - ends[0]) ** 2
        above += (ends[1] - weight * value) ** 2
    return float(total - np.sqrt(below)), float(total + np.sqrt(above))


def smallest_p(pairs: int) -> float:
    """Of the 2^pairs patterns of signs two are the most extreme; 5 pairs cannot get below .0625."""
    return float(2.0 ** (1 - pairs))


def paired_test(pairs: Pairs, seed: int = GENERATOR_SEED, resamples: int = RESAMPLES) -> PairedTest:
    """Sign-flip permutation test of a mean difference of 0, and the difference's interval.

    Exact up to 16 pairs; above that `resamples` random patterns of signs, drawn with `seed`.  Tasks count alike.
    """
    from scipy.stats import permutation_test

    count = sum(len(each) for each in pairs.values())
    # Weighted so that the mean over all pairs is the mean over tasks of the mean over a task's pairs.
    weighted = np.concatenate(
        [(count / (len(pairs) * len(each))) * np.array([a.rate - b.rate for a, b in each]) for each in pairs.values()]
    )

    def mean(differences: Array, axis: int = -1) -> Any:
        return np.round(np.mean(differences, axis=axis), _DECIMALS)

    exact = count <= EXACT_PAIRS
    p = 1.0  # of one pair: both signs are as extreme; SciPy wants two
    if count > 1:
        p = permutation_test(
            (weighted,),
            mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**count if exact else resamples,
            rng=np.random.default_rng(seed),
        ).pvalue
    return PairedTest(float(weighted.mean()), paired_interval(pairs, resamples), float(p), count, exact)


def paired_interval(pairs: Pairs, resamples: int = RESAMPLES) -> Interval | None:
    """Bootstrap interval of the mean difference: pairs drawn within tasks, then the episodes of both.

    From episodes alone (Newcombe's interval) where no task has two pairs, or nothing varies; from pairs alone where
    the number of episodes is unknown; None where that gives nothing.
    """
    known = all(score.episodes for each in pairs.values() for pair in each for score in pair)
    several = any(len(each) > 1 for each in pairs.values())
    if several:
        generator = np.random.default_rng(GENERATOR_SEED)
        means = np.mean([_paired_means(each, known, resamples, generator) for each in pairs.values()], axis=0)
        interval = _percentiles(means, "seeds and episodes" if known else "seeds")
        if interval is not None:
            return interval
    if not known:
        return None
    estimates = [_pooled([pair[side] for pair in each]) for side in (0, 1) for each in pairs.values()]
    low, high = combine_intervals([1 / len(pairs)] * len(pairs) + [-1 / len(pairs)] * len(pairs), estimates)
    return Interval(low, high, "episodes")


def probability_of_improvement(scores: Scores, baseline: Scores) -> float:
    """P(X > Y): how often a seed of the method is better than one of the baseline, ties counting half, over tasks.

    Mann-Whitney's U by the number of comparisons, averaged over the tasks that both have (Agarwal et al. 2021).
    """
    shares = []
    for task in scores.keys() & baseline.keys():
        lead = np.round(_rates(scores[task])[:, None] - _rates(baseline[task])[None, :], _DECIMALS)
        shares.append(np.mean(lead > 0) + np.mean(lead == 0) / 2)
    return float(np.mean(shares))


def _rates(seeds: Sequence[SeedScore]) -> Array:
    return np.array([seed.rate for seed in seeds])


def _episodes(seeds: Sequence[SeedScore]) -> npt.NDArray[np.int64]:
    return np.array([seed.episodes for seed in seeds], np.int64)


def _pooled(seeds: Sequence[SeedScore]) -> tuple[float, float, float]:
    """Mean over seeds, and Wilson's interval of all their episodes together."""
    episodes = _episodes(seeds)
    successes = round(float(_rates(seeds) @ episodes))
    # Where numbers of episodes differ the two means may too; an interval holds what it is of.
    mean = float(_rates(seeds).mean())
    low, high = wilson_interval(successes, int(episodes.sum()))
    return mean, min(low, mean), max(high, mean)


def _redraw_episodes(seeds: Sequence[SeedScore], drawn: npt.NDArray[np.int64], generator: np.random.Generator) -> Array:
    """Rates of as many new episodes of each drawn seed, drawn from those that it had; the shape of `drawn`."""
    episodes = _episodes(seeds)[drawn]
    return np.asarray(generator.binomial(episodes, _rates(seeds)[drawn]) / episodes, float)


def _paired_means(
    pairs: Sequence[tuple[SeedScore, SeedScore]], known: bool, resamples: int, generator: np.random.Generator
) -> Array:
    """Bootstrap distribution of one task's mean difference (resamples,); without episodes where they are unknown."""
    drawn = generator.integers(0, len(pairs), (resamples, len(pairs)))
    sides = []
    for scores in zip(*pairs, strict=True):
        sides.append(_redraw_episodes(scores, drawn, generator) if known else _rates(scores)[drawn])
    return np.asarray((sides[0] - sides[1]).mean(axis=1), float)


def _percentiles(distribution: Array, source: Source) -> Interval | None:
    """The middle 95 % of a bootstrap distribution; None where it has no width."""
    if np.ptp(np.round(distribution, _DECIMALS)) == 0:
        return None
    low, high = np.quantile(distribution, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), source)
