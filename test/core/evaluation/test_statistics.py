"""Statistics over seeds against closed forms, full enumeration and published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu, norm

from rql_core.evaluation.results import wilson_interval
from rql_core.evaluation.statistics import (
    Interval,
    SeedScore,
    combine_intervals,
    episodes_interval,
    hierarchical_means,
    interquartile_mean,
    mean_interval,
    mean_success,
    paired_interval,
    paired_test,
    probability_of_improvement,
    seed_bootstrap,
    smallest_p,
)

# How many of 50 episodes succeeded.
successes = st.integers(0, 50)


def scores(*counts: int, episodes: int | None = 50) -> list[SeedScore]:
    """Seeds with so many successes in 50 episodes; the number of episodes may be kept secret."""
    return [SeedScore(count / 50, episodes) for count in counts]


def pairs_of(
    ours: Sequence[int], theirs: Sequence[int], episodes: int | None = 50
) -> list[tuple[SeedScore, SeedScore]]:
    return list(zip(scores(*ours, episodes=episodes), scores(*theirs, episodes=episodes), strict=True))


# Means


def test_tasks_count_alike_however_many_seeds_they_have() -> None:
    assert mean_success({"a": scores(50, 50, 50), "b": scores(0)}) == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(values: list[float]) -> None:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    assert interquartile_mean(values) == pytest.approx(sum(middle) / len(middle))


def test_one_failed_seed_of_five_moves_the_mean_but_not_the_interquartile_mean() -> None:
    assert interquartile_mean([0.0, 0.9, 0.9, 0.9, 0.9]) == pytest.approx(0.9)


# Hierarchical bootstrap


def test_the_hierarchical_bootstrap_has_the_distribution_that_enumeration_gives() -> None:
    """Two seeds, 2 of 4 and 3 of 4: every draw of seeds, and every number of successes in the drawn, by its chance."""
    expected: dict[float, float] = {}
    for first, second in product((0.5, 0.75), repeat=2):
        for one, other in product(range(5), repeat=2):
            chance = binom.pmf(one, 4, first) * binom.pmf(other, 4, second) / 4
            expected[(one + other) / 8] = expected.get((one + other) / 8, 0.0) + float(chance)
    draws = 200_000
    seeds = {"task": [SeedScore(0.5, 4), SeedScore(0.75, 4)]}
    means = hierarchical_means(seeds, draws, np.random.default_rng(0))
    for value, chance in expected.items():
        # Five standard errors: one of nine such tests fails by chance once in two hundred thousand times.
        tolerance = 5 * sqrt(chance * (1 - chance) / draws)
        assert np.mean(np.isclose(means, value)) == pytest.approx(chance, abs=tolerance)


def test_its_variance_is_that_of_seeds_and_that_of_episodes_by_task() -> None:
    """Law of total variance; tasks are drawn apart (stratified), so theirs add up, by the square of the weight."""
    tasks = {"a": [SeedScore(0.2, 10), SeedScore(0.8, 40)], "b": [SeedScore(0.5, 20)] * 3}
    variance = 0.0
    for seeds in tasks.values():
        rates = np.array([seed.rate for seed in seeds])
        episodes = np.array([seed.episodes for seed in seeds], float)
        variance += (rates.var() + np.mean(rates * (1 - rates) / episodes)) / len(seeds) / len(tasks) ** 2
    means = hierarchical_means(tasks, 200_000, np.random.default_rng(0))
    assert means.mean() == pytest.approx(mean_success(tasks), abs=5 * sqrt(variance / 200_000))
    assert means.var() == pytest.approx(variance, rel=0.02)


@settings(deadline=None)
@given(st.lists(successes, min_size=2, max_size=6))
def test_an_interval_holds_its_mean_and_is_a_share(counts: list[int]) -> None:
    task = {"task": scores(*counts)}
    interval = mean_interval(task, resamples=499)
    assert interval is not None
    assert 0 <= interval.low <= mean_success(task) <= interval.high <= 1
    assert interval.low < interval.high


def test_the_hierarchical_interval_covers_more_often_than_that_of_seeds_alone() -> None:
    """Five seeds whose chances differ mildly (Beta, mean .5, standard deviation .11), 50 episodes, 600 times."""
    generator = np.random.default_rng(0)
    covered = {"seeds and episodes": 0, "seeds": 0}
    repeats = 600
    for _ in range(repeats):
        counts = generator.binomial(50, generator.beta(10, 10, 5))
        for episodes in (50, None):
            interval = mean_interval({"task": scores(*counts, episodes=episodes)}, resamples=499)
            assert interval is not None
            covered[interval.source] += interval.low <= 0.5 <= interval.high
    assert 0.90 <= covered["seeds and episodes"] / repeats <= 0.97
    assert 0.80 <= covered["seeds"] / repeats <= 0.87


# Seeds alone


@pytest.mark.parametrize("tasks", [[(5, 20, 30, 35, 50)], [(10, 20, 40), (25, 30, 50)], [(10, 30, 40, 45), (20,)]])
def test_the_bootstrap_over_seeds_has_the_percentiles_of_all_resamples(tasks: list[tuple[int, ...]]) -> None:
    every_task = [[np.mean(drawn) / 50 for drawn in product(counts, repeat=len(counts))] for counts in tasks]
    every = [float(np.mean(means)) for means in product(*every_task)]
    interval = seed_bootstrap({str(index): scores(*counts) for index, counts in enumerate(tasks)})
    assert interval is not None
    assert interval.source == "seeds"
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(every, [0.025, 0.975])), abs=0.02)


def test_bca_is_efrons() -> None:
    """Efron 1987: percentiles moved by the bias z0 and the acceleration a, here from all resamples of six seeds."""
    rates = np.array([5, 30, 40, 45, 48, 50]) / 50
    every = np.sort([np.mean(drawn) for drawn in product(rates, repeat=len(rates))])
    bias = norm.ppf(np.mean(every < rates.mean() - 1e-12) + np.mean(np.isclose(every, rates.mean())) / 2)
    left_out = np.array([np.delete(rates, index).mean() for index in range(len(rates))])
    deviations = left_out.mean() - left_out
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    levels = [norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in norm.ppf([0.025, 0.975])]
    interval = seed_bootstrap({"task": [SeedScore(float(rate)) for rate in rates]}, "BCa")
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(every, levels)), abs=0.015)
    percentile = seed_bootstrap({"task": [SeedScore(float(rate)) for rate in rates]})
    assert percentile is not None
    assert interval.low < percentile.low - 0.03  # the seeds are skewed, and BCa knows


# Where a bootstrap has no width


def test_fifty_of_fifty_in_all_seeds_is_no_certainty() -> None:
    interval = mean_interval({"task": scores(50, 50, 50, 50, 50)})
    assert interval == Interval(*wilson_interval(250, 250), "episodes")
    assert interval.low == pytest.approx(250 / (250 + 1.959964**2))  # Wilson's lower end for all of n
    assert mean_interval({"task": scores(0, 0)}) == Interval(*wilson_interval(0, 100), "episodes")


def test_equal_seeds_that_are_neither_all_nor_nothing_have_a_bootstrap() -> None:
    interval = mean_interval({"task": scores(40, 40, 40)})
    assert interval is not None
    assert interval.source == "seeds and episodes"
    # All that varies are 150 episodes with a chance of .8.
    expected = binom.ppf([0.025, 0.975], 150, 0.8) / 150
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1 / 150 + 1e-9)


def test_a_single_seed_has_wilsons_interval() -> None:
    assert mean_interval({"task": scores(41)}) == Interval(*wilson_interval(41, 50), "episodes")


def test_without_numbers_of_episodes_there_is_what_seeds_tell_or_nothing() -> None:
    interval = mean_interval({"task": scores(30, 40, episodes=None)})
    assert interval == seed_bootstrap({"task": scores(30, 40)})
    assert mean_interval({"task": scores(30, episodes=None)}) is None
    assert mean_interval({"task": scores(50, 50, episodes=None)}) is None
    assert seed_bootstrap({"a": scores(50, 50), "b": scores(10)}) is None


def test_tasks_with_one_seed_each_combine_their_wilson_intervals() -> None:
    """Two tasks solved always: the mean of two independent estimates, each with Wilson's interval."""
    low = wilson_interval(50, 50)[0]
    interval = episodes_interval({"a": scores(50), "b": scores(50)})
    assert interval.low == pytest.approx(1 - sqrt(2 * (0.5 * (1 - low)) ** 2))
    assert interval.high == pytest.approx(1)
    assert mean_interval({"a": scores(50), "b": scores(50)}) == interval


