"""The parameters of the policy node: what the shipped file says of them, and what is refused while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import rclpy
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter

from rql_core.contract.schema import Contract
from rql_core.errors import ConfigError
from rql_core.runtime.options import Interpolation, Monitoring
from rql_core.runtime.policy import Backend
from rql_core.runtime.schedule import Mode
from rql_ros import policy_choices
from rql_ros.parameters import require_contract
from rql_ros.policy_node import PolicyNode

CONFIG = Path(__file__).resolve().parents[2] / "config" / "policy.yaml"
# rclpy's own, what says which policy to run, and what the launch file says.
ELSEWHERE = {"use_sim_time", "start_type_description_service", "checkpoint", "contract"}


@pytest.fixture(scope="module")
def node(checkpoint: Path) -> Iterator[PolicyNode]:
    """A configured node in this process."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = PolicyNode(
        context=context,
        parameter_overrides=[
            Parameter("checkpoint", value=str(checkpoint)),
            Parameter("autostart", value=False),
        ],
    )
    node.trigger_configure()
    yield node
    node.trigger_cleanup()
    node.destroy_node()
    rclpy.shutdown(context=context)


def shipped() -> dict[str, Any]:
    """The parameters in the shipped file."""
    return yaml.safe_load(CONFIG.read_text())["/**"]["policy_node"]["ros__parameters"]


def test_the_shipped_file_has_every_parameter_with_its_default(node: PolicyNode) -> None:
    declared = {name: parameter.value for name, parameter in node._parameters.items() if name not in ELSEWHERE}
    assert shipped() == declared | {"autostart": True}


def test_the_shipped_file_marks_what_can_be_set_while_the_node_runs(node: PolicyNode) -> None:
    marked = {line.split(":")[0].strip() for line in CONFIG.read_text().splitlines() if "# * " in line}
    live = {name for name in shipped() if not node.describe_parameter(name).read_only}
    assert marked == live


def test_every_parameter_is_described_and_bounded_where_it_is_a_number(node: PolicyNode) -> None:
    for name in shipped():
        descriptor = node.describe_parameter(name)
        assert len(descriptor.description) > 10, name
        if isinstance(shipped()[name], (int, float)) and not isinstance(shipped()[name], bool):
            assert descriptor.integer_range or descriptor.floating_point_range, name


def test_the_words_to_choose_from_are_those_that_the_core_knows() -> None:
    assert set(policy_choices.MODES) == set(get_args(Mode))
    assert set(policy_choices.MONITORS) == set(get_args(Monitoring))
    assert set(policy_choices.BACKENDS) == set(get_args(Backend))
    assert set(policy_choices.INTERPOLATIONS) == {"auto", *get_args(Interpolation)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mode", "fast", "expected one of open_loop, receding, ensemble, rtc"),
        ("replan_every", 9, "replan_every"),
        ("replan_every", -1, "replan_every"),
        ("samples", 5000, "samples"),
        ("rho", float("nan"), "rho"),
        ("run_limit", 0.0, "run_limit"),
        ("run_limit", float("nan"), "run_limit"),
        ("mode", 3, "Wrong parameter type"),
        ("backend", "torch", "read-only"),
        ("seed", -2, "seed"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(node: PolicyNode, name: str, value: Any, said: str) -> None:
    before = node.get_parameter(name).value
    answer = node.set_parameters([Parameter(name, value=value)])[0]
    assert not answer.successful
    assert said in answer.reason
    assert node.get_parameter(name).value == before


def test_a_contract_is_a_file_or_a_name(contract: Contract, contract_path: Path) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    for at, given in enumerate((str(contract_path), "planar_arm", "planar_leg")):
        node = Node(f"reader_{at}", context=context, parameter_overrides=[Parameter("contract", value=given)])
        if given == "planar_leg":
            with pytest.raises(ConfigError, match=r"'planar_leg' is no file .* planar_arm, ur5e"):
                require_contract(node)
        else:
            assert require_contract(node) == contract
        node.destroy_node()
    rclpy.shutdown(context=context)
