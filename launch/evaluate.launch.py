"""Evaluate a checkpoint over ROS in the MuJoCo bridge: ros2 launch rql_ros evaluate.launch.py checkpoint:=DIR."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rql_ros.launching import argument, contract_path, ends_launch


def nodes(context: LaunchContext) -> list:
    """Bridge in lockstep, policy node and evaluator; the launch ends when the evaluator is done."""
    contract = {"contract": ParameterValue(contract_path(context), value_type=str)}
    replan_every = ParameterValue(LaunchConfiguration("replan_every"), value_type=int)
    common = {"package": "rql_ros", "output": "screen", "emulate_tty": True}
    bridge = Node(
        executable="mujoco_bridge_node",
        name="mujoco_bridge",
        parameters=[
            {
                **contract,
                "world": ParameterValue(LaunchConfiguration("world"), value_type=str),
                "mode": "lockstep",
                "paused": True,
                "execute_steps": replan_every,
            }
        ],
        on_exit=ends_launch(),
        **common,
    )
    policy = Node(
        executable="policy_node",
        name="policy_node",
        parameters=[
            {
                **contract,
                "checkpoint": ParameterValue(LaunchConfiguration("checkpoint"), value_type=str),
                "replan_every": replan_every,
                "lockstep": True,
                "use_sim_time": True,
            }
        ],
        on_exit=ends_launch(),
        **common,
    )
    evaluator = Node(
        executable="evaluator_node",
        name="evaluator",
        parameters=[
            {
                **contract,
                "output": ParameterValue(LaunchConfiguration("output"), value_type=str),
                "episodes": ParameterValue(LaunchConfiguration("episodes"), value_type=int),
                "first_seed": ParameterValue(LaunchConfiguration("first_seed"), value_type=int),
            }
        ],
        on_exit=ends_launch(may_end=True),
        **common,
    )
    return [bridge, policy, evaluator]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            argument("checkpoint", "Checkpoint directory, such as runs/rql/checkpoint."),
            argument("world", "Simulated world.", "ur5e_ring", ["ur5e_ring", "planar_arm"]),
            argument("contract", "Contract, file or name (ur5e, planar_arm); must fit world and checkpoint.", "ur5e"),
            argument("episodes", "Number of episodes.", "50"),
            argument("first_seed", "Seed of the first episode; then counted up.", "0"),
            argument("replan_every", "Steps between plans; 0: the whole chunk.", "0"),
            argument("output", "JSON file for the results.", "evaluation.json"),
            OpaqueFunction(function=nodes),
        ]
    )
