"""From a message to the numbers of a contract.

Works on any object with the attributes of the message type: what rclpy hands over, what rosbags reads from a bag, what
the simulator makes. The live node and the converter therefore cannot read the same message differently
(test/ros/test_parity.py pins that).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract.episode_schema import MarkerBoundary, ResetCut
from rql_core.contract.fields import FieldReader, Numbers
from rql_core.contract.rotations import unit
from rql_core.contract.schema import Contract, ObservationTopic
from rql_core.contract.strict_model import Clock
from rql_core.contract.time import stamp_to_ns
from rql_core.errors import ContractError

FloatArray = npt.NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)
# Numbers whose squares come to less than this are all below 1e30, however the sum was rounded.
_SURELY_FINITE = 1e60


def message_stamp(topic: str, kind: str, clock: Clock, message: Any, receive_ns: int) -> int:
    """Time in ns of a message by a clock; raises ContractError when the clock is the header's and that is unset."""
    if clock == "receive":
        return receive_ns
    try:
        stamp = stamp_to_ns(message.header.stamp)
    except AttributeError:
        raise ContractError(
            f"{topic}: {kind} has no header, which clock 'header' needs; use clock 'receive', "
            "or the stamped form of the type"
        ) from None
    if stamp <= 0:
        raise ContractError(
            f"{topic}: header.stamp is {stamp} ns, expected the time of measurement; "
            "set it in the driver or use clock 'receive' in the contract"
        )
    return stamp


def event_stamp(event: MarkerBoundary | ResetCut, contract: Contract, message: Any, receive_ns: int) -> int:
    """Time in ns at which a marker or a reset cuts; raises ContractError when its stamp is unset."""
    clock = event.clock if isinstance(event, ResetCut) else contract.clock
    if clock == "header" and event.type == "std_msgs/msg/Header":
        stamp = stamp_to_ns(message.stamp)
        if stamp <= 0:
            raise ContractError(
                f"{event.topic}: stamp is {stamp} ns, expected the time at which the episode starts; "
                "set it where the marker is published"
            )
        return stamp
    return message_stamp(event.topic, event.type, clock, message, receive_ns)


class TopicReader:
    """Reads the numbers of one observation topic out of its messages, as they are before alignment.

    A topic's numbers are those of its features in their order, scaled; a rotation is a unit quaternion. `rotations`
    says where the quaternions begin, `parts` how the numbers are divided among streams that are aligned by themselves:
    all are one part, unless the joints come in several messages.
    """

    def __init__(self, spec: ObservationTopic, clock: Clock) -> None:
        self.spec = spec
        self.partial = spec.joints == "partial"
        self.names = tuple(f"{feature.name}.{number}" for feature in spec.features for number in feature.numbers)
        self._clock: Clock = clock
        numbers = [number for feature in spec.features for number in feature.numbers]
        self._fields = FieldReader(spec.topic, spec.type, numbers, self.names)
        scales: list[float] = []
        rotations: list[int] = []
        for feature in spec.features:
            size = len(feature.numbers)
            if feature.rotation is not None:
                rotations.append(len(scales))
            given = 1.0 if feature.scale is None else feature.scale
            scales.extend(map(float, given if isinstance(given, list) else [given] * size))
        self.rotations = tuple(rotations)
        self.parts = [slice(i, i + 1) for i in range(len(numbers))] if self.partial else [slice(0, len(numbers))]
        self._scales = np.array(scales) if any(scale != 1.0 for scale in scales) else None

    def stamp(self, message: Any, receive_ns: int) -> int:
        """Time of the message in ns by the topic's clock; raises ContractError when the header is unset."""
        return message_stamp(self.spec.topic, self.spec.type, self._clock, message, receive_ns)

    def read(self, message: Any) -> Numbers:
        """The topic's numbers, float64.

        Raises ContractError when a joint is missing or doubled, an array is short, or a number is not finite.
        """
        values = self._fields.read(message)
        if self._scales is not None:
            values *= self._scales
        if not _all_finite(values):
            bad = next(i for i in range(len(values)) if not _all_finite(values[i : i + 1]))
            raise ContractError(f"{self.spec.topic}: {self.names[bad]} is {values[bad]}, expected a finite number")
        for start in self.rotations:
            try:
                values[start : start + 4] = unit(values[start : start + 4].tolist())
            except ValueError as error:
                raise ContractError(f"{self.spec.topic}: {self.names[start]}: {error}") from None
        return values

    def read_parts(self, message: Any) -> list[tuple[int, Numbers]]:
        """(index into `parts`, its numbers) for the parts that this message has.

        Raises ContractError as `read` does, but not for joints that are missing.
        """
        if not self.partial:
            return [(0, self.read(message))]
        found = []
        for at, value in self._fields.read_present(message):
            scaled = np.array([value if self._scales is None else value * self._scales[at]])
            if not _all_finite(scaled):
                raise ContractError(f"{self.spec.topic}: {self.names[at]} is {value}, expected a finite number")
            found.append((at, scaled))
        return found


def _all_finite(values: Numbers) -> bool:
    """Whether all are finite as float32, which observations are."""
    # One product instead of three passes. NaN and infinity come through it, and huge numbers end beyond the bound.
    # vdot, because dot warns where such numbers overflow.
    return bool(np.vdot(values, values) < _SURELY_FINITE) or bool(np.abs(values).max() <= _LARGEST)


def topic_readers(contract: Contract) -> dict[str, TopicReader]:
    """One reader a topic, in the order of the observation vector."""
    return {spec.topic: TopicReader(spec, contract.clock_of(spec)) for spec in contract.observation.topics}
