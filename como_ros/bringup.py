"""The launches of the package as data: which node, which arguments. No ROS is imported here.

launch/*.launch.py make launch_ros actions of it, and `como launch` starts the same process with the same arguments
where launch_ros is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from como_core.config import ConfigError, nearest
from como_ros.processes import node_command

PACKAGE = "como_ros"

Value = bool | int | float | str


@dataclass(frozen=True)
class Argument:
    """One `name:=value`. The default's type is the argument's; a required one has the empty default of its type.

    `parameter` is the node's parameter that it sets, where that has another name.
    """

    name: str
    default: Value
    description: str
    required: bool = False
    choices: tuple[str, ...] = ()
    parameter: str = ""

    def value(self, text: str) -> Value:
        """The typed value of what was given. Raises ConfigError, naming the argument, for anything else."""
        kind = type(self.default)
        if self.choices and text not in self.choices:
            raise ConfigError(f"{self.name}:={text}: expected {', '.join(self.choices)}")
        if kind is bool:
            if text.lower() not in ("true", "false"):
                raise ConfigError(f"{self.name}:={text}: expected true or false")
            return text.lower() == "true"
        try:
            return kind(text)
        except ValueError as error:
            wanted = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{self.name}:={text}: expected {wanted}") from error

    @property
    def default_text(self) -> str:
        """The default as it would be typed."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


# What every launch takes and no node of ours declares itself; use_sim_time is a parameter of every ROS node.
CUSTOMARY = (
    Argument("namespace", "", "Namespace of the node and its relative topics, such as /left"),
    Argument("params_file", "", "ROS parameter file; an argument that differs from its default wins over it"),
    Argument("log_level", "info", "Least severe message that is logged",
             choices=("debug", "info", "warn", "error", "fatal")),
)
_SIM_TIME = Argument("use_sim_time", False, "Take the time from /clock, as with sim_node or a played bag")


@dataclass(frozen=True)
class Launch:
    """One launch: a node of this package and the parameters that it may be given."""

    node: str
    summary: str
    parameters: tuple[Argument, ...]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """The node's own arguments, then the customary ones."""
        return self.parameters + CUSTOMARY


LAUNCHES: dict[str, Launch] = {
    "policy": Launch("policy_node", "run a policy checkpoint on a robot", (
        Argument("policy", "", "Folder of the policy checkpoint", required=True),
        Argument("interface", "", "Interface YAML of this robot", required=True),
        Argument("enable_output", False, "Send commands; false runs everything and sends nothing"),
        Argument("device", "auto", "Where the policy runs", choices=("auto", "cpu", "cuda")),
        Argument("replan_hz", 10.0, "How often a chunk is asked for, Hz"),
        Argument("blend", "cross_fade", "How a new chunk takes over",
                 choices=("cross_fade", "temporal_ensemble", "real_time_chunking")),
        Argument("blend_s", 0.05, "Cross-fade from one chunk to the next, s"),
        Argument("command_lead_s", 0.0, "Send each action this much before it is due, s"),
        Argument("instruction", "", "What the robot is asked to do, until the instruction topic says otherwise"),
        Argument("estop_topic", "e_stop", "std_msgs/Bool, true stops; empty: none"),
        Argument("estop_required", False, "Send nothing until the e-stop topic has been heard"),
        Argument("deadman_topic", "", "std_msgs/Bool that must be true and keep coming; empty: none"),
        Argument("deadman_max_age_s", 0.25, "A deadman switch heard longer ago counts as released, s"),
        Argument("timing_file", "", "JSON of the loop timing; empty: none"),
        Argument("rate_factor", 1.0, "Speed of simulated time, as given to sim"),
        Argument("autostart", True, "Configure and activate at start"),
        _SIM_TIME,
    )),
    "sim": Launch("sim_node", "simulate an arm behind the topics of a real one, with /clock", (
        Argument("env", "metaworld:reach-v3", "Environment, suite:task"),
        Argument("seed", 0, "Start state of the first episode"),
        Argument("rate_factor", 1.0, "Speed of simulated time, x real time"),
        Argument("interface", "", "Interface YAML; empty: the packaged metaworld.yaml"),
        Argument("autostart", True, "Begin the first episode at start; false: wait for sim/reset"),
        Argument("use_sim_time", True, "Simulated time, on /clock; false: the wall's time and no /clock, so that two "
                 "arms can be simulated side by side", parameter="publish_clock"),
    )),
    "record": Launch("recorder_node", "record episodes as rosbag2, an episode a bag", (
        Argument("interface", "", "Interface YAML; empty: the packaged metaworld.yaml"),
        Argument("output", "bags", "Folder for the bags"),
        Argument("storage", "mcap", "Format of the bags", choices=("mcap", "sqlite3")),
        Argument("compress", "none", "Raw pictures as they are, small (jpeg changes pixels) or exact (png)",
                 choices=("none", "jpeg", "png")),
        Argument("jpeg_quality", 95, "Quality of jpeg, 1 to 100"),
        Argument("flush_interval_s", 1.0, "What is older survives a crash or a power loss, s"),
        Argument("instruction", "", "What the robot is asked to do, until the instruction topic says otherwise"),
        Argument("joy_buttons", "", "Joystick buttons, such as \"start:7 stop:6 success:0 failure:2\"; empty: none"),
        _SIM_TIME,
    )),
}


