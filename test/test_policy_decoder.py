"""Latents to actions, and what co-training makes of a folder of video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from policy_data import INTERFACE, LATENT, MIXING, config, demonstrations, episode, videos
from transforms3d.euler import euler2quat

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.interface import Action, Gripper
from como_core.interface.names import POSE_FIELDS
from como_core.policy.cotraining import CotrainingConfig, prepare_video
from como_core.policy.decoder import ActionDecoder, DecoderConfig, nearest_labelled

DECODER = config().cotraining.decoder


def test_decoder_recovers_the_velocity_and_leaves_a_constant_gripper_alone() -> None:
    decoder = ActionDecoder.fit(demonstrations(3), dataclasses.replace(DECODER, steps=300))
    truth = episode("left", 50)
    action, confidence = decoder.decode(truth.as_video())
    assert truth.action is not None
    labelled = slice(0, -2)
    error = np.square(action - truth.action)[labelled, :2].mean()
    assert error < 0.2 * truth.action[labelled, :2].var(), "most of the velocity is in the latents"
    np.testing.assert_allclose(action[:, 2], 1.0, atol=0.01)
    assert np.all(confidence > 0) and np.all(confidence <= 1)


def turning(seed: int, sign: Callable[[np.ndarray], np.ndarray | float]) -> Episode:
    """A hand that points down and turns a little; `sign` chooses q or -q of each quaternion [T, 4]."""
    given = episode("left", seed)
    angles = np.linspace(0, 1, len(given))
    turns = np.array([euler2quat(np.pi - 0.05 + 0.1 * t, 0, 0.3 * t) for t in angles])[:, [1, 2, 3, 0]]
    action = np.column_stack([np.zeros((len(given), 3)), turns * sign(turns), np.zeros(len(given))])
    latent = np.column_stack([angles, np.sin(3 * angles), np.zeros((len(given), LATENT - 2))])
    return dataclasses.replace(given, action=action.astype(np.float32), latent=latent.astype(np.float32))


@pytest.mark.parametrize("signs", [
    [lambda q: 1.0] * 4, [lambda q: 1.0, lambda q: -1.0] * 2, [lambda q: np.where(q[:, 3:] < 0, -1.0, 1.0)] * 4,
], ids=["continuous", "either sign", "w >= 0"])
def test_rotations_are_decoded_whatever_sign_their_quaternions_have(
        signs: list[Callable[[np.ndarray], np.ndarray | float]]) -> None:
    robot = dataclasses.replace(INTERFACE, action=Action("ee_pose", "pose", "command", POSE_FIELDS, 20.0,
                                                        gripper=Gripper("gripper")))
    truth = turning(50, signs[0])
    demos = [turning(seed, sign) for seed, sign in enumerate(signs)]
    found = prepare_video(demos, [truth.as_video()], robot, CotrainingConfig("decoded"))
    assert found is not None and found.fit is not None and truth.action is not None
    made = found.episodes[0]
    assert made.action is not None and made.action.shape == (24, 8) and made.confidence is not None
    turns, true = made.action[:, 3:7], truth.action[:, 3:7]
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1.0, atol=1e-5)
    off_deg = np.degrees(2 * np.arccos(np.clip(np.abs((turns * true).sum(1)), 0, 1)))
    assert off_deg[:-2].max() < 3.0, "of 17 that the hand turns by"
    assert np.all((turns[1:] * turns[:-1]).sum(1) > 0), "and the sign does not flip between steps"
    np.testing.assert_allclose(made.action[:, [0, 1, 2, 7]], 0.0, atol=1e-5)
    assert len(found.fit.r2) == 10 and made.confidence.min() > 0.3


def test_no_motion_in_the_picture_is_no_velocity_even_where_the_demonstrations_never_rested() -> None:
    moving = [dataclasses.replace(e, action=e.action + np.float32([1, 0, 0]),
                                  latent=e.latent + MIXING[0].astype(np.float32))
              for e in demonstrations(2) if e.action is not None and e.latent is not None]
    still = dataclasses.replace(videos(1)[0], latent=np.zeros((24, LATENT), np.float32))
    decoders = [ActionDecoder.fit(moving, DECODER, velocities) for velocities in (2, 0)]
    errors = [np.abs(decoder.decode(still)[0][:, 0]).mean() for decoder in decoders]
    assert errors[0] < 0.6 * errors[1]


def test_fitting_is_repeatable_and_touches_no_global_generator() -> None:
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    results = [ActionDecoder.fit(demonstrations(), DECODER).decode(videos(1)[0])[0] for _ in range(2)]
    np.testing.assert_array_equal(*results)
    assert torch.equal(before, torch.random.get_rng_state())


def test_left_out_episodes_choose_strong_noise_where_latents_mislead() -> None:
    rng = np.random.default_rng(0)
    config = dataclasses.replace(DECODER, input_noise=(0.01, 3.0), steps=200, hidden=64, dropout=0.0)
    garbage = [dataclasses.replace(e, latent=rng.standard_normal((len(e), 40)).astype(np.float32))
               for e in demonstrations(2)]
    fitted = ActionDecoder.fit(garbage, config).fitted
    assert fitted is not None and fitted.input_noise[:2] == [3.0, 3.0]
    assert fitted.errors[0.01][0] > fitted.errors[3.0][0]
    assert max(fitted.gain[:2]) < 0.5, "and little of it is believed"


def test_a_value_that_latents_do_not_tell_takes_no_accuracy_from_one_that_they_do() -> None:
    rng = np.random.default_rng(1)
    config = dataclasses.replace(DECODER, input_noise=(0.05, 3.0), steps=200, hidden=64, dropout=0.0)
    shaken = [dataclasses.replace(e, action=np.column_stack([e.action[:, :2], rng.standard_normal((len(e), 4))])
                                  .astype(np.float32)) for e in demonstrations(3) if e.action is not None]
    decoder = ActionDecoder.fit(shaken, config)
    assert decoder.fitted is not None and decoder.fitted.input_noise == [0.05, 0.05, 3.0, 3.0, 3.0, 3.0]
    truth = episode("left", 50)
    action, _ = decoder.decode(truth.as_video())
    assert truth.action is not None
    assert np.square(action - truth.action[:, [0, 1, 2, 2, 2, 2]])[:-2, :2].mean() < 0.2 * truth.action[:-2, :2].var()
    told = [e.action[:, 2:].mean(0) for e in shaken if e.instruction == "left" and e.action is not None]
    assert np.abs(action[:, 2:] - np.mean(told, axis=0)).max() < 0.5, "what is not told stays at its centre"


def test_one_demonstration_is_enough_to_fit() -> None:
    decoder = ActionDecoder.fit(demonstrations(1), DECODER)
    assert decoder.fitted is not None and decoder.decode(videos(1)[0])[0].shape == (24, 3)


def test_confidence_falls_where_the_networks_disagree() -> None:
    decoder = ActionDecoder.fit(demonstrations(), DECODER)
    video = videos(1)[0]
    assert video.latent is not None
    strange = dataclasses.replace(video, latent=video.latent * 40)
    assert decoder.decode(strange)[1].mean() < 0.8 * decoder.decode(video)[1].mean()


def test_doubtful_latents_count_less_and_the_end_of_a_clip_as_its_last_latent() -> None:
    decoder, video = ActionDecoder.fit(demonstrations(), dataclasses.replace(DECODER, doubtful=0.2)), videos(1)[0]
    believed = decoder.decode(video)[1]
    assert np.all(believed > 0.3), "its last two steps have no latent of their own"
    spoilt = video.trust.copy()
    spoilt[5], spoilt[8:10], spoilt[-3] = 0.02, 0.0, 0.1
    share = decoder.decode(dataclasses.replace(video, confidence=spoilt))[1] / believed
    np.testing.assert_allclose(share, [*[1] * 5, 0.1, 1, 1, 0, 0, *[1] * 11, 0.5, 0.5, 0.5], atol=0.05)
    trusting = ActionDecoder.fit(demonstrations(), dataclasses.replace(DECODER, doubtful=0.0))
    assert np.all(trusting.decode(dataclasses.replace(video, confidence=spoilt))[1] > 0.8 * believed)


def test_steps_without_a_label_take_the_nearest_label_in_time() -> None:
    given = dataclasses.replace(videos(1)[0], confidence=np.array([1, 0, 0, 0.5] + [0] * 20, np.float32))
    assert nearest_labelled(given, given.timestamps)[:5].tolist() == [0, 0, 3, 3, 3]
    nothing = dataclasses.replace(given, confidence=np.zeros(24, np.float32))
    with pytest.raises(ComoError, match="left#100: no label of confidence above 0; look at the confidence's parts"):
        nearest_labelled(nothing, nothing.timestamps)


def test_pseudo_labels_say_so_and_stay_within_the_gripper() -> None:
    found = prepare_video(demonstrations(), videos(), INTERFACE, CotrainingConfig("decoded", decoder=DECODER))
    assert found is not None and len(found.episodes) == 8
    for made in found.episodes:
        assert np.all(made.provenance == Provenance.PSEUDO) and made.state is None
        assert made.action is not None and made.action[:, -1].min() >= 0 and made.action[:, -1].max() <= 1
        assert made.confidence is not None and made.confidence.max() <= 1


def test_mode_none_uses_no_video() -> None:
    assert prepare_video(demonstrations(), [], INTERFACE, CotrainingConfig("none")) is None


def _refused(demos: list[Episode], films: list[Episode], message: str) -> None:
    with pytest.raises(ComoError, match=message):
        prepare_video(demos, films, INTERFACE, CotrainingConfig("decoded", decoder=DECODER))


def test_bad_input_is_refused_by_name() -> None:
    bare = dataclasses.replace(demonstrations()[0], latent=None)
    _refused(demonstrations(), [], "no labelled video")
    _refused([bare, *demonstrations()[1:]], videos(), "left#0: no latent motion")
    other = dataclasses.replace(videos()[2], latent=np.zeros((24, 9), np.float32))
    _refused(demonstrations(), [other], "left#102: latents have 9 numbers.*another motion model")
    no_camera = dataclasses.replace(videos()[0], images={"wrist": videos()[0].images["front"]})
    _refused(demonstrations(), [no_camera], "left#100.*camera 'front'")
    stranger = dataclasses.replace(videos()[0], instruction="up")
    _refused(demonstrations(), [stranger], "instruction 'up' has no labelled demonstration")


def test_a_video_that_does_not_fit_costs_itself_alone() -> None:
    """It lacks a camera, has no label to trust, or has actions of another robot; a foreign state is not read."""
    first, second, third, fourth, *others = videos()
    assert fourth.latent is not None
    given = [dataclasses.replace(first, images={"wrist": first.images["front"]}, source="blind"),
             dataclasses.replace(second, confidence=np.zeros(len(second), np.float32), source="doubted"),
             dataclasses.replace(third, latent=None, confidence=None, action=np.zeros((len(third), 9), np.float32),
                                 provenance=np.full(len(third), Provenance.PSEUDO, np.uint8), source="wide"),
             dataclasses.replace(fourth, state=np.zeros((len(fourth), 9), np.float32), source="foreign"), *others]
    found = prepare_video(demonstrations(), given, INTERFACE, CotrainingConfig("decoded", decoder=DECODER))
    assert found is not None and [name for name, _ in found.skipped] == ["blind", "doubted", "wide"]
    assert [why.partition(": ")[2].partition(";")[0] for _, why in found.skipped] == [
        "has no camera 'front'", "no label of confidence above 0", "action has 9 values a step, the interface has 3"]
    assert found.episodes[0].source == "foreign" and found.episodes[0].state is None
    with pytest.raises(ComoError, match="none of 1 videos can be trained on: blind: has no camera"):
        prepare_video(demonstrations(), given[:1], INTERFACE, CotrainingConfig("heads"))


def test_a_video_that_nobody_demonstrated_is_skipped_and_named() -> None:
    stranger = dataclasses.replace(videos()[0], instruction="up", source="up.mp4")
    settings = CotrainingConfig("decoded", decoder=DECODER)
    found = prepare_video(demonstrations(), [*videos(), stranger], INTERFACE, settings)
    assert found is not None and [path for path, _ in found.skipped] == ["up.mp4"] and len(found.episodes) == 8


@pytest.mark.parametrize("wrong", [{"lags_s": ()}, {"members": 0}, {"dropout": 1.0}, {"folds": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DecoderConfig(**wrong)  # type: ignore[arg-type]
