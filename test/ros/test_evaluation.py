"""Episodes over ROS are the episodes of `rql evaluate`: same seeds, same paths, same successes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rql_core.contract import Contract
from rql_core.demo.processes import ProcessError, ProcessGroup, node_command
from rql_core.evaluation.results import read_evaluation
from rql_core.evaluation.rollout import contract_session, evaluate
from rql_core.runtime.policy import DeployedPolicy
from rql_core.sim.actor import DemonstratorActor

EPISODES = 5


@pytest.mark.parametrize(
    ("controller", "replan_every", "backend"), [("policy", 0, "onnx"), ("policy", 2, "torch"), ("demonstrator", 0, "")]
)
def test_over_ros_in_lockstep_it_is_the_same_as_in_process(
    group: ProcessGroup,
    contract_path: Path,
    contract: Contract,
    checkpoint: Path,
    tmp_path: Path,
    controller: str,
    replan_every: int,
    backend: Any,
) -> None:
    output = tmp_path / "evaluation.json"
    common = {"contract": contract_path}
    group.start(
        "bridge",
        node_command(
            "mujoco_bridge_node",
            **common,
            world="planar_arm",
            mode="lockstep",
            paused=True,
            execute_steps=replan_every,
        ),
    )
    if controller == "policy":
        node = node_command(
            "policy_node",
            name=controller,
            checkpoint=checkpoint,
            lockstep=True,
            mode="receding" if replan_every else "open_loop",
            replan_every=replan_every,
            backend=backend,
        )
        actor = DeployedPolicy.load(checkpoint, backend=backend, threads=1)
    else:
        node = node_command("demonstrator_node", name=controller, **common, world="planar_arm")
        actor = DemonstratorActor("planar_arm", contract)
    group.start("controller", node)
    group.start(
        "evaluator",
        node_command("evaluator_node", **common, controller=controller, output=output, episodes=EPISODES, first_seed=7),
    )
    group.wait("evaluator")
    over_ros = read_evaluation(output)
    session = contract_session(contract, "planar_arm", execute_steps=replan_every)
    in_process = evaluate(
        session,
        actor,
        range(7, 7 + EPISODES),
        controller=controller,
        replan_every=replan_every,
        feature="tool_position",
    )
    assert over_ros.records == in_process.records
    assert all(len(record.path) == record.steps + 1 for record in over_ros.records)
    # Episodes with different seeds differ, so equal records say something.
    assert len({tuple(map(tuple, record.path)) for record in over_ros.records}) == EPISODES


def test_without_a_controller_it_ends_in_one_line_and_writes_nothing(
    group: ProcessGroup, contract_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "evaluation.json"
    bridge = node_command(
        "mujoco_bridge_node", contract=contract_path, world="planar_arm", mode="lockstep", paused=True
    )
    group.start("bridge", bridge)
    group.start(
        "evaluator", node_command("evaluator_node", contract=contract_path, output=output, episodes=1, timeout=10.0)
    )
    with pytest.raises(Exception, match="evaluator ended with status 1: error: service policy_node/"):
        group.wait("evaluator")
    assert not output.exists()


def test_an_episode_that_the_evaluator_did_not_hear_all_of_is_an_error(
    group: ProcessGroup, contract_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "evaluation.json"
    common: dict[str, object] = {"contract": contract_path}
    bridge = node_command("mujoco_bridge_node", **common, world="planar_arm", mode="lockstep", paused=True)
    group.start("bridge", bridge)
    group.start("controller", node_command("demonstrator_node", name="expert", **common, world="planar_arm"))
    evaluator = node_command("evaluator_node", **common, controller="expert", output=output, episodes=1, timeout=15.0)
    group.start("evaluator", [*evaluator, "-r", "/tool_pose:=/nowhere"])
    with pytest.raises(ProcessError, match=r"has \d+ steps, but 0 observations were heard"):
        group.wait("evaluator")
    assert not output.exists()
