"""Run a checkpoint on a robot: ros2 launch rql_ros policy.launch.py checkpoint:=DIR."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rql_ros.launching import argument, contract_path, ends_launch, parameters_file


def nodes(context: LaunchContext) -> list:
    """The policy node."""
    policy = Node(
        package="rql_ros",
        executable="policy_node",
        name="policy_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        emulate_tty=True,
        on_exit=ends_launch(),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "checkpoint": ParameterValue(LaunchConfiguration("checkpoint"), value_type=str),
                "contract": ParameterValue(contract_path(context), value_type=str),
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
    )
    return [policy]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            argument("checkpoint", "Checkpoint directory, such as runs/rql/checkpoint."),
            argument(
                "contract", "Contract of this robot, file or name, which the checkpoint must fit; empty: its own.", ""
            ),
            argument("autostart", "Configure and activate at start; false: use `ros2 lifecycle set`.", "true"),
            argument("use_sim_time", "Take the time from /clock; true with a simulated robot.", "false"),
            argument("namespace", "Namespace of the node.", ""),
            argument("params_file", "YAML file with the node's parameters.", parameters_file("policy")),
            OpaqueFunction(function=nodes),
        ]
    )
