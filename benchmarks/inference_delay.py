"""What inference delay does to a policy, and what each way to schedule chunks makes of it.

A UR5e in this process, in simulated time: a plan for the observation of a tick arrives so many steps later, and in
between the robot executes what the schedule says, or stands still where that is nothing. Every cell runs the same
episodes. Figures follow from checkpoint and seeds, not from this machine's speed. Without --checkpoint one is trained
first, on play data that are generated.

Example: python -m benchmarks.inference_delay --checkpoint RUN/checkpoint --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path("build/bench")
IMAGE = Path("docs/images/inference_delay.png")
WORLD = "ur5e_ring"
# Name -> mode of the schedule, and how the policy is held to the chunk before.
MODES = {
    "open_loop": ("open_loop", None),
    "receding": ("receding", None),
    "ensemble": ("ensemble", None),
    "rtc_jacobian": ("rtc", "jacobian"),
    "rtc_prefix": ("rtc", "prefix"),
}
LABELS = {
    "open_loop": "open loop",
    "receding": "receding",
    "ensemble": "ensemble",
    "rtc_jacobian": "rtc, Jacobian",
    "rtc_prefix": "rtc, prefix",
}
COLOURS = {
    "open_loop": "0.45",
    "receding": "tab:orange",
    "ensemble": "tab:green",
    "rtc_jacobian": "tab:blue",
    "rtc_prefix": "tab:purple",
}
# Steps at 20 Hz: 0, 50, 100 and 200 ms.
DELAYS = (0, 1, 2, 4)
# Episodes that one process runs before it takes other ones, so that the bar moves and no core waits at the end.
BLOCK = 5
# The presets' chunks of 4 steps are over before a plan of 200 ms is there; 10 steps last half a second. Networks are
# twice as wide. alpha weighs imitation against the critics: 1.5 and 3 also solve the task, but by chunks that jump from
# limit to limit, beside which no seam can be seen.
TRAINING = (
    "algorithm.horizon=10",
    "algorithm.actor_hidden=[256,256]",
    "algorithm.critic_hidden=[256,256]",
    "algorithm.alpha=8",
    "updates=16000",
    "evaluate_every=0",
    "tensorboard=false",
)


@dataclass(frozen=True)
class Block:
    """Some episodes of a cell."""

    checkpoint: Path
    mode: str
    delay: int
    seeds: tuple[int, ...]
    replan_every: int


@dataclass(frozen=True)
class Episode:
    """Steps are of 50 ms; sizes of steps are shares of the range of limits, the largest over the joints."""

    mode: str
    delay: int
    seed: int
    success: bool
    steps: int
    waited: int
    """Steps before the first command."""
    starved: int
    """Steps without a command after it."""
    plans: int
    seams: list[float]
    """Change of the command at each hand-over of chunks."""
    within: list[float]
    """Steps within chunks, as the policy made them."""
    moves: list[float]
    """Change of the command at every step."""


def run_block(block: Block) -> list[Episode]:
    """Run the episodes in this process."""
    import torch

    from rql_core.evaluation.rollout import contract_session
    from rql_core.runtime.policy import DeployedPolicy

    torch.set_num_threads(1)
    policy = DeployedPolicy.load(block.checkpoint, backend="torch")
    guidance = MODES[block.mode][1]
    if guidance is not None:
        policy.guide_method = guidance  # type: ignore[assignment]
    session = contract_session(policy.contract, WORLD)
    return [run_episode(session, policy, block, seed) for seed in block.seeds]


def run_episode(session: Any, policy: Any, block: Block, seed: int) -> Episode:
    """One episode: what arrives at a tick is there before the tick's command, a plan without delay included."""
    from rql_core.contract import ActionChunk, TickAssembler
    from rql_core.contract.time import tick_at_or_after
    from rql_core.evaluation.rollout import frame_messages
    from rql_core.runtime.delay import DelayEstimate
    from rql_core.runtime.schedule import ChunkSchedule

    contract, mode = policy.contract, MODES[block.mode][0]
    # The delay is known from the start, as it is to a node that has warmed up.
    delay = DelayEstimate(warm_up=0, first_steps=block.delay)
    schedule = ChunkSchedule(contract, policy.horizon, mode, replan_every=block.replan_every, delay=delay)
    assembler = TickAssembler(contract)
    span = np.array([feature.upper - feature.lower for feature in contract.action.features])
    topics = [spec.topic for spec in contract.observation.topics]
    frame = session.begin(seed)
    policy.reset(seed)
    assembler.reset(frame.stamp_ns)
    planned: tuple[int, ActionChunk] | None = None
    before: tuple[int, np.ndarray] | None = None
    waited = starved = plans = 0
    seams: list[float] = []
    within: list[float] = []
    moves: list[float] = []
    while not frame.ended:
        now = frame.stamp_ns
        messages = frame_messages(frame)
        for topic in topics:
            assembler.push(topic, messages[topic], now)
        (seen,) = assembler.take()
        tick = tick_at_or_after(now, contract.rate_fraction)
        for _ in range(2):
            if planned is not None and planned[0] == tick:
                schedule.add(planned[1], now)
                planned = None
            if planned is None and schedule.due(tick):
                actions = policy.plan(seen.observation, schedule.guide(tick)).actions
                planned = (tick + block.delay, ActionChunk.regular(contract, now, actions))
                plans += 1
                within += (np.abs(np.diff(actions, axis=0)) / span).max(axis=1).tolist()
        action = schedule.action_at(now)
        if action is not None:
            session.command(ActionChunk.regular(contract, now, action[None]))
            if before is not None:
                move = float((np.abs(action - before[1]) / span).max())
                moves.append(move)
                if schedule.hand_overs(before[0], now):
                    seams.append(move)
            before = (now, action)
        elif before is None:
            waited += 1
        else:
            starved += 1
        frame = session.step()
    result = session.result()
    return Episode(
        block.mode, block.delay, seed, result.success, result.steps, waited, starved, plans, seams, within, moves
    )


