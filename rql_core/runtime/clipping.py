"""The plain filter of the runner: finite, inside the limits, or the safe command. No rates: that is `safety`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from rql_core.contract import Contract

# One bad chunk may be a glitch; three in a row are a broken policy, and a robot must not go on being driven by it.
LATCH_AFTER = 3


class ClippingFilter:
    """Checks chunks (horizon, action_dim) in physical units.

    `counts` says how many numbers were changed and why: "limit" (clipped to the contract's limits), "not_finite" (a
    chunk with NaN or infinity, or of another shape, was replaced by the safe command). After `latch_after` such chunks
    in a row it latches: `latched` is the reason, and `apply` gives the safe command until `rearm` is called.
    """

    def __init__(self, contract: Contract, latch_after: int = LATCH_AFTER) -> None:
        self.lower = np.array([feature.lower for feature in contract.action.features], dtype=np.float64)
        self.upper = np.array([feature.upper for feature in contract.action.features], dtype=np.float64)
        self.names = contract.action.names
        self.counts: Counter[str] = Counter()
        self.latched: str | None = None
        self._hold = contract.action.hold
        self._latch_after = latch_after
        self._bad_in_a_row = 0
        self._last: npt.NDArray[np.float64] | None = None

    def apply(self, actions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """The chunk as it may leave; None where there is no safe command (hold 'last' before any command)."""
        # Without a step there is nothing that could leave; a safe command has one at least.
        steps = max(1, len(actions)) if actions.ndim else 1
        if self.latched is not None:
            return self.safe_command(steps)
        if actions.shape != (steps, len(self.names)) or not np.isfinite(actions).all():
            self.counts["not_finite"] += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= self._latch_after:
                self.latched = f"{self._bad_in_a_row} chunks in a row were not finite numbers of the right shape"
            return self.safe_command(steps)
        self._bad_in_a_row = 0
        clipped = np.clip(actions, self.lower, self.upper)
        self.counts["limit"] += int(np.count_nonzero(clipped != actions))
        return clipped

    def sent(self, action: npt.NDArray[np.float64]) -> None:
        """Tell the filter which action (action_dim,) is being executed, for hold 'last'.

        One that `apply` would not have let pass (not finite, another shape) is not kept.
        """
        if action.shape == self.lower.shape and np.isfinite(action).all():
            self._last = np.clip(action, self.lower, self.upper)

    def safe_command(self, horizon: int = 1) -> npt.NDArray[np.float64] | None:
        """The safe command as a chunk: zeros, or the last executed action; None before there was one."""
        if self._hold == "zero":
            return np.zeros((horizon, len(self.names)))
        return None if self._last is None else np.repeat(self._last[None], horizon, axis=0)

    def forget(self) -> None:
        """Nothing is being executed any more: there is no last action to hold."""
        self._last = None

    def rearm(self) -> None:
        """Let commands pass again after a latch."""
        self.latched = None
        self._bad_in_a_row = 0
