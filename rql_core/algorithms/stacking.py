"""Several algorithms of the same settings as one: their parameters, moments and averages side by side.

A stacked algorithm's batches, draws, losses and metrics have a dimension more, in front.  Nothing crosses from one
member to another, so each learns what it would learn alone, to rounding (test/core/algorithms/test_stacking.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from rql_core.algorithms.algorithm import Algorithm
from rql_core.errors import ConfigError
from rql_core.networks import stack

AlgorithmT = TypeVar("AlgorithmT", bound=Algorithm[Any, Any])
ItemT = TypeVar("ItemT")


@torch.no_grad()
def stack_algorithms(members: Sequence[AlgorithmT]) -> AlgorithmT:
    """Return one algorithm that holds copies of several and trains them side by side.

    Raises ConfigError where their settings differ, or where a solver would choose its steps by all of them together.
    """
    first = members[0]
    for name, value in first.config.model_dump().items():
        if value == "dopri5":
            raise ConfigError(
                f"{name} is dopri5, which would choose its steps by all seeds together: train one seed at a time, "
                "or choose 'euler' or 'midpoint'"
            )
    if any(_shape(member) != _shape(first) for member in members):
        raise ConfigError("algorithms of different settings or dimensions cannot be trained as one")
    whole = copy.copy(first)
    online = [name for name in first.networks if name not in first.average_of]
    whole.hold({name: stack([member.networks[name] for member in members]) for name in online})
    for index, member in enumerate(members):
        for target, source in zip(_member(whole, index), member.state_tensors(), strict=True):
            target.copy_(source)
    return whole


@torch.no_grad()
def take_member(algorithm: Algorithm[Any, Any], whole: Algorithm[Any, Any], index: int) -> None:
    """Give an algorithm the state of one of those that were stacked, as if it had been trained alone."""
    for target, source in zip(algorithm.state_tensors(), _member(whole, index), strict=True):
        target.copy_(source)


def stack_items(items: Sequence[ItemT]) -> ItemT:
    """Return one batch, or one set of draws, of several."""
    first: Any = items[0]
    stacked: ItemT = type(first)(
        **{field.name: torch.stack([getattr(item, field.name) for item in items]) for field in fields(first)}
    )
    return stacked


def _member(whole: Algorithm[Any, Any], index: int) -> list[Tensor]:
    step, *tensors = whole.state_tensors()
    return [step, *(tensor[index] for tensor in tensors)]


def _shape(algorithm: Algorithm[Any, Any]) -> tuple[Any, ...]:
    return (algorithm.config, algorithm.observation_dim, algorithm.action_dim, algorithm.device, algorithm.dtype)
