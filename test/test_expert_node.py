"""expert_node as a user starts it: it answers the running episode's observations, and only when it may drive."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import TwistStamped
from ros_client import LATCHED, TIMEOUT_S, RosClient
from std_msgs.msg import Float64, Float64MultiArray, String

from como_core.simulation.environment import make_env
from como_core.simulation.experts import Expert
from como_ros.messages import stamp_ns
from como_ros.processes import NodeProcess, wait_until
from como_ros.sim_messages import EpisodeStart, observation_message

ENV = "metaworld:reach-v3"


def test_it_answers_the_running_episode_while_it_may_drive(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("expert_node", {"noise_std": 0.2, "seed": 4})
    env = make_env(ENV)
    env.reset(9)
    with RosClient() as client:
        twists = client.listen(TwistStamped, "servo/delta_twist_cmds", 10)
        grips = client.listen(Float64, "gripper_command", 10)
        words = client.listen(String, "instruction", LATCHED)
        episodes = client.publisher(String, "sim/episode", LATCHED)
        observations = client.publisher(Float64MultiArray, "sim/observation")

        episodes.publish(String(data="not JSON"))
        complaint = "expected the JSON of sim_node, got 'not JSON'"
        assert wait_until(lambda: complaint in node.log.read_text(), TIMEOUT_S)
        episodes.publish(String(data=EpisodeStart("libero:stack", 9, 1, "stack", 0.0).to_json()))
        assert wait_until(lambda: bool(words), TIMEOUT_S)
        refused = client.trigger("expert/start")
        assert not refused.success and "libero:stack" in refused.message

        episodes.publish(String(data=EpisodeStart(ENV, 9, 2, env.instruction, 0.0).to_json()))
        assert wait_until(lambda: words[-1][1].data == env.instruction, TIMEOUT_S)
        observations.publish(observation_message(1, 2, env.privileged()))
        assert client.trigger("expert/start").success
        observations.publish(observation_message(2, 1, env.privileged()))  # of an episode that is over
        assert client.trigger("expert/start").success
        assert not twists

        observations.publish(observation_message(3, 2, env.privileged()))
        assert wait_until(lambda: bool(twists) and bool(grips), TIMEOUT_S)
        twist, expected = twists[-1][1], Expert(ENV, 0.2, (4, 9)).act(env.privileged())
        assert stamp_ns(twist.header.stamp) == 3
        sent = (twist.twist.linear.x, twist.twist.linear.y, twist.twist.linear.z, grips[-1][1].data)
        np.testing.assert_allclose(sent, expected, rtol=1e-6)

        assert client.trigger("expert/stop").success
        observations.publish(observation_message(4, 2, env.privileged()))
        assert client.trigger("expert/stop").success
        assert len(twists) == 1
    assert node.stop() == 0
    assert "Traceback" not in node.log.read_text()
