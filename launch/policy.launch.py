"""Run a checkpoint on a robot: ros2 launch rql_ros policy.launch.py checkpoint:=DIR."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rql_ros.launching import argument, contract_path, ends_launch, given, parameters_file
from rql_ros.policy_choices import BACKENDS, MODES, OUTPUTS

# An argument that is not given is left to the parameters file, or else that could not say anything about it.
UNSET = ("",)
YES_OR_NO = ("true", "false")


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
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                **given(context, str, "backend", "device", "mode", "output"),
                **given(context, bool, "shadow", "on_trigger", "autostart"),
                **given(context, float, "run_limit"),
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
            argument("use_sim_time", "Take the time from /clock; true with a simulated robot.", "false", YES_OR_NO),
            argument("namespace", "Namespace of the node.", ""),
            argument(
                "params_file",
                "YAML file with the node's parameters, for all that is not given as an argument.",
                parameters_file("policy"),
            ),
            argument("backend", "What computes: onnx needs no torch.", "", UNSET + BACKENDS),
            argument("device", "Torch device of backend torch, such as cuda.", ""),
            argument("mode", "When to plan and how chunks join, see docs/chunks.md.", "", UNSET + MODES),
            argument("output", "Whole chunks, single commands on ~/command, or both.", "", UNSET + OUTPUTS),
            argument("shadow", "Publish nothing but a comparison with who commands now.", "", UNSET + YES_OR_NO),
            argument("on_trigger", "Command nothing but for a while after each call of ~/run.", "", UNSET + YES_OR_NO),
            argument("run_limit", "How long ~/run commands, in s.", ""),
            argument("autostart", "False: configure and activate by `ros2 lifecycle set`.", "", UNSET + YES_OR_NO),
            OpaqueFunction(function=nodes),
        ]
    )
