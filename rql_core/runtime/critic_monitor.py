"""The critic as a watchman: a value far from those of the training data says that the robot is where nobody has been.

Only a policy that was trained with critics can do this. The checkpoint carries how the critics' mean and spread were
distributed over the training data; here each plan's values are compared with that. It warns, and holds only when told
to: a critic off its data is a sign, not a proof.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rql_core.errors import ConfigError

Action = Literal["off", "warn", "hold"]


@dataclass(frozen=True)
class ValueRange:
    """What was usual in the training data: least and greatest mean over the critics, greatest standard deviation."""

    lowest_mean: float
    highest_mean: float
    highest_std: float

    def __post_init__(self) -> None:
        numbers = (self.lowest_mean, self.highest_mean, self.highest_std)
        if not np.isfinite(numbers).all() or self.lowest_mean > self.highest_mean or self.highest_std < 0:
            raise ConfigError(
                f"value range is [{self.lowest_mean}, {self.highest_mean}] with a spread up to {self.highest_std}, "
                "expected finite numbers, lowest <= highest and a spread of 0 or more"
            )


@dataclass(frozen=True)
class Judgement:
    """Mean and standard deviation over the critics of one plan, and what is unusual about it ("" where nothing is)."""

    mean: float
    std: float
    unusual: str


class CriticMonitor:
    """Judges plans; `alarm` is true when most of the last `window` plans were unusual, as one alone may well be."""

    def __init__(self, usual: ValueRange, window: int = 10) -> None:
        if window < 1:
            raise ConfigError(f"window is {window}, expected 1 or more")
        self.usual = usual
        self.judged = 0
        self.unusual = 0
        self.last: Judgement | None = None
        self._recent: deque[bool] = deque(maxlen=window)

    def reset(self) -> None:
        """Forget the recent plans; counts stay."""
        self._recent.clear()
        self.last = None

    def judge(self, values: npt.NDArray[np.float32]) -> Judgement:
        """Take the critics' values (critics,) of a plan."""
        numbers = np.asarray(values, dtype=np.float64)
        finite = bool(np.isfinite(numbers).all())
        mean, std = (float(numbers.mean()), float(numbers.std())) if finite else (float("nan"), float("nan"))
        usual = self.usual
        if not finite:
            unusual = "the critics' values are not finite"
        elif mean < usual.lowest_mean:
            unusual = f"value {mean:.3g} is below {usual.lowest_mean:.3g}, the training data's"
        elif mean > usual.highest_mean:
            unusual = f"value {mean:.3g} is above {usual.highest_mean:.3g}, the training data's"
        elif std > usual.highest_std:
            unusual = f"the critics differ by {std:.3g}, in the training data by {usual.highest_std:.3g} at most"
        else:
            unusual = ""
        self.judged += 1
        self.unusual += bool(unusual)
        self._recent.append(bool(unusual))
        self.last = Judgement(mean, std, unusual)
        return self.last

    @property
    def alarm(self) -> bool:
        """Whether more than half of a full window was unusual."""
        recent = self._recent
        return len(recent) == recent.maxlen and sum(recent) * 2 > len(recent)
