"""The paper's tasks within a time budget: data, training of several seeds, evaluation, table and curves."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.paper_tasks_budget import Budget
from benchmarks.paper_tasks_pack import LIMIT_BYTES, compression_of, pack, unpack
from benchmarks.paper_tasks_plan import (
    CHECKPOINTS_A_RUN,
    PUBLISHED_EPISODES,
    PUBLISHED_UPDATES,
    DataSettings,
    Places,
    Plan,
    make_groups,
    parse_forms,
    parse_tasks,
)
from benchmarks.paper_tasks_report import curves, not_done, report_text
from benchmarks.paper_tasks_state import check_settings, publish_evaluations
from benchmarks.paper_tasks_work import Work
from rql_core.algorithms import Acting
from rql_core.commands.train import parse_seeds
from rql_core.errors import ConfigError, RqlError
from rql_core.evaluation.results import check_episodes
from rql_core.whole_files import write_whole

# Matplotlib's import, the bootstraps of some twenty lines and bands, and the end of processes.
REPORT_S = 15.0
# Of weights gzip packs 15 MB a second and xz 2, and each is done twice: to see whether they fit, and to write them.
PACK_S = {"gz": 15.0, "xz": 75.0}

DESCRIPTION = """\
Train the paper's tasks at its settings and evaluate them by its protocol, as far as a time budget goes.

For each task: data are played where they are missing, the seeds of a form are trained on one device (`rql train`
without evaluation), and a pool of processes evaluates each new checkpoint while training goes on. The last checkpoint
counts; those before make the curves. What is done is never done again: after Ctrl-C, a kill or the end of the budget,
the same command goes on with what is missing, and a greater --updates makes runs longer.

OUT/table.md     published and measured success, with intervals, and what was left out; printed too
OUT/curves.png   success against updates, a panel a task
OUT/runs/        NAME-seedN, the run directories; `rql compare OUT/runs` reads them
OUT/results/     a JSON file for each evaluation
OUT/logs/        what the commands printed, and on which machines
"""
EPILOG = """\
Examples:
  Everything, without a limit (days on a CPU; hours on a GPU):
    python -m benchmarks.paper_tasks
  25 minutes of a machine with a GPU, and what is needed to go on with elsewhere in one file:
    python -m benchmarks.paper_tasks --minutes 25 --updates 200000 --cuda-graphs --pack state.tar.gz
  Go on with that on another machine:
    python -m benchmarks.paper_tasks --unpack state.tar.gz --minutes 25 --updates 200000 --pack state2.tar.gz
  Best of 16 samples, and Q-normalisation, on cube-double (published: QC 67, DSRL 74):
    python -m benchmarks.paper_tasks --tasks cube-double:1 --samples 1 16 --q-normalisation --q-alpha 0.3 1
  Table, curves and archive of what there is, and no more work:
    python -m benchmarks.paper_tasks --minutes 0 --pack state.tar.xz
  A look at how it works, in two minutes on a CPU (its figures mean nothing):
    python -m benchmarks.paper_tasks --out build/try --tasks puzzle-3x3:1 --seeds 0 --updates 200 --episodes 5 \\
        --steps 100 --evaluation-episodes 4 --evaluation-steps 50 \\
        --set algorithm.actor_hidden=[32,32] algorithm.critic_hidden=[32,32]

What is packed, as far as it fits: results and metrics always; then the newest checkpoint of unfinished runs with
their training state; then policies that were not evaluated; then all others. At the paper's size a checkpoint is
180 MB with its training state and does not fit into 60 MB, so such a run cannot go on elsewhere; which can is printed.
Data are not packed but played again from the seed.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_tasks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what to do").add_argument
    add("--tasks", nargs="+", default=["puzzle-3x3:1 cube-double:1 scene:1"], metavar="DOMAIN:N",
        help="tasks in their order (default: puzzle-3x3:1 cube-double:1 scene:1)")  # fmt: skip
    add("--forms", nargs="+", default=["paper corrected"], metavar="FORM",
        help="forms of the update in their order: paper, corrected (default: both)")  # fmt: skip
    add("--seeds", default="0-3", help="training seeds, such as 0-3 or 0,2,5 (default: %(default)s)")
    add("--updates", type=int, default=PUBLISHED_UPDATES, help="updates of each run (default: %(default)s)")
    add("--checkpoint-every", type=int, metavar="N", help="updates between checkpoints (default: a twentieth of all)")
    add("--samples", type=int, nargs="+", default=[1], metavar="N",
        help="evaluate the last checkpoint acting by the best of N samples too (default: 1, as it acts)")  # fmt: skip
    add("--q-normalisation", action="store_true", help="train each task and form with Q-normalisation too, at the end")
    add("--q-alpha", type=float, nargs="+", default=[], metavar="ALPHA",
        help="alphas to try with Q-normalisation, whose critic term is of size 1 (default: the preset's)")  # fmt: skip
    add = parser.add_argument_group("time, and where to go on").add_argument
    add(
        "--minutes", type=float, metavar="M", help="time for everything, table and archive included (default: no limit)"
    )
    add("--pack", type=Path, metavar="FILE", help="at the end, pack the state into FILE (.tar.xz or .tar.gz)")
    add("--pack-megabytes", type=float, default=LIMIT_BYTES / 1e6, metavar="MB", help="at most (default: %(default)g)")
    add("--unpack", type=Path, metavar="FILE", help="first unpack a state into OUT, once; OUT must hold none")
    add("--out", type=Path, default=Path("build/paper_tasks"), help="where everything goes (default: %(default)s)")
    add("--data", type=Path, help="directory of the data sets (default: OUT/data)")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)),
        help="processes that play and evaluate (default: as many as there are cores)")  # fmt: skip
    add = parser.add_argument_group("for `rql train`").add_argument
    add("--device", help="torch device (default: a GPU where there is one)")
    add("--compile", action="store_true", help="compile the update")
    add("--cuda-graphs", action="store_true", help="capture the update as a CUDA graph")
    add("--precision", choices=("float32", "tf32", "bf16"), help="of matrix products")
    add("--seeds-at-once", type=int, metavar="N", help="seeds that one process trains beside each other (default: all)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="settings",
        help="other settings of all runs, e.g. algorithm.alpha=3")  # fmt: skip
    add = parser.add_argument_group("at a small scale, to try things out").add_argument
    add("--episodes", type=int, help="episodes of data (default: as the official data sets, 1,000 or more)")
    add("--steps", type=int, default=1000, help="steps of such an episode (default: %(default)s)")
    add("--data-seed", type=int, default=0, help="seed of the data (default: %(default)s)")
    add("--evaluation-episodes", type=int, default=PUBLISHED_EPISODES, metavar="N",
        help="episodes of an evaluation (default: %(default)s, the protocol)")  # fmt: skip
    add("--evaluation-steps", type=int, metavar="N", help="cut such episodes off after N steps (not the protocol)")
    return parser


