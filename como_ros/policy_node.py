"""policy_node: a lifecycle node that runs a policy checkpoint on a robot.

    ros2 run como_ros policy_node --ros-args -p policy:=runs/policy -p interface:=config/interfaces/metaworld.yaml

    configure   load the checkpoint, compare its interface with the robot's, warm up
    activate    commands are permitted, and sent where enable_output is true
    deactivate  nothing is sent from now on; the loop timing is written
    cleanup     free the policy

    subscribes  the interface's cameras and states; instruction (std_msgs/String, transient local);
                e_stop (std_msgs/Bool): true stops; a deadman switch, where one is named
    publishes   the interface's command and gripper topics; /diagnostics at 1 Hz
    serves      ~/reset (std_srvs/Trigger): open the latch once its cause is mended
                ~/pause (std_srvs/SetBool): end the motion and send nothing, or go on
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import Trigger

from como_core.action_chunk import Policy, history_of
from como_core.config import nearest
from como_core.control.blending import BLENDS
from como_core.control.status import Settings
from como_core.errors import ComoError
from como_core.interface import load_interface, require_same
from como_ros import lifecycle, qos
from como_ros.lifecycle import transition
from como_ros.parameters import Parameter, declare
from como_ros.policy_loop import WATCH_PERIOD_S, PolicyLoop
from como_ros.policy_operator import Switches
from como_ros.running import run_node

Loader = Callable[[Path, str], Policy]

PARAMETERS = (
    Parameter("policy", "", "Folder of the policy checkpoint; taken by configure"),
    Parameter("interface", "", "Interface YAML of this robot; taken by configure"),
    Parameter("enable_output", False, "Send commands; false runs everything and sends nothing. False stops at once, "
              "true is taken by activate"),
    Parameter("device", "auto", "Where the policy runs: auto, cpu or cuda; taken by configure"),
    Parameter("replan_hz", 10.0, "How often a chunk is asked for; taken by configure", "Hz", 0.1, 100.0),
    Parameter("blend_s", 0.05, "Cross-fade from one chunk to the next; taken by configure", "s", 0.0, 2.0),
    Parameter("blend", "cross_fade", "How a new chunk takes over: cross_fade, temporal_ensemble or real_time_chunking; "
              "taken by configure"),
    Parameter("ensemble_decay", 0.01, "Decay of a temporal ensemble's weights from the oldest chunk on; 0 weights all "
              "alike; taken by configure", "per chunk", 0.0, 10.0),
    Parameter("command_lead_s", 0.0, "Send each action this much before it is due, for a robot that acts late; "
              "taken by configure", "s", 0.0, 1.0),
    Parameter("rate_factor", 1.0, "Speed of simulated time, as sim_node's; below 1 the limits on arrivals stretch; "
              "taken by configure", "x real time", 0.01, 100.0),
    Parameter("instruction", "", "What the robot is asked to do, until the instruction topic says otherwise; taken by "
              "configure"),
    Parameter("estop_topic", "e_stop", "std_msgs/Bool, true stops and closes the latch; empty: none; taken by "
              "configure"),
    Parameter("estop_required", False, "Send nothing until the e-stop topic has been heard, which a latched one is at "
              "once; taken by configure"),
    Parameter("deadman_topic", "", "std_msgs/Bool that must be true and keep coming for anything to be sent; empty: "
              "none; taken by configure"),
    Parameter("deadman_max_age_s", 0.25, "A deadman switch that was last heard longer ago counts as released; taken by "
              "configure", "s", 0.02, 5.0),
    Parameter("timing_file", "", "JSON of the loop timing, written by deactivate and at the end; empty: none"),
    Parameter("autostart", False, "Configure and activate at start", read_only=True),
)

# Simulated time that goes back by less is rounding.
_CLOCK_BACK_NS = 1_000_000


class PolicyNode(LifecycleNode):
    """The lifecycle and the parameters; what runs between configure and cleanup is a PolicyLoop.

    load  makes the policy of a checkpoint folder on a device; by default como_core.policy's loader
    """

    def __init__(self, load: Loader | None = None) -> None:
        super().__init__("policy_node")
        self._load = load or load_checkpoint
        self._loop: PolicyLoop | None = None
        self._pressed = ""  # the e-stop's topic, where it was pressed when the node was cleaned up
        declare(self, PARAMETERS)
        self._report = qos.publish(self, DiagnosticArray, "/diagnostics", qos.command(10))
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-_CLOCK_BACK_NS)),
            post_callback=self._on_jump)

    @transition
    def on_configure(self) -> None:
        folder, path = self._path("policy", "the checkpoint's folder"), self._path("interface", "the robot's YAML")
        interface = load_interface(path)
        if not folder.is_dir():
            raise ComoError(f"policy {folder}: no such folder (expected a checkpoint as `como policy train` writes it)")
        policy = self._load(folder, self._value("device"))
        require_same(policy.interface, interface, f"the checkpoint {folder}", str(path))
        switches = Switches(self._value("estop_topic"), self._value("deadman_topic"))
        settings = dataclasses.replace(self._settings(), history_s=history_of(policy),
                                       uses_state=getattr(policy, "uses_state", True))
        self._loop = PolicyLoop(self, policy, interface, settings, switches, self._report)
        self._loop.controller.put_instruction(self._value("instruction") or None)
        if self._pressed and self._pressed == switches.estop_topic:
            # Who does not latch does not say it again; the release of one who does comes with the subscription.
            self._loop.controller.estop(True)
        # What torch has made stays: a collection over its 300 000 objects would delay commands, and the end by seconds.
        gc.collect()
        gc.freeze()
        self.get_logger().info(f"configured: policy {folder}, interface {interface.name!r}")

    @transition
    def on_activate(self) -> None:
        assert self._loop is not None
        self._loop.activate(self._value("enable_output"))
        self.get_logger().info("active; " + ("commands are sent" if self._value("enable_output") else
                                             "enable_output is false: nothing is sent"))

    @transition
    def on_deactivate(self) -> None:
        self._stop()

    @transition
    def on_cleanup(self) -> None:
        self._free()
        gc.unfreeze()
        gc.collect()

    @transition
    def on_shutdown(self) -> None:
        self._stop()
        self._free()

    @transition
    def on_error(self) -> None:
        self._stop()
        self._free()

    def _settings(self) -> Settings:
        if self._value("blend") not in BLENDS:
            raise ComoError(f"parameter 'blend' of policy_node: {self._value('blend')!r} is not one of "
                            f"{', '.join(BLENDS)}; {nearest(self._value('blend'), BLENDS)}")
        return Settings(self._value("replan_hz"), self._value("blend_s"), self._value("command_lead_s"),
                        wall_rate=self._value("rate_factor"), margin_s=2 * WATCH_PERIOD_S, blend=self._value("blend"),
                        ensemble_decay=self._value("ensemble_decay"),
                        deadman_max_age_s=self._value("deadman_max_age_s") if self._value("deadman_topic") else None,
                        estop_required=self._value("estop_required"))

    def _stop(self) -> None:
        if self._loop is None:
            return
        self._loop.deactivate()
        if self._value("timing_file"):
            self._loop.write_timing(Path(self._value("timing_file")), policy=self._value("policy"),
                                    replan_hz=self._value("replan_hz"), rate_factor=self._value("rate_factor"))

    def _free(self) -> None:
        if self._loop is not None:
            self._pressed = self._value("estop_topic") if self._loop.controller.estop_pressed else ""
            self._loop.close()
            self._loop = None

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._loop.reset() if self._loop else (False, "the node is not configured")
        return response

    def _on_parameters(self, parameters: Sequence[RosParameter[Any]]) -> SetParametersResult:
        if self._loop is not None and any(p.name == "enable_output" and not p.value for p in parameters):
            self._loop.disable_output()
        return SetParametersResult(successful=True)

    def _on_jump(self, _: Any) -> None:
        if self._loop is not None:
            self._loop.controller.clock_jumped()
            self.get_logger().warning("the clock went back: buffers are cleared, no command until streams are fresh",
                                      throttle_duration_sec=1.0)

    def _path(self, name: str, what: str) -> Path:
        if not self._value(name):
            raise ComoError(f"parameter {name!r} of policy_node is empty; give {what}: -p {name}:=...")
        return Path(self._value(name)).expanduser()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def load_checkpoint(folder: Path, device: str) -> Policy:
    """The policy of a checkpoint folder, on the GPU with a stream of its own.

    Raises ComoError where it cannot be read or torch is not installed.
    """
    try:
        import torch

        from como_core.policy.checkpoint import load_policy
        from como_ros.cuda_stream import StreamedPolicy
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("como"):
            raise
        raise ComoError(f"{error.name} is not installed, and a policy needs it; "
                        "`pip install -c constraints.txt torch diffusers accelerate`, then configure again") from error
    cuda = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not cuda):
        raise ComoError(f"device {device!r} is not here; expected auto, cpu{' or cuda' if cuda else ''}")
    # Half of the cores stay free for the robot's drivers: torch's threads spin while they wait.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) // 2)))
    if not cuda or device == "cpu":
        return load_policy(folder, "cpu")
    return StreamedPolicy(load_policy(folder, "cuda"))


def run(make: Callable[[], PolicyNode], args: Sequence[str] | None = None) -> int:
    """Run a policy node until SIGINT or SIGTERM; returns the exit code."""
    return run_node(make, _serve, lifecycle.shut_down, args)


def _serve(node: PolicyNode) -> None:
    lifecycle.serve(node, autostart=node.get_parameter("autostart").value)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros policy_node`."""
    return run(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
