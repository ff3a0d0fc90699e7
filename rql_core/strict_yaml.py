"""YAML as data and nothing else: no tags, no aliases (which YAML bombs are made of), no doubled keys, of sane size."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

# A contract of a hundred topics has some 30 kB; a text past 1 MB is a mistake or an attack.
MAX_BYTES = 1_000_000


class StrictYamlError(ValueError):
    """The text is no YAML that is accepted here; the message says where and why."""


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses doubled keys and aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise StrictYamlError(f"line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise StrictYamlError(f"line {key_node.start_mark.line + 1}: key {key!r} is there twice or is no name")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_mapping(text: str) -> dict[str, Any]:
    """The mapping at the top of `text`; raises StrictYamlError."""
    if len(text) > MAX_BYTES:
        raise StrictYamlError(f"{len(text)} characters, expected at most {MAX_BYTES}")
    try:
        data = yaml.load(text, Loader=_Loader)  # a SafeLoader: it makes plain data only
    except RecursionError:
        raise StrictYamlError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise StrictYamlError(f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise StrictYamlError(f"expected a mapping of keys at the top, found {type(data).__name__}")
    return data
