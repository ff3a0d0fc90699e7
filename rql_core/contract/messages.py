"""From a message to the numbers of a contract.

Works on any object with the attributes of the message type: what rclpy hands over, what rosbags reads from a bag, what
the simulator makes. The live node and the converter therefore cannot read the same message differently
(test/ros/test_parity.py pins that).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract.schema import JOINT_STATE, Contract, ObservationTopic
from rql_core.contract.time import stamp_to_ns
from rql_core.errors import ContractError

FloatArray = npt.NDArray[np.float32]


class TopicReader:
    """Reads the numbers of one observation topic out of its messages; caches where each joint's name stands."""

    def __init__(self, spec: ObservationTopic, clock: str) -> None:
        self.spec = spec
        self.names = tuple(f"{feature.name}.{field}" for feature in spec.features for field in feature.fields)
        self._clock = clock
        fields = [field for feature in spec.features for field in feature.fields]
        self._read: Callable[[Any], npt.NDArray[np.float64]]
        if spec.type == JOINT_STATE:
            self._joints = [(group, joint) for group, _, joint in (field.partition(".") for field in fields)]
            self._layout: tuple[str, ...] | None = None
            self._index: list[tuple[str, npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
            self._read = self._read_joints
        else:
            self._paths = [_compile_path(field) for field in fields]
            self._read = self._read_paths

    def stamp(self, message: Any, receive_ns: int) -> int:
        """Time of the message in ns by the contract's clock; raises ContractError when the header is unset."""
        if self._clock == "receive":
            return receive_ns
        try:
            stamp = stamp_to_ns(message.header.stamp)
        except AttributeError:
            raise ContractError(
                f"{self.spec.topic}: {self.spec.type} has no header, which clock 'header' needs; use clock 'receive', "
                "or the stamped form of the type"
            ) from None
        if stamp <= 0:
            raise ContractError(
                f"{self.spec.topic}: header.stamp is {stamp} ns, expected the time of measurement; "
                "set it in the driver or use clock 'receive' in the contract"
            )
        return stamp

    def read(self, message: Any) -> FloatArray:
        """The topic's part of the observation vector, float32, in physical units.

        Raises ContractError when a joint is missing or doubled, an array is short, or a number is not finite.
        """
        values = self._read(message).astype(np.float32)
        # A finite sum of squares has finite terms, and is known in a third of the time that looking at each takes; one
        # that overflows says nothing.
        if not isfinite(values.dot(values)) and not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ContractError(f"{self.spec.topic}: {self.names[bad]} is {values[bad]}, expected a finite number")
        return values

    def _read_joints(self, message: Any) -> npt.NDArray[np.float64]:
        layout = tuple(message.name)
        if layout != self._layout:
            self._index = self._locate(layout)
            self._layout = layout
        values = np.empty(len(self.names))
        for group, into, source in self._index:
            data = np.asarray(getattr(message, group), dtype=np.float64)
            if len(data) != len(layout):
                raise ContractError(
                    f"{self.spec.topic}: {group} has {len(data)} values for {len(layout)} joint names, expected as many"
                )
            values[into] = data[source]
        return values

    def _locate(self, layout: tuple[str, ...]) -> list[tuple[str, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """For each array of a JointState: positions in our vector, and where in the message they come from."""
        for _, joint in self._joints:
            count = layout.count(joint)
            if count != 1:
                raise ContractError(
                    f"{self.spec.topic}: joint {joint!r} is there {count} times, expected once; "
                    f"the message names {', '.join(layout) or 'no joint'}"
                )
        located = []
        for group in ("position", "velocity", "effort"):
            into = [i for i, (of, _) in enumerate(self._joints) if of == group]
            if into:
                source = [layout.index(self._joints[i][1]) for i in into]
                located.append((group, np.array(into, dtype=np.intp), np.array(source, dtype=np.intp)))
        return located

    def _read_paths(self, message: Any) -> npt.NDArray[np.float64]:
        try:
            return np.array([path(message) for path in self._paths], dtype=np.float64)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ContractError(
                f"{self.spec.topic}: cannot read {', '.join(self.names)} from {self.spec.type}: {error}"
            ) from None


def _compile_path(path: str) -> Callable[[Any], float]:
    """A getter for `pose.position.x` or `data[3]`; only attributes and whole-number indices, nothing is evaluated."""
    steps: list[tuple[str, int | None]] = []
    for part in path.split("."):
        name, _, index = part.partition("[")
        steps.append((name, int(index[:-1]) if index else None))

    def get(message: Any) -> float:
        for name, index in steps:
            message = getattr(message, name)
            if index is not None:
                message = message[index]
        return float(message)

    return get


def topic_readers(contract: Contract) -> dict[str, TopicReader]:
    """One reader a topic, in the order of the observation vector."""
    return {spec.topic: TopicReader(spec, contract.clock) for spec in contract.observation.topics}
