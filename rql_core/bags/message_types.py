"""Message definitions: the standard ones, and those that a bag brings along.

Standard types are decoded with the code that `rosbags` ships. Only a bag whose definition differs from it, or that has
a type of its own, gets a type store of its own, made from the definition in the bag.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

if TYPE_CHECKING:
    from rosbags.interfaces.typing import Typesdict
    from rosbags.typesys.store import Typestore

_IDL_SEPARATOR = "=" * 80 + "\n"


@lru_cache(maxsize=1)
def standard_types() -> Typestore:
    """The message types of ROS 2 Kilted; those in this project's contracts are the same since Foxy."""
    return get_typestore(Stores.ROS2_KILTED)


def types_for(message_type: str, definition: MessageDefinition) -> Typestore:
    """A type store that decodes `message_type` as `definition`, the text in the bag, says.

    Raises what rosbags raises when the definition cannot be parsed, and KeyError when there is none and the type is
    not a standard one.
    """
    standard = standard_types()
    if definition.format == MessageDefinitionFormat.NONE or not definition.data:
        if message_type not in standard.fielddefs:
            raise KeyError(f"type {message_type} is not a standard one and the bag has no definition of it")
        return standard
    parsed = _parse(message_type, definition)
    known = standard.fielddefs
    if all(name in known and known[name][1] == fields for name, (_, fields) in parsed.items()):
        return standard
    own = get_typestore(Stores.EMPTY)
    own.register({**known, **parsed})
    return own


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