def test_the_difference_of_two_wilson_intervals_is_newcombes() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table II, case (a), method 10: 56/70 - 48/80 is .0524 to .3339."""
    estimates = [(56 / 70, *wilson_interval(56, 70)), (48 / 80, *wilson_interval(48, 80))]
    assert combine_intervals([1, -1], estimates) == pytest.approx((0.0524, 0.3339), abs=5e-5)


# Against a baseline


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(successes, successes), min_size=1, max_size=8))
def test_the_exact_p_counts_all_patterns_of_signs(counts: list[tuple[int, int]]) -> None:
    """In whole numbers of episodes, so that nothing is rounded."""
    differences = [ours - theirs for ours, theirs in counts]
    patterns = list(product((1, -1), repeat=len(counts)))
    flipped = [abs(sum(sign * each for sign, each in zip(signs, differences, strict=True))) for signs in patterns]
    expected = sum(each >= abs(sum(differences)) for each in flipped) / len(patterns)
    result = paired_test({"task": pairs_of(*zip(*counts, strict=True))}, resamples=99)
    assert result.exact
    assert result.pairs == len(counts)
    assert result.p == pytest.approx(expected)
    assert result.difference == pytest.approx(sum(differences) / 50 / len(counts))


@pytest.mark.parametrize("count", [1, 2, 5, 6, 16])
def test_no_p_is_below_the_smallest_that_so_many_pairs_can_reach(count: int) -> None:
    result = paired_test({"task": pairs_of(range(20, 20 + count), [0] * count)}, resamples=99)
    assert result.p == result.smallest_p == smallest_p(count) == 2 / 2**count
    assert result.exact


def test_many_pairs_have_a_monte_carlo_p_near_the_exact_one() -> None:
    """20 pairs, 13 better and 7 worse by as much: the exact p is the binomial sign test's."""
    ours = [30] * 13 + [20] * 7
    theirs = [20] * 13 + [30] * 7
    result = paired_test({"task": pairs_of(ours, theirs)})
    exact = 2 * sum(comb(20, count) for count in range(13, 21)) / 2**20
    assert not result.exact
    assert result.p == pytest.approx(exact, abs=5 * sqrt(exact * (1 - exact) / 9999))
    assert result == paired_test({"task": pairs_of(ours, theirs)}, seed=0)
    assert result.p != paired_test({"task": pairs_of(ours, theirs)}, seed=1).p


