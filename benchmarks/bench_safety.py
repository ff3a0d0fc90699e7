"""What the safety filter costs: time a chunk, and with --simulate what it does to the demonstrator in simulation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from time import perf_counter

import numpy as np

from rql_core.contract import load_contract
from rql_core.resources import config_file
from rql_core.runtime.safety import Filtered, SafetyFilter, State

AFTER_RAMP_NS = 10**12
ROUNDS, CALLS = 100, 20


def best_ms(call: Callable[[], object]) -> float:
    """Milliseconds a call, the best round of many: others share these cores."""
    times = []
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(CALLS):
            call()
        times.append((perf_counter() - started) / CALLS)
    return min(times) * 1e3


def time_chunks() -> None:
    """Ten steps of the UR5e's six joints."""
    safety = SafetyFilter(load_contract(config_file("contracts", "ur5e")))
    ranges = [each.range or (0.0, 0.0) for each in safety.limits.safety.limits]
    middle = np.array([0.5 * (low + high) for low, high in ranges])
    highest = np.array([high for _, high in ranges])
    state = safety.activate(0, middle)
    speed = safety.limits.column("upper")
    chunks = {
        "keeps all limits": (0.5 * speed * np.sin(np.arange(1, 11) / 10)[:, None], state),
        "random, shaped at every step": (speed * np.random.default_rng(0).uniform(-1, 1, (10, 6)), state),
        "all at full speed to limits": (np.tile(9.0 * speed, (10, 1)), near_the_limits(safety, highest - 0.25 * speed)),
    }
    seconds = count(AFTER_RAMP_NS, 10**9)  # a second a chunk, or what is done on purpose here would latch
    for name, (chunk, before) in chunks.items():

        def call(chunk: np.ndarray = chunk, before: State = before) -> Filtered:
            return safety.apply(chunk, before, next(seconds), before.position)

        print(f"{name:30s} {best_ms(call):.3f} ms  changed: {call().changed}  latched: {safety.latched}")


def near_the_limits(safety: SafetyFilter, start: np.ndarray) -> State:
    """A state from which ten more steps at full speed would pass the position limits."""
    state = safety.activate(0, start)
    while True:
        ahead = safety.apply(np.tile(9.0, (10, 6)), state, AFTER_RAMP_NS)
        if safety.counts["position"] > 0:
            return state
        state = ahead.state(1)


def simulate(episodes: int = 20) -> None:
    """The demonstrator on its way to the goal, a command a step, without the filter and with it."""
    from rql_core.sim import make_world
    from rql_core.sim.actor import DemonstratorActor

    for name, world in (("planar_arm", "planar_arm"), ("ur5e", "ur5e_ring")):
        contract = load_contract(config_file("contracts", name))
        env, actor = make_world(world), DemonstratorActor(world, contract, direction=1)
        for filtered in (False, True):
            safety, reached, steps = SafetyFilter(contract), 0, 0
            for episode in range(episodes):
                observation, _ = env.reset(seed=episode)
                actor.reset(episode)
                state, ended, step = safety.activate(0, safety.measured_position(observation)), False, 0
                while not ended:
                    action = actor.act(observation)
                    if filtered:
                        time = step * contract.period_ns
                        result = safety.apply(action, state, time, safety.measured_position(observation))
                        action, state = result.actions, result.state(1)
                    observation, _, terminated, truncated, info = env.step(action[0])
                    step, ended = step + 1, terminated or truncated
                reached, steps = reached + bool(info["success"]), steps + step
            print(
                f"{name:12s} {'filter' if filtered else 'plain ':6s} success {reached}/{episodes}, "
                f"{steps / episodes:.1f} steps, of {steps * len(contract.action.names)} numbers changed: "
                f"{dict(safety.counts)}"
            )


if __name__ == "__main__":
    simulate() if "--simulate" in sys.argv[1:] else time_chunks()
