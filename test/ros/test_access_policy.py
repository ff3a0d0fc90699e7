"""The SROS2 policy grants what the running node has in the ROS graph, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from rql_core.contract import Contract, load_contract
from rql_ros.access_policy import Access, access, main, policy_xml
from rql_ros.policy_node import PolicyNode

CONFIG = Path(__file__).resolve().parents[2] / "config"
PATIENCE_S = 20.0
_numbers = count()


@pytest.fixture
def make(checkpoint: Path) -> Iterator[Callable[..., PolicyNode]]:
    """Makes an active node in this process, with parameters."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes: list[PolicyNode] = []

    def start(**parameters: Any) -> PolicyNode:
        values = {"checkpoint": str(checkpoint), "autostart": False, **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        # A namespace of its own: nodes of tests before stay in the graph for a while.
        namespace = f"/robot_{next(_numbers)}"
        node = PolicyNode(context=context, namespace=namespace, parameter_overrides=overrides)
        nodes.append(node)
        node.trigger_configure()
        node.trigger_activate()
        return node

    yield start
    for node in nodes:
        node.trigger_shutdown()
        node.destroy_node()
    rclpy.shutdown(context=context)


def in_the_graph(node: PolicyNode) -> Access:
    """What the node has, by the graph; its own names with ~/."""
    name, namespace = node.get_name(), node.get_namespace()
    own = node.get_fully_qualified_name()

    def names(found: list[tuple[str, list[str]]]) -> frozenset[str]:
        return frozenset(f"~{topic.removeprefix(own)}" if topic.startswith(f"{own}/") else topic for topic, _ in found)

    assert node.get_client_names_and_types_by_node(name, namespace) == []
    return Access(
        names(node.get_publisher_names_and_types_by_node(name, namespace)),
        names(node.get_subscriber_names_and_types_by_node(name, namespace)),
        names(node.get_service_names_and_types_by_node(name, namespace)),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"output": "both", "use_sim_time": True},
        {"output": "command"},
        {"shadow": True},
    ],
    ids=lambda parameters: ",".join(parameters) or "defaults",
)
def test_a_node_has_exactly_what_its_policy_grants(
    make: Callable[..., PolicyNode], contract: Contract, parameters: dict[str, Any]
) -> None:
    wanted = access(contract, **parameters)
    node = make(**parameters)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline = monotonic() + PATIENCE_S
    while in_the_graph(node) != wanted and monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)  # the graph hears of the node's own topics after a moment
    executor.shutdown()
    assert in_the_graph(node) == wanted


def granted(text: str) -> tuple[dict[str, str], Access]:
    """Enclave, namespace and node of a policy file with one profile, and what it grants."""
    policy = ElementTree.fromstring(text)
    enclave, profile = policy.find("enclaves/enclave"), policy.find("enclaves/enclave/profiles/profile")
    assert enclave is not None
    assert profile is not None
    assert {value for element in profile for value in element.attrib.values()} == {"ALLOW"}

    def names(kind: str, rule: str) -> frozenset[str]:
        return frozenset(str(element.text) for element in profile.findall(f"{kind}s[@{rule}='ALLOW']/{kind}"))

    about = {"path": enclave.attrib["path"], **profile.attrib}
    return about, Access(names("topic", "publish"), names("topic", "subscribe"), names("service", "reply"))


@pytest.mark.parametrize(("name", "shadow"), [("policy_node", False), ("policy_node_shadow", True)])
def test_the_shipped_files_are_what_is_generated_for_the_shipped_contract(name: str, shadow: bool) -> None:
    text = (CONFIG / "security" / f"{name}.policy.xml").read_text()
    wanted = access(load_contract(CONFIG / "contracts" / "ur5e.yaml"), shadow=shadow)
    assert text == policy_xml(wanted, enclave="/policy_node")
    about, found = granted(text)
    assert about == {"path": "/policy_node", "ns": "/", "node": "policy_node"}
    assert found == wanted


def test_a_shadow_may_not_command(contract: Contract) -> None:
    wanted = access(contract, shadow=True, output="both")
    assert not wanted.publish & {contract.action.topic, "~/command"}


def test_the_command_takes_a_contract_and_a_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["planar_arm", "--namespace", "/left", "--use-sim-time"]) == 0
    about, found = granted(capsys.readouterr().out)
    assert about == {"path": "/left/policy_node", "ns": "/left", "node": "policy_node"}
    assert "/clock" in found.subscribe


def test_a_contract_that_is_not_there_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: 'nowhere' is no file")
