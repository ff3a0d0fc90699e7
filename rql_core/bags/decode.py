"""Decodes messages as `rosbags` does, several times faster where a topic's messages are laid out alike.

The messages of a topic mostly have the same names and the same array lengths, and then every number lies at the same
place. A layout remembers the bytes that say so; a message that has the very same bytes there is read by one unpacking
and one view an array, any other is decoded by `rosbags`, which also decides what is damaged. A new layout is used only
after it has given the same message as `rosbags`. test/core/bags/test_decode.py compares the two.

One thing is taken that `rosbags` refuses. What `rclpy.serialization.serialize_message` returns is as long as what was
reserved for it, and rmw_fastrtps reserves for an empty array as if its first element were there to be aligned. Behind
the message is what lay in memory there, and a Python node writes all of it into its bag.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from struct import Struct, pack
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from rosbags.interfaces import Nodetype

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

# A node of a message, made of the unpacked scalars and the message's bytes.
_Make: TypeAlias = Callable[[tuple[Any, ...], bytes], Any]

# Little-endian CDR: the two bytes that tell. Two more of options follow, which mean nothing here.
_LITTLE_ENDIAN = b"\x00\x01"
_HEAD = 4
_CODES = {
    **{"bool": "?", "byte": "b", "char": "B", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i"},
    **{"uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d"},
}
_NUMPY_NAMES = {"byte": "int8", "char": "uint8", "bool": "bool_"}
# Joints that come in turns, or chunks at the end of a run, have a few layouts; comparing costs a fraction of decoding.
_MOST_LAYOUTS = 8
# A layout costs as much as some ten messages. A topic that has had so many in vain is left to rosbags.
_MOST_TRIALS = 64
# CDR fills up to a multiple of four.
_MOST_PADDING = 3
# An empty array of eight-byte numbers reserves four bytes, and the next number may have to be aligned by four more.
_MOST_RESERVED = 8
# A cloud of points as messages would make a layout as large as the cloud.
_MOST_ELEMENTS = 256


class Decoder:
    """Decodes the CDR bytes of one topic's messages. Remembers layouts; not thread-safe."""

    def __init__(self, store: Typestore, message_type: str) -> None:
        self._store = store
        self._type = message_type
        self._layouts: dict[int, list[_Layout]] = {}
        self._trials = 0

    def __call__(self, raw: bytes | memoryview) -> Any:
        """The message. Raises what `rosbags` raises when it is damaged, also by more behind it than may be."""
        for layout in self._layouts.get(len(raw), ()):
            data = bytes(raw[_HEAD:])
            if layout.fits(data) and raw[:2] == _LITTLE_ENDIAN:
                return layout.make(layout.unpack(data), data)
        message = self._plain(raw)
        if self._trials < _MOST_TRIALS and raw[:2] == _LITTLE_ENDIAN:
            self._learn(raw, message)
        return message

    def _plain(self, raw: bytes | memoryview) -> Any:
        """As `deserialize_cdr` does it, which also says what is wrong."""
        definition = self._store.get_msgdef(self._type)
        if raw[:2] == _LITTLE_ENDIAN:
            with contextlib.suppress(struct.error, ValueError):
                message, end = definition.deserialize_cdr_le(raw[_HEAD:], 0, definition.cls, self._store)
                behind = len(raw) - _HEAD - end
                if behind <= _MOST_PADDING or behind <= _MOST_PADDING + _MOST_RESERVED * _empty_arrays(message):
                    return message
        return self._store.deserialize_cdr(raw, self._type)

    def _learn(self, raw: bytes | memoryview, message: object) -> None:
        self._trials += 1
        known = self._layouts.setdefault(len(raw), [])
        if len(known) >= _MOST_LAYOUTS:
            return
        data = bytes(raw[_HEAD:])
        layout = _Walk(self._store, data).layout(self._type)
        if layout is not None and _same(layout.make(layout.unpack(data), data), message):
            known.append(layout)


@dataclass(frozen=True)
class _Layout:
    """Bytes (begin, end, what is there) that must be the same: `joined` with the padding between them, or `places`."""

    joined: tuple[tuple[int, int, bytes], ...]
    places: tuple[tuple[int, int, bytes], ...]
    unpack: Callable[[bytes], tuple[Any, ...]]
    make: _Make

    def fits(self, data: bytes) -> bool:
        for begin, end, expected in self.joined:
            if data[begin:end] != expected:
                # Padding has no meaning, and not every middleware sets it to zero.
                return all(data[begin:end] == expected for begin, end, expected in self.places)
        return True


def _empty_arrays(node: Any) -> int:
    """How many arrays of eight-byte numbers in a message are empty."""
    if isinstance(node, np.ndarray):
        return int(not node.size and node.itemsize == 8)
    if isinstance(node, list):
        return sum(map(_empty_arrays, node))
    return sum(_empty_arrays(getattr(node, field.name)) for field in fields(node)) if is_dataclass(node) else 0


