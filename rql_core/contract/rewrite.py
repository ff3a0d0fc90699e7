"""Puts another reward into the text of a contract and leaves every other character as it is."""

from __future__ import annotations

from typing import Any

import yaml

from rql_core.contract.load import parse_contract
from rql_core.contract.reward_schema import Reward
from rql_core.errors import ContractError


def with_reward(text: str, reward: Reward) -> str:
    """The contract `text` with `reward` in place of its own; comments elsewhere stay.

    Raises ContractError when the reward does not fit the contract's features.
    """
    parse_contract(text)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    plain: dict[str, Any] = {"reward": reward.model_dump(mode="json", exclude_none=True, exclude_unset=True)}
    if root.flow_style:
        data = {**yaml.safe_load(text), **plain}
        new = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    else:
        pairs = [(key, value) for key, value in root.value if key.value == "reward"]
        key, value = pairs[0]
        block = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
        end = value.end_mark.index
        # A block ends where the next key begins: its last lines may be comments on that key.
        tail = text[key.start_mark.index : end]
        kept = len(tail) - len(tail.rstrip())
        comments = _trailing_comments(tail)
        new = text[: key.start_mark.index] + block.rstrip() + (comments or tail[len(tail) - kept :]) + text[end:]
    if parse_contract(new).reward != reward:
        raise ContractError("the reward cannot be written into the contract; write it into a contract file by hand")
    return new


def _trailing_comments(block: str) -> str:
    """The blank lines and comments at the margin with which a block of YAML ends."""
    lines = block.splitlines(keepends=True)
    first = len(lines)
    while first > 1 and (not lines[first - 1].strip() or lines[first - 1].startswith("#")):
        first -= 1
    return "\n" + "".join(lines[first:]) if first < len(lines) else ""
