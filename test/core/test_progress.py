"""Progress bars, where processes are forked and killed."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, sys
from rql_core.progress import print_above, progress_bar

with progress_bar(total=3, desc="before") as bar:
    bar.update(3)
child = os.fork()
if child == 0:
    type(bar).get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
with progress_bar(total=3, desc="after") as bar:
    print_above("a line", sys.stderr)
    bar.update(3)
"""


def test_a_process_that_is_killed_amid_its_bar_stops_no_other_one() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "before: 100%" in ran.stderr
    assert "a line\n" in ran.stderr
    assert "after: 100%" in ran.stderr
