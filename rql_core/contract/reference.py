"""The reference page of contracts, made from their JSON Schema so that it cannot say anything else than the code."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from rql_core.contract.expression import FUNCTIONS, MAX_CHARACTERS, MAX_NODES
from rql_core.contract.json_schema import contract_schema

_HEAD = """# The contract, key by key

<!-- Made by `make docs` from the contract's JSON Schema; edit the descriptions there. -->

A contract is a YAML file that says what topics mean: which of their numbers are observed, what is commanded within
which limits, how good a step was, and where episodes begin and end. The converter, the policy node, the simulator and
every checkpoint read the same file. Unknown keys, keys that are there twice, and YAML aliases are refused.

    rql contract check my_robot.yaml                 # what it means, number by number, or what is wrong with it
    rql contract check my_robot.yaml recordings/     # and whether bags have what it asks for
    rql contract schema --out contract.schema.json   # for editors

With the line `# yaml-language-server: $schema=contract.schema.json` at its top, editors that know YAML Language Server
(VS Code, Neovim, Emacs, ...) complete the keys of a contract and mark mistakes while it is written.

"""

_EXPRESSIONS = """## Expressions

`reward.success.expression` and `reward.value.expression` are formulas over the features of the observation at which a
step arrives, in the contract's units:

    -1 + (hypot(tip.x - 0.4, tip.y - 0.22) < 0.04)

A number is written as its feature and the last part of its field: `tip.x` for the field `pose.position.x` of the
feature `tip`, `joints.elbow_joint` for `position.elbow_joint`; with more parts where the last one is not the only one;
by its place, `tip[0]`, from 0; or as the feature alone where that has one number. Of a feature with a history names
mean the present tick. A condition counts as 1 or 0 in a sum. There are `+ - * / % **`, the comparisons
`< <= > >= == !=`, also chained as in `0 < tip.x < 1`, `and`, `or`, `not`, numbers, `pi`, and

{functions}

Every part must be finite at every step, or the conversion stops and names bag, episode and step: a comparison with NaN
would otherwise be a quiet "no". Both branches of `where` are computed; write `log(max(tip.x, 0.001))` rather than
asking first. Nothing of a formula is run as Python: it is parsed by simpleeval, everything that is not listed here is
refused, and it may have {characters:,} characters and {nodes} parts at most.

`rql relabel DATASET --reward EXPRESSION --out NEW-vN` tries another reward on a converted dataset without its bags.

## Rewards from topics

A step goes from one tick to the next. A message belongs to the step within which it is stamped; one exactly on a tick
to the step that ends there. Messages that arrive late count all the same, because a bag's are read before its episodes
are cut. Such a rule is for recorded data only: a dataset does not keep the messages, so `rql relabel` cannot bring one
in, but it keeps labels that came from one.
"""


def reference_page() -> str:
    """The page as Markdown."""
    schema = contract_schema()
    models = {"Contract": schema, **schema["$defs"]}
    sections = [_section(name, models) for name in _order(models)]
    functions = "\n".join(f"- `{name}`: {about}" for name, (_, _, _, about) in FUNCTIONS.items())
    expressions = _EXPRESSIONS.format(functions=functions, characters=MAX_CHARACTERS, nodes=MAX_NODES)
    return _HEAD + "\n".join(sections) + "\n" + expressions


def _order(models: dict[str, Any]) -> list[str]:
    """The models from the contract downwards, each after the first one that uses it."""
    order, pending = [], ["Contract"]
    while pending:
        name = pending.pop(0)
        if name not in order:
            order.append(name)
            pending += [used for part in models[name].get("properties", {}).values() for used in _used(part)]
    return order


def _used(part: Any) -> Iterator[str]:
    """The models that a part of a schema refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for key, value in part.items():
            if key != "discriminator":
                yield from _used(value)
    elif isinstance(part, list):
        for value in part:
            yield from _used(value)


def _section(name: str, models: dict[str, Any]) -> str:
    model = models[name]
    required = set(model.get("required", ()))
    lines = [f"## {name}", "", inspect.cleandoc(model.get("description", "")), ""]
    lines += ["| key | value | | meaning |", "|---|---|---|---|"]
    for key, part in model.get("properties", {}).items():
        needed = "required" if key in required else f"default {_default(part)}"
        cells = (f"`{key}`", _value(part), needed, part.get("description", ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(part: dict[str, Any]) -> str:
    default = part.get("default")
    return "none" if default is None else f"`{json.dumps(default)}`"


def _value(part: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in part:
        return f"`{json.dumps(part['const'])}`"
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in part:
            kinds = [_value(each) for each in part[union] if each.get("type") != "null"]
            # A whole number is a number; both are named only because true and false are none.
            kinds = [kind for kind in kinds if kind != "whole number" or "number" not in kinds]
            return " or ".join(dict.fromkeys(kinds))
    if part.get("type") == "array":
        return f"list of {_value(part.get('items', {}))}{_limits(part)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return words.get(part.get("type", ""), "anything") + _limits(part)


def _limits(part: dict[str, Any]) -> str:
    signs = (
        ("exclusiveMinimum", "> {:g}"),
        ("minimum", "≥ {:g}"),
        ("exclusiveMaximum", "< {:g}"),
        ("maximum", "≤ {:g}"),
        ("minItems", "at least {:g}"),
        ("maxItems", "at most {:g}"),
    )
    # An empty text or list is refused nearly everywhere, and nobody would write one.
    found = [form.format(part[key]) for key, form in signs if key in part and (key, part[key]) != ("minItems", 1)]
    return f", {', '.join(found)}" if found else ""
