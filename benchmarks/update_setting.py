"""One training update in numbers: its sizes, the product and the plain reference at those sizes, whether the two agree,
and the operations that no form of it can do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_update import PlainRQL, PlainSettings
from rql_core.algorithms import RQL, Batch, RewardRange, RQLConfig, make_algorithm

Form = Literal["fastest", "plain", "blocked"]

REWARDS = RewardRange(-1.0, 0.0, can_end=True)
# Both are in float64, and differ by the order of their sums: 1e-13 after some updates. A wrong formula is seen at once.
TOLERANCE = 1e-10
# Enough that Adam's moments and both averages have an effect on a later update.
CHECKED_UPDATES = 3
LOSSES = ("critic_loss", "policy_loss", "flow_loss")


@dataclass(frozen=True)
class Setting:
    """The sizes of an update; the defaults are the published ones, with the observations and actions of a play task."""

    batch: int = 256
    critics: int = 10
    flow_steps: int = 10
    width: int = 512
    layers: int = 4
    observation_dim: int = 40
    action_dim: int = 5
    horizon: int = 5

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of a network's hidden layers."""
        return (self.width,) * self.layers

    @property
    def chunk_dim(self) -> int:
        """Numbers in a chunk."""
        return self.horizon * self.action_dim


# For the check of correctness: every size another, so that no two can be mistaken for each other.
SMALL = Setting(batch=12, critics=3, flow_steps=4, width=8, layers=2, observation_dim=7, action_dim=5, horizon=6)


def make_product(
    setting: Setting, form: Form = "fastest", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> RQL:
    """Return the product's algorithm as published, its networks computing in one form."""
    config = RQLConfig(
        form="paper",
        horizon=setting.horizon,
        flow_steps=setting.flow_steps,
        critics=setting.critics,
        actor_hidden=setting.hidden,
        critic_hidden=setting.hidden,
    )
    algorithm = make_algorithm(config, setting.observation_dim, setting.action_dim, REWARDS, device=device, dtype=dtype)
    assert isinstance(algorithm, RQL)
    for network in algorithm.networks.values():
        network.form = form
    return algorithm


def make_plain(setting: Setting, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> PlainRQL:
    """Return the plain reference."""
    settings = PlainSettings(
        setting.observation_dim,
        setting.action_dim,
        setting.horizon,
        setting.hidden,
        setting.critics,
        setting.flow_steps,
    )
    return PlainRQL(settings, device, dtype)


def make_batch(
    setting: Setting, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> Batch:
    """Return random chunks, among them two that solve the task and two that pass their episode's end."""
    generator = torch.Generator().manual_seed(seed)
    rows, steps = setting.batch, setting.horizon
    masks, inside = torch.ones(rows, steps), torch.ones(rows, steps)
    masks[0, 0] = 0
    masks[1, -1] = 0
    inside[2:4, -1] = 0
    batch = Batch(
        observations=torch.randn(rows, setting.observation_dim, generator=generator),
        actions=torch.rand(rows, setting.chunk_dim, generator=generator) * 2 - 1,
        rewards=-torch.rand(rows, steps, generator=generator) * inside,
        masks=masks,
        next_observations=torch.randn(rows, setting.observation_dim, generator=generator),
        valid=inside[:, -1],
        step_mask=inside,
    )
    return Batch(**{name: tensor.to(device, dtype) for name, tensor in vars(batch).items()})


def differences(product: RQL, plain: PlainRQL, setting: Setting, updates: int = CHECKED_UPDATES) -> dict[str, float]:
    """Return the greatest difference of each loss and each tensor, after updates on the same weights, batches, draws.

    The plain reference takes over the product's weights, which are first moved at random: averages then differ from
    what they follow, and scales from 1.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, network in product.networks.items():
            for ours, theirs in zip(network.parameters(), plain.networks[name].parameters(), strict=True):
                ours.add_(0.2 * torch.randn(ours.shape, generator=generator).to(ours))
                theirs.copy_(ours.view(theirs.shape))
    worst = dict.fromkeys(LOSSES, 0.0)
    for update in range(updates):
        batch = make_batch(setting, product.device, product.dtype, seed=update)
        draws = product.sample_draws(setting.batch, torch.Generator(product.device).manual_seed(update))
        given, expected = product.update(batch, draws), plain.update(vars(batch), vars(draws))
        for name in LOSSES:
            # Not `max`, which lets a difference pass that is not a number.
            worst[name] = float(np.maximum(worst[name], float((given[name] - expected[name]).abs())))
    for name, network in product.networks.items():
        parameters = plain.networks[name].parameters()
        for (key, ours), theirs in zip(network.named_parameters(), parameters, strict=True):
            worst[f"{name}.{key}"] = float((ours - theirs.view(ours.shape)).detach().abs().max())
    return worst


def disagreement(setting: Setting = SMALL, forms: Sequence[Form] = ("plain", "blocked")) -> str | None:
    """Return what the product and the plain reference disagree about in float64, or None."""
    for form in forms:
        product = make_product(setting, form, dtype=torch.float64)
        worst = differences(product, make_plain(setting, dtype=torch.float64), setting)
        # Not `<=`, so that a difference that is not a number counts.
        wrong = {name: value for name, value in worst.items() if not value <= TOLERANCE}
        if wrong:
            name = max(wrong, key=lambda name: wrong[name])
            return (
                f"the product ({form} networks) and the plain update differ by {wrong[name]:.1e} in {name} "
                f"({len(wrong)} of {len(worst)} losses and tensors differ by more than {TOLERANCE:.0e})"
            )
    return None


def flops(setting: Setting) -> int:
    """Return the floating-point operations of an update's matrix products; a multiplication with an addition is two.

    The flow is reversed F times through the actor, and the target critics are asked once. Critic loss: forward, and
    backward to every weight and to every layer's input but the first's. Actor loss: the same of the actor, and of the
    critics forward and backward to the inputs, the first layer's included, but to no weight.
    """
    inputs, width = setting.observation_dim + setting.chunk_dim + 1, setting.width
    first, between = inputs * width, (setting.layers - 1) * width * width
    actor, critic = first + between + width * setting.chunk_dim, first + between + width
    reverse = setting.flow_steps * actor
    actor_learns = 3 * actor - first
    critics = setting.critics * (critic + (3 * critic - first) + 2 * critic)
    return 2 * setting.batch * (reverse + actor_learns + critics)


def counted_flops(setting: Setting) -> int:
    """Return the same as counted by PyTorch while an update is made."""
    product = make_product(setting, "plain")
    batch, draws = make_batch(setting), product.sample_draws(setting.batch, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        product.update(batch, draws)
    return int(counter.get_total_flops())
