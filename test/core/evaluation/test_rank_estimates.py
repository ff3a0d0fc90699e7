"""The benchmark that says how well estimates rank checkpoints: its statistics, its cache, and one real measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_estimates
from rank_estimates import Measured, correlations, find_checkpoints, main, picture, rank, table
from scipy.stats import kendalltau, spearmanr
from written_logs import write_dataset

from rql_core.contract import Contract
from rql_core.data import Trajectories
from rql_core.errors import ConfigError


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_estimates, "RESAMPLES", 100)


def measured(run: str, step: int, success: float, algorithm: str = "rql", **figures: float | None) -> Measured:
    return Measured(run, algorithm, step, success, 95 - 40 * success, figures)


# Success rises with the steps in both runs, and what is estimated agrees with it, or says the contrary.
AGREEING = [
    measured(run, step, step / 10, fqe_value=float(step), own_value=-float(step), td_share=1 - step / 10)
    for run in ("a", "b")
    for step in (1, 4, 7, 9)
]


def test_a_perfect_estimate_ranks_perfectly_and_costs_nothing() -> None:
    ranking = rank(AGREEING, "fqe_value")
    assert ranking is not None
    assert (ranking.checkpoints, ranking.regret) == (8, 0.0)
    assert (ranking.spearman, ranking.kendall, ranking.spearman_steps) == pytest.approx((1.0, 1.0, 1.0))
    assert ranking.spearman_interval == pytest.approx((1.0, 1.0))


def test_an_estimate_that_says_the_contrary_ranks_the_other_way_round() -> None:
    ranking = rank(AGREEING, "own_value")
    assert ranking is not None
    assert ranking.spearman == pytest.approx(-1.0)
    assert ranking.regret == pytest.approx(0.9 - 0.1)  # the worst checkpoint is what it likes best


def test_of_an_error_less_is_better() -> None:
    ranking = rank(AGREEING, "td_share")
    assert ranking is not None
    assert ranking.spearman == pytest.approx(1.0)


def test_correlations_are_those_of_scipy_with_ties() -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(0, 5, (2, 30)).astype(float)
    expected = (spearmanr(left, right).statistic, kendalltau(left, right).statistic)
    assert correlations(left, right) == pytest.approx(expected)


def test_kendall_counts_pairs() -> None:
    # Of six pairs one is the wrong way round: (5 - 1) / 6.
    rows = [measured("a", step, step / 10, fqe_value=value) for step, value in ((1, 1.0), (2, 3.0), (3, 2.0), (4, 4.0))]
    ranking = rank(rows, "fqe_value")
    assert ranking is not None
    assert ranking.kendall == pytest.approx(4 / 6)
    assert ranking.kendall_interval is None  # a single run says nothing of other runs


def test_runs_are_drawn_and_not_checkpoints() -> None:
    # Within each run the estimate is perfect; in run c it is shifted, so that the whole depends on which are drawn.
    shifted = [measured("c", step, step / 10, fqe_value=step + 20.0) for step in (1, 2)]
    ranking = rank([*AGREEING, *shifted], "fqe_value")
    assert ranking is not None
    assert ranking.spearman_interval is not None
    low, high = ranking.spearman_interval
    assert low < ranking.spearman < high == pytest.approx(1.0)
    assert rank([*AGREEING, *shifted], "fqe_value") == ranking


def test_what_cannot_be_ranked_is_not() -> None:
    assert rank(AGREEING[:2], "fqe_value") is None
    assert rank(AGREEING, "promise") is None
    assert rank([measured("a", step, 1.0, fqe_value=float(step)) for step in range(5)], "fqe_value") is None
    rows = [*AGREEING, measured("d", 5, 0.5, algorithm="bc_flow", fqe_value=None)]
    ranking = rank(rows, "fqe_value")
    assert ranking is not None
    assert ranking.checkpoints == 8


def test_the_table_has_all_and_each_algorithm() -> None:
    text = table([*AGREEING, *(measured("d", step, step / 20, "bc_flow", fqe_value=0.1 * step) for step in (1, 2, 3))])
    assert "### all: 11 checkpoints of 3 runs, success 0.05 to 0.90" in text
    assert "### rql: 8 checkpoints of 2 runs" in text
    assert "### bc_flow: 3 checkpoints of 1 runs" in text
    assert "| value, own critics | 8 | -1.00 (-1.00 to -1.00) | -1.00 (-1.00 to -1.00) | 0.80 | -1.00 |" in text
    picture(AGREEING).savefig("/dev/null", format="png")


def test_every_second_checkpoint_is_counted_from_the_last(tmp_path: Path) -> None:
    for step in ("00000500", "00001000", "00001500", "123456789"):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    names = [path.name for path in find_checkpoints([tmp_path], 2)]
    assert names == ["step-00001000", "step-123456789"]
    with pytest.raises(ConfigError, match="has no checkpoints"):
        find_checkpoints([tmp_path / "nothing"], 1)


def test_a_real_checkpoint_is_measured_once(
    checkpoint: Path,
    play_data: Trajectories,
    contract_text: str,
    contract: Contract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = write_dataset(tmp_path / "play-v0", play_data, contract_text, contract)
    cache = tmp_path / "cache.json"
    arguments = [str(checkpoint.parent), "--dataset", str(dataset), "--json", str(cache), "--jobs", "1"]
    arguments += ["--out", str(tmp_path / "picture.png"), "--episodes", "1", "--updates", "2"]
    assert main(arguments) == 0
    assert "1 checkpoints of 1 runs" in capsys.readouterr().out
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (found,) = json.loads(cache.read_text(encoding="utf-8")).values()
    assert (found["algorithm"], found["step"]) == ("rql", 200)
    assert found["figures"]["fqe_value"] < 0

    def measured_again(job: Any) -> Measured:
        raise AssertionError(f"{job} was measured again")

    monkeypatch.setattr(rank_estimates, "measure", measured_again)
    assert main(arguments) == 0
    with pytest.raises(AssertionError, match="measured again"):
        main([*arguments, "--first-seed", "1"])
