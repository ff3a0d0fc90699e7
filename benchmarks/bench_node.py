"""How long the policy node takes from an observation to its chunk, beside a node that only echoes.

Two processes: this one is the robot, and publishes the UR5e's observations in real time; the other is the node under
test. An echo and the policies are measured in turns, in ROS domains of their own, at every rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.node_figures import ECHO, Turn, figures, missed_goals, table
from benchmarks.node_host import Evenness, measure
from benchmarks.node_process import NodeProcess
from benchmarks.node_robot import BenchRobot
from benchmarks.node_subjects import (
    ECHO_READY,
    POLICY_READY,
    SIZES,
    contract_at,
    echo_command,
    policy_command,
)
from rql_core.demo.processes import ros_environment
from rql_core.progress import progress_bar

OUT = Path("build/bench/node.json")
RATES = (50, 200)
# At most so many answers a turn: at 200 Hz a turn is shorter than at 50 Hz.
MOST_IN_A_TURN = 600
# Before a turn is measured: the node begins anew, and ramps its commands in for half a second. Once, after the start,
# for longer, until memory is what it stays at.
WARM_UP_S, FIRST_WARM_UP_S = 0.75, 2.0
# After a turn, those that were paused meanwhile announce themselves: after 20 s without, DDS would take them for dead.
CATCH_UP_S, MOST_SECONDS = 0.5, 12.0
# Domains up to 101 keep DDS's ports below the range that Linux gives to outgoing connections.
DOMAINS = 100


@dataclass
class Subject:
    """A node under test, and the robot that it has for itself."""

    name: str
    node: NodeProcess
    robot: BenchRobot
    is_policy: bool

    def measure(self, seconds: float, warm_up: float) -> Turn:
        """One turn."""
        cpu = started = 0.0

        def begin() -> None:
            nonlocal cpu, started
            cpu, started = self.node.cpu_s, monotonic()

        if self.is_policy:
            self.robot.begin()
        latencies = self.robot.stream(seconds, warm_up, begin)
        turn = Turn(tuple(latencies), (self.node.cpu_s - cpu) / (monotonic() - started))
        if self.is_policy:
            self.robot.rest()
        return turn


def make_checkpoints(folder: Path, sizes: Sequence[str], rates: Sequence[int]) -> dict[tuple[str, int], Path]:
    """Write a checkpoint of every size and rate, each in a process of its own: this one must stay without torch."""
    checkpoints = {(size, rate): folder / f"{size}-{rate}hz" for size in sizes for rate in rates}
    for (size, rate), directory in progress_bar(checkpoints.items(), desc="checkpoints", unit="checkpoint"):
        subprocess.run(
            [sys.executable, "-m", "benchmarks.node_subjects", str(directory), size, str(rate)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return checkpoints


class Bench:
    """Starts the subjects of all rates; as a context manager it ends them."""

    def __init__(
        self,
        checkpoints: dict[tuple[str, int], Path],
        threads: int,
        cores: set[int] | None,
        variants: dict[str, dict[str, object]],
        *,
        network: bool = False,
    ) -> None:
        """`variants`: parameters of the policy node, by what is added to the name of a size.

        `network`: an echo behind each policy's network as well.
        """
        self.subjects: dict[int, list[Subject]] = {}
        self.starts_s: list[float] = []
        self._cores = cores
        self._next_domain = os.getpid() % DOMAINS
        self._ends = ExitStack()
        rates = sorted({rate for _, rate in checkpoints})
        total = len(checkpoints) * (len(variants) + network) + len(rates)
        try:
            with progress_bar(total=total, desc="starts", unit="node") as bar:
                for rate in rates:
                    self.subjects[rate] = []
                    points = 0
                    sizes = [size for size, of in checkpoints if of == rate]
                    for size, (added, parameters) in product(sizes, variants.items()):
                        command = policy_command(checkpoints[size, rate], threads, **parameters)
                        subject = self._start(size + added, command, POLICY_READY, rate, is_policy=True)
                        self.starts_s.append(subject.node.wait_until_ready())
                        subject.measure(FIRST_WARM_UP_S, 0.0)
                        points = max(points, subject.robot.points())
                        bar.update()
                    # Last, because their messages are to be as large as the policies'.
                    echoes: dict[str, Path | None] = {ECHO: None}
                    if network:
                        echoes |= {f"network {size}": checkpoints[size, rate] for size in sizes}
                    for name, checkpoint in echoes.items():
                        echo = self._start(name, echo_command(rate, points, checkpoint), ECHO_READY, rate)
                        echo.measure(FIRST_WARM_UP_S, 0.0)
                        bar.update()
        except BaseException:
            self._ends.close()
            raise

    def _start(self, name: str, command: Sequence[str], ready: str, rate: int, *, is_policy: bool = False) -> Subject:
        domain = 1 + self._next_domain % DOMAINS
        self._next_domain += 1
        node = self._ends.enter_context(NodeProcess(command, domain, ready, cores=self._cores))
        node.wait_until_ready()
        robot = BenchRobot(contract_at(rate), domain)
        self._ends.callback(robot.close)
        robot.wait_for_node()
        subject = Subject(name, node, robot, is_policy)
        self.subjects[rate].append(subject)
        return subject

    def run(self, rounds: int, seconds: float) -> dict[int, dict[str, list[Turn]]]:
        """Measure all subjects in turn, `rounds` times; `seconds` a turn, less where the rate is high."""
        turns: dict[int, dict[str, list[Turn]]] = {
            rate: {subject.name: [] for subject in sorted(subjects, key=lambda subject: subject.name != ECHO)}
            for rate, subjects in self.subjects.items()
        }
        count = rounds * sum(len(subjects) for subjects in self.subjects.values())
        with progress_bar(total=count, desc="rounds", unit="turn") as bar:
            for _ in range(rounds):
                for rate, subjects in self.subjects.items():
                    for subject in subjects:
                        with self._alone(subject):
                            turn = subject.measure(min(seconds, MOST_IN_A_TURN / rate), WARM_UP_S)
                        turns[rate][subject.name].append(turn)
                        bar.update()
        return turns

    @contextmanager
    def _alone(self, measured: Subject) -> Iterator[None]:
        """Two processes, and no other: a node that rests still wakes up thirty times a second."""
        others = [each.node for subjects in self.subjects.values() for each in subjects if each is not measured]
        for node in others:
            node.pause()
        try:
            yield
        finally:
            for node in others:
                node.resume()
            sleep(CATCH_UP_S)

    def rss_mb(self) -> dict[str, float]:
        """The policies' memory now."""
        return {
            f"{subject.name} at {rate} Hz": subject.node.rss_mb
            for rate, subjects in self.subjects.items()
            for subject in subjects
            if subject.is_policy
        }

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.close()


