"""Checkpoints are written beside training, one after the other, and what goes wrong with one is not lost."""

from __future__ import annotations

import logging
import threading

import pytest

from rql_core.training.checkpoint_writer import CheckpointWriter


def test_a_job_runs_while_the_caller_goes_on() -> None:
    writer, go_on, done = CheckpointWriter(), threading.Event(), threading.Event()

    def job() -> None:
        assert go_on.wait(30)
        done.set()

    writer.submit(job)
    assert not done.is_set()
    go_on.set()
    writer.wait()
    assert done.is_set()


def test_one_job_waits_for_the_one_before() -> None:
    writer, order = CheckpointWriter(), []
    first = threading.Event()

    def slow() -> None:
        assert first.wait(30)
        order.append("slow")

    writer.submit(slow)
    threading.Timer(0.05, first.set).start()
    writer.submit(lambda: order.append("next"))
    writer.wait()
    assert order == ["slow", "next"]


def test_what_a_job_raises_comes_out_once_at_the_next_call() -> None:
    writer, ran = CheckpointWriter(), []

    def broken() -> None:
        raise OSError("no space left")

    writer.submit(broken)
    with pytest.raises(OSError, match="no space left"):
        writer.submit(lambda: ran.append(1))
    assert ran == []
    writer.wait()
    writer.submit(broken)
    with pytest.raises(OSError, match="no space left"):
        writer.wait()


def test_an_error_beside_another_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    writer = CheckpointWriter()

    def broken() -> None:
        raise OSError("no space left")

    writer.submit(broken)
    with caplog.at_level(logging.ERROR):
        writer.abandon()
    assert "no space left" in caplog.text
    writer.abandon()
