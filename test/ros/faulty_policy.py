"""The policy node as it is, with a policy that fails as the file named by RQL_TEST_FAULT says at each plan.

Run by test_node_faults_policies.py; everything but the policy's answers is the real thing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from rql_core.runtime.plan import Plan
from rql_core.runtime.policy import DeployedPolicy
from rql_ros.policy_node import main

FAULT = Path(os.environ["RQL_TEST_FAULT"])


class FaultyPolicy(DeployedPolicy):
    """Healthy: full speed one way, then the other, by turns of five plans."""

    plans = 0

    def plan(self, observation: Any, guide: Any = None) -> Plan:
        self.plans += 1
        kind = FAULT.read_text().strip()
        shape = (self.horizon, self.contract.action_dim)
        actions = np.full(shape, 0.9 if self.plans // 5 % 2 else -0.9)
        values: Any = None
        if kind == "nan":
            actions[1, 0] = np.nan
        elif kind == "inf":
            actions[-1, 1] = np.inf
        elif kind == "out of limits":
            actions *= 1e6
        elif kind == "huge":
            actions *= 1e308
        elif kind == "jumps between chunks":
            actions[:] = 1.0 if self.plans % 2 else -1.0
        elif kind == "jumps within chunks":
            actions[::2] *= -1.0
        elif kind == "raises":
            raise RuntimeError("the device was lost\nand more")
        elif kind == "out of memory":
            raise MemoryError
        elif kind == "exits":
            sys.exit(3)
        elif kind == "short":
            actions = actions[:1]
        elif kind == "narrow":
            actions = actions[:, :1]
        elif kind == "flat":
            actions = actions.ravel()
        elif kind == "empty":
            actions = actions[:0]
        elif kind == "text":
            actions = actions.astype(str)
        elif kind == "complex":
            actions = actions.astype(complex)
        elif kind == "list":
            actions = actions.tolist()
        elif kind == "none":
            return None  # type: ignore[return-value]
        elif kind in ("usual", "unusual"):
            usual = self._usual
            assert usual is not None
            middle = (usual.lowest_mean + usual.highest_mean) / 2
            values = np.full(2, middle if kind == "usual" else usual.lowest_mean - 1.0, dtype=np.float32)
        elif kind == "nan values":
            values = np.array([np.nan, np.nan], dtype=np.float32)
        elif kind == "slow":
            sleep(0.5)
        elif kind == "slower by and by":
            sleep(0.01 * (self.plans % 40))
        elif kind == "never":
            began = monotonic()
            while FAULT.read_text().strip() == "never" and monotonic() - began < 60:
                sleep(0.02)
        return Plan(actions, values)

    def rehearse(self, observation: Any, guide: Any = None) -> Plan:
        kind = FAULT.read_text().strip()
        if kind == "rehearsal raises":
            raise RuntimeError("the device was lost\nand more")
        if kind == "rehearsal is none":
            return None  # type: ignore[return-value]
        actions = np.full((self.horizon, self.contract.action_dim), np.nan if kind == "rehearsal is nan" else 0.0)
        began = monotonic()
        while kind == "rehearsal never ends" and monotonic() - began < 60:
            sleep(0.02)
            kind = FAULT.read_text().strip()
        return Plan(actions)

    def warm_up(self) -> None:
        """Nothing to warm."""


real = DeployedPolicy.load.__func__  # type: ignore[attr-defined]
DeployedPolicy.load = classmethod(  # type: ignore[assignment,method-assign]
    lambda cls, *arguments, **named: real(FaultyPolicy, *arguments, **named)
)

if __name__ == "__main__":
    sys.exit(main())