def divided_cores() -> tuple[set[int], set[int]] | None:
    """A core for this process, and the others for the nodes; None where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return None if len(cores) < 2 else ({cores[0]}, set(cores[1:]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_node",
        description=(
            "Measure the time from publishing an observation of the UR5e (joint states and tool pose, the second "
            "completes it) until its chunk is received, over DDS on loopback, for RQL networks that nobody trained "
            "(10 flow steps, chunks of 4, planned at every step, ONNX Runtime), and for a node that answers each "
            "observation with a ready-made message of the same size. What the policy adds is the difference of the "
            "medians over the rounds of the 99th percentile; an observation that is not answered counts as infinitely "
            "late. This process has a core of its own where there are two; nodes not measured stand still."
        ),
        epilog=(
            "Examples: python -m benchmarks.bench_node                              # all of it: three minutes\n"
            "          python -m benchmarks.bench_node --rates 50 --rounds 2        # a quick look\n"
            "          python -m benchmarks.bench_node --sizes 4x256 --no-pin       # let the kernel place processes\n"
            "          python -m benchmarks.bench_node --cold                       # what rehearsals gain: 6 minutes\n"
            "          python -m benchmarks.bench_node --network                    # what is the network's part\n"
            "Run it on an idle machine: what else runs shows in the echo's 99th percentile. What the host of a\n"
            "virtual machine does shows in how evenly its core computes, which is measured first and printed last."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the figures as JSON (default: %(default)s)")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, metavar="HZ", help="default: 50 200")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES), help="networks (default: both)")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="a turn at 50 Hz (default: %(default)s)")
    parser.add_argument(
        "--cold", action="store_true", help="beside each policy the same without rehearsals (parameter rehearse: 0)"
    )
    parser.add_argument(
        "--network", action="store_true", help="beside each policy an echo behind its network: the network's part of it"
    )
    parser.add_argument("--threads", type=int, default=1, help="of inference (default: %(default)s)")
    parser.add_argument("--no-pin", action="store_true", help="leave it to the kernel which core runs what")
    options = parser.parse_args(arguments)
    for name in ("rounds", "seconds", "threads"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} is {getattr(options, name)}, expected more than 0")
    if options.seconds > MOST_SECONDS:
        parser.error(
            f"--seconds is {options.seconds:g}, expected at most {MOST_SECONDS:g}: DDS takes a node that stands still "
            "for 20 s for dead; give more --rounds"
        )
    if not all(1 <= rate <= 1000 for rate in options.rates):
        parser.error(f"--rates are {options.rates}, expected 1 to 1000 Hz")
    return options


def use_loopback() -> None:
    """As the nodes under test: this machine only, and no shared memory."""
    os.environ |= {name: value for name, value in ros_environment().items() if name.startswith(("ROS_", "FASTDDS_"))}


def machine(pinned: bool, evenness: Evenness) -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "pinned": pinned,
        "equal_work": asdict(evenness),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON."""
    options = parse(arguments)
    cores = None if options.no_pin else divided_cores()
    evenness = measure(cores=None if cores is None else cores[1])
    host = machine(cores is not None, evenness)
    use_loopback()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = make_checkpoints(Path(folder), options.sizes, options.rates)
        if cores is not None:
            os.sched_setaffinity(0, cores[0])
        variants: dict[str, dict[str, object]] = {"": {}} | ({" cold": {"rehearse": 0}} if options.cold else {})
        theirs = None if cores is None else cores[1]
        with Bench(checkpoints, options.threads, theirs, variants, network=options.network) as bench:
            rss = bench.rss_mb()
            turns = bench.run(options.rounds, options.seconds)
    result = figures(turns, bench.starts_s, rss) | {"machine": host, "rounds": options.rounds}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"before all this, {evenness}")
    for sentence in missed_goals(result):
        print(f"not reached: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
