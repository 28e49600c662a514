"""The motion model: aligned and deterministic, streams told apart, every loss term with gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from como_core.motion.config import LossConfig, MotionConfig, load_preset
from como_core.motion.losses import contrast_loss, motion_loss, pixel_loss
from como_core.motion.model import MotionModel, to_frames, to_pixels

PRESETS = ("como", "como-v1", "continuous", "como-plus")
SIZE = 64


def make_model(preset: str = "como", seed: int = 0) -> MotionModel:
    torch.manual_seed(seed)
    return MotionModel(load_preset(preset)).eval()


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


def test_with_td_only_the_difference_reaches_the_encoder() -> None:
    a, b = frames(3), frames(3, seed=1)
    for preset, expected in (("como-v1", True), ("continuous", False)):
        model, seen = make_model(preset), []
        model.inverse.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs))
        model.encode(a, b)
        with torch.no_grad():
            first, second = model.features(model.pixels(a)), model.features(model.pixels(b))
        assert torch.equal(seen[0][0], first)
        assert torch.equal(seen[0][1], second - first if expected else second)


def only(term: str) -> LossConfig:
    return LossConfig(**{"pixel": 0.0, "contrast": 0.0, "prior": 0.0, term: 1.0})


@pytest.mark.parametrize(("term", "moved"), [
    ("pixel", {"backbone", "inverse", "bottleneck", "forward_dynamics"}),
    ("contrast", {"backbone", "inverse", "bottleneck"}),
    ("prior", {"backbone", "inverse", "bottleneck"}),
])
def test_every_loss_term_moves_the_parameters_it_should(term: str, moved: set[str]) -> None:
    model = make_model("como").train()
    pixels = [to_pixels(torch.from_numpy(frames(4, seed))) for seed in range(3)]
    motion_loss(model(*pixels), pixels[0], pixels[1], only(term))["loss"].backward()
    for name, parameter in model.named_parameters():
        gradient = 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
        assert (gradient > 0) == (name.split(".")[0] in moved), name


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


def test_pixel_loss_is_one_for_copying_and_zero_when_perfect() -> None:
    change = torch.randn(2, 3, 8, 8)
    assert float(pixel_loss(torch.zeros_like(change), change)) == pytest.approx(1.0)
    assert float(pixel_loss(change, change)) == 0.0
    assert float(pixel_loss(change, torch.zeros_like(change))) < float("inf")


def test_reconstruct_adds_the_predicted_change_to_frame_t() -> None:
    model = make_model("como")
    a = frames(2)
    z = model.encode(a, frames(2, seed=1))
    with torch.no_grad():
        model.forward_dynamics.out[0].weight.zero_()
        model.forward_dynamics.out[0].bias.zero_()
    assert torch.equal(model.reconstruct(a, z), torch.from_numpy(a))
    assert torch.equal(to_frames(model.pixels(a)), torch.from_numpy(a))


def test_presets_differ_only_where_their_names_say() -> None:
    como, first, continuous, plus = (load_preset(name) for name in PRESETS)
    assert como.loss.contrast == 0.004
    assert first == dataclasses.replace(como, loss=dataclasses.replace(como.loss, contrast=0.0))
    td_off = dataclasses.replace(first.inverse, temporal_difference=False)
    assert continuous == dataclasses.replace(first, inverse=td_off)
    assert plus == dataclasses.replace(first, inverse=dataclasses.replace(first.inverse, antisymmetric=True))


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
    with pytest.raises(ValueError, match="gap_s must be above 0"):
        MotionConfig(load_preset("como").loop, gap_s=0.0)
