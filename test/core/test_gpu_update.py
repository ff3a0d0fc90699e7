"""The GPU's benchmark measures every way of making updates, refuses one that makes others, and says where its floor is.

Run here on a CPU, which has the plain ways only.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import gpu_update
from benchmarks.gpu_update import WAYS, Way, check, fewest_bytes, gpu_figures, main, play, table
from benchmarks.update_setting import Setting, flops, make_product

SMALL = Setting(batch=8, critics=2, flow_steps=2, width=8, layers=2, observation_dim=3, action_dim=2, horizon=2)
CPU = torch.device("cpu")


def figures(ways: list[Way]) -> dict[str, Any]:
    return gpu_figures(CPU, ways, rounds=2, seconds=0.01, steps=100, episode=20, copied=2**16)


def test_every_way_has_its_rate_its_floor_and_its_distance_from_it() -> None:
    found = figures([Way("one by one", SMALL), Way("3 seeds", SMALL, seeds=3)])
    assert found["device"] == "CPU"
    for name, seeds in (("one by one", 1), ("3 seeds", 3)):
        each = found["ways"][name]
        assert each["error"] < 1e-5
        assert each["seed_updates_per_second"] == pytest.approx(seeds * each["updates_per_second"])
        assert each["least"] <= each["updates_per_second"] <= each["most"]
        assert each["times_its_floor"] == pytest.approx(each["ms"] / each["floor_ms"])
        products = seeds * flops(SMALL) / (each["matrix_tflops"] * 1e12)
        moved = fewest_bytes(SMALL, seeds) / (found["copy_gigabytes_per_second"] * 1e9)
        assert each["floor_ms"] == pytest.approx(1e3 * max(products, moved))
        assert each["floor_by"] == ("products" if products > moved else "bytes")
    text = table(found)
    assert "| one by one |" in text
    assert "| 3 seeds |" in text


def test_a_way_that_makes_other_updates_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, made = gpu_update.make_updates, []

    def other(way: Way, device: torch.device, trajectories: Any) -> Any:
        updates = honest(way, device, trajectories)
        if way.compiled:
            made.append(way.name)
            with torch.no_grad():
                updates._algorithm.networks["critic"].biases[-1].add_(1.0)
        return updates

    monkeypatch.setattr(gpu_update, "make_updates", other)
    data = play(SMALL, 100, 20)
    assert check(Way("plain", SMALL), CPU, data) == 0
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(SystemExit, match=r"broken: metrics are .* not the same update"):
        check(Way("broken", SMALL, compiled=True), CPU, data)
    assert made == ["broken"]


def test_the_fewest_bytes_are_eleven_numbers_a_parameter() -> None:
    networks = make_product(SMALL).networks
    parameters = sum(tensor.numel() for name in ("actor", "critic") for tensor in networks[name].parameters())
    assert fewest_bytes(SMALL, 2) == 2 * parameters * 11 * 4


def test_the_ways_have_different_names_and_cover_what_training_offers() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS)
    assert {way.precision for way in WAYS} == {"float32", "tf32", "bf16"}
    assert {(way.compiled, way.cuda_graphs) for way in WAYS} == {(a, b) for a in (False, True) for b in (False, True)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match="no GPU here: nothing was measured"):
        main([])