def run_all(blocks: Sequence[Block], jobs: int) -> list[Episode]:
    """Run all blocks, with a bar."""
    from rql_core.progress import progress_bar

    episodes: list[Episode] = []
    with progress_bar(total=sum(len(block.seeds) for block in blocks), unit="episode", desc="running") as bar:
        for found in _results(blocks, jobs):
            episodes += found
            bar.update(len(found))
    return sorted(episodes, key=lambda each: (list(MODES).index(each.mode), each.delay, each.seed))


def _results(blocks: Sequence[Block], jobs: int) -> Iterator[list[Episode]]:
    if jobs == 1:
        yield from map(run_block, blocks)
        return
    # A process that forks from one where torch has run may hang; a new one does not.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_block, block) for block in blocks]):
            yield future.result()


def summarise(episodes: Sequence[Episode], period: float) -> list[dict[str, Any]]:
    """One row a cell; `period` is a step's length in s."""
    from rql_core.evaluation.results import wilson_interval

    rows = []
    for mode in dict.fromkeys(each.mode for each in episodes):
        for delay in sorted({each.delay for each in episodes}):
            cell = [each for each in episodes if (each.mode, each.delay) == (mode, delay)]
            solved = [each.steps * period for each in cell if each.success]
            low, high = wilson_interval(len(solved), len(cell))
            seams, within, moves = (
                np.concatenate([getattr(each, name) for each in cell]) for name in ("seams", "within", "moves")
            )
            rows.append(
                {
                    "mode": mode,
                    "delay_ms": round(1e3 * period * delay),
                    "episodes": len(cell),
                    "success": len(solved) / len(cell),
                    "low": low,
                    "high": high,
                    "completion_s": float(np.median(solved)) if solved else None,
                    "seam_mean": float(seams.mean()),
                    "seam_p95": float(np.percentile(seams, 95)),
                    "seam_max": float(seams.max()),
                    "within_p95": float(np.percentile(within, 95)),
                    "move_rms": float(np.sqrt(np.mean(moves**2))),
                    "starved_steps": float(np.mean([each.starved for each in cell])),
                    "waited_steps": float(np.mean([each.waited for each in cell])),
                    "plans_per_s": sum(each.plans for each in cell) / (period * sum(each.steps for each in cell)),
                }
            )
    return rows


