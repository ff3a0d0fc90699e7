"""Inference beside the control loop: one thread that plans, one question at a time.

Whoever asks does not wait: the answer comes to `done` on the planning thread. A question that comes while another is
being answered is refused, because an answer to an old observation is worth less than none. The thread is a daemon:
a policy that never returns must not keep a process from ending. While nobody asks it may do what nobody asked for
(`idle`), and a question that comes meanwhile waits.

What nobody waits for, such as the critics' values of a chunk that has left, is done by `done` where there is spare time
(see spare_time), and a question that comes meanwhile waits. A thread of its own would take the core from a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, ExceptHookArgs, Thread, excepthook
from time import perf_counter_ns
from typing import Generic, TypeVar

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")


class InferenceThread(Generic[QuestionT, AnswerT]):
    """Runs `work(question)` and hands `done(question, answer or the exception, duration in ns)` what came of it.

    What `done` or `idle` raises goes to `threading.excepthook`, and the next question is answered all the same.
    """

    def __init__(
        self,
        work: Callable[[QuestionT], AnswerT],
        done: Callable[[QuestionT, AnswerT | Exception, int], None],
        idle: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`idle()` is called when there is no question, and says in how many s to call it again; None: after the next
        question.
        """
        self._work = work
        self._done = done
        self._while_idle = idle
        self._questions: SimpleQueue[QuestionT | None] = SimpleQueue()
        self._idle = Event()
        self._idle.set()
        self._closed = Event()
        self._started = 0
        self._thread = Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return not self._idle.is_set()

    @property
    def busy_ns(self) -> int:
        """For how long the present question has been waiting and at work; 0 where there is none."""
        started = self._started
        return perf_counter_ns() - started if self.busy and started else 0

    def ask(self, question: QuestionT) -> bool:
        """Hand over a question; False where one is still being answered."""
        if self._closed.is_set() or self.busy:
            return False
        self._started = perf_counter_ns()
        self._idle.clear()
        self._questions.put(question)
        return True

    def close(self, patience_s: float) -> bool:
        """End the thread, waiting for what it is at for at most `patience_s`; whether it ended."""
        self._closed.set()
        self._questions.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (question := self._next()) is not None:
            started = perf_counter_ns()
            answer: AnswerT | Exception
            try:
                answer = self._work(question)
            except Exception as error:  # a policy's failure is the caller's to judge, and must not end the thread
                answer = error
            except BaseException as error:  # nor may a policy end the process
                answer = RuntimeError(f"{type(error).__name__} was raised")
            duration, self._started = perf_counter_ns() - started, 0
            # Idle before `done`, which may well be what asks the next question.
            self._idle.set()
            self._hand_over(question, answer, duration)

    def _next(self) -> QuestionT | None:
        while True:
            wait_s: float | None = None
            if self._questions.empty():
                try:
                    wait_s = self._while_idle()
                except BaseException as error:  # as with questions
                    self._complain(error)
            try:
                return self._questions.get(timeout=wait_s)
            except Empty:
                continue

    def _hand_over(self, question: QuestionT, answer: AnswerT | Exception, duration: int) -> None:
        try:
            self._done(question, answer, duration)
        except Exception as error:
            self._complain(error)

    def _complain(self, error: BaseException) -> None:
        """Where the end of a thread would be told: this one goes on, or every later question would wait for ever."""
        excepthook(ExceptHookArgs((type(error), error, error.__traceback__, self._thread)))
