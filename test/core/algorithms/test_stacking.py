"""Algorithms trained side by side as one learn what each learns alone, given the same batches and draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from small_algorithms import ACTION_DIM, OBSERVATION_DIM, REWARDS, make_batch

from rql_core.algorithms import AnyAlgorithmConfig, make_algorithm
from rql_core.algorithms.stacking import stack_algorithms, stack_items, take_member
from rql_core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("form")

SEEDS, SIZE, HORIZON = (3, 0, 8), 12, 3
VARIANTS: list[dict[str, Any]] = [
    {"algorithm": "rql"},
    {"algorithm": "rql", "form": "paper", "kappa": 0.9},
    {"algorithm": "rql", "q_normalisation": True, "actor_gradient_at": "reversed", "depth_sampling": "grid"},
    {"algorithm": "rql", "reversal_integrator": "midpoint", "corrections": ("first_terminal",)},
    {"algorithm": "bc_flow"},
    {"algorithm": "fql"},
    {"algorithm": "fql", "q_normalisation": True, "form": "paper"},
    {"algorithm": "ifql"},
    {"algorithm": "qc", "target_samples": 4},
    {"algorithm": "qc", "target_samples": 1, "act_integrator": "midpoint", "rho": 0.5},
]


def make(variant: dict[str, Any], seed: int, dtype: torch.dtype = torch.float64) -> Any:
    values = {"horizon": HORIZON, "flow_steps": 3, "actor_hidden": (9, 7), "learning_rate": 0.01, "act_average": 0.7}
    if variant["algorithm"] != "bc_flow":
        values |= {"critic_hidden": (8, 6), "critics": 2, "tau": 0.1}
    config: Any = TypeAdapter(AnyAlgorithmConfig).validate_python(values | variant)
    return make_algorithm(config, OBSERVATION_DIM, ACTION_DIM, REWARDS, seed=seed, dtype=dtype)


def make_batches(update: int) -> list[Any]:
    """Return a batch for each member; rows of one batch in different orders, so that members see different ones."""
    whole = make_batch(HORIZON, SIZE + len(SEEDS) + update)
    return [
        type(whole)(**{name: getattr(whole, name)[index + update :][:SIZE] for name in whole.__dataclass_fields__})
        for index in range(len(SEEDS))
    ]


def train(members: list[Any], whole: Any, first: int, updates: int) -> None:
    for update in range(first, first + updates):
        batches = make_batches(update)
        draws = [
            member.sample_draws(SIZE, torch.Generator().manual_seed(100 * update + index))
            for index, member in enumerate(members)
        ]
        found = whole.update(stack_items(batches), stack_items(draws))
        for index, member in enumerate(members):
            expected = member.update(batches[index], draws[index])
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert value.shape == ()
                torch.testing.assert_close(found[name][index], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_members_learn_what_each_learns_alone(variant: dict[str, Any]) -> None:
    members = [make(variant, seed) for seed in SEEDS]
    whole = stack_algorithms(members)
    train(members, whole, 0, 3)
    for index, member in enumerate(members):
        taken = make(variant, 99)
        take_member(taken, whole, index)
        expected, found = member.training_state(), taken.training_state()
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12, msg=name)
        assert taken.updates == 3


def test_a_stack_goes_on_from_its_members_state_and_leaves_them_alone() -> None:
    members = [make(VARIANTS[0], seed) for seed in SEEDS]
    train(members, stack_algorithms(members), 0, 2)
    before = [member.training_state() for member in members]
    whole = stack_algorithms(members)
    draws = [member.sample_draws(SIZE, torch.Generator()) for member in members]
    whole.update(stack_items(make_batches(0)), stack_items(draws))
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in member.training_state().items())
    train(members, stack_algorithms(members), 2, 2)
    assert whole.updates == 3


def test_a_member_that_breaks_down_does_not_touch_the_others() -> None:
    alone, members = ([make(VARIANTS[0], seed) for seed in SEEDS] for _ in range(2))
    with torch.no_grad():
        members[1].networks["critic"].biases[-1].fill_(float("nan"))
    whole = stack_algorithms(members)
    train(alone, stack_algorithms(alone), 0, 2)
    for update in range(2):
        draws = [
            each.sample_draws(SIZE, torch.Generator().manual_seed(100 * update + i)) for i, each in enumerate(alone)
        ]
        whole.update(stack_items(make_batches(update)), stack_items(draws))
    for index, member in enumerate(members):
        take_member(member, whole, index)
    assert not torch.isfinite(members[1].training_state()["critic.biases.0"]).all()
    for index in (0, 2):
        for name, tensor in alone[index].training_state().items():
            torch.testing.assert_close(members[index].training_state()[name], tensor, rtol=1e-9, atol=1e-12, msg=name)


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(ConfigError, match="reversal_integrator is dopri5"):
        stack_algorithms([make({"algorithm": "rql", "reversal_integrator": "dopri5"}, seed) for seed in (0, 1)])
    with pytest.raises(ConfigError, match="different settings"):
        stack_algorithms([make({"algorithm": "rql", "alpha": alpha}, 0) for alpha in (1.0, 2.0)])
