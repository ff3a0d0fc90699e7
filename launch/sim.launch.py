"""A simulated robot behind the topics of a real one: ros2 launch rql_ros sim.launch.py world:=ur5e_ring."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rql_ros.launching import argument, contract_path, ends_launch, parameters_file


def nodes(context: LaunchContext) -> list:
    """The MuJoCo bridge, and the demonstrator where it was asked for."""
    values = {name: LaunchConfiguration(name) for name in ("world", "mode", "factor", "auto_reset", "seed")}
    bridge = Node(
        package="rql_ros",
        executable="mujoco_bridge_node",
        name="mujoco_bridge",
        output="screen",
        emulate_tty=True,
        on_exit=ends_launch(),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "contract": ParameterValue(contract_path(context), value_type=str),
                "world": ParameterValue(values["world"], value_type=str),
                "mode": ParameterValue(values["mode"], value_type=str),
                "factor": ParameterValue(values["factor"], value_type=float),
                "auto_reset": ParameterValue(values["auto_reset"], value_type=bool),
                "seed": ParameterValue(values["seed"], value_type=int),
            },
        ],
    )
    started = [bridge]
    if LaunchConfiguration("demonstrator").perform(context).lower() == "true":
        started.append(
            Node(
                package="rql_ros",
                executable="demonstrator_node",
                name="demonstrator",
                output="screen",
                emulate_tty=True,
                on_exit=ends_launch(),
                parameters=[
                    {
                        "contract": ParameterValue(contract_path(context), value_type=str),
                        "world": ParameterValue(values["world"], value_type=str),
                        "seed": ParameterValue(values["seed"], value_type=int),
                        "use_sim_time": True,
                    }
                ],
            )
        )
    return started


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            argument("world", "Simulated world.", "ur5e_ring", ["ur5e_ring", "planar_arm"]),
            argument("contract", "Contract, file or name (ur5e, planar_arm); must fit the world.", "ur5e"),
            argument(
                "mode",
                "realtime: paced by the clock; lockstep: physics waits for each action.",
                "realtime",
                ["realtime", "lockstep"],
            ),
            argument("factor", "Speed in realtime mode; 1 is real time.", "1.0"),
            argument("auto_reset", "Start the next episode when one ends.", "true"),
            argument("seed", "Seed of the first episode; -1: none.", "-1"),
            argument("demonstrator", "Also start the scripted demonstrator.", "false", ["true", "false"]),
            argument("params_file", "YAML file with the bridge's parameters.", parameters_file("mujoco_bridge")),
            OpaqueFunction(function=nodes),
        ]
    )
