"""A simulated world on the contract's grid of ticks: what the bridge node decides, without ROS.

One control step takes the action that is in force at this tick and advances physics by one control period. In lockstep
a step is possible only when the chunk for this tick has arrived, so that speed and scheduling cannot change a
trajectory: same seed and same actions give the trajectory of the Gymnasium environment, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from rql_core.contract import ActionChunk, CommandSchedule, Contract
from rql_core.contract.time import NANOSECONDS, tick_at_or_after, tick_time
from rql_core.errors import SimulationError
from rql_core.sim.arm_env import ArmEnv, ArmSample

# ROS takes time zero for "not set": simulated time starts after it. Between episodes the clock moves on by the same
# half second, so that whoever records or watches sees where one ends: long enough for a policy node to end what it
# commands and begin anew, and short of the second of silence after which it waits for a person (`stale`).
GAP_NS = NANOSECONDS // 2


@dataclass(frozen=True)
class Frame:
    """What the world shows at a tick; reward and success are those of the step that led here."""

    stamp_ns: int
    sample: ArmSample
    episode: int
    step: int
    reward: float
    success: bool
    terminated: bool
    truncated: bool

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went. `seed` is None where the world went on with its own random numbers."""

    episode: int
    seed: int | None
    steps: int
    total_reward: float
    success: bool


class Session:
    """Runs an ArmEnv step by step.

    `execute_steps`: how many steps of a chunk are used before lockstep waits for the next one (0: all of them).
    `counts["starved"]`: steps without an action in force, for which zeros stood in: the arms take velocities, and
    their safe command is to stand still. `counts["stale"]`: chunks of an episode that is over, which are not used.
    """

    def __init__(self, env: ArmEnv, contract: Contract, *, start: str = "task", execute_steps: int = 0) -> None:
        if env.control_period_ns != contract.period_ns:
            raise SimulationError(
                f"contract {contract.name!r} has rate {contract.rate} Hz, "
                f"but the world steps every {env.control_period_ns / 1e6} ms"
            )
        if tuple(contract.action.names) != tuple(env.joint_names):
            raise SimulationError(
                f"contract {contract.name!r} commands {', '.join(contract.action.names)}, "
                f"but the world has the joints {', '.join(env.joint_names)}"
            )
        if contract.action.command != "velocities":
            raise SimulationError(
                f"contract {contract.name!r} commands {contract.action.command}, but the world takes velocities"
            )
        if contract.past_ticks > 0:
            raise SimulationError(
                f"contract {contract.name!r} needs {contract.past_ticks + 1} observations before the first action "
                "(difference or history), but a world waits for an action after the first; leave them out"
            )
        self.env = env
        self.contract = contract
        self.counts: Counter[str] = Counter()
        self.frame: Frame | None = None
        self._start = start
        self._execute_steps = execute_steps
        self._schedule = CommandSchedule(contract.action.max_age_ns)
        self._tick = tick_at_or_after(GAP_NS, contract.rate_fraction)
        self._episode = 0
        self._seed: int | None = None
        self._total_reward = 0.0
        self._begun_ns = 0

    @property
    def stamp_ns(self) -> int:
        return tick_time(self._tick, self.contract.rate_fraction)

    def begin(self, seed: int | None = None) -> Frame:
        """Start an episode; `seed` None goes on with the world's random numbers (as Gymnasium's reset does)."""
        self.env.reset(seed=seed, options={"start": self._start})
        if self.frame is not None:
            self._tick = tick_at_or_after(self.stamp_ns + GAP_NS, self.contract.rate_fraction)
        self._schedule.clear()
        self._episode += 1
        self._seed = seed
        self._total_reward = 0.0
        self._begun_ns = self.stamp_ns
        self.frame = Frame(
            self.stamp_ns, self.env.sample(), self._episode, 0, 0.0, self.env.success, terminated=False, truncated=False
        )
        return self.frame

    def command(self, chunk: ActionChunk) -> None:
        """Take a chunk from the controller; one that answers an earlier episode is counted and not used."""
        if chunk.stamp_ns < self._begun_ns:
            self.counts["stale"] += 1
            return
        self._schedule.add(chunk)

    def can_step(self) -> bool:
        """Whether, in lockstep, the action of this tick has arrived and the episode goes on."""
        if self.frame is None or self.frame.ended:
            return False
        chunk = self._schedule.chunk_at(self.stamp_ns)
        step = None if chunk is None else chunk.step_at(self.stamp_ns)
        if chunk is None or step is None or step >= chunk.horizon:
            return False
        return self._execute_steps == 0 or step < self._execute_steps

    def step(self) -> Frame:
        """One control step with the action in force, or with the hold command when there is none."""
        if self.frame is None or self.frame.ended:
            raise SimulationError("the episode has ended or none was begun; reset the world first")
        action = self._schedule.action_at(self.stamp_ns)
        if action is None:
            self.counts["starved"] += 1
            action = np.zeros(self.contract.action_dim)
        _, reward, terminated, truncated, info = self.env.step(action)
        self._tick += 1
        self._schedule.forget_before(self.stamp_ns)
        self._total_reward += float(reward)
        self.frame = Frame(
            self.stamp_ns,
            self.env.sample(),
            self._episode,
            self.frame.step + 1,
            float(reward),
            bool(info["success"]),
            terminated,
            truncated,
        )
        return self.frame

    def result(self) -> EpisodeResult:
        """The episode so far; success is that of its last step."""
        if self.frame is None:
            raise SimulationError("no episode was begun; reset the world first")
        return EpisodeResult(self._episode, self._seed, self.frame.step, self._total_reward, self.frame.success)
