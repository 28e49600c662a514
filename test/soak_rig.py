"""The soak's driver: `python test/soak_rig.py FOLDER SECONDS SEED DOMAIN`; FOLDER/summary.json at the end.

It brings up the real policy_node (test/soak_policy.py) beside an arm (test/soak_arm.py), puts one fault after the
other into them by a seeded schedule, sees the node stop and go on, and has every command judged at the end
(test/soak_record.py). In the first part of the run the node itself is killed and started anew as well; the last
node lives to the end, so that its memory can be watched.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_bench import PolicyProcess
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from soak_arm import IMAGE_FAULTS, JOINT_FAULTS, Arm, Stream, Trajectory, reliability
from soak_record import Life, Record
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from como_core import config
from como_core.interface import Action, Interface, load_interface
from como_core.resources import resource
from como_ros import qos
from como_ros.messages import NS_PER_S, message_class

RESTARTS_SHARE = 0.4  # of the run, in which nodes are restarted
RUNNING_TIMEOUT_S, LATCH_TIMEOUT_S, ANSWER_TIMEOUT_S = 60.0, 15.0, 10.0
NO_ANSWER = "no answer"
BROKEN_MOODS = ("nan", "inf", "huge", "beyond", "shape", "empty", "order", "late", "raise", "refuse")
ODD_MOODS = ("far", "eager", "slow")


def interfaces() -> dict[str, Interface]:
    """Target -> a Panda with two cameras of 640x480 and joint states at 100 Hz, driven that way."""
    panda = load_interface(resource("config/interfaces/panda.yaml"))
    front, joints, action = panda.cameras["front"], panda.state["joints"], panda.action
    assert action.gripper is not None
    action = replace(action, gripper=replace(action.gripper, action=None, open_m=None, closed_m=None, max_effort=0.0))
    forward = Action(action.kind, "forward_command", "arm_position_controller/commands", action.names, 50.0,
                     action.frame, gripper=action.gripper, limits=action.limits)
    robot = replace(panda, cameras={"front": replace(front, topic="front/image_raw", max_age_s=0.3),
                                    "wrist": replace(front, topic="wrist/image_raw", max_age_s=0.3)},
                    state={"joints": replace(joints, rate_hz=100.0, max_age_s=0.2)})
    return {"joint_trajectory": replace(robot, action=action), "forward_command": replace(robot, action=forward)}


class Rig:
    """A node in this process, the arm, and the policy node under test."""

    def __init__(self, folder: Path, seconds: float, seed: int, domain: int) -> None:
        self.folder, self.seconds, self.rng = folder, seconds, np.random.default_rng(seed)
        self._domain = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                        "PYTHONFAULTHANDLER": "1"}
        self._robots = interfaces()
        targets, clocks = list(self.rng.permutation(list(self._robots))), self.rng.random(2) < 0.5
        self._ways = [(str(targets[i % 2]), bool(clocks[i % 2]) != (i > 1)) for i in range(4)]
        rclpy.init(domain_id=domain)
        self.node = rclpy.create_node("soak")
        self.arm = Arm(self.node, self._robots["forward_command"])
        self.record = Record(self.arm)
        self.counts: Counter[str] = Counter()
        self._clients: dict[str, Any] = {}
        self._mood = self.node.create_publisher(String, "instruction", qos.latched())
        self._estop = self.node.create_publisher(Bool, "e_stop", qos.latched())
        for target, robot in self._robots.items():
            self.node.create_subscription(message_class(robot.action.type), robot.action.topic,
                                          self._hear(target), qos.command(500))
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 20)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.process: PolicyProcess | None = None
        self.life: Life | None = None

    # The node under test.

    def begin(self) -> None:
        """Start a policy node with the next target and clock."""
        number = len(self.record.lives)
        target, simulated = self._ways[number % len(self._ways)]
        folder = self.folder / f"life_{number}"
        folder.mkdir(parents=True)
        config.save(self._robots[target], folder / "interface.yaml")
        self.arm.simulate(simulated)
        self.mood("")
        self._clients = {}
        parameters: dict[str, object] = {
            "policy": folder, "interface": folder / "interface.yaml", "enable_output": True, "autostart": True,
            "use_sim_time": simulated, "blend": str(self.rng.choice(["cross_fade", "temporal_ensemble",
                                                                     "real_time_chunking"])),
            "qos_overrides./joint_states.subscription.reliability": "reliable"}
        self.process = PolicyProcess([str(Path(__file__).with_name("soak_policy.py"))], parameters,
                                     folder / "node.log", self._domain)
        self.life = self.record.begin(self._robots[target], simulated, folder, self.process.process.pid)

    def end(self, how: signal.Signals) -> None:
        """End the policy node: SIGKILL, or SIGINT, to which it must answer with exit code 0."""
        assert self.process is not None and self.life is not None
        self.life.closing_ns = time.time_ns()
        process = self.process.process
        if process.poll() is None:
            process.send_signal(how)
            code: int | None = None
            try:
                code = process.wait(20.0)
            except Exception:  # noqa: BLE001 - it does not end: that is what is told
                process.kill()
                process.wait()
            if code != {signal.SIGINT: 0, signal.SIGKILL: -signal.SIGKILL}[how]:
                self.record.tell(f"exit code {code} after {how.name}")
        self.record.end(self.life)
        self.process = self.life = None

    def alive(self) -> None:
        """Tell of a node that ended unasked, and start another one."""
        assert self.process is not None and self.life is not None
        code = self.process.process.poll()
        if code is not None:
            self.record.crash(f"the node ended by itself with {code}; {self.life.folder}")
            self.record.end(self.life)
            self.begin()

    # What a person does.

    def mood(self, text: str) -> None:
        self._mood.publish(String(data=text))

    def press(self, pressed: bool) -> None:
        self._estop.publish(Bool(data=pressed))

    def reset(self) -> tuple[bool, str]:
        asked_ns = time.time_ns()
        answer = self._call(Trigger, "policy_node/reset", Trigger.Request())
        self.record.reopened_ns.append((asked_ns, time.time_ns()))
        return (False, NO_ANSWER) if answer is None else (answer.success, answer.message)

    def pause(self, paused: bool) -> bool:
        return self._call(SetBool, "policy_node/pause", SetBool.Request(data=paused)) is not None

    def transition(self, name: str) -> bool:
        asked_ns, request = time.time_ns(), ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name.upper()}")
        answer = self._call(ChangeState, "policy_node/change_state", request, 30.0)
        if name == "activate":
            self.record.reopened_ns.append((asked_ns, time.time_ns()))
        if answer is None or not answer.success:
            self.record.tell(f"{name} was not done: {answer}")
        return answer is not None and bool(answer.success)

    def _call(self, kind: Any, name: str, request: Any, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """The answer of a service of the present node; None where there is none."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        if not client.wait_for_service(ANSWER_TIMEOUT_S):
            return None
        future = client.call_async(request)
        return future.result() if self.wait(future.done, timeout_s) else None

    @staticmethod
    def wait(condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition` came to hold within so much wall time."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    # What is heard.

    def _hear(self, target: str) -> Callable[[Any, Any], None]:
        def on_command(message: Any, info: Any) -> None:
            sent = np.array(message.data) if target == "forward_command" else Trajectory.of(message)
            self.record.commands[target].append((info["source_timestamp"], sent))
            if isinstance(sent, Trajectory):
                self.arm.follow(sent)
            else:
                self.arm.obey(sent)
        return on_command

    def _on_report(self, message: DiagnosticArray, info: Any) -> None:
        for status in message.status:
            if status.name == "policy_node: latch":
                values = {value.key: value.value for value in status.values}
                self.record.reports.append((info["source_timestamp"], values["phase"], values["cause"]))

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def close(self) -> None:
        if self.process is not None:
            self.process.end()
        self.arm.close()
        self.record.close()
        rclpy.try_shutdown()
        self._thread.join(5.0)


class Schedule:
    """The faults, one after the other. Each is a method; its docstring says what must follow."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.rng, self.arm, self.record = rig, rig.rng, rig.arm, rig.record
        self._faults = [name.removeprefix("fault_") for name in dir(self) if name.startswith("fault_")]

    def run(self) -> None:
        """Fault after fault until the time is over, every kind as often as every other."""
        start_s = time.monotonic()
        restarts: list[Callable[[], None]] = [lambda: self._restart(signal.SIGKILL),
                                              lambda: self._restart(signal.SIGINT)]
        self.rig.begin()
        self.running("the start")
        planned = 2 * max(1, self.rig.seconds // 120)
        deck: list[str] = []
        # However slow the machine is, each kind comes once.
        while time.monotonic() - start_s < self.rig.seconds or not set(self._faults) <= set(self.rig.counts):
            share = (time.monotonic() - start_s) / self.rig.seconds
            if share < 1.2 * RESTARTS_SHARE and share > RESTARTS_SHARE * (self.record.restarts + 1) / planned:
                restarts[self.record.restarts % 2]()
                continue
            deck = deck or list(self.rng.permutation(self._faults))
            time.sleep(float(self.rng.uniform(0.1, 0.5)))
            self.inject(deck.pop())
        while self.record.restarts < 2:  # a very short run
            restarts[self.record.restarts % 2]()
        time.sleep(1.0)
        self.rig.end(signal.SIGINT)

    def inject(self, name: str) -> None:
        """One fault, its end, and commands again."""
        self.rig.counts[name] += 1
        self.record.events.append((time.time_ns(), name))
        getattr(self, f"fault_{name}")()
        self.record.events.append((time.time_ns(), f"{name} ends"))
        self.running(name)

    def running(self, after: str) -> None:
        """Wait for commands of the present node; open the latch where it is closed."""
        life, since_ns = self.rig.life, time.time_ns()
        end_s, asked_s = time.monotonic() + RUNNING_TIMEOUT_S, 0.0
        while not self._commands_since(since_ns):
            if time.monotonic() > end_s:
                if not self._deaf(life):
                    self.record.tell(f"no command within {RUNNING_TIMEOUT_S:g} s after {after}: "
                                     f"{self.record.reports[-1:]}; its log ends: {self._log(life)[-1500:]}")
                self._restart(signal.SIGINT)
                return
            self.rig.alive()
            if self.rig.life is not life:
                life, since_ns = self.rig.life, time.time_ns()
            if self.record.phase(life) == "latched" and time.monotonic() > asked_s + 0.3:
                asked_s = time.monotonic()
                self._reopen()
            time.sleep(0.02)
        self.record.reopened += 1

    @staticmethod
    def _log(life: Life | None) -> str:
        return (life.folder / "node.log").read_text(errors="replace") if life is not None else ""

    def _deaf(self, life: Life | None) -> bool:
        """Whether shared memory is broken since the node before it was killed: it hears nobody and says what to do
        (Fast DDS #5737), or it says that it is active and not one of its reports, one each second, comes here.
        """
        text = self._log(life)
        hears_nobody = "open_and_lock_file failed" in text and "publishers are there, and nothing comes" in text
        is_not_heard = "active; commands are sent" in text and not self.record.phase(life)
        deaf = hears_nobody or is_not_heard
        self.rig.counts["deaf after SIGKILL"] += deaf
        return deaf

    def _commands_since(self, since_ns: int) -> bool:
        assert self.rig.life is not None
        return self.record.heard(self.rig.life, since_ns) >= (2 if self.rig.life.trajectories else 8)

    def _reopen(self) -> None:
        if self.rng.random() < 0.8:
            self.rig.reset()
        elif self.rig.transition("deactivate"):
            self.rig.transition("activate")

    def _restart(self, how: signal.Signals) -> None:
        self.rig.counts[f"restart by {how.name}"] += 1
        self.record.restarts += 1
        self.rig.end(how)
        self.rig.begin()
        self.running(f"a restart by {how.name}")

    def _latches(self, since_ns: int, what: str) -> None:
        """Wait until the latch is closed; a node that does not close it has failed."""
        if self.rig.wait(lambda: self.record.latched_since(since_ns), LATCH_TIMEOUT_S):
            self.record.latches += 1
        else:
            self.record.tell(f"{what} did not close the latch: {self.record.reports[-1:]}")

    def _streams(self) -> list[Stream]:
        return list(self.arm.streams.values())

    def _stream(self) -> Stream:
        return self._streams()[int(self.rng.integers(3))]

    def _limit_s(self, stream: Stream) -> float:
        return self.arm.interface.max_age_s[stream.name]

    def _spoil(self, stream: Stream, what: str) -> None:
        """Its messages are of no use until the latch is closed and a reset was refused."""
        since_ns, stale_s = time.time_ns(), time.monotonic() + self._limit_s(stream) + 0.1
        self._latches(since_ns, what)
        # On a busy machine it may have been closed by another stream, before this one was stale.
        time.sleep(max(stale_s - time.monotonic(), 0.0))
        done, why = self.rig.reset()
        if done or not why.startswith(("stream", NO_ANSWER)):
            self.record.tell(f"{what}: reset answered {done}, {why!r}")
        stream.heal()

    # Faults of the streams.

    def fault_stall(self) -> None:
        """A stream is silent for 0.05 to 2 s; where that is longer than max_age_s, the latch closes."""
        stream, seconds, since_ns = self._stream(), float(self.rng.uniform(0.05, 2.0)), time.time_ns()
        stream.silent = True
        time.sleep(seconds)
        if seconds > self._limit_s(stream) + 0.3:
            self._latches(since_ns, f"{stream.name} silent for {seconds:.2f} s")
        stream.heal()

    def fault_storm(self) -> None:
        """All streams stall, freeze and go on at random moments."""
        for _ in range(int(self.rng.integers(3, 8))):
            stream, kind = self._stream(), int(self.rng.integers(3))
            if kind == 0:
                stream.silent = not stream.silent
            elif kind == 1:
                stream.frozen_ns = None if stream.frozen_ns else self.arm.now_ns()
            else:
                self.arm.announce(stream)
            time.sleep(float(self.rng.uniform(0.02, 0.3)))
        for stream in self._streams():
            stream.heal()

    def fault_publisher(self) -> None:
        """A publisher is destroyed and made anew, as a driver that is restarted."""
        stream = self._stream()
        self.arm.withdraw(stream)
        time.sleep(float(self.rng.uniform(0.0, 1.0)))
        self.arm.announce(stream)

    def fault_qos(self) -> None:
        """A publisher comes back with another QoS that fits: reliable, depth 1, transient local."""
        stream = self._stream()
        fits = reliability(True, int(self.rng.choice([1, 10])), latched=bool(self.rng.random() < 0.5))
        self.arm.announce(stream, fits)
        time.sleep(float(self.rng.uniform(0.3, 1.0)))
        self.arm.announce(stream)

    def fault_incompatible_qos(self) -> None:
        """The joints' publisher comes back best effort, where the node asks for reliable: silence, and the latch."""
        stream = self.arm.streams["joints"]
        stream.spoilt = "deaf"
        since_ns = time.time_ns()
        self.arm.announce(stream, reliability(False))
        self._latches(since_ns, "a QoS that does not fit")
        assert self.rig.process is not None
        if not self.rig.wait(lambda: "incompatible QoS (RELIABILITY" in self.rig.process.text(), 10.0):  # type: ignore[union-attr]
            self.record.tell("a QoS that does not fit is not in the log")
        stream.heal()
        self.arm.announce(stream)

    def fault_volatile_instruction(self) -> None:
        """Somebody publishes `instruction` without latching: the node cannot hear it, says so and goes on."""
        stranger = self.rig.node.create_publisher(String, "instruction", qos.command())
        stranger.publish(String(data="nan"))
        time.sleep(0.5)
        self.rig.node.destroy_publisher(stranger)

    def fault_frozen_camera(self) -> None:
        """A camera goes on sending, with the stamp of the moment when it froze."""
        stream = self._streams()[int(self.rng.integers(2))]
        stream.frozen_ns = self.arm.now_ns()
        self._spoil(stream, f"{stream.name} frozen")

    def fault_stamps(self) -> None:
        """The header stamps of a stream jump, forward or back, by 1 to 30 s."""
        stream, seconds = self._stream(), float(self.rng.uniform(1, 30) * self.rng.choice([-1, 1]))
        stream.offset_ns = round(seconds * NS_PER_S)
        self._spoil(stream, f"stamps of {stream.name} off by {seconds:.1f} s")

    def fault_image(self) -> None:
        """Pictures of another size or encoding, with a wrong step, cut off, or empty."""
        stream, fault = self._streams()[int(self.rng.integers(2))], str(self.rng.choice(IMAGE_FAULTS))
        stream.spoilt = fault
        self._spoil(stream, f"{stream.name}: {fault}")

    def fault_joint_state(self) -> None:
        """NaN or infinity in the joints, a joint missing, fewer positions than names, or nothing."""
        stream, fault = self.arm.streams["joints"], str(self.rng.choice(JOINT_FAULTS))
        stream.spoilt = fault
        self._spoil(stream, f"joints: {fault}")

    def fault_joint_order(self) -> None:
        """Joints in another order, with one more that is NaN: they are found by name, and nothing happens."""
        stream = self.arm.streams["joints"]
        stream.reordered = True
        time.sleep(0.7)
        self.running("joints in another order")
        stream.heal()

    # Faults of the clock.

    def fault_clock(self) -> None:
        """The simulated clock jumps or stands still; without one, all header stamps do."""
        assert self.rig.life is not None
        if self.rig.life.simulated:
            kind = int(self.rng.integers(3))
            if kind < 2:
                self.arm.jump(float(self.rng.uniform(0.5, 20) * (-1, 1)[kind]))
            else:
                self.arm.hold_clock(True)
                time.sleep(float(self.rng.uniform(0.05, 1.0)))
                self.arm.hold_clock(False)
            return
        since_ns, offset_ns = time.time_ns(), round(float(self.rng.uniform(1, 30) * self.rng.choice([-1, 1])) * 1e9)
        for stream in self._streams():
            stream.offset_ns = offset_ns
        self._latches(since_ns, "all stamps wrong")
        for stream in self._streams():
            stream.heal()

    # Faults of the policy.

    def fault_broken_policy(self) -> None:
        """NaN, infinity, what float32 cannot hold, wrong shapes and times, or an error: the latch closes."""
        mood, since_ns = str(self.rng.choice(BROKEN_MOODS)), time.time_ns()
        self.rig.mood(mood)
        self._latches(since_ns, f"a policy that gives {mood}")
        self.rig.mood("")

    def fault_odd_policy(self) -> None:
        """Huge, far or fast values and slow answers: bounded, or refused."""
        self.rig.mood(str(self.rng.choice(ODD_MOODS)))
        time.sleep(float(self.rng.uniform(0.3, 2.0)))
        self.rig.mood("")

    # What a person does.

    def fault_estop(self) -> None:
        """Pressed: the latch closes and stays so; released: a reset opens it."""
        since_ns = time.time_ns()
        self.rig.press(True)
        self._latches(since_ns, "the e-stop")
        self.record.silent.append((since_ns, 0.15, time.time_ns(), "the e-stop"))
        if self.rig.reset() not in ((False, "the e-stop is pressed"), (False, NO_ANSWER)):
            self.record.tell("the latch was opened under a pressed e-stop")
        self.rig.press(False)
        time.sleep(0.1)

    def fault_pause(self) -> None:
        """Nothing is sent from the answer on until the pause ends."""
        if not self.rig.pause(True):
            self.record.tell("a pause was not answered")
        since_ns = time.time_ns()
        time.sleep(float(self.rng.uniform(0.2, 0.8)))
        self.record.silent.append((since_ns, 0.0, time.time_ns(), "a pause"))
        self.rig.pause(False)

    def fault_lifecycle(self) -> None:
        """Deactivated, and at times cleaned up and configured anew: nothing is sent until activate."""
        if not self.rig.transition("deactivate"):
            return
        since_ns = time.time_ns()
        if self.rng.random() < 0.5:
            self.rig.transition("cleanup")
            self.rig.transition("configure")
        time.sleep(float(self.rng.uniform(0.1, 0.5)))
        self.record.silent.append((since_ns, 0.0, time.time_ns(), "deactivate"))
        self.rig.transition("activate")


def main(folder: Path, seconds: float, seed: int, domain: int) -> int:
    rig = Rig(folder, seconds, seed, domain)
    schedule = Schedule(rig)
    try:
        schedule.run()
    finally:
        rig.close()
        summary = {"seconds": seconds, "seed": seed, "faults": dict(sorted(rig.counts.items())), **rig.record.summary()}
        rig.record.write(folder / "sent.npz")
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
