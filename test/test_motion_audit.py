"""S-PCFC and the leakage audit, on models whose answer is known by construction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from moving_square import FPS, moving_square, tiny

from como_core.config import with_options
from como_core.episode import Episode
from como_core.motion.measure.appearance import appearance
from como_core.motion.measure.audit import AuditLine, audit
from como_core.motion.measure.eye import Encoded, Eye, View, encode_all
from como_core.motion.measure.metrics import (
    Triples,
    consistency,
    latent_consistency,
    reconstruction_gain,
    true_consistency,
)
from como_core.motion.measure.verdicts import RULES
from como_core.motion.model import MotionModel
from como_core.motion.pairs import Pairs

CLIPS = 12


@pytest.fixture(scope="module")
def clips() -> list[Episode]:
    """Clips of a moving square, each over a background of its own: twelve scenes."""
    found = []
    for seed in range(CLIPS):
        episode = moving_square(seed)
        colour = np.random.default_rng(seed).integers(0, 2, 3) * 120
        frames = np.where(episode.images["top"] < 255, episode.images["top"] // 2 + colour, 255).astype(np.uint8)
        found.append(dataclasses.replace(episode, images={"top": frames}))
    return found


def frames_and_pairs(clips: list[Episode]) -> tuple[np.ndarray, Pairs]:
    offsets = np.cumsum([0, *map(len, clips)])
    times = np.concatenate([clip.timestamps for clip in clips])
    return np.concatenate([clip.images["top"][:] for clip in clips]), Pairs.build(times, offsets, 0.1)


def lines(preset: str, clips: list[Episode], **options: object) -> dict[str, AuditLine]:
    """The audit of an untrained model: what follows from how it is built."""
    torch.manual_seed(0)
    model = MotionModel(with_options(tiny(preset), **options)).eval()
    frames, pairs = frames_and_pairs(clips)
    eye = Eye(model)
    return {line.name: line for line in audit(eye, frames, pairs, encode_all(eye, frames, pairs), np.arange(CLIPS))}


def test_a_z_of_the_future_frame_is_caught(clips: list[Episode]) -> None:
    found = lines("future-feature", clips)
    assert found["static pairs"].verdict == "leak" and found["static pairs"].references["less_constant"] > 0.75
    assert found["reversal"].verdict == "leak"
    assert found["composition"].verdict == "warn" and found["composition"].value is not None
    assert found["composition"].value.mean == pytest.approx(1, abs=0.1), "z(a, m) + z(m, c) - z(a, c) is z of m"


def test_an_antisymmetric_z_is_at_rest_at_zero_and_turns_around(clips: list[Episode]) -> None:
    found = lines("como-plus", clips)
    for name, value in (("static pairs", 0.0), ("reversal", 1.0)):
        line = found[name]
        assert line.verdict == "ok" and line.value is not None
        assert line.value.mean == pytest.approx(value, abs=1e-4)


class LinearEye(Eye):
    """Sees z as a linear map of the change in pixels, so that motions add up exactly."""

    def motion(self, first: View, second: View) -> torch.Tensor:
        basis = torch.randn(3 * 32 * 32, 8, generator=torch.Generator().manual_seed(0))
        return (second.pixels - first.pixels).flatten(1) @ basis


def test_a_linear_z_adds_up(clips: list[Episode]) -> None:
    frames, pairs = frames_and_pairs(clips)
    eye = LinearEye(MotionModel(tiny("como-plus")).eval())
    found = {line.name: line for line in audit(eye, frames, pairs, encode_all(eye, frames, pairs), np.arange(CLIPS))}
    for name, value in (("composition", 0.0), ("static pairs", 0.0), ("reversal", 1.0)):
        score = found[name].value
        assert found[name].verdict == "ok" and score is not None and score.mean == pytest.approx(value, abs=1e-4)


def test_a_forward_dynamics_that_does_not_listen_is_named(clips: list[Episode]) -> None:
    found = lines("continuous", clips)
    assert found["shuffle gap"].verdict == "warn"
    assert found["scene cut"].verdict == "not applicable" and "removes only" in found["scene cut"].meaning


def test_a_model_of_features_only_is_audited(clips: list[Episode]) -> None:
    options = {"loss.pixel": 0.0, "loss.feature": 1.0, "backbone.frozen": True}
    found = lines("como-plus", clips, **options)
    assert found["composition"].verdict in ("ok", "warn") and found["shuffle gap"].value is not None
    rgb = lines("rgb-difference", clips, **options)
    assert rgb["transfer"].verdict == "not applicable" and "cannot look at" in rgb["transfer"].meaning


def test_one_recording_leaves_the_lines_that_need_two(clips: list[Episode]) -> None:
    model = MotionModel(tiny("como-plus")).eval()
    frames, pairs = frames_and_pairs(clips[:1])
    eye = Eye(model)
    found = {line.name: line for line in audit(eye, frames, pairs, encode_all(eye, frames, pairs), np.zeros(1, int))}
    assert found["scene cut"].meaning == found["transfer"].meaning == "needs two recordings"
    assert found["reversal"].verdict == "ok"


def test_a_constant_alone_is_no_leak() -> None:
    assert RULES["reversal"].verdict(-0.5) == "leak"
    from como_core.intervals import Score
    from como_core.motion.measure.audit import judged

    low = Score(-0.5, -0.6, -0.4, 12)
    assert judged("reversal", low, 9, less_constant=0.9).verdict == "warn"
    assert judged("reversal", low, 9, less_constant=-0.4).verdict == "leak"


def test_s_pcfc_of_the_future_frame_is_one_and_of_steady_motion_minus_one(clips: list[Episode]) -> None:
    frames, pairs = frames_and_pairs(clips)
    triples = Triples.of(pairs)
    gap = round(0.1 * FPS)
    assert np.all(triples.middle - triples.before == gap) and np.all(triples.after - triples.middle == gap)
    assert len(triples) == CLIPS * (30 - 2 * gap)
    eye = Eye(MotionModel(with_options(tiny("future-feature"), **{"inverse.frame": False})).eval())
    encoded = encode_all(eye, frames, pairs)
    line = latent_consistency(eye, frames, triples, encoded.latent)
    assert line.raw.mean == pytest.approx(1, abs=1e-4) and line.floor.mean < 0.999
    steady = np.arange(len(frames))[:, None] * np.array([[1.0, 2.0]])
    assert true_consistency(steady, triples).raw.mean == pytest.approx(-1)


def test_s_pcfc_less_the_mean_sees_through_a_constant() -> None:
    rng = np.random.default_rng(0)
    forward, backward = rng.standard_normal((2, 400, 8)) + 5
    line = consistency("z", forward, backward, np.repeat(np.arange(10), 40))
    assert line.raw.mean > 0.9 and line.floor.mean > 0.9 and abs(line.centred.mean) < 0.1
    assert line.raw.low <= line.raw.mean <= line.raw.high


def test_gain_over_copying_is_that_of_the_pairs_predicted() -> None:
    episode, half = np.repeat(np.arange(4), 5), np.full(20, 0.5)
    half[::2] = np.nan
    gain = reconstruction_gain(Encoded(np.zeros((20, 1)), half, np.full(20, 2.0)), episode)
    assert gain.mean == gain.low == gain.high == 0.75


def scenes_of(pairs: Pairs, per_scene: int) -> tuple[np.ndarray, np.ndarray]:
    scenes = np.arange(CLIPS) // per_scene
    return scenes, np.eye(scenes.max() + 1)[scenes[pairs.episode]]


@pytest.mark.parametrize("per_scene", [1, 3, 12])
def test_appearance_is_full_for_the_scene_and_none_for_noise(clips: list[Episode], per_scene: int) -> None:
    """Many scenes are told apart; where all is one scene, or each clip its own, recordings are."""
    _, pairs = frames_and_pairs(clips)
    scenes, told = scenes_of(pairs, per_scene if per_scene == 3 else 1)
    scenes = scenes if per_scene != 12 else np.zeros(CLIPS, int)
    noise = np.random.default_rng(0).standard_normal((len(pairs), 6))
    frame = told + 0.01 * np.random.default_rng(1).standard_normal(told.shape)
    leak, clean = (appearance(values, frame, pairs, scenes) for values in (told, noise))
    assert leak.verdict == "leak" and leak.references["accuracy"] > 0.95
    assert clean.verdict == "ok" and clean.value is not None and abs(clean.value.mean) < 0.2
    assert leak.references["chance"] == pytest.approx(1 / told.shape[1])


def test_a_share_of_a_frame_that_tells_less_than_z_is_one(clips: list[Episode]) -> None:
    _, pairs = frames_and_pairs(clips)
    scenes, told = scenes_of(pairs, 3)
    noise = np.random.default_rng(1).standard_normal(told.shape)
    line = appearance(told, told + 0.5 * noise, pairs, scenes)
    assert line.verdict == "leak" and line.references["frame"] < 0.95
    assert line.value is not None and line.value.mean == line.value.high == 1


def test_a_frame_hardly_above_chance_is_no_measure_of_a_leak(clips: list[Episode]) -> None:
    """Three recordings, of which a frame tells little more than chance, though by more than a tenth."""
    _, pairs = frames_and_pairs(clips[:3])
    told = np.eye(3)[pairs.episode]
    faint, noise = np.random.default_rng(1).standard_normal((2, *told.shape))
    frame = 0.4 * told + faint
    line = appearance(told, frame, pairs, np.zeros(3, int))
    assert 0.1 < line.references["frame"] - line.references["chance"] < 0.25
    assert line.verdict == "warn" and "where a frame hardly does (accuracy 0.5" in line.meaning
    assert line.value is not None and line.value.mean == 1 and line.references["accuracy"] == 1
    nothing = appearance(noise, frame, pairs, np.zeros(3, int))
    assert nothing.verdict == "not applicable" and "does not clearly tell the recordings apart" in nothing.meaning


def test_appearance_needs_frames_that_differ(clips: list[Episode]) -> None:
    _, pairs = frames_and_pairs(clips)
    noise = np.random.default_rng(0).standard_normal((2, len(pairs), 6))
    line = appearance(noise[0], noise[1], pairs, np.zeros(CLIPS, int))
    assert line.verdict == "not applicable" and "apart either" in line.meaning
