"""Three processes and DDS between them: the expert drives the simulated arm, the recorder keeps the episode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ros_client import LATCHED, TIMEOUT_S, RosClient
from std_msgs.msg import Bool, String

from como_core.formats.rosbag import read_bag
from como_core.interface import load_interface
from como_core.resources import resource
from como_core.simulation.environment import make_env
from como_ros.processes import NodeProcess, wait_until

ENV, SEED = "metaworld:button-press-topdown-v3", 3
INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))


def test_a_recorded_episode_says_what_the_arm_did(start_node: Callable[..., NodeProcess], tmp_path: Path) -> None:
    # Slow, so that no command comes late on a busy machine: the episode must replay to the same pixels.
    start_node("sim_node", {"env": ENV, "rate_factor": 0.25})
    start_node("recorder_node", {"output": tmp_path, "use_sim_time": True})
    start_node("expert_node", {"noise_std": 0.3, "seed": 11, "use_sim_time": True})
    with RosClient() as client:
        success, words = client.listen(Bool, "sim/success", LATCHED), client.listen(String, "instruction", LATCHED)
        client.set("sim_node", seed=SEED)
        reset = client.trigger("sim/reset")
        assert reset.success, reset.message
        assert wait_until(lambda: bool(words) and words[-1][1].data == "button press topdown", TIMEOUT_S)
        started = client.trigger("record/start")
        assert started.success, started.message
        assert client.trigger("expert/start").success
        pressed = wait_until(lambda: bool(success) and success[-1][1].data, TIMEOUT_S)
        assert pressed, "the expert did not press the button"
        assert client.trigger("expert/stop").success
        stopped = client.trigger("record/stop")
        assert stopped.success, stopped.message

    answer = json.loads(stopped.message)
    assert min(answer["messages"].values()) > 0
    episode = read_bag(answer["path"], INTERFACE)
    assert episode.instruction == "button press topdown"
    assert episode.action is not None and episode.state is not None
    np.testing.assert_allclose(np.diff(episode.timestamps), 0.025, atol=1e-6)

    direct = make_env(ENV, INTERFACE.cameras["front"].width)
    direct.reset(SEED)
    for _ in range(round((episode.timestamps[0] - json.loads(reset.message)["stamp_s"]) / direct.period_s)):
        direct.step(np.zeros(4, np.float32))  # the arm waited for its first command
    for step in range(len(episode)):
        np.testing.assert_array_equal(episode.images["front"][step], direct.render(), f"step {step}")
        np.testing.assert_allclose(episode.state[step], direct.state(), atol=1e-6, err_msg=f"step {step}")
        direct.step(episode.action[step])
        if direct.success:
            break
    assert direct.success, "the recorded actions do not press the button again"
