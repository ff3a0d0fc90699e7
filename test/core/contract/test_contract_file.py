"""A contract file that is not understood completely is refused, with the key and what to do."""

from pathlib import Path

import pytest

from rql_core.contract import load_contract, parse_contract
from rql_core.contract.messages import topic_readers
from rql_core.errors import ContractError

CONTRACTS = sorted((Path(__file__).parents[3] / "config" / "contracts").glob("*.yaml"))
TEXT = """
schema: 1
name: arm
description: One joint, for tests.
rate: 20
clock: header
observation:
  max_wait: 0.02
  topics:
    - topic: /joint_states
      type: sensor_msgs/msg/JointState
      align: {method: hold, max_age: 0.1}
      features:
        - {name: q, unit: rad, fields: [position.elbow, velocity.elbow]}
action:
  topic: /command
  type: trajectory_msgs/msg/JointTrajectory
  command: velocities
  unit: rad/s
  hold: zero
  features:
    - {name: elbow, lower: -2.0, upper: 2.0}
reward:
  success: {rule: within, feature: q, target: [0.0, 0.0], tolerance: 0.1}
  at_success: 0.0
  otherwise: -1.0
episodes:
  boundary: {by: bag}
  min_steps: 2
  at_success: continue
"""


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_the_shipped_contracts_load(path: Path) -> None:
    contract = load_contract(path)
    assert contract.observation_dim == len(contract.observation_names)
    assert contract.action_dim == len(contract.action.names)


def test_the_vector_has_the_order_of_the_file() -> None:
    contract = parse_contract(TEXT)
    assert contract.observation_names == ("q.position.elbow", "q.velocity.elbow")
    assert contract.feature_slice("q") == slice(0, 2)
    assert contract.period_ns == 50_000_000


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rate: 20", "rate: 20\nspeed: 3", "unknown key 'speed'"),
        ("lower: -2.0", "lower: -2.0, lwer: 1", r"unknown key 'action\.features\.0\.lwer'"),
        ("rate: 20", "rate: 20\nrate: 30", "key 'rate' is there twice"),
        ("lower: -2.0", "lower: -2.0, lower: -1.0", "line 22: key 'lower' is there twice"),
        ("rate: 20", "", "key 'rate' is missing"),
        ("rate: 20", "rate: 0", "rate = '0'"),
        ("rate: 20", "rate: .nan", "rate = "),
        ("lower: -2.0", "lower: .nan", "elbow.lower is nan"),
        ("upper: 2.0", "upper: .inf", "elbow.upper is inf"),
        ("upper: 2.0", "upper: -3.0", r"limits \[-2.0, -3.0\], expected lower < upper"),
        ("lower: -2.0", "lower: 1.0", "leave zero out"),
        ("align: {method: hold, max_age: 0.1}", "", r"key 'observation\.topics\.0\.align' is missing"),
        ("method: hold, max_age: 0.1", "method: hold", r"max_age' is missing"),
        ("method: hold", "method: spline", "method"),
        ("position.elbow, velocity", "elbow, velocity", "expected a path into sensor_msgs/msg/JointState"),
        ("velocity.elbow", "position.elbow", "is listed 2 times"),
        ("feature: q", "feature: tool", "'tool' is no feature"),
        ("target: [0.0, 0.0]", "target: [0.0]", "has 1 values, expected 2"),
        ("topic: /command", "topic: /joint_states", "both observation and action"),
        ("sensor_msgs/msg/JointState", "std_msgs/msg/Float64", "expected a path|no header"),
        ("sensor_msgs/msg/JointState", "sensor_msgs/msg/Image", "images"),
        ("min_steps: 2", "min_steps: 0", "min_steps"),
        ("schema: 1", "schema: 2", "schema"),
        ("name: arm", "name: [arm", "not valid YAML"),
        ("name: arm", "? [a, b]\n: arm", "is no name"),
        ("name: arm", "name: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_wrong_contract_is_refused_in_one_line(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ContractError, match=words) as caught:
        parse_contract(TEXT.replace(old, new, 1), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_aliases_are_refused_before_they_can_multiply() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ContractError, match=r"line 2: aliases \(\*a\) are not accepted"):
        parse_contract(bomb)


def test_text_that_is_too_long_or_too_deep_is_refused() -> None:
    with pytest.raises(ContractError, match="expected at most"):
        parse_contract("#" * 1_000_001)
    with pytest.raises(ContractError, match=r"nested too deeply|not valid YAML"):
        parse_contract("[" * 20_000)
    with pytest.raises(ContractError, match="expected a mapping"):
        parse_contract("just words")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"absent\.yaml: cannot be read"):
        load_contract(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ContractError, match="not UTF-8"):
        load_contract(tmp_path / "latin.yaml")


@pytest.mark.parametrize(("command", "hold"), [("positions", "zero"), ("velocities", "last"), ("effort", "last")])
def test_a_safe_command_that_would_go_on_moving_is_refused(contract_text: str, command: str, hold: str) -> None:
    text = contract_text.replace("command: velocities", f"command: {command}").replace("hold: zero", f"hold: {hold}")
    with pytest.raises(ContractError, match=f"hold is '{hold}' with command '{command}', which would go on moving"):
        parse_contract(text)


def test_a_type_without_a_header_is_refused_when_the_header_clock_needs_one(contract_text: str) -> None:
    text = contract_text.replace("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/Pose").replace(
        "pose.position", "position"
    )
    reader = topic_readers(parse_contract(text))["/tool_pose"]
    with pytest.raises(ContractError, match=r"/tool_pose: geometry_msgs/msg/Pose has no header"):
        reader.stamp(object(), 1)
