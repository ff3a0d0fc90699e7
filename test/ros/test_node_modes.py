"""Every way of joining chunks in a running node with a trained policy, and a new checkpoint amid motion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arm import Arm
from console import Console

from rql_core.contract import Contract


@pytest.fixture(scope="module")
def node(
    contract: Contract, contract_path: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("node")
    # A policy of so few updates breaks limits at every step: here it is to be kept within them and to go on.
    own = folder / "robot.yaml"
    text = contract_path.read_text()
    assert text.count("violations: 40") == 1
    own.write_text(text.replace("violations: 40", "violations: null"))
    with Arm(contract) as arm, Console(arm, folder / "log", checkpoint=checkpoint, contract=own) as node:
        node.wait_for_state("active")
        arm.start_moving()
        yield node


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("open_loop", {}),
        ("receding", {"replan_every": 1}),
        ("ensemble", {}),
        ("rtc", {"guidance": "jacobian"}),
        ("rtc", {"guidance": "prefix"}),
    ],
    ids=["open_loop", "receding", "ensemble", "jacobian", "prefix"],
)
def test_in_every_mode_it_moves_within_the_limits_and_takes_a_new_checkpoint_in_motion(
    node: Console, mode: str, more: dict[str, object]
) -> None:
    arm = node.arm
    assert node.set(mode=mode, **{"replan_every": 0, **more}) == {}
    arm.move_steadily()
    arm.tick_for(30)
    before = len(arm.chunks)
    arm.listen_anew()
    answer = node.call("reload")
    assert answer.success, answer.message
    arm.tick_for(30)
    assert len(arm.chunks) > before + 4
    arm.go_on(lambda: arm.figure("seams") not in ("", "0"), "seams on /diagnostics")
    arm.go_on(lambda: "policy_errors" not in arm.last_words(), "a policy that does not fail")
    arm.go_on(lambda: int(arm.figure("rehearsals") or 0) > 0, "a rehearsal")
    assert arm.figure("last rehearsal that failed") == ""
    arm.executed.assert_safe()