@dataclass(frozen=True)
class NodeRun:
    """What a launch with its arguments starts: one node with typed parameters."""

    node: str
    parameters: dict[str, Value]
    namespace: str
    params_file: str
    log_level: str

    def command(self) -> list[str]:
        """The command line that starts it without launch_ros."""
        remap = {"__ns": self.namespace} if self.namespace else {}
        # Parameters that come later win, so the file has to stand first.
        command = node_command(self.node, {}, remap)
        command += ["--params-file", self.params_file] if self.params_file else []
        command += ["--log-level", self.log_level]
        return command + node_command(self.node, self.parameters)[len(node_command(self.node, {})):]


def resolve(name: str, given: Mapping[str, str]) -> NodeRun:
    """The run of launch `name` with the arguments `given` as text.

    Raises ConfigError for an unknown launch or argument, with the nearest valid one, and for a missing or wrong value.
    """
    launch = find(name)
    known = {argument.name: argument for argument in launch.arguments}
    for key in given:
        if key not in known:
            raise ConfigError(f"launch {name} has no argument {key!r}; {nearest(key, known)}")
    for argument in launch.arguments:
        if argument.required and not given.get(argument.name):
            raise ConfigError(f"launch {name} needs {argument.name}:=... ({argument.description})")
    values = {key: argument.value(given.get(key, argument.default_text)) for key, argument in known.items()}
    customary = {argument.name: str(values.pop(argument.name)) for argument in CUSTOMARY}
    if customary["params_file"]:
        values = {key: value for key, value in values.items() if value != known[key].default}
    values = {known[key].parameter or key: value for key, value in values.items()}
    if customary["namespace"]:
        customary["namespace"] = "/" + customary["namespace"].strip("/")
    return replace(NodeRun(launch.node, {}, **customary), parameters=values)


def find(name: str) -> Launch:
    """The launch of that name. Raises ConfigError with the nearest one."""
    if name not in LAUNCHES:
        raise ConfigError(f"no launch {name!r}; {nearest(name, LAUNCHES)}")
    return LAUNCHES[name]


def launch_description(name: str) -> Any:
    """The launch.LaunchDescription of a launch, for launch/<name>.launch.py; needs launch_ros."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.substitutions import LaunchConfiguration

    from launch import LaunchDescription  # type: ignore[attr-defined]  # mypy sees our folder launch/

    arguments = find(name).arguments

    def nodes(context: Any) -> list[Any]:
        given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments}
        return [_action(resolve(name, given))]

    declared = [DeclareLaunchArgument(a.name, default_value=None if a.required else a.default_text,
                                      description=a.description, choices=list(a.choices) or None) for a in arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def _action(run: NodeRun) -> Any:
    from launch_ros.actions import Node

    files = [run.params_file] if run.params_file else []
    return Node(package=PACKAGE, executable=run.node, name=run.node, namespace=run.namespace, output="screen",
                parameters=[*files, run.parameters], ros_arguments=["--log-level", run.log_level])
