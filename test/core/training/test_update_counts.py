"""What an update costs, in counts that noise cannot move: products, operator calls, memory, and waits for the device.

A change that makes one of these numbers larger makes training slower; one that makes it smaller changes it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rql_core.algorithms import RewardRange, RQLConfig, make_algorithm
from rql_core.algorithms.stacking import stack_algorithms
from rql_core.data import Statistics, Trajectories
from rql_core.data.chunks import ChunkSampler
from rql_core.training.updates import Generators, Updates

OBSERVATION_DIM, ACTION_DIM, HORIZON = 40, 5, 5
#: What asks a device for a number, and so waits for it.
WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "_unique2", "masked_select")


def make_updates(form: str, seeds: int = 1, **settings: Any) -> Updates:
    random = np.random.default_rng(0)
    trajectories = Trajectories.from_episodes(
        [
            (
                random.normal(size=(51, OBSERVATION_DIM)),
                random.uniform(-1, 1, (50, ACTION_DIM)),
                -np.ones(50),
                np.ones(50),
            )
            for _ in range(4)
        ]
    )
    config = RQLConfig(form="paper", horizon=HORIZON, **settings)
    members = [
        make_algorithm(config, OBSERVATION_DIM, ACTION_DIM, RewardRange(-1, 0, True), seed=seed)
        for seed in range(seeds)
    ]
    algorithm = stack_algorithms(members) if seeds > 1 else members[0]
    for network in algorithm.networks.values():
        network.form = form
    updates = Updates(algorithm, [Generators(torch.Generator(), torch.Generator()) for _ in members], 256)
    updates.use(ChunkSampler(trajectories, Statistics.of(trajectories.observations), HORIZON, "paper"))
    # The first update makes what later ones keep.
    updates.make(1)
    return updates


def flops_of_an_update(flow_steps: int, critics: int, width: int, layers: int) -> int:
    """Return the floating-point operations of an update's matrix products, two for each multiply-add of 256 rows."""
    chunk = ACTION_DIM * HORIZON
    first, middle = (OBSERVATION_DIM + chunk + 1) * width, (layers - 1) * width * width
    actor, critic = first + middle + width * chunk, first + middle + width
    passes = {
        "reversal": flow_steps * actor,
        "target": critics * critic,
        # Forward, weights' gradient, and what goes further back, which stops above the first layer.
        "critic": critics * (critic + critic + critic - first),
        "actor": actor + actor + actor - first,
        # Forward, and back to the chunk; no weight's gradient.
        "value of the chunk": critics * (critic + critic),
    }
    return 2 * 256 * sum(passes.values())


class Calls(TorchDispatchMode):
    """Counts operator calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count[str(function.overloadpacket).partition(".")[2]] += 1
        return function(*args, **(kwargs or {}))


def calls(updates: Updates) -> Counter[str]:
    with Calls() as mode:
        updates.make(1)
    return mode.count


def flops(updates: Updates) -> int:
    with FlopCounterMode(display=False) as counter:
        updates.make(1)
    return int(counter.get_total_flops())


SMALL: list[dict[str, Any]] = [
    {"flow_steps": 10, "critics": 10, "actor_hidden": (16,) * 4, "critic_hidden": (16,) * 4},
    {"flow_steps": 3, "critics": 2, "actor_hidden": (8,) * 2, "critic_hidden": (8,) * 2},
]


@pytest.mark.parametrize("form", ["plain", "blocked"])
@pytest.mark.parametrize("settings", SMALL, ids=["ten critics", "two critics"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_product_is_computed_that_the_update_does_not_need(form: str, settings: dict[str, Any], seeds: int) -> None:
    width, layers = settings["actor_hidden"][0], len(settings["actor_hidden"])
    expected = flops_of_an_update(settings["flow_steps"], settings["critics"], width, layers)
    assert flops(make_updates(form, seeds, **settings)) == seeds * expected


def test_an_update_at_the_published_settings_is_31_gflop() -> None:
    assert flops_of_an_update(10, 10, 512, 4) == pytest.approx(30.6e9, rel=0.01)


# Of an update at the published depths, whatever its widths.
OPERATOR_CALLS = {"plain": 551, "blocked": 1936}


@pytest.mark.parametrize("form", ["plain", "blocked"])
def test_an_update_takes_so_many_operator_calls(form: str) -> None:
    count = calls(make_updates(form, **SMALL[0]))
    views = ("view", "t", "transpose", "unsqueeze", "select", "slice", "expand", "unbind", "detach", "squeeze", "split")
    kernels = sum(number for name, number in count.items() if name not in views)
    assert kernels == OPERATOR_CALLS[form], count


def test_eight_seeds_take_hardly_more_calls_than_one() -> None:
    one, eight = (sum(calls(make_updates("plain", seeds, **SMALL[0])).values()) for seeds in (1, 8))
    assert eight < 1.4 * one


@pytest.mark.parametrize("form", ["plain", "blocked"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_update_waits_for_its_device(form: str, seeds: int) -> None:
    count = calls(make_updates(form, seeds, **SMALL[1]))
    assert not {name: number for name, number in count.items() if name in WAITS}


def test_the_blocked_form_takes_no_large_memory_from_one_update_to_the_next() -> None:
    large = {form: _allocations(make_updates(form), 1_000_000) for form in ("plain", "blocked")}
    assert large["blocked"] == 0
    # The count finds what there is to find.
    assert large["plain"] > 50


def _allocations(updates: Updates, at_least: int) -> int:
    updates.make(1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        updates.make(1)
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    return sum(event.name() == "[memory]" and event.nbytes() >= at_least for event in events)
