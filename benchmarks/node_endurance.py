"""Minutes of the policy node in real time: does it keep its deadlines, its memory and its threads?"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import monotonic
from typing import Any

from benchmarks.bench_node import DOMAINS, machine, use_loopback
from benchmarks.node_figures import Endurance, endurance_table
from benchmarks.node_host import measure as measure_evenness
from benchmarks.node_process import NodeProcess
from benchmarks.node_robot import BenchRobot
from benchmarks.node_subjects import POLICY_READY, SIZES, contract_at, policy_command
from rql_core.progress import progress_bar

OUT = Path("build/bench/node_endurance.json")
# The node is active and warm after that.
WARM_UP_S = 3.0


class Samples:
    """Memory and threads of a process once a second, taken by a thread, with a bar that shows how far it is."""

    def __init__(self, node: NodeProcess, seconds: float) -> None:
        self.memory_mb: list[tuple[float, float]] = []
        self.threads: list[int] = []
        self._node, self._seconds = node, seconds
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin with the first sample."""
        self._thread.start()

    def end(self) -> None:
        """No more samples."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        started = monotonic()
        with progress_bar(total=round(self._seconds), unit="s") as bar:
            while not self._ended.wait(max(0.0, started + len(self.threads) - monotonic())):
                if monotonic() - started > self._seconds:
                    return
                self.memory_mb.append((monotonic() - started, self._node.rss_mb))
                self.threads.append(self._node.threads)
                bar.update()


def measure(checkpoint: Path, rate: int, seconds: float) -> tuple[Endurance, list[float]]:
    """Run the node on a checkpoint for so long; also the latencies in their order."""
    domain = 1 + os.getpid() % DOMAINS
    contract = contract_at(rate)
    with NodeProcess(policy_command(checkpoint), domain, POLICY_READY) as node:
        node.wait_until_ready()
        robot = BenchRobot(contract, domain)
        samples = Samples(node, seconds)
        try:
            robot.wait_for_node()
            latencies = robot.stream(seconds, WARM_UP_S, samples.start)
            samples.end()
            endured = Endurance(
                tuple(latencies),
                contract.period_ns / 1e6,
                tuple(samples.memory_mb),
                tuple(samples.threads),
                max(robot.late_ms),
                robot.said,
            )
        finally:
            robot.close()
    return endured, latencies


def figure(latencies: Sequence[float], rate: int, memory_mb: Sequence[tuple[float, float]]) -> Any:
    """Latency over time, the median and the worst of each second, above memory."""
    from matplotlib.figure import Figure

    seconds = [latencies[at : at + rate] for at in range(0, len(latencies), rate)]
    picture = Figure(figsize=(8, 4.5), layout="constrained")
    above, below = picture.subplots(2, 1, sharex=True)
    minutes = [second / 60 for second in range(len(seconds))]
    above.plot(minutes, [max(second) for second in seconds], lw=0.8, color="tab:orange", label="worst of a second")
    above.plot(minutes, [median(second) for second in seconds], lw=0.8, color="tab:blue", label="median")
    above.set(ylabel="observation to chunk, ms", ylim=(0, None))
    above.legend(loc="upper right")
    below.plot([time / 60 for time, _ in memory_mb], [value for _, value in memory_mb], lw=1, color="tab:green")
    below.set(xlabel="minutes", ylabel="memory, MB", ylim=(0, 1.2 * max(value for _, value in memory_mb)))
    return picture


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.node_endurance",
        description=(
            "Run the policy node on the UR5e's observations in real time, for minutes, with a network that nobody "
            "trained, planned anew at every step. Says how many answers came more than two periods late, what the node "
            "itself says of its deadlines on /diagnostics, and whether memory or threads grew."
        ),
        epilog="Example: python -m benchmarks.node_endurance --minutes 1 --size 4x256\nIt ends with status 1 where it "
        "shows what it must not.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)g")
    parser.add_argument("--rate", type=int, default=50, metavar="HZ", help="default: %(default)s")
    parser.add_argument("--size", default="4x512", choices=list(SIZES), help="the network (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON; the picture lies beside it (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("minutes", "rate"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} is {getattr(options, name)}, expected more than 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON and the picture; 1 where something was missed."""
    options = parse(arguments)
    use_loopback()
    host = machine(pinned=False, evenness=measure_evenness())
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        make = [sys.executable, "-m", "benchmarks.node_subjects", str(checkpoint), options.size, str(options.rate)]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        endured, latencies = measure(checkpoint, options.rate, 60.0 * options.minutes)
    found = endured.figures()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    setting = {"minutes": options.minutes, "rate": options.rate, "size": options.size, "machine": host}
    options.out.write_text(json.dumps(found | setting, indent=1) + "\n", encoding="utf-8")
    print(endurance_table(found))
    answered = [latency if latency < float("inf") else float("nan") for latency in latencies]
    figure(answered, options.rate, endured.memory_mb).savefig(options.out.with_suffix(".png"), dpi=120)
    missed = endured.missed()
    for sentence in missed:
        print(f"not as it must be: {sentence}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
