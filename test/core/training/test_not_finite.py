"""A loss or a weight that is not finite stops a run, names its batch, and leaves the last good checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import DATA, small_config

from rql_core.algorithms import Batch
from rql_core.algorithms.rql import RQL
from rql_core.data import Statistics
from rql_core.errors import TrainingError
from rql_core.training import checkpoint as checkpoint_module
from rql_core.training import load_checkpoint, train


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RQL.critic_loss

    def broken(self: RQL, *args: Any) -> Any:
        loss, metrics = honest(self, *args)
        if self.updates == 12:
            loss = loss * float("nan")
            metrics["critic_loss"] = loss.detach()
        return loss, metrics

    monkeypatch.setattr(RQL, "critic_loss", broken)
    with pytest.raises(TrainingError, match="update 13: critic_loss is nan"):
        train(DATA, small_config(log_every=1000), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint").manifest.step == 10
    monkeypatch.undo()
    train(DATA, small_config(), tmp_path, resume=True)
    assert load_checkpoint(tmp_path / "checkpoint").manifest.step == 20


@pytest.mark.parametrize("resumed", [False, True])
def test_the_batch_at_which_a_loss_was_not_finite_is_named(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    honest = RQL.critic_loss

    def broken(self: RQL, batch: Batch, *args: Any) -> Any:
        loss, metrics = honest(self, batch, *args)
        if self.updates == 12:
            seen.append(batch.observations.numpy())
            metrics["critic_loss"] = loss.detach() * float("nan")
        return loss, metrics

    if resumed:
        train(DATA, small_config(updates=10, log_every=7), tmp_path)
    monkeypatch.setattr(RQL, "critic_loss", broken)
    with pytest.raises(TrainingError, match=r"update 13: .*its batch has 16 chunks .*step-00000010") as error:
        train(DATA, small_config(log_every=7), tmp_path, resume=resumed)
    named = json.loads((tmp_path / "bad_batch.json").read_text())
    assert named["update"] == 13
    rows = [DATA.observation_offsets[e] + s for e, s in zip(named["episodes"], named["steps"], strict=True)]
    expected = Statistics.of(DATA.observations).normalise(DATA.observations[rows])
    np.testing.assert_array_equal(seen[0], expected)
    extreme = int(np.abs(expected).max(axis=1).argmax())
    assert f"at episode {named['episodes'][extreme]}, step {named['steps'][extreme]}," in str(error.value)


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = RQL.loss

    def broken(self: RQL, *args: Any) -> Any:
        loss, metrics = honest(self, *args)
        return (loss * float("inf") if self.updates == 14 else loss), metrics

    monkeypatch.setattr(RQL, "loss", broken)
    with pytest.raises(TrainingError, match=r"update 15: .* holds a number that is not finite"):
        train(DATA, small_config(), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint").manifest.step == 10


def test_a_checkpoint_that_could_not_be_written_does_not_hide_what_broke_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RQL.critic_loss

    def broken(self: RQL, *args: Any) -> Any:
        loss, metrics = honest(self, *args)
        if self.updates == 6:
            metrics["critic_loss"] = loss.detach() * float("nan")
        return loss, metrics

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RQL, "critic_loss", broken)
    monkeypatch.setattr(checkpoint_module, "_write", full)
    with pytest.raises(TrainingError, match="update 7: critic_loss is nan"):
        train(DATA, small_config(), tmp_path)
    assert (tmp_path / "bad_batch.json").exists()