def test_tasks_count_alike_in_a_paired_test() -> None:
    """One pair on task a weighs as much as three on task b: 2^4 patterns of +-3a and +-b1 +-b2 +-b3."""
    result = paired_test({"a": pairs_of([30], [20]), "b": pairs_of([20, 21, 22], [25, 25, 25])})
    weighted = [3 * 10, -5, -4, -3]
    flipped = [abs(sum(s * w for s, w in zip(signs, weighted, strict=True))) for signs in product((1, -1), repeat=4)]
    assert result.difference == pytest.approx((10 - 4) / 2 / 50)
    assert result.p == pytest.approx(sum(each >= abs(sum(weighted)) for each in flipped) / 16)


def test_patterns_that_are_as_extreme_count_as_such_however_they_are_rounded() -> None:
    """In 2350ths 221 + 934 + 765 - 221 - 934 - 762 is 3, and no pattern gives less; in floating point some seem to."""
    counts = [221, 934, 765, -221, -934, -762]
    pairs = [(SeedScore(max(each, 0) / 2350), SeedScore(max(-each, 0) / 2350)) for each in counts]
    assert paired_test({"task": pairs}).p == 1


def test_equal_pairs_differ_by_nothing() -> None:
    result = paired_test({"task": pairs_of([10, 30, 50], [10, 30, 50])})
    assert (result.difference, result.p) == (0, 1)


def test_the_paired_interval_has_the_percentiles_of_all_resamples_of_pairs() -> None:
    ours, theirs = (40, 45, 30, 44), (30, 40, 35, 20)
    drawn = product(np.subtract(ours, theirs) / 50, repeat=4)
    expected = np.quantile([np.mean(each) for each in drawn], [0.025, 0.975])
    interval = paired_interval({"task": pairs_of(ours, theirs, episodes=None)})
    assert interval is not None
    assert interval.source == "seeds"
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.02)


def test_the_paired_interval_with_episodes_has_the_variance_of_both_sides() -> None:
    """Equal pairs: all that varies are the episodes of both, 200 each; the interval is almost normal."""
    interval = paired_interval({"task": pairs_of([40] * 4, [25] * 4)})
    assert interval is not None
    assert interval.source == "seeds and episodes"
    half = 1.96 * sqrt(0.8 * 0.2 / 200 + 0.5 * 0.5 / 200)
    assert (interval.low, interval.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.01)


def test_a_difference_without_any_spread_has_newcombes_interval() -> None:
    always, never = wilson_interval(250, 250), wilson_interval(0, 250)
    interval = paired_interval({"task": pairs_of([50] * 5, [0] * 5)})
    assert interval is not None
    assert interval.source == "episodes"
    assert interval.low == pytest.approx(1 - sqrt((1 - always[0]) ** 2 + never[1] ** 2))
    assert interval.high == pytest.approx(1)
    assert paired_interval({"task": pairs_of([50] * 5, [0] * 5, episodes=None)}) is None
    one = paired_interval({"task": pairs_of([40], [30])})
    estimates = [(0.8, *wilson_interval(40, 50)), (0.6, *wilson_interval(30, 50))]
    assert one == Interval(*combine_intervals([1, -1], estimates), "episodes")


# Probability of improvement


@settings(deadline=None)
@given(st.lists(successes, min_size=1, max_size=6), st.lists(successes, min_size=1, max_size=6))
def test_the_probability_of_improvement_is_mann_and_whitneys(ours: list[int], theirs: list[int]) -> None:
    statistic = mannwhitneyu(ours, theirs, method="exact").statistic
    found = probability_of_improvement({"task": scores(*ours)}, {"task": scores(*theirs)})
    assert found == pytest.approx(statistic / len(ours) / len(theirs))


def test_it_is_averaged_over_the_tasks_that_both_have() -> None:
    ours = {"a": scores(50, 40), "b": scores(10), "only ours": scores(50)}
    theirs = {"a": scores(30), "b": scores(10, 20), "only theirs": scores(0)}
    assert probability_of_improvement(ours, theirs) == pytest.approx((1 + 0.25) / 2)
