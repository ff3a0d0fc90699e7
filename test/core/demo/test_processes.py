"""Nodes as processes: who fails is named, nobody is left behind, and a killed parent takes its children along."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rql_core.demo import processes
from rql_core.demo.processes import ProcessError, ProcessGroup, node_command, ros_environment

SLEEP = [sys.executable, "-c", "import time; print('sleeping', flush=True); time.sleep(600)"]
# Ends well when it is asked to, after it has said that it listens.
POLITE = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(CODE))
print('ready', flush=True)
signal.pause()
"""
needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open (Linux)")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for_output(group: ProcessGroup, logs: Path, name: str) -> None:
    """Until the process has written its first line; it is alive as long as wait() has nothing to complain of."""
    while not (logs / f"{name}.log").read_text():
        assert group._processes[name].poll() is None, "ended before it said a word"


def gone(pid: int) -> bool:
    """Wait until a process that need not be our child has ended; False after ten seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10.0)[0])
    finally:
        os.close(descriptor)


# Command lines


def test_node_command_writes_parameters_as_ros_takes_them() -> None:
    command = node_command(
        "policy_node",
        name="rql",
        checkpoint=Path("runs/rql"),
        lockstep=True,
        paused=False,
        seed=3,
        factor=1.5,
        world="a",
    )
    assert command == [
        sys.executable, "-m", "rql_ros.policy_node", "--ros-args", "-r", "__node:=rql",
        "-p", "checkpoint:=runs/rql", "-p", "lockstep:=true", "-p", "paused:=false", "-p", "seed:=3",
        "-p", "factor:=1.5", "-p", "world:=a",
    ]  # fmt: skip
    assert node_command("bridge") == [sys.executable, "-m", "rql_ros.bridge", "--ros-args"]


def test_nodes_talk_on_this_machine_only_in_a_domain_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environment = ros_environment()
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 100
    assert environment["ROS_DOMAIN_ID"] == ros_environment()["ROS_DOMAIN_ID"]
    paths = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(paths[0]) / "rql_core" / "demo").is_dir()
    assert paths[1:] == ["/somewhere"]
    assert os.environ["ROS_DOMAIN_ID"] == "0"  # our own is as it was


# Waiting


def test_wait_returns_when_the_named_process_ends_well(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("other", SLEEP)
        group.start("main", python("print('done')"))
        group.wait("main")
        assert group._processes["other"].poll() is None
    assert (tmp_path / "main.log").read_text() == "done\n"


@pytest.mark.parametrize("failing", ["main", "other"])
def test_a_process_that_dies_makes_wait_raise_with_name_status_and_the_last_error_line(
    tmp_path: Path, failing: str
) -> None:
    died = python("import sys; print('[ERROR] first'); print('[FATAL] no checkpoint'); print('bye'); sys.exit(3)")
    with ProcessGroup(tmp_path) as group:
        for name in ("main", "other"):
            group.start(name, died if name == failing else SLEEP)
        with pytest.raises(ProcessError) as error:
            group.wait("main")
    message = str(error.value)
    assert message == f"{failing} ended with status 3: [FATAL] no checkpoint (log: {tmp_path / failing}.log)"


def test_a_companion_that_ends_early_is_an_error_even_if_it_ends_well(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("main", SLEEP)
        group.start("other", python("print('I thought we were done')"))
        with pytest.raises(ProcessError, match="other ended with status 0: I thought we were done"):
            group.wait("main")


def test_a_traceback_and_a_signal_are_reported_too(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("raises", python("raise ValueError('seven is too many')"))
        with pytest.raises(ProcessError, match="raises ended with status 1: ValueError: seven is too many"):
            group.wait("raises")
    with ProcessGroup(tmp_path) as group:
        group.start("killed", python("import os; os.kill(os.getpid(), 9)"))
        with pytest.raises(ProcessError, match="killed ended with status -9: no output"):
            group.wait("killed")


# Ending


@pytest.mark.parametrize("code", [0, 4])
def test_stop_asks_a_process_to_end_and_says_when_it_does_not_end_well(tmp_path: Path, code: int) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("polite", python(POLITE.replace("CODE", str(code))))
        wait_for_output(group, tmp_path, "polite")
        if code == 0:
            group.stop("polite")
        else:
            with pytest.raises(ProcessError, match="polite ended with status 4: ready"):
                group.stop("polite")


def test_stop_of_one_that_has_died_before_is_an_error(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("recorder", python("import sys; sys.exit('error: disk full')"))
        group._processes["recorder"].wait()
        with pytest.raises(ProcessError, match="recorder ended with status 1: error: disk full"):
            group.stop("recorder")


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_STOP_S", 0.05)
    deaf = python("import signal; signal.signal(2, signal.SIG_IGN); print('deaf', flush=True); signal.pause()")
    with ProcessGroup(tmp_path) as group:
        for name in ("stopped", "left"):
            group.start(name, deaf)
            wait_for_output(group, tmp_path, name)
        left = group._processes["left"]
        with pytest.raises(ProcessError, match="stopped ended with status -9"):
            group.stop("stopped")
    assert left.returncode == -signal.SIGKILL


@pytest.fixture(params=[False, True], ids=["", "in the background"])
def in_the_background(request: pytest.FixtureRequest) -> Iterator[None]:
    """As a shell starts a command that ends in `&`: with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if request.param else signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_background")
@pytest.mark.parametrize("fails", [False, True])
def test_children_are_gone_after_the_group_is_left(tmp_path: Path, fails: bool) -> None:
    children = []
    with suppress(ZeroDivisionError), ProcessGroup(tmp_path) as group:
        for name in ("a", "b"):
            group.start(name, SLEEP)
            wait_for_output(group, tmp_path, name)
        children = list(group._processes.values())
        assert 1 / (not fails)
    # Asked, not killed: a recorder must be able to close its bag.
    assert [child.returncode for child in children] == [-signal.SIGINT] * 2


@needs_pidfd
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel call is Linux's")
def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    parent_code = f"""
import sys
from pathlib import Path
from rql_core.demo.processes import ProcessGroup
group = ProcessGroup(Path({str(tmp_path)!r}))
group.start("child", {SLEEP!r})
print(group._processes["child"].pid, flush=True)
group.wait("child")
"""
    parent = subprocess.Popen(python(parent_code), stdout=subprocess.PIPE, env=ros_environment())
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = int(parent.stdout.readline())
        os.kill(child, 0)  # it is there
        parent.kill()
        assert parent.wait() == -signal.SIGKILL
    if not gone(child):
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child was still there ten seconds after its parent was killed")
