"""A command is obeyed only as long as it is fresh, whatever its stamp says."""

import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.interface import load_interface
from como_core.resources import resource
from como_ros.command_hold import CommandHold
from como_ros.messages import twist_message

ACTION = load_interface(resource("config/interfaces/metaworld.yaml")).action
HOLD_NS = round(ACTION.hold_s * 1e9)
NOW_NS = 10_000_000_000
MOVE = np.array([0.1, 0.2, 0.3, 0.0], np.float32)
STILL = [0.0, 0.0, 0.0, 0.0]


def hold(stamp_ns: int) -> CommandHold:
    command = CommandHold(ACTION)
    command.take_twist(twist_message(MOVE, ACTION, stamp_ns), NOW_NS)
    return command


def test_nothing_moves_before_the_first_command() -> None:
    np.testing.assert_array_equal(CommandHold(ACTION).vector(NOW_NS), STILL)


@pytest.mark.parametrize("stamp_ns", [NOW_NS, 0])
def test_a_command_holds_for_hold_s_and_not_longer(stamp_ns: int) -> None:
    command = hold(stamp_ns)
    np.testing.assert_allclose(command.vector(NOW_NS + HOLD_NS), MOVE)
    np.testing.assert_array_equal(command.vector(NOW_NS + HOLD_NS + 1), STILL)


def test_a_command_that_was_long_on_its_way_is_not_obeyed() -> None:
    np.testing.assert_array_equal(hold(NOW_NS - HOLD_NS - 1).vector(NOW_NS), STILL)


def test_a_stamp_of_another_clock_is_told_and_does_not_hold_for_ever() -> None:
    command = CommandHold(ACTION)
    with pytest.raises(ComoError, match="use_sim_time"):
        command.take_twist(twist_message(MOVE, ACTION, 1_795_000_000_000_000_000), NOW_NS)
    np.testing.assert_allclose(command.vector(NOW_NS), MOVE)
    np.testing.assert_array_equal(command.vector(NOW_NS + HOLD_NS + 1), STILL)


def test_what_is_not_finite_is_refused_and_changes_nothing() -> None:
    command = hold(NOW_NS)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ComoError, match="not finite"):
            command.take_twist(twist_message(np.array([bad, 0, 0, 0]), ACTION, NOW_NS), NOW_NS)
        with pytest.raises(ComoError, match="not finite"):
            command.take_gripper(bad)
    np.testing.assert_allclose(command.vector(NOW_NS), MOVE)


def test_the_gripper_holds_its_position_until_told_or_cleared() -> None:
    command = hold(NOW_NS)
    command.take_gripper(0.75)
    np.testing.assert_array_equal(command.vector(NOW_NS + 100 * HOLD_NS), [0.0, 0.0, 0.0, 0.75])
    command.clear()
    np.testing.assert_array_equal(command.vector(NOW_NS), STILL)
