"""Record the topics of a contract as rosbag2: ros2 launch rql_ros record.launch.py contract:=ur5e output:=bags."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rql_ros.launching import argument, contract_path, ends_launch


def nodes(context: LaunchContext) -> list:
    """The recorder node."""
    text = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in ("output", "prefix", "storage")}
    recorder = Node(
        package="rql_ros",
        executable="recorder_node",
        name="recorder",
        output="screen",
        emulate_tty=True,
        on_exit=ends_launch(),
        parameters=[
            {
                **text,
                "contract": ParameterValue(contract_path(context), value_type=str),
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
                "episodes_per_bag": ParameterValue(LaunchConfiguration("episodes_per_bag"), value_type=int),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            }
        ],
    )
    return [recorder]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            argument("contract", "Contract, file or name: its topics are recorded."),
            argument("output", "Directory that bags are written into."),
            argument("prefix", "Bags are called PREFIX_0001, PREFIX_0002, ...", "run"),
            argument("storage", "File format.", "mcap", ["mcap", "sqlite3"]),
            argument("episodes_per_bag", "Start a new bag after this many episode markers; 0: never.", "0"),
            argument("autostart", "Record from the start; false: call ~/record.", "true"),
            argument("use_sim_time", "Take the time from /clock; true with a simulated robot.", "false"),
            OpaqueFunction(function=nodes),
        ]
    )
