"""The whole path on the planar arm, with a process killed in every stage: it ends well, and the policy is better.

This is the closed loop at the scale of a test run: recorded over ROS, converted, trained, evaluated over ROS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

PATIENCE_S = 300.0


def start_demo(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rql_core.cli", "demo", "--robot", "planar_arm", "--out", str(out)]
    return subprocess.Popen(command, stdout=(out.parent / "demo.log").open("ab"), stderr=subprocess.STDOUT)


def child_with(parent: int, word: str) -> int | None:
    """Process id of a descendant of `parent` whose command line has `word`."""
    children: dict[int, list[int]] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            lines[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended while we looked
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    queue = [parent]
    while queue:
        for child in children.get(queue.pop(), []):
            if word in lines.get(child, ""):
                return child
            queue.append(child)
    return None


def wait_for(done, what: str, process: subprocess.Popen[bytes], log: Path):
    """What `done()` gives as soon as it is something; fails when it does not come or the process ends first."""
    deadline = monotonic() + PATIENCE_S
    while True:
        ended = process.poll() is not None
        value = done()
        if value:
            return value
        assert not ended, f"the demo ended before {what}:\n{log.read_text()[-2000:]}"
        assert monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
        sleep(0.02)


@pytest.mark.slow
def test_killed_in_every_stage_and_started_again_it_ends_with_a_policy_better_than_its_data(tmp_path: Path) -> None:
    out, log = tmp_path / "demo", tmp_path / "demo.log"
    kills = [
        ("recorder_node", lambda: any((out / "bags.partial").glob("*/*.mcap"))),
        ("rql_core.cli convert", lambda: (out / "stages" / "record.json").exists()),
        ("rql_core.cli train", lambda: (out / "runs" / "rql" / "checkpoint").exists()),
        ("policy_node", lambda: (out / "evaluations" / "rql.json").exists() or (out / "logs" / "rql").exists()),
    ]
    for word, reached in kills:
        process = start_demo(out)
        wait_for(reached, f"the time to kill {word}", process, log)
        victim = wait_for(lambda process=process, word=word: child_with(process.pid, word), word, process, log)
        os.kill(victim, signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1, log.read_text()[-2000:]
        last = log.read_text().strip().splitlines()[-1]
        assert "error: " in last  # perhaps behind the progress bar of the process that was killed
        assert "Traceback" not in log.read_text()
    # And the demonstration itself, in the middle of whatever it does.
    process = start_demo(out)
    wait_for(lambda: child_with(process.pid, "evaluator_node"), "an evaluation", process, log)
    process.kill()
    process.wait()

    process = start_demo(out)
    assert process.wait(PATIENCE_S) == 0, log.read_text()[-2000:]
    result = json.loads((out / "result.json").read_text())
    assert result["rql"]["success"] >= 0.8
    assert result["bc_flow"]["success"] <= 0.5
    assert result["rql"]["episodes"] == result["bc_flow"]["episodes"] == result["demonstrator"]["episodes"]
    assert result["rql"]["low"] <= result["rql"]["success"] <= result["rql"]["high"]
    assert sum(bag["steps"] for bag in result["bags"]) == result["steps"] >= 19_900
    page = (out / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == 2
    # A third time there is nothing to do.
    process = start_demo(out)
    assert process.wait(PATIENCE_S) == 0
    assert log.read_text().count("done already") >= 5
