"""The motion model: aligned and deterministic, streams told apart, every loss term with gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from como_core.config import with_options
from como_core.motion.config import MotionConfig, load_preset, presets
from como_core.motion.losses import contrast_loss, motion_loss, prediction_loss
from como_core.motion.model import MotionModel, to_frames, to_pixels

PRESETS = ("como", "como-v1", "como-plus", "continuous", "future-feature", "rgb-difference", "vq")
SIZE = 64

# The paper's parts, narrow: queries over tokens, a transformer that decodes.
TRANSFORMERS = {
    "inverse.kind": "qformer", "inverse.width": 32, "inverse.hidden": 64, "inverse.layers": 2, "inverse.heads": 4,
    "forward.kind": "vit", "forward.width": 32, "forward.layers": 2, "forward.heads": 4, "forward.residual": False,
}


def make_model(preset: str = "como", seed: int = 0, **options: object) -> MotionModel:
    torch.manual_seed(seed)
    return MotionModel(with_options(load_preset(preset), **options)).eval()


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_pair_gives_the_same_bits(preset: str) -> None:
    model = make_model(preset)
    a, b = frames(5), frames(5, seed=1)
    first, again = model.encode(a, b), model.encode(a, b)
    assert first.shape == (5, model.config.latent_size)
    assert torch.equal(first, again)
    torch.rand(7)  # what else draws random numbers must not matter
    assert torch.equal(first, model.encode(a.copy(), b.copy()))


def test_tokens_of_both_frames_are_aligned() -> None:
    model = make_model("como-v1")
    patch = model.config.backbone.patch
    a = frames(1)
    b = a.copy()
    b[:, 3 * patch:4 * patch, 5 * patch:6 * patch] ^= 255
    with torch.no_grad():
        change = (model.features(model.pixels(b)) - model.features(model.pixels(a))).abs().sum(dim=1)[0]
    assert change.nonzero().tolist() == [[3, 5]]


def test_a_shift_by_one_patch_is_seen() -> None:
    model = make_model("como-v1")
    patch = model.config.backbone.patch
    a = frames(1)
    b = np.roll(a, patch, axis=2)
    with torch.no_grad():
        first, second = model.features(model.pixels(a)), model.features(model.pixels(b))
    assert torch.allclose(first.roll(1, dims=3), second, atol=1e-5)
    assert not torch.allclose(first, second, atol=0.1)
    still, moved = model.encode(a, a), model.encode(a, b)
    assert (moved - still).norm() > 0.1 * still.norm()


def test_the_two_streams_carry_different_types() -> None:
    model = make_model("como-v1")
    inverse = model.inverse
    # With equal projections only the types, and the place of a stream, tell the streams apart.
    inverse.project_motion.load_state_dict(inverse.project_frame.state_dict())
    stream = model.features(model.pixels(frames(1)))
    seen: list[torch.Tensor] = []
    hook = inverse.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.latent(stream, 2 * stream)  # with Td, both streams are `stream` then
    hook.remove()
    frame, motion = seen[0].chunk(2, dim=1)
    assert (frame - motion).abs().amax(dim=(0, 2, 3)).min() > 0
    types = inverse.types[:, None, :, None, None]
    assert torch.allclose(frame - types[0], motion - types[1], atol=1e-5)


@pytest.mark.parametrize(("preset", "sees_frame", "stream"), [
    ("como-v1", True, "difference"), ("continuous", True, "future"), ("future-feature", False, "future")])
@pytest.mark.parametrize("parts", [{}, TRANSFORMERS], ids=["conv", "transformers"])
def test_each_preset_shows_the_encoder_what_its_name_says(
        preset: str, sees_frame: bool, stream: str, parts: dict[str, object]) -> None:
    a, b = frames(3), frames(3, seed=1)
    model, seen = make_model(preset, **parts), []
    model.inverse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    z = model.encode(a, b)
    with torch.no_grad():
        first, second = model.features(model.pixels(a)), model.features(model.pixels(b))
    assert torch.equal(seen[0][1], second - first if stream == "difference" else second)
    other = model.encode(frames(3, seed=2), b)
    assert torch.equal(z, other) != sees_frame  # the future alone says nothing of frame t


def test_rgb_difference_embeds_the_difference_of_the_colours() -> None:
    model, seen = make_model("rgb-difference"), []
    model.inverse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    a, b = frames(2), frames(2, seed=1)
    model.encode(a, b)
    with torch.no_grad():
        expected = model.rgb(model.pixels(b) - model.pixels(a))
        frame = model.backbone(model.pixels(a))
    assert torch.allclose(seen[0][1], expected, atol=1e-5)
    assert torch.equal(seen[0][0], frame)


def test_a_discrete_z_has_no_more_values_than_codes() -> None:
    model = make_model("vq").train()
    for seed in range(3):
        model(*(to_pixels(torch.from_numpy(frames(16, seed + side))) for side in (0, 10)))
    z = model.eval().encode(frames(64), frames(64, seed=1)).unflatten(1, (8, -1))
    codes = {tuple(code.tolist()) for code in z.flatten(0, 1)}
    assert 1 < len(codes) <= model.config.bottleneck.codebook
    known = {tuple(code.tolist()) for code in model.bottleneck.quantise.codebook}
    assert codes <= known


def test_noise_of_a_variational_z_is_for_training_only() -> None:
    model = make_model("como-v1", **{"bottleneck.kind": "variational", "loss.kl": 1e-6})
    a, b = (model.features(model.pixels(frames(2, seed))) for seed in range(2))
    assert torch.equal(model.latent(a, b)[1], model.latent(a, b)[1])
    model.train()
    assert not torch.equal(model.latent(a, b), model.latent(a, b))


def only(term: str) -> dict[str, object]:
    """Settings under which `term` alone is minimised, beside a reconstruction of no weight to speak of."""
    settings = {f"loss.{name}": 0.0 for name in ("pixel", "contrast", "feature", "reversal", "composition")}
    return settings | {f"loss.{term}": 1.0}


ENCODER = {"backbone", "inverse", "bottleneck"}
ALL = ENCODER | {"forward_dynamics"}


@pytest.mark.parametrize("parts", [{}, TRANSFORMERS], ids=["conv", "transformers"])
@pytest.mark.parametrize(("term", "settings", "moved"), [
    ("pixel", {}, ALL),
    ("contrast", {}, ENCODER),
    ("contrast", {"loss.negatives": "batch"}, ENCODER),
    ("feature", {"backbone.frozen": True}, ALL - {"backbone"}),
    ("reversal", {}, ENCODER),
    ("composition", {}, ENCODER),
    ("kl", {"bottleneck.kind": "variational"}, ENCODER),
])
def test_every_loss_term_moves_the_parameters_it_should_and_no_others(
        term: str, settings: dict[str, object], moved: set[str], parts: dict[str, object]) -> None:
    asked = only(term) | settings | parts
    predicted = {"loss.pixel": 1.0} if term not in ("pixel", "feature") else {}
    model = make_model("como", **(asked | predicted)).train()
    pixels = dict(zip(("first", "second", "third", "middle"),
                      (to_pixels(torch.from_numpy(frames(4, seed))) for seed in range(4)), strict=True))
    terms = motion_loss(model(**pixels), pixels["first"], pixels["second"], model.config.loss)
    terms[term].backward()
    for name, parameter in model.named_parameters():
        gradient = 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
        part = name.split(".")[0]
        if part not in moved:
            assert gradient == 0, name
        elif parameter.requires_grad:
            assert gradient > 0, name
    for part in ALL - moved:
        assert not any(p.grad is not None and p.grad.any() for p in getattr(model, part).parameters())


def test_the_total_weighs_its_terms() -> None:
    model = make_model("como", **{"loss.contrast": 0.5, "loss.reversal": 0.25, "loss.composition": 0.125}).train()
    pixels = [to_pixels(torch.from_numpy(frames(4, seed))) for seed in range(4)]
    terms = motion_loss(model(*pixels), pixels[0], pixels[1], model.config.loss)
    expected = terms["pixel"] + 0.5 * terms["contrast"] + 0.25 * terms["reversal"] + 0.125 * terms["composition"]
    assert torch.allclose(terms["loss"], expected)


@pytest.mark.parametrize("branch", ["latent", "later", "reverse"])
def test_each_contrast_branch_trains_the_encoder(branch: str) -> None:
    model = make_model("como").train()
    pixels = [to_pixels(torch.from_numpy(frames(4, seed))) for seed in range(3)]
    out = model(*pixels)
    branches = {name: out[name] if name == branch else out[name].detach() for name in ("latent", "later", "reverse")}
    contrast_loss(**branches, temperature=0.1).backward()
    assert model.inverse.types.grad is not None
    assert model.inverse.types.grad.abs().sum() > 0


def test_contrast_is_the_formula_of_the_paper() -> None:
    z, later, reverse = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, -1.0]])
    scores = np.array([2**-0.5, -(2**-0.5), 0.0]) / 0.1
    expected = -np.log(np.exp(scores[0]) / np.exp(scores).sum())
    assert float(contrast_loss(z, later, reverse, 0.1)) == pytest.approx(expected, rel=1e-4)


def test_other_pairs_of_the_batch_can_be_negatives() -> None:
    z, later, reverse = (torch.randn(5, 8) for _ in range(3))
    unit = [part / part.norm(dim=1, keepdim=True) for part in (z, later, reverse)]
    scores = torch.cat([(unit[1] * unit[0]).sum(1, keepdim=True), (unit[1] * unit[2]).sum(1, keepdim=True),
                        (unit[0] * unit[2]).sum(1, keepdim=True),
                        (unit[1] @ unit[0].T)[~torch.eye(5, dtype=torch.bool)].view(5, 4)], dim=1) / 0.2
    expected = -torch.log_softmax(scores, dim=1)[:, 0].mean()
    assert torch.allclose(contrast_loss(z, later, reverse, 0.2, "batch"), expected, atol=1e-5)


def test_a_prediction_is_one_for_copying_and_zero_when_perfect() -> None:
    first, second = torch.randn(2, 2, 3, 8, 8)
    assert float(prediction_loss(first, second, first)) == pytest.approx(1.0)
    assert float(prediction_loss(second, second, first)) == 0.0
    assert float(prediction_loss(first, second, None)) == pytest.approx(float((first - second).square().mean()))
    assert float(prediction_loss(first, second, second)) < float("inf")


def test_a_bottleneck_stands_between_the_frames() -> None:
    """What is rebuilt of frame t + n can come by z alone: with z of no motion it is blind to frame t + n."""
    model = make_model("como-v1", **TRANSFORMERS)
    a, b = frames(2), frames(2, seed=1)
    z = model.encode(a, b)
    assert not torch.equal(model.reconstruct(a, z), model.reconstruct(a, torch.zeros_like(z)))
    assert torch.equal(model.reconstruct(a, z), model.reconstruct(a, z.clone()))


def test_reconstruct_adds_the_predicted_change_to_frame_t() -> None:
    model = make_model("como")
    a = frames(2)
    z = model.encode(a, frames(2, seed=1))
    with torch.no_grad():
        model.forward_dynamics.to_pixels[0].weight.zero_()
        model.forward_dynamics.to_pixels[0].bias.zero_()
    assert torch.equal(model.reconstruct(a, z), torch.from_numpy(a))
    assert torch.equal(to_frames(model.pixels(a)), torch.from_numpy(a))


def test_presets_differ_only_where_their_names_say() -> None:
    assert set(presets()) == set(PRESETS)
    for size in ("small", "full"):
        first = load_preset("como-v1", size)
        for name, changes in {
            "como": {"loss.contrast": 0.004},
            "continuous": {"inverse.motion": "future"},
            "rgb-difference": {"inverse.motion": "rgb"},
            "future-feature": {"inverse.frame": False, "inverse.motion": "future"},
            "vq": {"inverse.motion": "future", "bottleneck.kind": "vq"},
        }.items():
            assert load_preset(name, size) == with_options(first, **changes), name


def test_antisymmetric_z_turns_round_with_time_and_vanishes_at_rest() -> None:
    model, other = make_model("como-plus"), make_model("como-v1")
    a, b = frames(4), frames(4, seed=1)
    there, back = model.encode(a, b), model.encode(b, a)
    assert torch.allclose(there, -back, atol=1e-6)
    assert there.abs().mean() > 1e-3
    assert torch.equal(model.encode(a, a), torch.zeros(4, model.config.latent_size))
    assert other.encode(a, a).abs().mean() > 1e-3


def test_wrong_frames_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 frames \[B, 64, 64, 3\], got torch.uint8 \[2, 32, 32, 3\]"):
        make_model().encode(np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(Exception, match=r"no motion preset 'comoo'; did you mean 'como'\?"):
        load_preset("comoo")
    with pytest.raises(Exception, match=r"no size 'smal'; did you mean 'small'\?"):
        load_preset("como", "smal")
    with pytest.raises(ValueError, match="loss.feature needs a frozen backbone"):
        with_options(load_preset("como"), **{"loss.feature": 1.0})
    with pytest.raises(ValueError, match="unknown key 'inverze'"):
        with_options(load_preset("como"), **{"inverze.kind": "conv"})
    with pytest.raises(ValueError, match="gap_s must be above 0"):
        MotionConfig(load_preset("como").loop, gap_s=0.0)