def make_plan(options: argparse.Namespace) -> Plan:
    """What the options ask for. Raises ConfigError for what makes no sense, before anything is begun."""
    for name in ("updates", "checkpoint_every", "workers", "seeds_at_once", "episodes", "steps", "evaluation_steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name.replace('_', '-')} is {value}, expected at least 1")
    check_episodes(options.evaluation_episodes)
    if options.minutes is not None and not options.minutes >= 0:
        raise ConfigError(f"minutes is {options.minutes}, expected 0 or more")
    if options.q_alpha and not options.q_normalisation:
        raise ConfigError("q-alpha is given, but Q-normalisation is not asked for: add --q-normalisation")
    for setting in options.settings:
        if "=" not in setting:
            raise ConfigError(f"the setting {setting!r} is no KEY=VALUE, such as algorithm.alpha=3")
    if options.pack is not None:
        compression_of(options.pack)
    best_of = tuple(dict.fromkeys(samples for samples in options.samples if Acting(samples).samples > 1))
    passed_on = [
        *(["--device", options.device] if options.device else []),
        *(["--compile"] if options.compile else []),
        *(["--cuda-graphs"] if options.cuda_graphs else []),
        *(["--precision", options.precision] if options.precision else []),
    ]
    alphas = (options.q_alpha or [None]) if options.q_normalisation else []
    return Plan(
        groups=make_groups(parse_tasks(options.tasks), parse_forms(options.forms), alphas),
        seeds=tuple(parse_seeds(options.seeds)),
        updates=options.updates,
        checkpoint_every=options.checkpoint_every or max(1, options.updates // CHECKPOINTS_A_RUN),
        best_of=best_of,
        episodes=options.evaluation_episodes,
        episode_steps=options.evaluation_steps,
        data=DataSettings(options.episodes, options.steps, options.data_seed),
        at_once=options.seeds_at_once,
        train_options=tuple(passed_on),
        settings=tuple(options.settings),
    )


def write_report(plan: Plan, places: Places, remarks: Sequence[str]) -> str:
    """Write table.md, curves.png and each run's evaluation.json; return the table's text."""
    publish_evaluations(plan, places)
    text = report_text(plan, places, remarks)
    write_whole(places.out / "table.md", text)
    figure = curves(plan, places)
    if figure is not None:
        partial = places.out / ".curves.partial.png"
        figure.savefig(partial, dpi=130)
        os.replace(partial, places.out / "curves.png")
    return text


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the place's lock, which the kernel frees when its holder dies. Raises ConfigError where another has it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}; name another place with --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{out}: is being worked on already; wait, or name another place with --out") from None
        yield


class Interruption:
    """A signal ends the work as KeyboardInterrupt does, which names it."""

    def __init__(self) -> None:
        self._name = ""

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Where Python is in a finaliser, what this raises is lost: `check` raises it again."""
        self._name = signal.Signals(number).name
        self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal has come."""
        if self._name:
            raise KeyboardInterrupt(self._name)


def _work(options: argparse.Namespace, began: float, interruption: Interruption) -> int:
    plan = make_plan(options)
    out = options.out.absolute()
    places = Places(out, (options.data or out / "data").absolute())
    reserve = REPORT_S + (PACK_S[compression_of(options.pack)] if options.pack else 0.0)
    budget = Budget(began, None if options.minutes is None else 60.0 * options.minutes, reserve)
    with _alone(out):
        if options.unpack is not None and not unpack(options.unpack, places):
            print(f"{options.unpack}: was unpacked before", file=sys.stderr)
        check_settings(plan, places)
        work = Work(plan, places, budget, options.workers, interruption.check)
        interrupted = ""
        try:
            work.run()
        except KeyboardInterrupt as stop:
            interrupted = str(stop) or "SIGINT"
            print(f"stopped by {interrupted}; the same command goes on", file=sys.stderr)
        remarks = [*work.remarks, *not_done(plan, places, work.missing())]
        print(write_report(plan, places, remarks), flush=True)
        print(f"{places.out / 'table.md'}\n{places.out / 'curves.png'}", file=sys.stderr)
        if options.pack is not None:
            print(pack(plan, places, options.pack, int(1e6 * options.pack_megabytes)).text(), file=sys.stderr)
    if interrupted:
        return 128 + signal.Signals[interrupted]
    return 1 if work.remarks else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it; returns the exit status: 1 where something failed, and 128 + its number for a signal."""
    began = time.monotonic()
    options = make_parser().parse_args(arguments)
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _work(options, began, interruption)
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return 128 + signal.Signals[str(stop) or "SIGINT"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
