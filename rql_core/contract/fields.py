"""Fields of a message by path: how a contract writes them, and how their numbers are read.

`pose.pose.position.x`, `data[3]`, `data[0:3]`, and for messages that carry an array of joint names
`position.shoulder_pan_joint`, whatever order the message has them in. Only attributes, whole-number indices and names:
nothing is evaluated. Works on any object with the attributes of the message type, so that what rclpy hands over and
what rosbags reads give the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, product
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from rql_core.contract.strict_model import JOINT_STATE, JOINT_TRAJECTORY
from rql_core.errors import ContractError

Numbers = npt.NDArray[np.float64]
_Index = slice | npt.NDArray[np.intp]

# A slice is written out number by number; more than this in one feature is a picture or a mistake.
MAX_NUMBERS = 4096

_PART = r"[A-Za-z][A-Za-z0-9_]*(\[\d+(:\d+)?\])?"
_PATH = re.compile(rf"^{_PART}(\.{_PART})*$")
_SLICE = re.compile(r"\[(\d+):(\d+)\]")
_POINT = r"positions|velocities|accelerations|effort"


@dataclass(frozen=True)
class NamedArrays:
    """A message type with an array of joint names, and which of its arrays go with it.

    `names`: the attribute with the names. `pattern` splits a field into the array's path and the joint.
    """

    names: str
    pattern: re.Pattern[str]
    example: str


NAMED_ARRAYS = {
    JOINT_STATE: NamedArrays("name", re.compile(r"^(position|velocity|effort)\.(.+)$"), "position.elbow_joint"),
    JOINT_TRAJECTORY: NamedArrays(
        "joint_names", re.compile(rf"^(points\[\d+\]\.(?:{_POINT}))\.(.+)$"), "points[0].positions.elbow_joint"
    ),
    "control_msgs/msg/JointTrajectoryControllerState": NamedArrays(
        "joint_names",
        re.compile(rf"^((?:reference|feedback|error|output|desired|actual)\.(?:{_POINT}))\.(.+)$"),
        "feedback.positions.elbow_joint",
    ),
}


def split_joint(kind: str, field: str) -> tuple[str, str] | None:
    """(path of the array, joint) of a field that names a joint of message type `kind`, else None."""
    named = NAMED_ARRAYS.get(kind)
    found = None if named is None else named.pattern.match(field)
    return None if found is None else (found[1], found[2])


def check_field(kind: str, field: str) -> str | None:
    """What is wrong with `field` as a path into message type `kind`, to follow its name; None when nothing is."""
    named = NAMED_ARRAYS.get(kind)
    if split_joint(kind, field) is not None:
        if _SLICE.search(field):
            return "which takes joints by index, and their order may change; name the joints one by one"
        return None
    if kind == JOINT_STATE or not _PATH.match(field):
        example = "pose.position.x" if named is None else named.example
        return f"expected a path into {kind} such as {example!r}"
    for start, stop in _SLICE.findall(field):
        if not int(start) < int(stop):
            return f"whose slice [{start}:{stop}] is empty; expected [first:end] with first below end"
    return None


def expand(field: str) -> list[str]:
    """The single numbers of a field: `data[0:2]` is `data[0]` and `data[1]`; a field without a slice is itself.

    Raises ValueError for more than MAX_NUMBERS.
    """
    pieces = _SLICE.split(field)
    if len(pieces) == 1:
        return [field]
    texts, starts, stops = pieces[0::3], pieces[1::3], pieces[2::3]
    ranges = [range(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]
    total = 1
    for each in ranges:
        total *= len(each)
    if total > MAX_NUMBERS:
        raise ValueError(f"field {field!r} is {total} numbers, expected at most {MAX_NUMBERS}")
    return [
        texts[0] + "".join(f"[{index}]{text}" for index, text in zip(indices, texts[1:], strict=True))
        for indices in product(*ranges)
    ]


class FieldReader:
    """Reads single numbers, each given by a path without slices, out of messages of one topic.

    Keeps where the joints of the last message stood; everything else is a function of the message.
    """

    def __init__(self, topic: str, kind: str, fields: Sequence[str], names: Sequence[str] | None = None) -> None:
        """`names`: what errors call the fields."""
        self._topic = topic
        self._kind = kind
        self._size = len(fields)
        self._joints: list[tuple[int, str, str]] = []
        paths: list[tuple[int, str]] = []
        for at, field in enumerate(fields):
            joint = split_joint(kind, field)
            if joint is None:
                paths.append((at, field))
            else:
                self._joints.append((at, *joint))
        self._get_names = attrgetter(NAMED_ARRAYS[kind].names) if self._joints else tuple
        self._groups = [(path, attrgetter_of(path)) for path in dict.fromkeys(path for _, path, _ in self._joints)]
        self._layout: tuple[list[str], list[_Located]] | None = None
        self._get = _path_getter([path for _, path in paths]) if paths else None
        self._into = np.array([at for at, _ in paths], dtype=np.intp)
        self._what = ", ".join(names or fields)

    def read(self, message: Any) -> Numbers:
        """All numbers (n,) float64. Raises ContractError when one is not there, or a joint is missing or doubled."""
        if not self._joints:
            return self._read_paths(message)
        arrays = self._arrays(message, partial=False)
        values = np.empty(self._size)
        if self._get is not None:
            values[self._into] = self._read_paths(message)
        for located, data in arrays:
            into, source = located.places
            values[into] = data[source]
        return values

    def read_present(self, message: Any) -> list[tuple[int, float]]:
        """(index, number) of the joints that this message has, for joints that come in several messages.

        An empty array says nothing of its joints. Raises ContractError when a joint is doubled or an array is short.
        """
        return [
            (at, float(data[source]))
            for located, data in self._arrays(message, partial=True)
            if len(data)
            for at, source in zip(located.into, located.source, strict=True)
        ]

    def _read_paths(self, message: Any) -> Numbers:
        assert self._get is not None
        try:
            return np.array(self._get(message), dtype=np.float64)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ContractError(f"{self._topic}: cannot read {self._what} from {self._kind}: {error}") from None

    def _arrays(self, message: Any, partial: bool) -> list[tuple[_Located, Numbers]]:
        try:
            layout = list(self._get_names(message))
            if self._layout is None or layout != self._layout[0]:
                self._layout = (layout, self._locate(layout, partial))
            read = [(located, np.asarray(located.get(message), np.float64)) for located in self._layout[1]]
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ContractError(f"{self._topic}: cannot read {self._what} from {self._kind}: {error}") from None
        for located, data in read:
            if len(data) != len(layout) and not (partial and len(data) == 0):
                raise ContractError(
                    f"{self._topic}: {located.path} has {len(data)} values for {len(layout)} joint names, "
                    "expected as many"
                )
        return read

    def _locate(self, layout: list[str], partial: bool) -> list[_Located]:
        """For each array: positions in our numbers, and where in the message they come from."""
        for _, _, joint in self._joints:
            count = layout.count(joint)
            if count != 1 and not (partial and count == 0):
                raise ContractError(
                    f"{self._topic}: joint {joint!r} is there {count} times, expected once; "
                    f"the message names {', '.join(layout) or 'no joint'}"
                )
        located = []
        for path, get in self._groups:
            pairs = [(at, layout.index(joint)) for at, of, joint in self._joints if of == path and joint in layout]
            if pairs:
                into, source = zip(*pairs, strict=True)
                located.append(_Located(path, get, into, source))
        return located


@dataclass(frozen=True, eq=False)
class _Located:
    """An array of a message with named joints: its numbers `source` are our numbers `into`."""

    path: str
    get: Callable[[Any], Any]
    into: tuple[int, ...]
    source: tuple[int, ...]

    @cached_property
    def places(self) -> tuple[_Index, _Index]:
        """`into` and `source` as NumPy takes them."""
        return _index(self.into), _index(self.source)


def _index(places: Sequence[int]) -> _Index:
    """The places of an array as a slice where they follow each other, which is several times faster to read."""
    first, last = places[0], places[-1]
    if list(places) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return np.array(places, dtype=np.intp)


def attrgetter_of(path: str) -> Callable[[Any], Any]:
    """A getter for one path with or without indices, such as `points[0].positions`."""
    if "[" not in path:
        return attrgetter(path)
    steps = [(name, int(index[:-1]) if index else None) for name, _, index in _steps(path)]

    def get(message: Any) -> Any:
        for name, index in steps:
            message = getattr(message, name)
            if index is not None:
                message = message[index]
        return message

    return get


def _steps(path: str) -> list[tuple[str, str, str]]:
    return [part.partition("[") for part in path.split(".")]


def _path_getter(paths: Sequence[str]) -> Callable[[Any], Sequence[float]]:
    """One getter for all paths, in their order; neighbours out of one array are fetched from it together."""
    if not any("[" in path for path in paths):
        return _attributes_getter(paths)
    getters = [
        _array_getter(container, [index for _, index in group if index is not None])
        if indexed
        else _scalar_getter(container)
        for (container, indexed), group in groupby(
            map(_last_index, paths), key=lambda item: (item[0], item[1] is not None)
        )
    ]
    return lambda message: [value for getter in getters for value in getter(message)]


def _attributes_getter(paths: Sequence[str]) -> Callable[[Any], Sequence[float]]:
    get = attrgetter(*paths)
    if len(paths) == 1:
        return lambda message: (_number(get(message)),)
    return lambda message: [_number(value) for value in get(message)]


def _last_index(path: str) -> tuple[str, int | None]:
    """(path of the array, index) of a path that ends in an index, else (path, None)."""
    if not path.endswith("]"):
        return path, None
    container, _, index = path.rpartition("[")
    return container, int(index[:-1])


def _scalar_getter(path: str) -> Callable[[Any], Sequence[float]]:
    get = attrgetter_of(path)
    return lambda message: (_number(get(message)),)


def _array_getter(container: str, indices: list[int]) -> Callable[[Any], Sequence[float]]:
    get = attrgetter_of(container)
    where = np.array(indices, dtype=np.intp)
    last = max(indices)

    def read(message: Any) -> Sequence[float]:
        values = get(message)
        if isinstance(values, bytes | bytearray):
            values = memoryview(values)
        if len(values) <= last:
            raise IndexError(f"{container} has {len(values)} values, [{last}] was asked for")
        if isinstance(values[0], str | bytes):
            return [_number(values[index]) for index in indices]
        numbers: list[float] = np.asarray(values, dtype=np.float64)[where].tolist()
        return numbers

    return read


def _number(value: Any) -> float:
    """A field as a float. A `byte` of ROS is bytes of length 1 for rclpy and a whole number for rosbags."""
    if isinstance(value, bytes) and len(value) == 1:
        return float(value[0])
    if isinstance(value, str | bytes):
        raise TypeError(f"{value[:40]!r} is text, expected a number")
    return float(value)