def _same(one: Any, other: Any) -> bool:
    """Whether two messages are of the same types and numbers, to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype) and bool(one.tobytes() == other.tobytes())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if is_dataclass(one):
        return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, float):
        return pack("<d", one) == pack("<d", other)
    return bool(one == other)


class _LeftToRosbags(Exception):
    """This message has something that no layout is made for."""


class _Walk:
    """Goes through a message once, by its type, and notes where everything is."""

    def __init__(self, store: Typestore, data: bytes) -> None:
        self._store = store
        self._data = data
        self._at = 0
        self._format = ["<"]
        self._formatted = 0
        self._scalars = 0
        self._places: list[tuple[int, int, bytes]] = []
        self._joined: list[tuple[int, int, bytes]] = []
        self._numbers_since = True

    def layout(self, message_type: str) -> _Layout | None:
        """The layout, or None where the message has something that is left to rosbags."""
        try:
            make = self._message(message_type)
        except _LeftToRosbags:
            return None
        if self._at > len(self._data):
            return None
        unpack = Struct("".join(self._format)).unpack_from
        return _Layout(tuple(self._joined), tuple(self._places), unpack, make)

    def _message(self, message_type: str) -> _Make:
        definition = self._store.get_msgdef(message_type)
        first = self._scalars
        cls: Callable[..., Any] = definition.cls
        makes = [self._node(*description) for _, description in definition.fields]
        if all(kind == Nodetype.BASE and detail[0] != "string" for _, (kind, detail) in definition.fields):
            values = slice(first, self._scalars)
            return lambda scalars, data: cls(*scalars[values])
        if len(makes) == 2:
            # Headers, whatever is stamped, poses: without a list it takes half the time.
            one, two = makes
            return lambda scalars, data: cls(one(scalars, data), two(scalars, data))
        return lambda scalars, data: cls(*[make(scalars, data) for make in makes])

    def _node(self, kind: int, detail: Any) -> _Make:
        if kind == Nodetype.NAME:
            return self._message(detail)
        if kind == Nodetype.BASE:
            return self._text() if detail[0] == "string" else self._number(detail[0])
        element, length = detail
        if kind == Nodetype.SEQUENCE:
            length = self._length()
        if element[0] == Nodetype.BASE and element[1][0] != "string":
            return self._array(element[1][0], length)
        if length > _MOST_ELEMENTS:
            raise _LeftToRosbags
        if element[1][0] == "string" and element[0] == Nodetype.BASE:
            texts = [self._text()((), b"") for _ in range(length)]
            return lambda scalars, data: texts.copy()
        makes = [self._node(*element) for _ in range(length)]
        return lambda scalars, data: [make(scalars, data) for make in makes]

    def _number(self, name: str) -> _Make:
        code = _CODES.get(name)
        if code is None:
            raise _LeftToRosbags
        size = Struct(f"<{code}").size
        self._align(size)
        self._format.append(f"{self._at - self._formatted}x{code}")
        self._at += size
        self._formatted = self._at
        self._numbers_since = True
        index = self._scalars
        self._scalars += 1
        return lambda scalars, data: scalars[index]

    def _array(self, name: str, length: int) -> _Make:
        if name not in _CODES:
            raise _LeftToRosbags
        kind = np.dtype(_NUMPY_NAMES.get(name, name)).newbyteorder("<")
        if length:
            self._align(kind.itemsize)
        at, frombuffer = self._at, np.frombuffer
        self._at += length * kind.itemsize
        self._numbers_since = True
        return lambda scalars, data: frombuffer(data, kind, length, at)

    def _text(self) -> _Make:
        begin, length = self._whole_number()
        self._at += length
        self._same(begin, self._at)
        text = self._data[begin + 4 : self._at - 1].decode()
        return lambda scalars, data: text

    def _length(self) -> int:
        begin, length = self._whole_number()
        self._same(begin, self._at)
        return length

    def _whole_number(self) -> tuple[int, int]:
        """Where a length stands, and what it says."""
        self._align(4)
        begin = self._at
        self._at += 4
        return begin, int.from_bytes(self._data[begin : self._at], "little")

    def _align(self, size: int) -> None:
        self._at = (self._at + size - 1) & -size

    def _same(self, begin: int, end: int) -> None:
        """Of these bytes the layout consists. What lies between two such places, with no number there, is padding."""
        data = self._data
        self._places.append((begin, end, data[begin:end]))
        if not self._numbers_since:
            begin = self._joined.pop()[0]
        self._joined.append((begin, end, data[begin:end]))
        self._numbers_since = False
