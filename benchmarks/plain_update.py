"""The published RQL update (arXiv 2606.17551) as it is first written in PyTorch: eager operations, autograd, Adam.

The product's update is compared with it, in numbers and in time, so it shares nothing with the product: the formulas,
the draws and the networks are written down again here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PlainSettings:
    """What an update depends on; the defaults are the published settings of scene-play."""

    observation_dim: int
    action_dim: int
    horizon: int = 5
    hidden: Sequence[int] = (512, 512, 512, 512)
    critics: int = 10
    flow_steps: int = 10
    alpha: float = 3.0
    kappa: float = 0.7
    rho: float = 0.5
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    act_average: float = 0.999


class PlainNetwork(nn.Module):
    """A lone MLP, or with ``members`` so many of one shape, which also have LayerNorms; a product a layer."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, members: int | None = None) -> None:
        super().__init__()
        sizes, self.front = (inputs, *hidden, outputs), (members,) if members else ()
        shapes = [(*self.front, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
        bounds = [(6 / sum(shape[-2:])) ** 0.5 for shape in shapes]
        self.weights = nn.ParameterList(torch.empty(s).uniform_(-b, b) for s, b in zip(shapes, bounds, strict=True))
        vectors = [(members, 1, width) if members else (width,) for width in sizes[1:]]
        self.biases = nn.ParameterList(torch.zeros(shape) for shape in vectors)
        normed = vectors[:-1] if members else []
        self.scales = nn.ParameterList(torch.ones(shape) for shape in normed)
        self.shifts = nn.ParameterList(torch.zeros(shape) for shape in normed)

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return (batch, outputs), or (members, batch, outputs), for (batch, obs), (batch, h * d) and (batch, 1)."""
        product = torch.baddbmm if self.front else torch.addmm
        inputs = torch.cat((observations, x, time), dim=1)
        hidden = inputs.expand(*self.front, *inputs.shape)
        for layer in range(len(self.weights) - 1):
            hidden = product(self.biases[layer], hidden, self.weights[layer])
            hidden = functional.gelu(hidden, approximate="tanh")
            if self.front:
                hidden = functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
                hidden = hidden * self.scales[layer] + self.shifts[layer]
        return product(self.biases[-1], hidden, self.weights[-1])


class PlainRQL:
    """Actor, critics, their averages and one Adam."""

    def __init__(
        self, settings: PlainSettings, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.settings, self.device, self.dtype = settings, device, dtype
        self.chunk_dim = settings.horizon * settings.action_dim
        inputs = settings.observation_dim + self.chunk_dim + 1
        self.networks = nn.ModuleDict()
        self.networks["actor"] = PlainNetwork(inputs, settings.hidden, self.chunk_dim)
        self.networks["critic"] = PlainNetwork(inputs, settings.hidden, 1, settings.critics)
        self.networks["actor_average"] = copy.deepcopy(self.networks["actor"])
        self.networks["critic_target"] = copy.deepcopy(self.networks["critic"])
        self.networks.to(device, dtype)
        online = [*self.networks["actor"].parameters(), *self.networks["critic"].parameters()]
        self.optimizer = torch.optim.Adam(online, lr=settings.learning_rate)

    def sample_draws(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw two noises (batch, h * d), time and depth (batch, 1); half of the depths are on the flow's grid."""
        options: dict[str, Any] = {"generator": generator, "device": self.device, "dtype": self.dtype}
        noises = [torch.randn(batch_size, self.chunk_dim, **options) for _ in range(2)]
        time, depth = (torch.rand(batch_size, 1, **options) for _ in range(2))
        half, steps = batch_size // 2, self.settings.flow_steps
        grid = torch.randint(steps + 1, (half, 1), generator=generator, device=self.device)
        depth[:half] = grid.to(self.dtype) / steps
        return {"flow_noise": noises[0], "target_noise": noises[1], "flow_time": time, "depth": depth}

    def update(self, batch: Mapping[str, Tensor], draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make one update on chunks (batch, h * d) with their rewards and masks (batch, h); return the losses."""
        c, actor, critic = self.settings, self.networks["actor"], self.networks["critic"]
        observations, actions, valid = batch["observations"], batch["actions"], batch["valid"]
        with torch.no_grad():
            start, critic_target = torch.zeros_like(draws["depth"]), self.networks["critic_target"]
            values = critic_target(batch["next_observations"], draws["target_noise"], start).squeeze(-1)
            bound = values.mean(dim=0) - c.rho * values.std(dim=0, correction=0)
            discounts = c.gamma ** torch.arange(c.horizon, device=self.device, dtype=self.dtype)
            target = batch["rewards"] @ discounts + c.gamma**c.horizon * batch["masks"][:, -1] * bound
            point, time, step = actions, torch.ones_like(draws["depth"]), draws["depth"] / c.flow_steps
            for _ in range(c.flow_steps):
                point = point - actor(observations, point, time) * step
                time = time - step

        error = target - critic(observations, point, time).squeeze(-1)
        weight = (c.kappa - (error < 0).to(self.dtype)).abs()
        critic_loss = (weight * error**2 * valid).mean()

        noise, time = draws["flow_noise"], draws["flow_time"]
        point = (1 - time) * noise + time * actions
        velocity = actor(observations, point, time)
        step_mask = batch["step_mask"].repeat_interleave(c.action_dim, dim=1)
        flow_loss = ((velocity - (actions - noise)) ** 2 * step_mask).mean()

        critic.requires_grad_(False)
        stepped = point + velocity * (1 - time).clamp(max=1 / c.flow_steps)
        values = critic(observations, stepped, (time + 1 / c.flow_steps).clamp(max=1)).squeeze(-1)
        critic.requires_grad_(True)
        policy_loss = -(valid * values.mean(dim=0)).mean()

        self.optimizer.zero_grad()
        (critic_loss + policy_loss + c.alpha * flow_loss).backward()
        self.optimizer.step()
        with torch.no_grad():
            for name, source, rate in (("critic_target", critic, c.tau), ("actor_average", actor, 1 - c.act_average)):
                for average, parameter in zip(self.networks[name].parameters(), source.parameters(), strict=True):
                    average.lerp_(parameter, rate)
        losses = {"critic_loss": critic_loss, "policy_loss": policy_loss, "flow_loss": flow_loss}
        return {name: loss.detach() for name, loss in losses.items()}
