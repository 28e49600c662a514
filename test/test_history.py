"""Earlier pictures: the same ones in training, in a trial, along a recording and on the robot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from policy_data import INTERFACE, SPACE

from como_core.action_chunk import ActionChunk, Observation
from como_core.control.observations import ObservationBuffer
from como_core.episode import Episode
from como_core.evaluation.predictions import observation_at
from como_core.policy.data import CameraStack, Windows, WindowShape
from como_core.policy.normaliser import Affine, Normaliser
from como_core.simulation.trial import TrialRun

PERIOD_S, STEPS = 0.025, 41
ROBOT = dataclasses.replace(INTERFACE, state={})
LAGS = [(0.025,), (0.1,), (0.03,), (0.055,), (0.08,), (0.105,), (0.13,), (0.004,), (0.05, 0.17)]
REGULAR_S = PERIOD_S * np.arange(STEPS)
JITTER = np.random.default_rng(0).uniform(-1, 1, STEPS)
JITTERED_S = 1.7e9 + REGULAR_S + 0.0005 * JITTER  # a lag of 1.2 periods is 1.25 ms from where two pictures part


def numbered(number: int) -> np.ndarray:
    return np.full((4, 4, 3), number, np.uint8)


def numbers(seen: Observation) -> list[int]:
    return [int(images["front"][0, 0, 0]) for images in (seen.images, *seen.past)]


def recording(stamps_s: np.ndarray) -> Episode:
    return Episode(stamps_s, {"front": np.stack([numbered(i) for i in range(STEPS)])}, "numbered",
                   action=np.zeros((STEPS, 3), np.float32))


def in_training(stamps_s: np.ndarray, lags: tuple[float, ...]) -> list[list[int]]:
    given = recording(stamps_s)
    windows = Windows.of([given], CameraStack([np.asarray(given.images["front"])]), ("",), torch.eye(1),
                         Normaliser(Affine.identity(3)), WindowShape(4, 40.0, False, SPACE, lags))
    pictures = windows.batch(np.arange(STEPS), 0, np.random.default_rng(0))["observation"]["images"]
    return pictures[:, :, 0, 0, 0].tolist()


def shown(stamps_s: np.ndarray, lags: tuple[float, ...]) -> list[list[int]]:
    given = recording(stamps_s)
    return [numbers(observation_at(given, step, ("front",), lags)) for step in range(STEPS)]


def on_the_robot(stamps_s: np.ndarray, lags: tuple[float, ...]) -> list[list[int]]:
    buffer, found = ObservationBuffer(ROBOT, lags), []
    for number, stamp_s in enumerate(stamps_s.tolist()):
        buffer.put_image("front", stamp_s, 0.0, lambda number=number: numbered(number))  # type: ignore[misc]
        found.append(numbers(buffer.snapshot().observation()))
    return found


class Counting:
    """A robot whose pictures show the number of the period."""

    name, instruction, interface, camera = "counting", "", ROBOT, "front"
    period_s, time_limit_s, success = PERIOD_S, 1.0, False

    def reset(self, seed: int) -> None:
        self.period = 0

    def step(self, action: np.ndarray) -> None:
        self.period += 1

    def rest(self) -> np.ndarray:
        return np.zeros(3, np.float32)

    def render(self, camera: str = "front") -> np.ndarray:
        return numbered(self.period)

    def state(self) -> None:
        return None


def in_a_trial(lags: tuple[float, ...]) -> dict[int, list[int]]:
    """Period -> what the policy saw when it was asked there."""
    trial, found = TrialRun(Counting(), 0, history_s=lags), {}  # type: ignore[arg-type]
    while trial.observation is not None:
        found[len(trial.actions)] = numbers(trial.observation)
        trial.answer(ActionChunk(PERIOD_S * np.arange(12), np.zeros((12, 3), np.float32)))
    return found


@pytest.mark.parametrize("lags", LAGS, ids=str)
def test_a_lag_means_the_same_picture_everywhere(lags: tuple[float, ...]) -> None:
    trained, asked = in_training(REGULAR_S, lags), in_a_trial(lags)
    assert len(asked) == 10 and asked == {period: trained[period] for period in asked}
    for stamps_s in (REGULAR_S, JITTERED_S):
        assert in_training(stamps_s, lags) == trained, "jitter moves no picture"
        assert shown(stamps_s, lags) == trained
        assert on_the_robot(stamps_s, lags) == trained
    shaken = REGULAR_S + 0.006 * JITTER
    assert shown(shaken, lags) == in_training(shaken, lags)


def test_an_earlier_picture_is_as_old_as_the_lag_less_a_quarter_of_a_period() -> None:
    assert [30 - in_training(REGULAR_S, (lag,))[30][1] for lag in (0.03, 0.033, 0.055, 0.058)] == [1, 2, 2, 3]
