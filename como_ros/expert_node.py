"""expert_node: a scripted expert that drives the simulated arm through the command topics, as a policy would.

    ros2 run como_ros expert_node --ros-args -p noise_std:=0.2 -p autostart:=true

It sees what only a simulator knows (sim/observation), so it works with sim_node alone. A command is stamped with the
time of the observation that it answers or, where that has passed on a simulated clock, with the present one.

    publishes   the interface's command topics; instruction (latched), the words of the running episode
    subscribes  sim/observation, sim/episode
    serves      expert/start, expert/stop (std_srvs/Trigger): drive, in this and the following episodes, or not
"""

from __future__ import annotations

import sys

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_core.simulation.experts import Expert
from como_ros import qos
from como_ros.messages import gripper_message, twist_message
from como_ros.parameters import INTERFACE, Parameter, declare, interface_of
from como_ros.running import run_node, spin
from como_ros.sim_messages import EpisodeStart, read_observation

PARAMETERS = (
    Parameter("noise_std", 0.0, "Deviation of the noise on the action; applied at expert/start and at each episode",
              unit="share of full speed", low=0.0, high=1.0),
    Parameter("seed", 0, "Seed of the noise, together with the episode's; applied as noise_std is",
              low=0, high=2**31 - 1),
    Parameter("autostart", False, "Drive from the start, without expert/start", read_only=True),
    INTERFACE,
)


class ExpertNode(Node):
    """Answers each observation of the running episode with the scripted expert's command."""

    def __init__(self) -> None:
        super().__init__("expert_node")
        values = declare(self, PARAMETERS)
        self._action = interface_of(values).action
        self._driving = bool(values["autostart"])
        self._episode: EpisodeStart | None = None
        self._expert: Expert | None = None
        self._gripper_sent: float | None = None
        self._instructions = qos.publish(self, String, "instruction", qos.latched())
        self._twists = qos.publish(self, TwistStamped, self._action.topic, qos.command())
        self._grippers = qos.publish(self, Float64, self._action.gripper.topic, qos.command()) \
            if self._action.gripper else None
        qos.subscribe(self, String, "sim/episode", self._on_episode, qos.latched())
        # The newest observation is the only one worth an answer.
        qos.subscribe(self, Float64MultiArray, "sim/observation", self._on_observation, qos.stream(depth=1))
        self.create_service(Trigger, "expert/start", self._on_start)
        self.create_service(Trigger, "expert/stop", self._on_stop)

    def _on_episode(self, message: String) -> None:
        try:
            self._episode = EpisodeStart.from_json(message.data)
        except (ValueError, TypeError) as error:
            self.get_logger().error(f"sim/episode: expected the JSON of sim_node, got {message.data!r}: {error}")
            return
        self._instructions.publish(String(data=self._episode.instruction))
        # Made now although nobody may drive yet: the first one takes a second to import.
        try:
            self._make_expert(self._episode)
        except ComoError as error:
            self.get_logger().error(str(error))

    def _make_expert(self, episode: EpisodeStart) -> None:
        """An expert at the start of its noise. Raises ComoError where the environment has no expert."""
        self._expert, self._gripper_sent = None, None
        noise_std, seed = (self.get_parameter(name).value for name in ("noise_std", "seed"))
        self._expert = Expert(episode.env, noise_std, (seed, episode.seed))

    def _on_observation(self, message: Float64MultiArray) -> None:
        stamp_ns, episode, privileged = read_observation(message)
        known = self._episode is not None and self._episode.episode == episode
        if not self._driving or self._expert is None or not known:
            return
        action = self._expert.act(privileged)
        if self.get_parameter("use_sim_time").value:
            stamp_ns = max(stamp_ns, self.get_clock().now().nanoseconds)
        self._twists.publish(twist_message(action, self._action, stamp_ns))
        if self._grippers is not None and self._action.gripper is not None:
            gripper = gripper_message(action)
            if self._gripper_sent is None or abs(gripper.data - self._gripper_sent) >= self._action.gripper.resolution:
                self._grippers.publish(gripper)
                self._gripper_sent = gripper.data

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._episode is not None:
                self._make_expert(self._episode)
        except ComoError as error:
            response.message = str(error)
            return response
        self._driving = True
        response.success, response.message = True, "driving"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._driving = False
        response.success, response.message = True, "not driving; the arm stops when the last command is out of date"
        return response


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros expert_node`."""
    return run_node(ExpertNode, spin, args=args)


if __name__ == "__main__":
    sys.exit(main())
