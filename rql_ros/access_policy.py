"""What the policy node needs of ROS, as an SROS2 access policy: these topics and services, and nothing else.

`python -m rql_ros.access_policy CONTRACT > policy.xml`; docs/security_sros2.md says what to do with it. Needs no ROS.
Pinned by test/ros/test_access_policy.py, which compares it with the graph of running nodes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from xml.etree import ElementTree

from rql_core.contract import Contract, load_contract
from rql_core.errors import RqlError
from rql_core.resources import config_file
from rql_ros.policy_choices import OUTPUTS

# Of the SROS2 schema.
VERSION = "0.2.0"
# What every lifecycle node of rclpy has, and what the policy node adds.
_PUBLISHED = ("/rosout", "/parameter_events", "~/transition_event", "/diagnostics", "~/status", "~/value")
_LIFECYCLE = ("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph")
_PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
)
_OWN = ("reset", "run", "estop", "rearm", "reload")


@dataclass(frozen=True)
class Access:
    """Names as they stand in the file: absolute, or in the node with ~/."""

    publish: frozenset[str]
    subscribe: frozenset[str]
    reply: frozenset[str]


def access(contract: Contract, *, output: str = "chunk", shadow: bool = False, use_sim_time: bool = False) -> Access:
    """What a node with these parameters needs. In shadow it may not publish a command, whatever it would like to."""
    publish = {*_PUBLISHED, "~/comparison"}
    subscribe = {topic.topic for topic in contract.observation.topics}
    if shadow:
        subscribe.add(contract.action.topic)
    else:
        publish |= {contract.action.topic} if output in ("chunk", "both") else set()
        publish |= {"~/command"} if output in ("command", "both") else set()
    if use_sim_time:
        subscribe.add("/clock")
    reply = {f"~/{name}" for name in (*_LIFECYCLE, *_PARAMETERS, *_OWN)}
    return Access(frozenset(publish), frozenset(subscribe), frozenset(reply))


def policy_xml(wanted: Access, *, enclave: str, namespace: str = "/", node: str = "policy_node") -> str:
    """The policy file for one node in one enclave."""
    policy = ElementTree.Element("policy", version=VERSION)
    inside = ElementTree.SubElement(ElementTree.SubElement(policy, "enclaves"), "enclave", path=enclave)
    profile = ElementTree.SubElement(ElementTree.SubElement(inside, "profiles"), "profile", node=node, ns=namespace)
    for kind, rule, names in (
        ("service", "reply", wanted.reply),
        ("topic", "publish", wanted.publish),
        ("topic", "subscribe", wanted.subscribe),
    ):
        expressions = ElementTree.SubElement(profile, f"{kind}s", {rule: "ALLOW"})
        for name in sorted(names):
            ElementTree.SubElement(expressions, kind).text = name
    ElementTree.indent(policy)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(policy, encoding="unicode")}\n'


def main(arguments: list[str] | None = None) -> int:
    """Print the policy file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rql_ros.access_policy", description=__doc__.split("\n\n")[0])
    parser.add_argument("contract", help="contract of the robot, file or name")
    parser.add_argument("--output", choices=OUTPUTS, default="chunk", help="the node's parameter output")
    parser.add_argument("--shadow", action="store_true", help="the node's parameter shadow")
    parser.add_argument("--use-sim-time", action="store_true", help="the node's parameter use_sim_time")
    parser.add_argument("--namespace", default="/", help="namespace of the node, such as /left")
    parser.add_argument("--enclave", help="enclave of the node; default: its full name")
    given = parser.parse_args(arguments)
    try:
        contract = load_contract(config_file("contracts", given.contract))
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    wanted = access(contract, output=given.output, shadow=given.shadow, use_sim_time=given.use_sim_time)
    enclave = given.enclave or f"{given.namespace.rstrip('/')}/policy_node"
    print(policy_xml(wanted, enclave=enclave, namespace=given.namespace), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
