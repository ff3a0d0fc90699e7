"""Numbers that topics say about reward and success, gathered over a recording and given out step by step.

A step goes from one tick to the next; a message stamped exactly on a tick belongs to the step that ends there. These
topics are few and small, so a recording's are read before its episodes are cut, whenever their messages arrived.
Not thread-safe.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rql_core.contract.alignment import CLOCK_JUMP_NS
from rql_core.contract.reward_schema import RewardTopic, SolvedByTopic
from rql_core.contract.schema import Contract
from rql_core.contract.time import NANOSECONDS, stamp_to_ns
from rql_core.errors import ContractError


@dataclass(frozen=True)
class StepSignals:
    """What topics say about T steps: `rewards` (T,) and `solved` (T,), each None where no topic says it."""

    rewards: npt.NDArray[np.float64] | None
    solved: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class SignalUse:
    """What came of the messages of a topic in one recording, `says`: of what they are the source.

    `in_steps`: how many of `messages` lie in steps that were labelled by them; `start_ns`, `end_ns`: the first and last
    stamp by `clock`, 0 without messages.
    """

    topic: str
    says: Literal["reward", "success"]
    clock: Literal["header", "receive"]
    messages: int
    in_steps: int
    start_ns: int
    end_ns: int


class RewardSignals:
    """The messages of the topics that a contract takes reward or success from; none for most contracts.

    `types`: topic -> message type.
    """

    def __init__(self, contract: Contract) -> None:
        self._signals = [_Signal(rule) for rule in contract.reward.topics]
        self.types = {signal.rule.topic: signal.rule.type for signal in self._signals}

    def push(self, topic: str, message: Any, receive_ns: int) -> None:
        """Take one message.

        Raises ContractError when its field is absent or no finite number, or its stamp is unset or goes back.
        """
        for signal in self._signals:
            if signal.rule.topic == topic:
                signal.push(message, receive_ns)

    def missing(self, start_ns: int, end_ns: int) -> list[str]:
        """The topics without which the step after `start_ns`, up to `end_ns`, cannot be had."""
        ticks = [start_ns, end_ns]
        return [s.rule.topic for s in self._signals if s.rule.missing == "cut" and not s.counts(ticks)[0]]

    def silent(self) -> list[str]:
        """The topics that must say something about every step, and have said nothing at all."""
        return [s.rule.topic for s in self._signals if s.rule.missing == "cut" and not s.stamps]

    def steps(self, ticks_ns: Sequence[int]) -> StepSignals:
        """What the topics say about the steps between T + 1 ticks."""
        rewards = solved = None
        for signal in self._signals:
            if isinstance(signal.rule, RewardTopic):
                rewards = signal.values(ticks_ns)
            else:
                # In a step without a message -inf, which reaches no threshold.
                solved = signal.values(ticks_ns) >= signal.threshold
        return StepSignals(rewards, solved)

    def labelled(self, start_ns: int, end_ns: int) -> None:
        """The steps between these two ticks, one after the other, are in an episode that is kept."""
        for signal in self._signals:
            signal.in_steps += int(signal.counts([start_ns, end_ns])[0])

    def uses(self) -> list[SignalUse]:
        """What came of the messages so far: reward and success apart, also where they come from one topic."""
        return [signal.use() for signal in self._signals]


@dataclass
class _Signal:
    rule: SolvedByTopic | RewardTopic
    stamps: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    newest_ns: int | None = None
    in_steps: int = 0

    def __post_init__(self) -> None:
        self._get = _compile(self.rule.field)
        self._sorted: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None = None
        success = isinstance(self.rule, SolvedByTopic)
        self._boolean = isinstance(self.rule, SolvedByTopic) and self.rule.at_least is None
        at_least = self.rule.at_least if isinstance(self.rule, SolvedByTopic) else None
        self.threshold = 1.0 if at_least is None else float(at_least)
        self._nothing = -math.inf if success else 0.0

    def push(self, message: Any, receive_ns: int) -> None:
        rule = self.rule
        try:
            value = self._get(message)
        except (AttributeError, IndexError, TypeError) as error:
            raise ContractError(
                f"{rule.topic}: field {rule.field!r} cannot be read from {rule.type}: {error}; correct the contract"
            ) from None
        if self._boolean and not isinstance(value, bool | np.bool_):
            raise ContractError(
                f"{rule.topic}: field {rule.field!r} is {value!r}, expected true or false; "
                "for a number say 'at_least' in the contract"
            )
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ContractError(f"{rule.topic}: field {rule.field!r} is {value!r}, expected a number") from None
        if not math.isfinite(number):
            raise ContractError(f"{rule.topic}: field {rule.field!r} is {number}, expected a finite number")
        stamp = self._stamp(message, receive_ns)
        if self.newest_ns is not None and self.newest_ns - stamp >= CLOCK_JUMP_NS:
            back = (self.newest_ns - stamp) / NANOSECONDS
            raise ContractError(
                f"{rule.topic}: its clock goes back by {back:.3f} s, so that its steps cannot be told apart; "
                "cut the bag in two there"
            )
        self.newest_ns = stamp if self.newest_ns is None else max(stamp, self.newest_ns)
        self.stamps.append(stamp)
        self.numbers.append(number)
        self._sorted = None

    def use(self) -> SignalUse:
        stamps, _ = self._in_order()
        return SignalUse(
            topic=self.rule.topic,
            says="reward" if isinstance(self.rule, RewardTopic) else "success",
            clock=self.rule.clock,
            messages=len(stamps),
            in_steps=self.in_steps,
            start_ns=int(stamps[0]) if len(stamps) else 0,
            end_ns=int(stamps[-1]) if len(stamps) else 0,
        )

    def counts(self, ticks_ns: Sequence[int]) -> npt.NDArray[np.intp]:
        """(T,): messages within each step."""
        return np.diff(np.searchsorted(self._in_order()[0], ticks_ns, side="right"))

    def values(self, ticks_ns: Sequence[int]) -> npt.NDArray[np.float64]:
        """(T,): what the messages within each step come to."""
        stamps, numbers = self._in_order()
        ends = np.searchsorted(stamps, ticks_ns, side="right")
        result = np.full(len(ticks_ns) - 1, self._nothing)
        filled = np.flatnonzero(np.diff(ends))
        if not len(filled):
            return result
        if self.rule.in_step == "last":
            result[filled] = numbers[ends[filled + 1] - 1]
            return result
        combine = np.add if self.rule.in_step == "sum" else np.maximum
        # Between two steps that have messages there are none, so each one's messages end where the next one's begin.
        result[filled] = combine.reduceat(numbers[: ends[-1]], ends[filled])
        return result

    def _in_order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        if self._sorted is None:
            stamps, numbers = np.array(self.stamps, dtype=np.int64), np.array(self.numbers, dtype=np.float64)
            order = np.argsort(stamps, kind="stable")
            self._sorted = stamps[order], numbers[order]
        return self._sorted

    def _stamp(self, message: Any, receive_ns: int) -> int:
        if self.rule.clock == "receive":
            return receive_ns
        try:
            stamp = stamp_to_ns(getattr(message, "header", message).stamp)
        except AttributeError:
            raise ContractError(
                f"{self.rule.topic}: {self.rule.type} has no header, which clock 'header' needs; use clock 'receive'"
            ) from None
        if stamp <= 0:
            raise ContractError(
                f"{self.rule.topic}: header.stamp is {stamp} ns, expected the time of the event; "
                "set it where it is published or use clock 'receive' in the contract"
            )
        return stamp


def _compile(path: str) -> Callable[[Any], Any]:
    """A getter for `status.value` or `data[3]`; only attributes and whole-number indices, nothing is evaluated."""
    parts = [part.partition("[") for part in path.split(".")]
    steps = [(name, int(index[:-1]) if index else None) for name, _, index in parts]

    def get(message: Any) -> Any:
        for name, index in steps:
            message = getattr(message, name)
            if index is not None:
                message = message[index]
        return message

    return get
