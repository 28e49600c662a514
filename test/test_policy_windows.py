"""Windows of training data: which action belongs to which picture, with what trust."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from policy_data import INTERFACE, RATE_HZ, SPACE, demonstrations, videos

from como_core.episode import Provenance
from como_core.errors import ComoError
from como_core.policy.data import (
    CameraStack,
    Windows,
    WindowShape,
    check_demonstrations,
    chunk_rows,
    shifted,
)
from como_core.policy.normaliser import Normaliser


def test_chunk_of_a_regular_recording_is_the_rows_that_follow() -> None:
    rows = chunk_rows(np.arange(5) / 40, 3, 40.0)
    assert rows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, -1], [4, -1, -1]]


def test_slow_video_holds_each_action_until_the_next_and_jitter_does_not_slip_a_row() -> None:
    assert chunk_rows(np.arange(4) / 20, 4, 40.0)[0].tolist() == [0, 0, 1, 1]
    jitter = np.arange(6) / 40 + np.array([0, 1, -1, 1, -1, 0]) * 0.002
    assert chunk_rows(jitter, 3, 40.0)[1].tolist() == [1, 2, 3]


def test_a_hole_in_the_recording_is_bridged_by_the_command_in_force() -> None:
    assert chunk_rows(np.array([0, 1, 4, 5]) / 40, 4, 40.0)[0].tolist() == [0, 1, 1, 1]


def _windows(use_state: bool = False) -> Windows:
    demos = demonstrations(1)
    films = [dataclasses.replace(v, action=np.zeros((24, 3), np.float32), confidence=np.full(24, 0.25, np.float32),
                                 provenance=np.full(24, Provenance.PSEUDO, np.uint8)) for v in videos(1)]
    episodes = [*demos, *films]
    frames = CameraStack([np.concatenate([e.images["front"][:] for e in episodes])])
    return Windows.of(episodes, frames, ("left", "right"), torch.eye(2), Normaliser.fit(demos, SPACE),
                      WindowShape(4, RATE_HZ, use_state, SPACE))


def test_batch_holds_picture_chunk_and_trust_of_its_rows() -> None:
    windows = _windows()
    batch = windows.batch(np.array([3, 22, 48 + 5]), 0, np.random.default_rng(0))
    observation = batch["observation"]
    demo = demonstrations(1)[0]
    assert observation["images"].shape == (3, 1, 16, 16, 3)
    np.testing.assert_array_equal(observation["images"][0, 0].numpy(), demo.images["front"][3])
    assert observation["instruction"].tolist() == [[1, 0]] * 3
    assert batch["action_weight"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0.25] * 4]
    assert demo.action is not None
    expected = Normaliser.fit(demonstrations(1), SPACE).action.normalise(demo.action[3:7])
    np.testing.assert_allclose(batch["action"][0].numpy(), expected, rtol=1e-6)


def test_state_of_video_is_marked_absent() -> None:
    observation = _windows(use_state=True).batch(np.array([0, 50]), 0, np.random.default_rng(0))["observation"]
    assert observation["state_known"].tolist() == [True, False]


def test_steps_of_unknown_action_start_no_window_and_have_no_weight() -> None:
    demo = demonstrations(1)[0]
    provenance = np.array([Provenance.MEASURED] * 20 + [Provenance.NONE] * 4, np.uint8)
    demo = dataclasses.replace(demo, provenance=provenance)
    windows = Windows.of([demo], demo.images["front"][:][:, None], ("left",), torch.eye(1),
                         Normaliser.fit([demo], SPACE), WindowShape(4, RATE_HZ, False, SPACE))
    assert windows.starts.max() == 19
    assert windows.batch(np.array([18]), 0, np.random.default_rng(0))["action_weight"].tolist() == [[1, 1, 0, 0]]


def test_shifts_move_whole_pictures_and_all_cameras_alike() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (20, 2, 16, 16, 3)).astype(np.uint8)
    up, left = rng.integers(-2, 3, (2, 20))
    moved = shifted(frames, up, left)
    for i in range(20):
        y, x = 4 - up[i], 4 - left[i]
        np.testing.assert_array_equal(moved[i, :, y:y + 8, x:x + 8], frames[i, :, 4:12, 4:12])
    np.testing.assert_array_equal(shifted(frames, np.zeros(20, int), np.zeros(20, int)), frames)


def test_parts_of_a_batch_are_the_batch() -> None:
    episodes = demonstrations()
    frames = np.concatenate([e.images["front"][:] for e in episodes])[:, None]
    windows = Windows.of(episodes, frames, ["left", "right"], torch.eye(2), Normaliser.fit(episodes, SPACE),
                         WindowShape(4, RATE_HZ, False, SPACE))
    starts = np.arange(0, 12)
    whole = windows.batch(starts, 3, np.random.default_rng(0))
    for rank in range(2):
        part = windows.batch(starts, 3, np.random.default_rng(0), slice(rank, None, 2))
        torch.testing.assert_close(part["observation"]["images"], whole["observation"]["images"][rank::2])
        torch.testing.assert_close(part["action"], whole["action"][rank::2])


def test_demonstrations_that_do_not_fit_are_refused_by_name_and_key() -> None:
    good = demonstrations(1)[0]
    cases = [
        (dataclasses.replace(good, images={"wrist": good.images["front"]}), "left#0.*camera 'front'"),
        (dataclasses.replace(good, state=np.zeros((24, 5), np.float32)), "left#0: state has 5 values.*interface has 2"),
        (dataclasses.replace(good, action=np.zeros((24, 7), np.float32)), "left#0: action has 7 values.*has 3"),
        (videos(1)[0], "left#100: no measured action.*'twist'"),
    ]
    for wrong, message in cases:
        with pytest.raises(ComoError, match=message):
            check_demonstrations([good, wrong], INTERFACE, use_state=False)
    with pytest.raises(ComoError, match="no state"):
        check_demonstrations([dataclasses.replace(good, state=None)], INTERFACE, use_state=True)
    with pytest.raises(ComoError, match="no demonstrations"):
        check_demonstrations([], INTERFACE, use_state=False)


def test_an_unnamed_video_stands_for_the_only_camera_but_not_for_several() -> None:
    camera = INTERFACE.cameras["front"]
    unnamed = dataclasses.replace(demonstrations(1)[0], images={"video": demonstrations(1)[0].images["front"]})
    check_demonstrations([unnamed], INTERFACE, use_state=False)
    two = dataclasses.replace(INTERFACE, cameras={"front": camera, "wrist": dataclasses.replace(camera, topic="wrist")})
    with pytest.raises(ComoError, match="names no camera"):
        check_demonstrations([unnamed], two, use_state=False)
