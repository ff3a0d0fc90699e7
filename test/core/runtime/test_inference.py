"""The planning thread: one question at a time, answers and failures handed over, an end that does not hang."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Event, active_count
from time import perf_counter

import pytest

from rql_core.runtime.inference import InferenceThread

PATIENCE_S = 20.0


def test_answers_and_failures_are_handed_over_with_their_question() -> None:
    heard: SimpleQueue = SimpleQueue()

    def work(question: int) -> float:
        return 1 / question

    thread = InferenceThread(work, lambda *what: heard.put(what))
    assert thread.ask(4)
    question, answer, duration = heard.get(timeout=PATIENCE_S)
    assert (question, answer) == (4, 0.25)
    assert duration > 0
    assert thread.ask(0)
    question, answer, _ = heard.get(timeout=PATIENCE_S)
    assert question == 0
    assert isinstance(answer, ZeroDivisionError)
    assert thread.ask(2)
    assert heard.get(timeout=PATIENCE_S)[1] == 0.5
    assert thread.close(PATIENCE_S)


def test_a_question_during_another_is_refused_and_one_from_within_done_is_not() -> None:
    go, heard = Event(), SimpleQueue()
    thread: InferenceThread[int, int]

    def work(question: int) -> int:
        go.wait(PATIENCE_S)
        return question

    def done(question: int, answer: int | Exception, duration: int) -> None:
        if question == 1:
            heard.put(("asked", thread.ask(2)))
        heard.put(answer)

    thread = InferenceThread(work, done)
    assert thread.ask(1)
    assert thread.busy
    assert not thread.ask(9)
    go.set()
    assert [heard.get(timeout=PATIENCE_S) for _ in range(3)] == [("asked", True), 1, 2]
    assert thread.close(PATIENCE_S)
    assert not thread.ask(3)


def test_closing_does_not_wait_for_ever_and_leaves_no_thread_where_work_ends() -> None:
    before = active_count()
    go = Event()
    thread: InferenceThread[int, bool] = InferenceThread(lambda _: go.wait(PATIENCE_S), lambda *_: None)
    thread.ask(1)
    assert not thread.close(0.01)
    go.set()
    assert thread.close(PATIENCE_S)
    assert active_count() == before


def test_a_question_during_done_waits_for_its_end() -> None:
    go, heard = Event(), SimpleQueue()

    def done(question: int, answer: object, duration: int) -> None:
        heard.put(("begun", question))
        go.wait(PATIENCE_S)

    thread: InferenceThread[int, int] = InferenceThread(lambda question: heard.put(("asked", question)) or 0, done)
    assert thread.ask(1)
    assert [heard.get(timeout=PATIENCE_S) for _ in range(2)] == [("asked", 1), ("begun", 1)]
    assert thread.ask(2)
    assert heard.empty()
    go.set()
    assert [heard.get(timeout=PATIENCE_S) for _ in range(2)] == [("asked", 2), ("begun", 2)]
    assert thread.close(PATIENCE_S)


def test_what_done_raises_is_told_and_the_next_question_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    told, heard = [], SimpleQueue()
    monkeypatch.setattr("rql_core.runtime.inference.excepthook", told.append)

    def done(question: int, answer: object, duration: int) -> None:
        heard.put(answer)
        raise RuntimeError("nobody listens")

    thread = InferenceThread(lambda question: question, done)
    for question in (1, 2):
        assert thread.ask(question)
        assert heard.get(timeout=PATIENCE_S) == question
    assert thread.close(PATIENCE_S)
    assert [str(failure.exc_value) for failure in told] == ["nobody listens"] * 2


def test_work_that_wants_to_end_the_process_is_a_failure_like_any_other() -> None:
    heard: SimpleQueue = SimpleQueue()

    def work(question: int) -> int:
        raise SystemExit(question)

    thread = InferenceThread(work, lambda *what: heard.put(what))
    for question in (1, 2):
        assert thread.ask(question)
        assert "SystemExit was raised" in str(heard.get(timeout=PATIENCE_S)[1])
    assert thread.busy_ns == 0
    assert thread.close(PATIENCE_S)


def test_who_has_nothing_to_do_is_called_again_when_it_said_and_after_a_question() -> None:
    called: SimpleQueue = SimpleQueue()
    heard: SimpleQueue = SimpleQueue()
    waits = iter([0.001, None, 60.0, None])

    def idle() -> float | None:
        called.put(perf_counter())
        return next(waits)

    thread = InferenceThread(lambda question: question, lambda *what: heard.put(what[1]), idle)
    times = [called.get(timeout=PATIENCE_S) for _ in range(2)]
    assert times[1] - times[0] >= 0.001
    assert called.empty()
    for question in (1, 2):  # the second one need not wait for a minute
        assert thread.ask(question)
        assert heard.get(timeout=PATIENCE_S) == question
        called.get(timeout=PATIENCE_S)
    assert thread.close(PATIENCE_S)


def test_a_question_while_it_idles_is_busy_from_the_beginning_and_answered_after_it() -> None:
    begun, go, heard = Event(), Event(), SimpleQueue()

    def idle() -> None:
        begun.set()
        go.wait(PATIENCE_S)

    thread: InferenceThread[int, int] = InferenceThread(lambda question: question, lambda *what: heard.put(what), idle)
    assert begun.wait(PATIENCE_S)
    assert not thread.busy
    assert thread.ask(1)
    assert thread.busy
    assert thread.busy_ns > 0
    assert heard.empty()
    go.set()
    assert heard.get(timeout=PATIENCE_S)[:2] == (1, 1)
    assert thread.close(PATIENCE_S)


def test_what_idling_raises_is_told_and_questions_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    told, heard = [], SimpleQueue()
    monkeypatch.setattr("rql_core.runtime.inference.excepthook", told.append)

    def idle() -> None:
        raise RuntimeError("no patience")

    thread: InferenceThread[int, int] = InferenceThread(lambda question: question, lambda *what: heard.put(what), idle)
    assert thread.ask(1)
    assert heard.get(timeout=PATIENCE_S)[1] == 1
    assert thread.close(PATIENCE_S)
    assert {str(failure.exc_value) for failure in told} == {"no patience"}
