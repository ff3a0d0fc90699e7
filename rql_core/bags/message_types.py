"""Message definitions: the standard ones, those that a bag brings along, and those of .msg files.

Standard types are decoded with the code that `rosbags` ships. Only a type whose definition differs from it, or that is
none of the standard ones, gets a type store of its own, made from the definition in the bag; where the bag has none,
from the .msg files that the caller named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from rql_core.errors import BagError

if TYPE_CHECKING:
    from rosbags.interfaces.typing import Typesdict
    from rosbags.typesys.store import Typestore

_IDL_SEPARATOR = "=" * 80 + "\n"
# A definition is some kilobytes; a larger file is none.
_MAX_BYTES = 1_000_000
_PACKAGE_NAME = re.compile(r"<name>\s*([a-z][a-z0-9_]*)\s*</name>")


class Definitions:
    """Message definitions from .msg files, beside the standard ones; `types` maps a type's name to its parse tree."""

    def __init__(self, types: Typesdict | None = None) -> None:
        self.types: Typesdict = types or {}


NO_DEFINITIONS = Definitions()


@lru_cache(maxsize=1)
def standard_types() -> Typestore:
    """The message types of ROS 2 Kilted; those in this project's contracts are the same since Foxy."""
    return get_typestore(Stores.ROS2_KILTED)


def read_definitions(paths: Iterable[Path | str]) -> Definitions:
    """The types that .msg files define; a directory means all .msg files below it.

    The package is the folder above `msg/`, or what a package.xml beside or above the file says, else the file's folder.
    Raises BagError for a path that does not exist, a file that is no definition, and a type that is there twice with
    different fields.
    """
    types: Typesdict = {}
    origin: dict[str, Path] = {}
    for given in map(Path, paths):
        if not given.exists():
            raise BagError(f"{given}: does not exist; name a .msg file or a directory with .msg files")
        files = [given] if given.is_file() else sorted(given.rglob("*.msg"))
        if not files or (given.is_file() and given.suffix != ".msg"):
            raise BagError(f"{given}: has no message definition; name a .msg file or a directory with .msg files")
        for file in files:
            for name, tree in _read_file(file).items():
                if name in types and types[name][1] != tree[1]:
                    raise BagError(
                        f"{file}: type {name} is also in {origin[name]}, with other fields; name one of them"
                    )
                types[name], origin[name] = tree, file
    return Definitions(types)


def _read_file(file: Path) -> Typesdict:
    name = f"{_package(file)}/msg/{file.stem}"
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise BagError(f"{file}: {file.stat().st_size} bytes, expected a message definition of a few lines")
        text = file.read_text(encoding="utf-8")
        types = get_types_from_msg(text, name)
    except OSError as error:
        raise BagError(f"{file}: cannot be read: {error.strerror}") from None
    except BagError:
        raise
    except Exception as error:  # the parser raises many kinds
        reason = " ".join(str(error).split())
        raise BagError(f"{file}: is no message definition ({name}): {reason}; correct it") from None
    # The parser stops without a word at what it does not understand.
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    constants, fields = types[name]
    if len(constants) + len(fields) < len(lines):
        raise BagError(
            f"{file}: is no message definition ({name}): {len(constants) + len(fields)} of {len(lines)} lines "
            "could be read as a field or constant; correct it"
        )
    return types


def _package(file: Path) -> str:
    folder = file.resolve().parent
    if folder.name == "msg":
        return folder.parent.name
    for above in (folder, *folder.parents):
        manifest = above / "package.xml"
        if manifest.is_file() and (
            found := _PACKAGE_NAME.search(manifest.read_text(encoding="utf-8", errors="replace"))
        ):
            return found[1]
    return folder.name


def types_for(message_type: str, definition: MessageDefinition, given: Definitions = NO_DEFINITIONS) -> Typestore:
    """A type store that decodes `message_type` as `definition`, the text in the bag, says, else as `given` does.

    Raises what rosbags raises when the definition cannot be parsed, and KeyError that says what is missing when a type
    is defined nowhere.
    """
    if definition.format == MessageDefinitionFormat.NONE or not definition.data:
        if not given.types:
            _refuse_unknown(message_type, standard_types().fielddefs)
            return standard_types()
        return _store(message_type, given.types)
    if given.types:
        try:
            parsed = _parse(message_type, definition)
        except Exception:  # the parser raises many kinds; what cannot be read in the bag may have been given
            if message_type not in given.types:
                raise
            parsed = {}
        return _store(message_type, {**given.types, **parsed})
    return _store_of_definition(message_type, definition)


# The bags of a data set have the same few definitions; making code of one takes some milliseconds.
@lru_cache(maxsize=256)
def _store_of_definition(message_type: str, definition: MessageDefinition) -> Typestore:
    return _store(message_type, _parse(message_type, definition))


def _store(message_type: str, first: Typesdict) -> Typestore:
    """A store with `message_type` and all that it is made of, from `first` before the standard types."""
    known = standard_types().fielddefs
    needed: Typesdict = {}
    waiting = [message_type]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        if name not in first:
            _refuse_unknown(name, known)
        needed[name] = first.get(name) or known[name]
        waiting.extend(_parts(needed[name][1]))
    if all(name in known and known[name][1] == fields for name, (_, fields) in needed.items()):
        return standard_types()
    own = get_typestore(Stores.EMPTY)
    own.register(needed)
    return own


def _parts(fields: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """The names of the message types among a type's fields."""
    for _, (node, detail) in fields:
        if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            node, detail = detail[0]
        if node == Nodetype.NAME:
            yield cast(str, detail)


def _refuse_unknown(name: str, known: Typesdict) -> None:
    if name not in known:
        raise KeyError(f"{name} is no standard type, and the bag has no definition of it")


def type_hash(message_type: str, definition: MessageDefinition) -> str:
    """The RIHS01 hash that rosbag2 keeps beside a type, or "" when the definition cannot be parsed."""
    try:
        return types_for(message_type, definition).hash_rihs01(message_type)
    except Exception:  # rosbags raises many kinds here, and a bag without hashes is a good bag
        return ""


def _parse(message_type: str, definition: MessageDefinition) -> Typesdict:
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, message_type)
    if not definition.data.startswith(f"{_IDL_SEPARATOR}IDL: "):
        return get_types_from_idl(definition.data)
    parsed: Typesdict = {}
    for part in definition.data.split(_IDL_SEPARATOR)[1:]:
        parsed.update(get_types_from_idl(part.split("\n", 1)[1]))
    return parsed
