"""The benchmark of an update: what it compares computes the same, what it counts is counted right, and it writes what
it says.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import plain_update, update_profile, update_setting, update_timing
from benchmarks.bench_update import disturbance, main
from benchmarks.plain_update import PlainRQL
from benchmarks.update_profile import GROUPS
from benchmarks.update_setting import (
    LOSSES,
    SMALL,
    TOLERANCE,
    Setting,
    counted_flops,
    differences,
    flops,
    make_batch,
    make_plain,
    make_product,
)
from benchmarks.update_timing import Timing, alternate, has_bf16, part_subjects

TINY = Setting(batch=8, critics=2, flow_steps=2, width=16, layers=2, observation_dim=5, action_dim=2, horizon=2)
TINY_SWEEPS = {"batch": (4, 8), "critics": (1, 2), "flow_steps": (1, 2), "width": (8, 16)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("form", ["plain", "blocked"])
def test_the_plain_update_is_the_product_s_published_one(form: Any) -> None:
    product = make_product(SMALL, form, dtype=torch.float64)
    worst = differences(product, make_plain(SMALL, dtype=torch.float64), SMALL)
    assert {name.split(".")[0] for name in worst} == {*LOSSES, *product.networks}
    assert len(worst) == len(LOSSES) + sum(len(list(network.parameters())) for network in product.networks.values())
    assert max(worst.values()) <= TOLERANCE
    assert product.updates == update_setting.CHECKED_UPDATES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 3.01),
        ("kappa", 0.71),
        ("rho", 0.51),
        ("gamma", 0.991),
        ("tau", 0.0051),
        ("learning_rate", 3.1e-4),
        ("act_average", 0.9991),
        ("flow_steps", 5),
    ],
)
def test_an_update_with_any_other_setting_is_told_apart(name: str, value: float) -> None:
    plain = make_plain(SMALL, dtype=torch.float64)
    other: Any = replace(plain.settings, **{name: value})
    worst = differences(make_product(SMALL, dtype=torch.float64), PlainRQL(other, dtype=torch.float64), SMALL)
    assert max(worst.values()) > 100 * TOLERANCE


def test_the_plain_update_imports_nothing_of_the_product() -> None:
    tree = ast.parse(Path(plain_update.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert "torch" in imported
    assert imported <= {*sys.stdlib_module_names, "torch"}


def test_plain_draws_are_of_the_published_kind() -> None:
    plain = make_plain(Setting(batch=8, flow_steps=4, width=4, layers=1), dtype=torch.float64)
    draws = plain.sample_draws(4000, torch.Generator().manual_seed(0))
    assert draws["flow_noise"].shape == draws["target_noise"].shape == (4000, 25)
    assert not torch.equal(draws["flow_noise"], draws["target_noise"])
    steps = draws["depth"] * 4
    on_grid, anywhere = steps[:2000], steps[2000:]
    assert on_grid.unique().tolist() == [0, 1, 2, 3, 4]
    assert (anywhere == anywhere.round()).sum() == 0
    for uniform in (anywhere / 4, draws["flow_time"]):
        assert 0 <= float(uniform.min()) < 0.01
        assert 0.99 < float(uniform.max()) < 1
        assert abs(float(uniform.mean()) - 0.5) < 0.03


@pytest.mark.parametrize(
    "setting",
    [SMALL, TINY, replace(TINY, layers=1), replace(TINY, critics=1, flow_steps=7), replace(SMALL, horizon=1, layers=3)],
)
def test_the_formula_counts_the_operations_that_pytorch_counts(setting: Setting) -> None:
    assert flops(setting) == counted_flops(setting)


def test_a_published_update_takes_thirty_one_billion_operations() -> None:
    assert flops(Setting()) == pytest.approx(31e9, rel=0.02)


def test_subjects_take_turns_and_warm_up_turns_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], ""
    monkeypatch.setattr(update_timing.time, "perf_counter", lambda: now[0])

    def work(name: str, seconds: Iterator[float]) -> None:
        nonlocal calls
        calls += name
        now[0] += next(seconds)

    # Warm-up turns take 100 s.
    a, b = iter((100, 100, 1, 2, 3, 4, 50)), iter((100, 100, 7, 7, 7, 7, 7))
    timings = alternate({"a": lambda: work("a", a), "b": lambda: work("b", b)}, 5, warm_ups=2)
    assert calls == "ab" * 7
    assert timings["a"] == Timing(median=3000, minimum=1000, interquartile_range=2000)
    assert timings["b"] == Timing(median=7000, minimum=7000, interquartile_range=0)


def test_the_parts_of_an_update_add_up_to_it() -> None:
    whole, parted, batch = make_product(TINY), make_product(TINY), make_batch(TINY)
    draws = whole.sample_draws(TINY.batch, torch.Generator().manual_seed(0))
    before = whole.training_state()
    parts = part_subjects(parted, batch, draws)
    *losses, adam, averages = parts.values()
    for loss in losses:
        loss()
    assert all(torch.equal(before[name], tensor) for name, tensor in parted.training_state().items())
    whole.update(batch, draws)
    adam()
    averages()
    assert not torch.equal(before["actor.weights.0"], parted.training_state()["actor.weights.0"])
    assert all(torch.equal(whole.training_state()[name], tensor) for name, tensor in parted.training_state().items())


def test_a_run_writes_figures_that_fit_together_and_a_picture(tmp_path: Path, capsys: Any) -> None:
    precision = torch.get_float32_matmul_precision()
    main(["--out", str(tmp_path), "--repeats", "2", "--threads", "1", "--device", "cpu"], TINY, TINY_SWEEPS)
    results = json.loads((tmp_path / "update.json").read_text())
    assert {"ratios", "ms", "floor_ms", "flops", "gflops_per_second", "machine", "sweeps", "gpu"} <= results.keys()
    assert {"cpu", "cores", "torch", "threads", "date"} == results["machine"].keys()
    assert results["machine"]["threads"] == 1
    ms = {name: timing["median"] for name, timing in results["ms"].items()}
    assert set(ms) == {"product", "product_plain_form", "plain_eager"} | ({"bf16"} if has_bf16() else set())
    assert results["ratios"]["cpu_to_plain_eager"] == ms["plain_eager"] / ms["product"]
    assert results["flops"] == flops(TINY)
    assert results["floor_ms"] == pytest.approx(flops(TINY) / results["gflops_per_second"] / 1e6)
    assert {size: tuple(row["value"] for row in rows) for size, rows in results["sweeps"].items()} == TINY_SWEEPS
    # The setting that all sweeps share is the one of the table.
    shared = [rows[1] for rows in results["sweeps"].values()]
    assert {row["product_ms"] for row in shared} == {ms["product"]}
    assert {row["plain_eager_ms"] for row in shared} == {ms["plain_eager"]}
    assert len({row["product_ms"] for rows in results["sweeps"].values() for row in rows}) == 5
    one_step, two_steps = results["sweeps"]["flow_steps"]
    assert one_step["floor_ms"] < two_steps["floor_ms"]
    assert results["gpu"] is None
    assert (tmp_path / "update.png").read_bytes().startswith(b"\x89PNG")
    assert f"| this project | {ms['product']:.1f} |" in capsys.readouterr().out
    assert torch.get_float32_matmul_precision() == precision


def test_without_sweeps_there_is_no_picture(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--repeats", "1", "--no-sweeps"], TINY, TINY_SWEEPS)
    assert json.loads((tmp_path / "update.json").read_text())["sweeps"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["update.json"]


def test_nothing_is_timed_where_the_two_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any, **options: Any) -> PlainRQL:
        plain = make_plain(*arguments, **options)
        plain.settings = replace(plain.settings, kappa=0.6)
        return plain

    monkeypatch.setattr(update_setting, "make_plain", wrong)
    with pytest.raises(SystemExit, match=r"nothing was timed: the product \(plain networks\) and the plain update"):
        main(["--out", str(tmp_path / "out")], TINY, TINY_SWEEPS)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_none_count_as_a_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> PlainRQL:
        plain = make_plain(*arguments, **options)
        plain.settings = replace(plain.settings, alpha=float("nan"))
        return plain

    monkeypatch.setattr(update_setting, "make_plain", broken)
    assert update_setting.disagreement() is not None


def test_a_profile_finds_every_kind_of_operation_in_both(tmp_path: Path, capsys: Any) -> None:
    for groups in update_profile.profiles(TINY).values():
        assert list(groups) == list(GROUPS)
        assert all(milliseconds > 0 for milliseconds in groups.values())
    main(["--profile", "--out", str(tmp_path / "out")], TINY, TINY_SWEEPS)
    header, _, *rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in header[1:]] == ["plain eager", "product"]
    assert [row[0].strip() for row in rows] == [*GROUPS, "all"]
    assert not (tmp_path / "out").exists()


def test_times_that_other_work_has_spread_are_warned_of() -> None:
    assert disturbance({"median": 100.0, "interquartile_range": 9.0}) is None
    warning = disturbance({"median": 100.0, "interquartile_range": 31.0})
    assert warning is not None
    assert "31% of their median" in warning


@pytest.mark.parametrize("wrong", [["--repeats", "0"], ["--threads", "0"], ["--device", "tpu"]])
def test_options_that_make_no_sense_are_refused(wrong: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(wrong, TINY, TINY_SWEEPS)
    assert refusal.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_batches_hold_solved_chunks_and_windows_past_the_end() -> None:
    batch = make_batch(SMALL)
    assert 0 < int(batch.valid.sum()) < SMALL.batch
    assert 0 < int(batch.masks[:, -1].sum()) < SMALL.batch
    assert float(batch.rewards.abs().max()) <= 1
