"""The decoder that moves frame t: its flow is linear in z, and it can carry a picture to another place."""

from __future__ import annotations

import numpy as np
import torch
from motion_clips import squares, tiny

from como_core.motion.model import MotionModel
from como_core.motion.train import train

OPTIONS = {"forward.kind": "warp", "loop.precision": "no"}


def make() -> MotionModel:
    torch.manual_seed(0)
    return MotionModel(tiny("como-v1", **OPTIONS)).eval()


def test_flow_adds_up_and_turns_round_with_z() -> None:
    warp = make().forward_dynamics.warp
    assert warp is not None
    pixels, a, b = torch.randn(2, 3, 32, 32), torch.randn(2, 16), torch.randn(2, 16)
    with torch.no_grad():
        assert torch.allclose(warp.flow(pixels, a) + warp.flow(pixels, b), warp.flow(pixels, a + b), atol=1e-5)
        assert torch.allclose(warp.flow(pixels, -a), -warp.flow(pixels, a), atol=1e-6)
        assert warp.flow(pixels, a).abs().max() > 0


def test_no_motion_leaves_the_picture_where_it_is() -> None:
    warp = make().forward_dynamics.warp
    assert warp is not None
    pixels, grid = torch.randn(2, 3, 32, 32), torch.randn(2, 32, 8, 8)
    assert torch.allclose(warp(pixels, torch.zeros(2, 16), grid), pixels, atol=1e-5)


def test_a_flow_of_one_pixel_moves_the_picture_by_one_pixel() -> None:
    warp = make().forward_dynamics.warp
    assert warp is not None
    with torch.no_grad():
        warp.basis[1].weight.zero_()
        warp.basis[1].bias.zero_()
        warp.basis[1].bias[0] = 2 / 32 / 0.2  # x of the first number of z: one pixel of 32
        warp.mask.weight.zero_()
        warp.mask.bias.fill_(50.0)  # the flow is believed everywhere
        pixels, z = torch.randn(1, 3, 32, 32), torch.zeros(1, 16)
        z[:, 0] = 1.0
        moved = warp(pixels, z, torch.zeros(1, 32, 8, 8))
    assert torch.allclose(moved[..., :-1], pixels[..., 1:], atol=1e-4)


def test_it_trains(tmp_path) -> None:
    config = tiny("como-v1", **OPTIONS, **{"loop.steps": 60, "loop.learning_rate": 3e-3})
    _, history = train(squares(8), config, tmp_path / "run")
    assert np.isfinite(history.loss).all()
    assert history.terms["pixel"][-1] < 0.9
