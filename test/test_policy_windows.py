"""Windows of training data: which action belongs to which picture, with what trust."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_data import INTERFACE, RATE_HZ, SPACE, config, demonstrations, videos
from safetensors.torch import load_file

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.policy.config import Family
from como_core.policy.cotraining import CotrainingMode
from como_core.policy.data import (
    CameraStack,
    Windows,
    WindowShape,
    check_demonstrations,
    chunk_rows,
    shifted,
)
from como_core.policy.normaliser import Affine, Normaliser
from como_core.policy.train import train


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


@pytest.mark.parametrize("mode", ["none", "heads", "joint", "decoded"])
@pytest.mark.parametrize("family", ["diffusion", "autoregressive"])
def test_what_is_not_known_moves_no_weight(family: Family, mode: CotrainingMode, tmp_path: Path) -> None:
    """Neither as a target nor as context of what is known: actions of unknown steps, labels of confidence 0."""
    def spoilt(given: Episode, poison: float) -> Episode:
        assert given.latent is not None and given.confidence is not None
        latent, confidence = given.latent.copy(), given.confidence.copy()
        confidence[5:8], latent[5:8] = 0.0, poison
        given = dataclasses.replace(given, latent=latent, confidence=confidence)
        if given.action is None:
            return given
        action, provenance = given.action.copy(), np.full(len(given), Provenance.MEASURED, np.uint8)
        action[10:14], provenance[10:14] = poison, Provenance.PSEUDO if mode != "decoded" else Provenance.NONE
        return dataclasses.replace(given, action=action, provenance=provenance)

    found = []
    for poison in (0.0, 1e3):
        demos, films = ([spoilt(e, poison) for e in given] for given in (demonstrations(1), videos(1)))
        out = tmp_path / str(poison)
        train(demos, films if mode != "none" else [], INTERFACE,
              config(mode, steps=3, family=family), out, cache=tmp_path / "cache")
        found.append(load_file(out / "model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_lies_past_the_end_is_nobodys_action() -> None:
    windows = _windows()
    windows.action[-1] = 7.0
    batch = windows.batch(np.array([22, 23]), 0, np.random.default_rng(0))
    assert batch["action_weight"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert not batch["action"][batch["action_weight"] == 0].any()


def test_a_constant_is_not_blown_up_however_large_it_is() -> None:
    assert Affine.fit(np.full((5000, 1), 1234.567, np.float32)).scale.tolist() == [1.0]
