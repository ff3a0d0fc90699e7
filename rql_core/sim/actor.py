"""The demonstrator as a controller: it is driven through the contract's observation, exactly as a policy is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rql_core.contract import Contract
from rql_core.errors import ContractError
from rql_core.runtime.plan import Guide, Plan
from rql_core.sim.demonstrator import RingDemonstrator
from rql_core.sim.registration import world

FEATURES = ("joint_position", "joint_velocity", "tool_position")


class DemonstratorActor:
    """Gives one action a step. Needs the features joint_position, joint_velocity and tool_position in the contract."""

    horizon = 1

    def __init__(self, name: str, contract: Contract, direction: int | None = None) -> None:
        features = {feature.name for feature in contract.features}
        for feature in FEATURES:
            if feature not in features:
                raise ContractError(
                    f"contract {contract.name!r} has no feature {feature!r}, which the demonstrator looks at; "
                    f"it has {', '.join(sorted(features))}"
                )
        description = world(name)
        if contract.action.names != description.joint_names:
            raise ContractError(
                f"contract {contract.name!r} commands {', '.join(contract.action.names)}, "
                f"but world {name!r} has the joints {', '.join(description.joint_names)}"
            )
        self._slices = [contract.feature_slice(feature) for feature in FEATURES]
        self._demonstrator = RingDemonstrator(description, direction=direction)

    def reset(self, seed: int | None) -> None:
        """Forget where it was going; the same seed gives the same walk."""
        self._demonstrator.reset(seed)

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Observation (observation_dim,) -> one action (1, joints) in rad/s."""
        position, velocity, tool = (observation[where].astype(np.float64) for where in self._slices)
        return self._demonstrator.act(position, velocity, tool)[None]

    def plan(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        """One action; a demonstrator heeds no guide."""
        return Plan(self.act(observation))

    def values(
        self, observation: npt.NDArray[np.float32], actions: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32] | None:
        """None: a script has no critics."""
        return None
