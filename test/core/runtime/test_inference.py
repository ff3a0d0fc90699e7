"""The planning thread: one question at a time, answers and failures handed over, an end that does not hang."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Event, active_count

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
    assert thread.refused == 1
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
