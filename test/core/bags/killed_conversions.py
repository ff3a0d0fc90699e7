"""Converts in child processes that are killed, then again undisturbed; prints what came of each as a line of JSON.

Run as a process of its own, because children are forked from it: they need not import everything again, and nothing
here has threads that a fork would lose.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rql_core.bags import convert
from rql_core.data.minari_io import read_metadata


def forked(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Do the work in a child, killed after so many seconds if it still lives; returns what `wait` says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(path: Path) -> str | None:
    """The hash of the dataset there, None where there is none."""
    return str(read_metadata(path)["content_sha256"]) if path.exists() else None


def left(output: Path) -> dict[str, Any]:
    """What a killed conversion left behind."""
    manifest = output.parent / f".{output.name}.parts" / "manifest.json"
    return {
        "content": content(output),
        "parts": len(json.loads(manifest.read_text())) if manifest.exists() else 0,
        "old": (output.parent / f".{output.name}.old").exists(),
    }


def say(facts: dict[str, Any]) -> None:
    """One line for the test that reads this."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def at_random_moments(work: Callable[[], None], output: Path, times: int, reset: Callable[[], None]) -> None:
    """Kill at a random moment of each of `times` equal pieces of the time that the work takes, one piece as any other.

    Where the work was over before, it takes less: when it was first done the machine had something else to do.
    """
    rng = random.Random(0)
    start = time.monotonic()
    assert forked(work) == 0
    whole = time.monotonic() - start
    for piece in rng.sample(range(times), times):
        reset()
        moment = (piece + rng.random()) / times * whole
        killed = forked(work, moment)
        if killed == 0:
            whole = moment
        state = left(output)
        again = forked(work)
        say({"killed": killed, **state, "again": again, "final": content(output)})


def before_every_change(work: Callable[[], None], output: Path, reset: Callable[[], None]) -> None:
    """Kill before the first renaming or removal of a file or directory, before the second, and so on to the last."""
    for nth in range(10**6):
        reset()

        def dying(nth: int = nth) -> None:
            calls = 0

            def counted(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **options: Any) -> Any:
                    nonlocal calls
                    if calls == nth:
                        os.kill(os.getpid(), signal.SIGKILL)
                    calls += 1
                    return original(*arguments, **options)

                return call

            for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")):
                setattr(owner, name, counted(getattr(owner, name)))
            shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]
            work()

        killed = forked(dying)
        state = left(output)
        again = forked(work)
        say({"killed": killed, **state, "again": again, "final": content(output)})
        if killed == 0:
            return


def main() -> None:
    bags, contract, output, old, how = map(Path, sys.argv[1:])

    def work() -> None:
        convert(bags, contract, output, progress=False, overwrite=old.name != "none")

    def reset() -> None:
        shutil.rmtree(output, ignore_errors=True)
        if old.name != "none":
            shutil.copytree(old, output)

    # Once in this process, so that the children have all imports and message types from it.
    convert(bags, contract, output.parent / "warm-v0", progress=False)
    shutil.rmtree(output.parent / "warm-v0")
    reset()
    if how.name == "random":
        at_random_moments(work, output, 20, reset)
    else:
        before_every_change(work, output, reset)


if __name__ == "__main__":
    main()
