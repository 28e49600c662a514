"""sim_node: a simulated arm behind the topics of a real one.

    ros2 run como_ros sim_node --ros-args -p env:=metaworld:drawer-open-v3 -p rate_factor:=1.0

Physics and rendering run in the main thread, which owns the GL context, paced by the wall clock; callbacks run in a
thread of their own and only stamp and store. The node is the source of /clock: every stamp is simulated time, which
starts at one control period and never goes back, whatever is reset. Without publish_clock stamps are the wall's time.

    publishes   /clock; the interface's cameras and states; sim/observation, for the expert;
                sim/success and sim/episode, latched
    subscribes  the interface's command topics
    serves      sim/reset (std_srvs/Trigger): start an episode of the parameters `env` and `seed`; answers its
                EpisodeStart as JSON when the first messages of the episode are out
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_core.interface import Camera, Interface, StateStream
from como_core.simulation.environment import Env, make_env
from como_ros import qos
from como_ros.command_hold import CommandHold
from como_ros.images import image_message
from como_ros.messages import NS_PER_S, message_class, state_message, to_stamp
from como_ros.pacing import PATIENCE_S, Pacer
from como_ros.parameters import INTERFACE, Parameter, declare, interface_of
from como_ros.running import run_node
from como_ros.sim_messages import EpisodeStart, observation_message

_POLL_S = 0.1
_END_TIMEOUT_S = 3.0
RESET_TIMEOUT_S = 30.0  # building a task and its renderer takes seconds on a busy machine
PARAMETERS = (
    Parameter("env", "metaworld:reach-v3", "Environment, suite:task; applied at start and by sim/reset"),
    Parameter("seed", 0, "Start state of the next episode; applied at start and by sim/reset", low=0, high=2**31 - 1),
    Parameter("rate_factor", 1.0, "Speed of simulated time", unit="x real time", low=0.01, high=100.0),
    Parameter("publish_clock", True, "Publish /clock and stamp with simulated time; false: stamp with the wall's time, "
              "so that two arms can be simulated side by side", read_only=True),
    Parameter("autostart", True, "Begin the first episode at start; false: wait for sim/reset", read_only=True),
    INTERFACE,
)


@dataclass(frozen=True)
class _Reset:
    """A wish to start an episode, and where its answer goes."""

    env: str
    seed: int
    answer: Future[EpisodeStart] = field(default_factory=Future)


class SimNode(Node):
    """The simulated arm. Make it, call `run` in the thread that may render, and `close` in the same thread."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        values = declare(self, PARAMETERS)
        self._interface = interface_of(values)
        self._envs: dict[str, Env] = {}
        self._env = self._environment(values["env"])
        self._period_ns = round(self._env.period_s * NS_PER_S)
        self._time_ns = self._period_ns if values["publish_clock"] else time.time_ns()
        self._command = CommandHold(self._interface.action)
        self._resets: queue.SimpleQueue[_Reset] = queue.SimpleQueue()
        self._episode: EpisodeStart | None = None
        self._success: bool | None = None
        self._pacer = Pacer()
        self._interrupted = False
        self._make_publishers()
        self._listen()
        self.create_service(Trigger, "sim/reset", self._on_reset)

    def run(self) -> None:
        """Simulate until shutdown. Raises ComoError where the first episode cannot start."""
        if self._parameter("autostart"):
            self._start_episode(self._env, self._parameter("seed"))
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        thread = threading.Thread(target=_spin, args=(executor,), name="callbacks", daemon=True)
        thread.start()
        try:
            with self._interrupted_between_periods():
                self._await_episode()
                self._pacer.restart()  # the first picture of a scene takes a second
                while self._going():
                    self._wait()
                    self._advance()
        finally:
            self._end(executor, thread)

    def close(self) -> None:
        """Free the renderers."""
        for env in self._envs.values():
            env.close()

    def _end(self, executor: SingleThreadedExecutor, thread: threading.Thread) -> None:
        """End the callbacks; an executor that is shut down while its thread waits in it may crash."""
        rclpy.try_shutdown()
        ends_s = time.monotonic() + _END_TIMEOUT_S
        while thread.is_alive() and time.monotonic() < ends_s:
            while not self._resets.empty():
                self._resets.get_nowait().answer.cancel()
            thread.join(_POLL_S)
        if not thread.is_alive():
            executor.shutdown()

    def _going(self) -> bool:
        return rclpy.ok() and not self._interrupted

    @contextmanager
    def _interrupted_between_periods(self) -> Iterator[None]:
        """Ctrl-C is obeyed at the end of a period: EGL may crash or hang where a picture that was being rendered is
        given up.
        """
        def note(number: int, frame: FrameType | None) -> None:
            self._interrupted = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _await_episode(self) -> None:
        """Publish the first instant of the first episode, which sim/reset asks for where autostart is false."""
        wish: _Reset | None = None
        while self._episode is None:
            if not self._going():
                return
            with suppress(queue.Empty):
                wish = self._resets.get(timeout=_POLL_S)
                self._serve(wish)
        self._publish()
        if wish is not None:
            wish.answer.set_result(self._episode)

    def _advance(self) -> None:
        """One control period on: physics, or the first instant of a new episode where a reset is waiting."""
        action = self._command.vector(self._time_ns)
        self._tick()  # also by a reset: no two images share a stamp
        wish = self._resets.get_nowait() if not self._resets.empty() else None
        if wish is None or not self._serve(wish):
            self._env.step(action)
        self._publish()
        if wish is None:
            return
        self._pacer.restart()
        if not wish.answer.done():
            assert self._episode is not None
            wish.answer.set_result(self._episode)

    def _tick(self) -> None:
        self._time_ns = self._time_ns + self._period_ns if self._clock_out else max(time.time_ns(), self._time_ns + 1)

    def _serve(self, wish: _Reset) -> bool:
        """Start the episode that was asked for; where it is refused, the running one goes on."""
        try:
            self._start_episode(self._environment(wish.env), wish.seed)
        except ComoError as error:
            wish.answer.set_exception(error)
            return False
        return True

    def _environment(self, name: str) -> Env:
        """The environment, made on first use and kept: making one costs a second or more."""
        if name not in self._envs:
            camera = next(iter(self._interface.cameras.values()))
            self._envs[name] = make_env(name, camera.width)
        return self._envs[name]

    def _start_episode(self, env: Env, seed: int) -> EpisodeStart:
        env.reset(seed)
        _require_fit(env, self._interface)
        if env is not self._env:
            self._env.close()
        self._env = env
        self._command.clear()
        number = self._episode.episode + 1 if self._episode else 1
        self._episode = EpisodeStart(env.name, seed, number, env.instruction, self._time_ns / NS_PER_S)
        self._success = None
        self.get_logger().info(f"episode {number}: {env.name}, seed {seed}")
        return self._episode

    # -- out ---------------------------------------------------------------------------------------------------------

    def _make_publishers(self) -> None:
        streams: tuple[Camera | StateStream, ...] = (*self._interface.cameras.values(), *self._interface.state.values())
        self._streams = {s.topic: qos.publish(self, message_class(s.type), s.topic, qos.stream()) for s in streams}
        self._clock_out = qos.publish(self, Clock, "/clock", qos.clock()) if self._parameter("publish_clock") else None
        self._observations = qos.publish(self, Float64MultiArray, "sim/observation", qos.stream())
        self._successes = qos.publish(self, Bool, "sim/success", qos.latched())
        self._episodes = qos.publish(self, String, "sim/episode", qos.latched())
        self._published_episode: EpisodeStart | None = None

    def _publish(self) -> None:
        """Everything of this instant; the clock first, so that receivers' clocks are not behind the stamps."""
        assert self._episode is not None
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=to_stamp(self._time_ns)))
        if self._episode is not self._published_episode:
            self._episodes.publish(String(data=self._episode.to_json()))
            self._published_episode = self._episode
        if self._env.success != self._success:
            self._success = self._env.success
            self._successes.publish(Bool(data=self._success))
        camera = self._interface.cameras[self._env.camera]
        self._streams[camera.topic].publish(image_message(self._env.render(), self._time_ns, self._env.camera))
        values, start = self._env.state(), 0
        for stream in self._interface.state.values():
            part = values[start:start + len(stream.names)]
            self._streams[stream.topic].publish(
                state_message(part, stream, self._time_ns, self._interface.action.frame))
            start += len(stream.names)
        self._observations.publish(
            observation_message(self._time_ns, self._episode.episode, self._env.privileged()))

    def _wait(self) -> None:
        factor = self._parameter("rate_factor")
        lag_s = self._pacer.wait(self._env.period_s / factor)
        if lag_s > PATIENCE_S:
            self.get_logger().warning(f"{lag_s:.2f} s behind rate_factor {factor:g}: rendering and physics cannot keep "
                                      "up; a lower rate_factor keeps simulated time even", throttle_duration_sec=10.0)

    # -- in ----------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        action = self._interface.action
        qos.subscribe(self, TwistStamped, action.topic, self._on_twist, qos.command())
        if action.gripper:
            qos.subscribe(self, Float64, action.gripper.topic, self._on_gripper, qos.command())

    def _on_twist(self, message: TwistStamped) -> None:
        self._obey(lambda: self._command.take_twist(message, self._time_ns))

    def _on_gripper(self, message: Float64) -> None:
        self._obey(lambda: self._command.take_gripper(message.data))

    def _obey(self, take: Callable[[], None]) -> None:
        try:
            take()
        except ComoError as error:
            self.get_logger().error(str(error), throttle_duration_sec=2.0)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        wish = _Reset(self._parameter("env"), self._parameter("seed"))
        self._resets.put(wish)
        try:
            response.message = wish.answer.result(RESET_TIMEOUT_S).to_json()
            response.success = True
        except ComoError as error:
            response.message = str(error)
        except (FutureTimeoutError, CancelledError):
            response.message = f"the simulation did not reset within {RESET_TIMEOUT_S:.0f} s; see its log"
        return response

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value


def _require_fit(env: Env, interface: Interface) -> None:
    """Raise ComoError, naming the key, where the interface does not describe this environment."""
    if set(interface.cameras) != {env.camera}:
        raise ComoError(f"interface {interface.name!r}, cameras: {', '.join(interface.cameras)}; "
                        f"{env.name} has one camera, {env.camera!r}")
    camera = interface.cameras[env.camera]
    if camera.width != camera.height:
        raise ComoError(f"interface {interface.name!r}, cameras.{env.camera}: {camera.width} x {camera.height} pixels; "
                        f"{env.name} renders squares")
    if len(env.state()) != interface.state_size:
        raise ComoError(f"interface {interface.name!r}, state: {interface.state_size} values; "
                        f"{env.name} has {len(env.state())}")
    if camera.type != "sensor_msgs/msg/Image" or camera.encoding != "rgb8":
        raise ComoError(f"interface {interface.name!r}, cameras.{env.camera}: {camera.type} {camera.encoding}; "
                        f"{env.name} gives sensor_msgs/msg/Image rgb8")


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros sim_node`."""
    return run_node(SimNode, SimNode.run, SimNode.close, args)


if __name__ == "__main__":
    sys.exit(main())
