"""The controller without ROS: ages, latch, halts, what is asked of the policy and what becomes of its answers."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from como_core.action_chunk import ActionChunk, Observation
from como_core.control.controller import Controller
from como_core.control.latch import Latch
from como_core.control.observations import ObservationBuffer, Snapshot
from como_core.control.status import Command, Phase, Settings
from como_core.control.streams import StreamAges
from como_core.control.worker import Inference, InferenceWorker
from como_core.errors import ComoError
from como_core.interface import Action, load_interface
from como_core.resources import resource
from como_ros.processes import wait_until

SAWYER = load_interface(resource("config/interfaces/metaworld.yaml"))
JOINT = replace(SAWYER, action=Action("joint_position", "forward_command", "commands", ("gripper",), 40.0))
PERIOD_S = 0.025
PICTURE = np.zeros((64, 64, 3), np.uint8)


class Rig:
    """A controller, a clock and streams that arrive at 40 Hz on it."""

    def __init__(self, interface: object = SAWYER, settings: Settings | None = None) -> None:
        self.controller = Controller(interface, settings or Settings(blend_s=0.0))  # type: ignore[arg-type]
        self.interface = interface
        self.now_s, self.wall_s = 1000.0, 5.0
        self.controller.start()

    def arrive(self, *without: str, stamp_s: float | None = None) -> None:
        stamp = self.now_s if stamp_s is None else stamp_s
        if "front" not in without:
            self.controller.put_image("front", stamp, self.wall_s, lambda: PICTURE)
        for name, values in (("ee_pose", [0, 0.6, 0.3]), ("gripper", [0.5])):
            if name not in without:
                self.controller.put_state(name, stamp, self.wall_s, np.array(values, np.float32))

    def step(self, *without: str, wall_s: float = PERIOD_S, node_s: float = PERIOD_S) -> Command | None:
        """One period on: streams arrive, then the command timer ticks."""
        self.now_s, self.wall_s = self.now_s + node_s, self.wall_s + wall_s
        self.arrive(*without)
        return self.command()

    def command(self) -> Command | None:
        return self.controller.command(self.now_s, self.wall_s)

    def question(self) -> tuple[Snapshot, int] | None:
        return self.controller.question(self.now_s, self.wall_s)

    def answer(self, value: float = 0.2, steps: int = 12, error: Exception | None = None,
               question: tuple[Snapshot, int] | None = None) -> None:
        asked = question or self.question()
        assert asked is not None
        size = self.interface.action.size  # type: ignore[attr-defined]
        chunk = ActionChunk(np.arange(steps) * PERIOD_S, np.full((steps, size), value, np.float32), "test")
        self.controller.answer(Inference(*asked, None if error else chunk, error, 0.001), self.now_s)

    def run(self) -> None:
        """Until the robot moves."""
        self.arrive()
        self.answer()
        assert self.command() is not None and self.phase is Phase.RUNNING

    @property
    def phase(self) -> Phase:
        return self.controller.status(self.now_s, self.wall_s).phase


def test_commands_begin_when_every_stream_is_fresh_and_a_chunk_has_come() -> None:
    rig = Rig()
    rig.arrive("gripper")
    assert rig.question() is None and rig.command() is None and rig.phase is Phase.WAITING
    assert "stream 'gripper': nothing has arrived" in rig.controller.status(rig.now_s, rig.wall_s).waiting_for[0]
    rig.arrive()
    rig.answer(0.2)
    command = rig.command()
    assert command is not None and command.values == pytest.approx([0.2] * 3) and command.gripper == pytest.approx(0.2)


def test_nothing_is_asked_or_sent_before_start_and_after_stop() -> None:
    rig = Rig()
    rig.run()
    asked = (rig.controller.question(rig.now_s + 1, rig.wall_s), rig.controller.stop())[0]
    rig.arrive()
    assert asked is None and rig.question() is None and rig.command() is None and rig.phase is Phase.IDLE


def test_an_answer_that_was_asked_for_before_a_stop_is_ignored() -> None:
    rig = Rig()
    rig.arrive()
    question = rig.question()
    rig.controller.stop()
    rig.controller.start()
    rig.arrive()
    rig.answer(question=question)
    assert rig.command() is None


@pytest.mark.parametrize("stream", ["front", "ee_pose", "gripper"])
def test_a_stream_that_ends_stops_the_commands_within_its_age_and_is_named(stream: str) -> None:
    rig = Rig()
    rig.run()
    last_s, commands = rig.now_s, 0
    for _ in range(20):
        asked = rig.question()
        if asked is not None:
            rig.answer(question=asked)
        if rig.step(stream) is not None:
            commands, last_s = commands + 1, rig.now_s
    assert commands >= 10 and last_s - 1000.0 <= SAWYER.max_age_s[stream]
    cause = rig.controller.cause
    assert rig.phase is Phase.LATCHED and cause is not None and f"stream {stream!r} is stale" in cause
    assert all(other not in cause for other in {"front", "ee_pose", "gripper"} - {stream})


def test_a_clock_that_stands_still_with_its_simulation_stops_the_commands_too() -> None:
    rig = Rig()
    rig.run()
    for _ in range(13):
        rig.step("front", "ee_pose", "gripper", node_s=0.0)
    assert rig.phase is Phase.LATCHED and "nothing arrived for 0.3" in str(rig.controller.cause)


def test_a_repeated_old_stamp_is_stale_although_messages_arrive() -> None:
    rig = Rig()
    rig.run()
    for _ in range(13):
        rig.now_s, rig.wall_s = rig.now_s + PERIOD_S, rig.wall_s + PERIOD_S
        rig.arrive("front")
        rig.controller.put_image("front", 1000.0, rig.wall_s, lambda: PICTURE)
        rig.command()
    assert "stream 'front' is stale: its header stamp is 0.3" in str(rig.controller.cause)


def test_a_stale_stream_before_the_first_command_sends_nothing_and_closes_nothing() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(steps=40)
    rig.now_s, rig.wall_s = rig.now_s + 0.4, rig.wall_s + 0.4
    assert rig.command() is None and rig.phase is Phase.WAITING
    rig.arrive()
    assert rig.command() is not None


def test_the_latch_opens_by_reset_once_the_stream_is_back_and_by_start() -> None:
    rig = Rig()
    rig.run()
    rig.step("front", wall_s=1.0, node_s=1.0)
    assert rig.phase is Phase.LATCHED
    rig.arrive("front")
    assert "stream 'front' is stale" in str(rig.controller.reset(rig.now_s, rig.wall_s)) and rig.phase is Phase.LATCHED
    rig.arrive()
    assert rig.command() is None and rig.question() is None, "fresh streams alone open nothing"
    assert rig.controller.reset(rig.now_s, rig.wall_s) is None
    rig.answer()
    assert rig.command() is not None
    rig.step("front", wall_s=1.0, node_s=1.0)
    rig.controller.stop()
    assert rig.controller.cause is not None, "the cause outlives stop"
    rig.controller.start()
    assert rig.controller.cause is None


def test_nan_closes_the_latch_even_before_the_first_command() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(np.nan)
    assert rig.command() is None and "NaN or infinity" in str(rig.controller.cause)


def test_an_error_of_the_policy_waits_before_the_first_command_and_latches_after_it() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(error=ComoError("no such instruction"))
    status = rig.controller.status(rig.now_s, rig.wall_s)
    assert status.phase is Phase.WAITING and "no such instruction" in status.waiting_for[0]
    for _ in range(4):
        rig.step()
    rig.answer()
    assert rig.command() is not None
    for _ in range(4):
        rig.step()
    rig.answer(error=ComoError("no such instruction"))
    assert rig.phase is Phase.LATCHED


def test_a_velocity_gets_one_final_zero_and_a_position_none() -> None:
    for interface, expected in ((SAWYER, [0, 0, 0]), (JOINT, None)):
        rig = Rig(interface)
        rig.run()
        assert rig.controller.take_halt(rig.now_s) is None, "not while it moves"
        rig.controller.stop()
        halt = rig.controller.take_halt(rig.now_s)
        assert (None if halt is None else list(halt.values)) == expected
        assert halt is None or halt.gripper is None
        assert rig.controller.take_halt(rig.now_s) is None


def test_a_plan_that_runs_out_ends_in_a_halt_and_goes_on_with_the_answer_under_way() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(steps=3)
    rig.command()
    for _ in range(4):
        rig.step()
    question = rig.question()
    assert rig.command() is None and rig.controller.take_halt(rig.now_s) is not None
    rig.answer(question=question)
    assert rig.command() is not None


def test_a_clock_that_goes_back_clears_everything_and_waits() -> None:
    rig = Rig()
    rig.run()
    rig.controller.clock_jumped()
    rig.now_s = 3.0
    assert rig.command() is None and rig.phase is Phase.WAITING and rig.controller.cause is None
    assert rig.controller.take_halt(rig.now_s) is not None and rig.question() is None
    rig.arrive()
    rig.answer()
    assert rig.command() is not None


def test_chunks_are_asked_for_at_replan_hz_of_the_image_stamps() -> None:
    rig = Rig()
    rig.arrive()
    asked = [rig.question() is not None]
    for _ in range(40):
        rig.step()
        asked.append(rig.question() is not None)
    assert sum(asked) == 11 and asked[::4] == [True] * 11


def test_the_state_of_the_image_is_waited_for_a_period_and_no_longer() -> None:
    rig = Rig()
    rig.arrive()
    rig.now_s, rig.wall_s = rig.now_s + PERIOD_S, rig.wall_s + PERIOD_S
    rig.arrive("ee_pose", "gripper")
    assert rig.question() is None
    rig.wall_s += 1.1 * PERIOD_S
    assert rig.question() is not None


def test_the_gripper_is_sent_on_change_only() -> None:
    rig = Rig()
    rig.run()
    sent = []
    for value in (0.2, 0.2, 0.7, 0.705):
        for _ in range(4):
            command = rig.step()
            assert command is not None
            sent.append(command.gripper)
        rig.answer(value)
    assert [round(s, 2) for s in sent if s is not None] == [0.7]


def test_loop_timing_counts_from_the_image_to_the_first_command_made_of_it() -> None:
    rig = Rig()
    rig.arrive()
    question = rig.question()
    rig.now_s, rig.wall_s = rig.now_s + PERIOD_S, rig.wall_s + 0.03
    rig.answer(question=question)
    rig.command()
    rig.step()
    timing = rig.controller.timing()
    assert timing["arrival_to_command_ms"] == {"n": 1, "p50": 30.0, "p99": 30.0, "max": 30.0}
    assert timing["stamp_to_command_ms"]["p50"] == 25.0 and timing["command_interval_ms"]["n"] == 1


def test_limits_stand_between_plan_and_command() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(5.0)
    command = rig.command()
    assert command is not None and command.values.max() <= 0.8 + 1e-6 and command.gripper == 1.0


def test_slow_simulated_time_stretches_the_limit_on_arrivals_only() -> None:
    ages = StreamAges({"front": 0.3}, wall_rate=0.5)
    ages.arrived("front", 100.0, 0.0)
    assert ages.faults(100.25, 0.5) == [] and ages.faults(100.25, 0.61) and ages.faults(100.31, 0.5)


def test_a_stamp_of_the_future_is_no_fresh_one() -> None:
    ages = StreamAges({"front": 0.3})
    ages.arrived("front", 100.0, 0.0)
    assert "in the future" in ages.faults(99.0, 0.0)[0] and ages.faults(99.9, 0.0) == []


def test_the_first_cause_of_a_latch_is_kept() -> None:
    latch = Latch()
    assert latch.close("first") and not latch.close("second") and latch.cause == "first"
    latch.open()
    assert not latch.closed


def test_the_state_is_that_of_the_image_not_the_newest() -> None:
    buffer = ObservationBuffer(SAWYER)
    with pytest.raises(ComoError, match="no observation without stream 'front'"):
        buffer.snapshot()
    buffer.put_image("front", 1.0, 0.0, lambda: PICTURE)
    for stamp_s in (0.9, 1.1):
        buffer.put_state("ee_pose", stamp_s, np.array([stamp_s, 0, 0], np.float32))
        buffer.put_state("gripper", stamp_s, np.array([7], np.float32))
    assert buffer.snapshot().state == pytest.approx([1.0, 0, 0, 7])


def test_a_late_picture_finds_its_state_among_those_of_a_robot_at_1_khz() -> None:
    buffer = ObservationBuffer(SAWYER)
    buffer.put_image("front", 9.75, 0.0, lambda: PICTURE)  # the oldest that max_age_s lets pass
    for i in range(10_000):
        buffer.put_state("ee_pose", 1e-3 * i, np.array([1e-3 * i, 0, 0], np.float32))
        buffer.put_state("gripper", 1e-3 * i, np.array([7], np.float32))
    assert buffer.snapshot().state == pytest.approx([9.75, 0, 0, 7], abs=1e-4)
    assert max(map(len, buffer._states.values())) < 400, "and no more than these are kept"


def test_earlier_pictures_are_those_of_their_time_and_the_first_one_stands_for_what_was_before() -> None:
    buffer = ObservationBuffer(SAWYER, history_s=(0.1, 0.2))
    for name in ("ee_pose", "gripper"):
        buffer.put_state(name, 0.0, np.zeros(len(SAWYER.state[name].names), np.float32))

    def put(number: int, stamp_s: float) -> None:
        buffer.put_image("front", stamp_s, 0.0, lambda: np.full_like(PICTURE, number))

    def seen() -> list[int]:
        observation = buffer.snapshot().observation()
        return [int(images["front"][0, 0, 0]) for images in (observation.images, *observation.past)]

    put(0, 1.0)
    assert seen() == [0, 0, 0]
    for i in range(1, 10):
        put(i, 1.0 + 0.05 * i + (0.004 if i == 7 else 0.0))  # a stamp that jitters is still that of its frame
    assert seen() == [9, 7, 5]
    put(10, 1.45)
    assert seen() == [10, 7, 5], "a repeated stamp replaces its picture"
    assert len(buffer._images["front"]) <= 6, "what no lag reaches is forgotten"


class _Recorder:
    """A policy that is as slow as it is told and keeps what it saw."""

    interface = SAWYER

    def __init__(self, cold: bool = False) -> None:
        self.seen: list[Observation] = []
        self.warm_in = ""
        self._cold = cold

    def warm_up(self) -> None:
        if self._cold:
            raise ComoError("no warmth")
        self.warm_in = threading.current_thread().name

    def predict(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        if observation.instruction == "fail":
            raise RuntimeError("as told")
        return ActionChunk(np.zeros(1), np.zeros((1, 4), np.float32))


def test_the_policy_is_warmed_up_in_the_thread_that_predicts() -> None:
    policy = _Recorder()
    InferenceWorker(policy, lambda _: None).close()
    assert policy.warm_in == "inference"
    with pytest.raises(ComoError, match="no warmth"):
        InferenceWorker(_Recorder(cold=True), lambda _: None)


def test_the_worker_decodes_predicts_and_survives_a_policy_that_raises() -> None:
    done: list[Inference] = []
    policy = _Recorder()
    worker = InferenceWorker(policy, done.append)
    for epoch, instruction in enumerate(("fail", "go")):
        worker.submit(Snapshot(1.0, 0.0, {"front": lambda: PICTURE}, None, instruction), epoch)
        assert wait_until(lambda n=epoch: len(done) > n and worker.idle, 5.0)  # type: ignore[misc]
    worker.close()
    assert isinstance(done[0].error, RuntimeError) and done[0].chunk is None
    assert done[1].error is None and done[1].chunk is not None and done[1].epoch == 1
    assert policy.seen[1].images["front"] is PICTURE


def test_a_pressed_estop_closes_the_latch_and_holds_it_until_it_is_released() -> None:
    rig = Rig()
    rig.run()
    rig.controller.estop(True)
    assert rig.phase is Phase.LATCHED and rig.controller.take_halt(rig.now_s) is not None
    assert rig.controller.reset(rig.now_s, rig.wall_s) == "the e-stop is pressed"
    rig.controller.start()
    assert rig.phase is Phase.LATCHED, "activate does not open it either"
    rig.controller.estop(False)
    assert rig.phase is Phase.LATCHED, "a release alone opens nothing"
    rig.arrive()
    assert rig.controller.reset(rig.now_s, rig.wall_s) is None and rig.phase is Phase.WAITING


def test_a_pause_ends_the_motion_and_an_answer_of_before_it_counts_no_more() -> None:
    rig = Rig()
    rig.run()
    for _ in range(4):
        rig.step()
    asked = rig.question()
    rig.controller.pause(True, rig.wall_s)
    assert rig.phase is Phase.WAITING and rig.controller.take_halt(rig.now_s) is not None
    rig.answer(question=asked)
    rig.controller.pause(False, rig.wall_s)
    assert rig.command() is None, "what was predicted before the pause is of another time"
    for _ in range(4):
        rig.step()
    rig.answer()
    assert rig.command() is not None and rig.controller.cause is None


def test_a_deadman_switch_that_falls_silent_is_a_released_one() -> None:
    rig = Rig(settings=Settings(blend_s=0.0, deadman_max_age_s=0.2))
    rig.arrive()
    assert rig.question() is None and rig.command() is None
    rig.controller.deadman(True, rig.wall_s)
    rig.answer(steps=40)
    assert rig.command() is not None
    for _ in range(7):
        assert rig.step() is not None
    rig.step()
    assert rig.step() is None and rig.phase is Phase.WAITING and rig.controller.cause is None
    rig.controller.deadman(True, rig.wall_s)
    rig.controller.deadman(False, rig.wall_s)
    assert rig.question() is None


@pytest.mark.parametrize("switch", ["deadman", "pause"])
def test_a_chunk_that_comes_after_the_operator_let_go_begins_no_motion(switch: str) -> None:
    """Asked for in time, answered late: not even one command."""
    rig = Rig(settings=Settings(blend_s=0.0, deadman_max_age_s=0.2))
    rig.arrive()
    rig.controller.deadman(True, rig.wall_s)
    asked = rig.question()
    for _ in range(9):
        rig.step()
    if switch == "pause":
        rig.controller.deadman(True, rig.wall_s)
        rig.controller.pause(True, rig.wall_s)
    rig.answer(steps=40, question=asked)
    assert rig.command() is None and rig.phase is Phase.WAITING


def test_the_gripper_is_said_anew_after_a_stop_but_not_after_a_plan_that_ran_out() -> None:
    rig = Rig()
    rig.arrive()
    rig.answer(0.4, steps=2)
    first = rig.command()
    assert first is not None and first.gripper is not None
    for _ in range(4):
        rig.step()
    rig.answer(0.4)
    again = rig.command()
    assert again is not None and again.gripper is None
    rig.controller.estop(True)
    rig.controller.estop(False)
    rig.controller.reset(rig.now_s, rig.wall_s)
    rig.answer(0.4)
    after = rig.command()
    assert after is not None and after.gripper is not None, "a person may have moved it"
