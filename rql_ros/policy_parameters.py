"""The parameters of the policy node: declared with type, bounds and meaning, and refused when set to nonsense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from rql_core.acting import Acting
from rql_core.errors import RqlError
from rql_core.runtime.options import Options
from rql_ros.controller import declare_min_subscribers
from rql_ros.parameters import declare, require
from rql_ros.policy_choices import BACKENDS, GUIDANCE, INTERPOLATIONS, MODES, MONITORS, OUTPUTS

# What may be set while the node runs; all else takes effect when the node is configured, and is read-only.
ACTING = ("samples", "rho", "flow_steps")
RUNNING = ("mode", "replan_every", "monitor", "interpolation")
CHOICES = {"mode": MODES, "guidance": GUIDANCE, "monitor": MONITORS, "interpolation": INTERPOLATIONS}


def declare_parameters(node: Node) -> None:
    """Declare all but those of EpisodeControl; raises ConfigError for a value that is refused."""
    # Not read-only: ~/reload takes the checkpoint that it then names.
    require(
        node, "checkpoint", "path of a checkpoint directory; set it and call ~/reload to change it", read_only=False
    )
    declare(node, "contract", "", "contract file of this robot, which the checkpoint must fit; empty: its own")
    declare(
        node,
        "backend",
        "onnx",
        "what the policy runs on: onnx (ONNX Runtime, no torch), or torch",
        choices=BACKENDS,
    )
    declare(node, "device", "cpu", "torch device of the policy, for backend torch")
    declare(node, "threads", 1, "threads for inference; one is fastest for small networks", bounds=(1, 256))
    declare(
        node,
        "rehearse",
        2,
        "how often to go in vain through all that the next observation will ask for, just before it is expected, so "
        "that the processor's caches hold it and its chunk comes sooner; 0: not at all, for less load",
        bounds=(0, 10),
    )
    live = {"read_only": False}
    declare(
        node,
        "mode",
        "open_loop",
        "when to plan: open_loop (the whole chunk), receding (every replan_every steps), ensemble (the mean of "
        "overlapping chunks), rtc (real-time chunking: each chunk held to the one before)",
        choices=MODES,
        **live,
    )
    declare(
        node,
        "guidance",
        "jacobian",
        "how mode rtc holds a chunk to the one before: jacobian (the flow is steered) or prefix (steps are put in)",
        choices=GUIDANCE,
        **live,
    )
    declare(node, "replan_every", 0, "steps between plans; 0: as suits the mode", bounds=(0, 10_000), **live)
    declare(
        node, "samples", 0, "chunks to choose the best of by the critics; 0: as trained for", bounds=(0, 1024), **live
    )
    declare(
        node,
        "rho",
        -1.0,
        "pessimism of that choice, in standard deviations over the critics; -1: as trained for",
        bounds=(-1.0, 1e6),
        **live,
    )
    declare(
        node, "flow_steps", 0, "flow steps from noise to action; 0: as many as in training", bounds=(0, 1000), **live
    )
    declare(
        node,
        "monitor",
        "warn",
        "what values of the critics do that are unusual beside the training data's: off, warn, or hold",
        choices=MONITORS,
        **live,
    )
    declare(
        node,
        "output",
        "chunk",
        "chunk: the contract's message with the whole chunk; command: ~/command with one command at a time; both",
        choices=OUTPUTS,
    )
    declare(node, "command_rate", 0.0, "Hz; rate of ~/command; 0: the contract's rate", bounds=(0.0, 1000.0))
    declare(
        node,
        "interpolation",
        "auto",
        "of ~/command between steps: held, linear, or auto (linear for positions, else held)",
        choices=INTERPOLATIONS,
        **live,
    )
    declare(node, "shadow", False, "publish nothing but a comparison with the controller that commands the robot")
    declare(node, "on_trigger", False, "command nothing but for run_limit after each call of ~/run")
    declare(node, "run_limit", 10.0, "s; how long ~/run commands", bounds=(0.1, 86_400.0), **live)
    declare(node, "lockstep", False, "wait for complete observations however long: for simulation that waits for us")
    declare_min_subscribers(node)
    declare(node, "autostart", True, "configure and activate at start")


def acting_of(node: Node, own: Acting, changes: dict[str, Any] | None = None) -> Acting:
    """The policy's `own` acting, changed by the parameters, and these by `changes`; raises ConfigError."""
    values = {name: node.get_parameter(name).value for name in ACTING} | (changes or {})
    return own.changed(
        samples=int(values["samples"]) or None,
        rho=None if values["rho"] < 0 else float(values["rho"]),
        flow_steps=int(values["flow_steps"]) or None,
    )


def options_of(node: Node, changes: dict[str, Any] | None = None) -> Options:
    """How to run by the parameters, and `changes` to them; raises ConfigError."""
    names = (*RUNNING, "lockstep", "shadow", "on_trigger")
    values = {name: node.get_parameter(name).value for name in names} | (changes or {})
    if values["interpolation"] == "auto":
        values["interpolation"] = None
    return replace(Options(), **values)


def refuse_nonsense(node: Node, accept: Callable[[dict[str, Any]], None]) -> None:
    """Ask `accept` with the new values by name before parameters change; what it raises is why they do not."""

    def check(parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters}
        for name, value in changes.items():
            if isinstance(value, float) and not isfinite(value):
                reason = f"parameter {name!r} is {value}, expected a finite number"
                return SetParametersResult(successful=False, reason=reason)
        for name, choices in CHOICES.items():
            if name in changes and changes[name] not in choices:
                reason = f"parameter {name!r} is {changes[name]!r}, expected one of {', '.join(choices)}"
                return SetParametersResult(successful=False, reason=reason)
        try:
            accept(changes)
        except RqlError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