def against(episodes: Sequence[Episode], one: str, other: str) -> str:
    """Paired by seed and delay: in how many episodes only one of two modes succeeded, and the sign test's p."""
    from scipy.stats import binomtest

    first, second = ({(e.delay, e.seed): e.success for e in episodes if e.mode == mode} for mode in (one, other))
    only = sum(first[key] and not second[key] for key in first), sum(second[key] and not first[key] for key in first)
    p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    return f"{LABELS[one]} against {LABELS[other]}: only the former {only[0]}, only the latter {only[1]}, p {p:.2g}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| mode | delay, ms | success | completion, s | seam jump: mean, p95, largest | beside steps within | "
        "change of command, RMS | starved steps | plans a second |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        completion = "" if row["completion_s"] is None else f"{row['completion_s']:.2f}"
        cells = (
            LABELS[row["mode"]],
            row["delay_ms"],
            f"{row['success']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            completion,
            f"{row['seam_mean']:.3f}, {row['seam_p95']:.3f}, {row['seam_max']:.3f}",
            f"{row['seam_p95'] / row['within_p95']:.1f}",
            f"{row['move_rms']:.3f}",
            f"{row['starved_steps']:.1f}",
            f"{row['plans_per_s']:.1f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, Any]]) -> Any:
    """Success, seam jump and completion time against the delay, a line a mode."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    for index, mode in enumerate(modes):
        mine = [row for row in rows if row["mode"] == mode]
        # Side by side, so that intervals can be told apart.
        x = np.array([row["delay_ms"] for row in mine]) + 3.0 * (index - (len(modes) - 1) / 2)
        style = {"color": COLOURS[mode], "marker": "o", "ms": 4, "lw": 1.5}
        success = np.array([row["success"] for row in mine])
        ends = np.array([[row["success"] - row["low"], row["high"] - row["success"]] for row in mine]).T
        panels[0].errorbar(x, success, yerr=ends.clip(min=0), label=LABELS[mode], elinewidth=1, **style)
        panels[1].plot(x, [row["seam_p95"] for row in mine], **style)
        panels[2].plot(x, [row["completion_s"] or np.nan for row in mine], **style)
    panels[0].set(ylabel="success, 95 % interval", ylim=(0, 1.03))
    panels[1].set(ylabel="seam jump, p95, share of the limits", ylim=(0, None))
    panels[2].set(ylabel="completion time of successes, s")
    for panel in panels:
        panel.set(xlabel="inference delay, ms", xticks=sorted({row["delay_ms"] for row in rows}))
        panel.grid(axis="y", color="0.92", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(modes), frameon=False)
    return figure


def train(out: Path) -> Path:
    """Make play data and train on them; what is there is kept.  The checkpoint."""
    rql = [sys.executable, "-m", "rql_core.cli"]
    data, run = out / "ur5e-v0", out / "run"
    if not data.exists():
        generate = ["generate", WORLD, "--episodes", "210", "--steps", "200", "--seed", "0", "--out", str(data)]
        subprocess.run([*rql, *generate], check=True)
    if not (run / "trained").exists():
        resume = ["--resume"] if (run / "checkpoint").exists() else []
        settings = ["--config", "ur5e_rql", "--threads", "1", "--set", *TRAINING]
        subprocess.run([*rql, "train", str(data), "--out", str(run), *resume, *settings], check=True)
        (run / "trained").touch()
    return run / "checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells; print the table, write it as JSON, and draw it."""
    from rql_core.errors import RqlError
    from rql_core.whole_files import write_whole

    parser = argparse.ArgumentParser(
        description="Success, seam jumps and completion time of every chunk mode against inference delay, on a UR5e.",
        epilog="Example: python -m benchmarks.inference_delay --checkpoint RUN/checkpoint --jobs 2",
    )
    parser.add_argument("--checkpoint", type=Path, help="checkpoint directory (default: one is trained, 10 minutes)")
    parser.add_argument("--episodes", type=int, default=100, help="episodes a cell (default: %(default)s)")
    # Seeds that neither data nor evaluations elsewhere use.
    parser.add_argument("--first-seed", type=int, default=7000, help="seed of the first episode (default: %(default)s)")
    parser.add_argument("--delays", type=int, nargs="+", default=DELAYS, help="in steps of 50 ms (default: 0 1 2 4)")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), help="(default: all)")
    parser.add_argument(
        "--replan-every", type=int, default=0, help="steps; 0: the mode's own: half a chunk, ensemble 1 (default)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--json", type=Path, default=OUT / "inference_delay.json", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=IMAGE, help="the PNG to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name, value in (("episodes", options.episodes), ("jobs", options.jobs)):
        if value < 1:
            parser.error(f"--{name} is {value}: expected at least 1")
    if min(options.delays) < 0:
        parser.error(f"--delays has {min(options.delays)}: expected 0 or more")
    checkpoint = options.checkpoint or train(OUT / "inference_delay")
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    blocks = [
        Block(checkpoint, mode, delay, tuple(seeds[start : start + BLOCK]), options.replan_every)
        for start in range(0, len(seeds), BLOCK)
        for mode in options.modes
        for delay in options.delays
    ]
    try:
        from rql_core.runtime.policy import DeployedPolicy

        contract = DeployedPolicy.load(checkpoint, backend="torch").contract
        episodes = run_all(blocks, options.jobs)
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = summarise(episodes, contract.period_ns * 1e-9)
    content = {
        "checkpoint": str(checkpoint),
        "checkpoint_manifest": json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8")),
        "first_seed": options.first_seed,
        "replan_every": options.replan_every,
        "rows": rows,
        "episodes": [
            {name: value for name, value in asdict(each).items() if name not in ("seams", "within", "moves")}
            for each in episodes
        ],
    }
    write_whole(options.json, json.dumps(content))
    print(table(rows))
    names = list(options.modes)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            print(against(episodes, one, other))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture(rows).savefig(options.out, dpi=150)
    print(f"\n{options.json} {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
