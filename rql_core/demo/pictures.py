"""The pictures of the demonstration: tool paths, learning curves, and a video of an episode."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rql_core.contract import load_contract
from rql_core.data.minari_io import load_dataset
from rql_core.evaluation.results import Evaluation
from rql_core.evaluation.rollout import Rollout
from rql_core.runtime.policy import DeployedPolicy
from rql_core.sim import make_world
from rql_core.sim.registration import world
from rql_core.sim.session import Session

if TYPE_CHECKING:
    from rql_core.demo.stages import Demo

TITLES = {"data": "the data", "demonstrator": "demonstrator", "bc_flow": "BC flow", "rql": "Reversal Q-Learning"}
# So many episodes can be told apart in a picture; with more, the lines cover each other.
SHOWN = 15
VIDEO_SIZE = (480, 360)


def tool_paths(demo: Demo, evaluations: dict[str, Evaluation]) -> Any:
    """Top view of where the tool went: in the data, and under each controller; solid where the goal was reached."""
    from matplotlib.figure import Figure

    description = world(demo.settings.world)
    ring = description.ring
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, len(TITLES), sharex=True, sharey=True)
    contract = load_contract(demo.contract)
    where = contract.feature_slice("tool_position")
    trajectories = load_dataset(demo.dataset)[0]
    pieces = [(trajectories.episode(index)[0][:200, where], True) for index in range(min(5, trajectories.episodes))]
    lines = {"data": pieces} | {
        name: [(np.array(record.path), record.success) for record in evaluation.records[:SHOWN]]
        for name, evaluation in evaluations.items()
    }
    goal, start = ring.waypoints()[ring.goal_index], ring.waypoints()[0]
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        for path, success in lines[name]:
            axis.plot(path[:, 0], path[:, 1], lw=0.8, alpha=0.8, color="tab:blue" if success else "tab:red")
        angle = np.linspace(0, 2 * np.pi, 100)
        x, y, _ = ring.center
        axis.fill(x + ring.obstacle_radius * np.cos(angle), y + ring.obstacle_radius * np.sin(angle), color="0.6")
        axis.plot(*start[:2], "o", color="tab:orange", ms=9, label="start")
        axis.plot(*goal[:2], "*", color="tab:green", ms=14, label="goal")
        axis.set_aspect("equal")
        rate = "" if name == "data" else f"\n{evaluations[name].successes} of {len(evaluations[name].records)}"
        axis.set_title(title + rate)
        axis.set_xlabel("x (m)")
    axes[0].set_ylabel("y (m)")
    axes[0].legend(loc="upper right", fontsize=8)
    figure.suptitle(f"Tool from above; blue: goal reached, red: not (first {SHOWN} episodes)", fontsize=10)
    return figure


def learning_curves(metrics: dict[str, Path]) -> Any:
    """Success in simulation during training with its interval, and the losses, from metrics.jsonl files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    success, losses, values = figure.subplots(1, 3)
    for name, path in metrics.items():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        evaluated = [row for row in rows if "evaluation/success_rate" in row]
        steps = [row["step"] for row in evaluated]
        success.plot(steps, [row["evaluation/success_rate"] for row in evaluated], "o-", ms=3, label=TITLES[name])
        success.fill_between(
            steps,
            [row["evaluation/success_low"] for row in evaluated],
            [row["evaluation/success_high"] for row in evaluated],
            alpha=0.2,
        )
        for key, axis in (("flow_loss", losses), ("critic_loss", losses), ("value", values), ("target", values)):
            curve = [(row["step"], row[key]) for row in rows if key in row]
            if curve:
                axis.plot(*zip(*curve, strict=True), label=f"{TITLES[name]}: {key.replace('_', ' ')}")
    success.set_ylim(-0.03, 1.03)
    for axis, title in ((success, "success during training"), (losses, "losses"), (values, "critic: value, target")):
        axis.set_title(title)
        axis.set_xlabel("updates")
        axis.legend(fontsize=8)
    return figure


def video(demo: Demo) -> bytes:
    """A GIF of the learned policy's first episode at half the control rate; raises SimulationError without OpenGL."""
    from PIL import Image

    policy = DeployedPolicy.load(demo.run("rql") / "checkpoint", threads=1)
    env = make_world(demo.settings.world, render_mode="rgb_array", width=VIDEO_SIZE[0], height=VIDEO_SIZE[1])
    frames: list[Image.Image] = []

    def draw(frame: Any) -> None:
        if frame.step % 2 == 0 or frame.ended:
            picture = env.render()
            assert picture is not None
            frames.append(Image.fromarray(picture).quantize(96))

    try:
        Rollout(Session(env, policy.contract), policy, on_frame=draw).run_episode(demo.settings.first_seed)
    finally:
        env.close()
    frames += [frames[-1]] * 10  # a second of rest at the end, before it starts again
    buffer = io.BytesIO()
    milliseconds = 2 * policy.contract.period_ns // 1_000_000
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
