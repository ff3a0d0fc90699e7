"""The benchmark of the policy node, once round and short: it measures, and writes what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PATIENCE_S = 120.0


def test_it_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "node.json"
    options = ["--rates", "50", "--sizes", "4x256", "--rounds", "1", "--seconds", "0.5", "--no-pin"]
    options += ["--cold", "--network"]
    command = [sys.executable, "-m", "benchmarks.bench_node", *options, "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ran.returncode == 0, ran.stderr
    written = json.loads(out.read_text())
    assert set(written["added_p99_ms"]) == set(written["p50_ms"]) == {"4x256", "4x256 cold", "network 4x256"}
    subjects = written["rates"]["50"]["subjects"]
    assert set(subjects) == {"4x256", "4x256 cold", "network 4x256", "echo"}
    assert set(written["rss_mb_of"]) == {"4x256 at 50 Hz", "4x256 cold at 50 Hz"}
    assert all(summary["observations"] == 25 for summary in subjects.values())
    assert all(summary["lost"] < 25 for summary in subjects.values())
    assert written["start_s"] > 0
    assert written["rss_mb"] > 20
    assert "| 50 Hz | 4x256 |" in ran.stdout


def test_the_long_run_writes_what_it_measured_and_draws_it(tmp_path: Path) -> None:
    out = tmp_path / "endurance.json"
    command = [sys.executable, "-m", "benchmarks.node_endurance", "--minutes", "0.05", "--size", "4x256"]
    ran = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    # On a busy machine something may be late, which it says.
    assert ran.returncode in (0, 1), ran.stderr
    written = json.loads(out.read_text())
    assert written["observations"] == 150
    assert written["lost"] < 150
    assert written["machine"]["equal_work"]["p10_us"] > 0
    assert out.with_suffix(".png").stat().st_size > 1000
