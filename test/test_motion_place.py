"""z in its place: products with where the motion is seen, measured alike in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from motion_clips import squares, tiny

from como_core.config import with_options
from como_core.motion.clip import label_clip
from como_core.motion.config import MotionConfig, load_preset
from como_core.motion.model import MotionModel, load_motion
from como_core.motion.place import BLOCKS, in_place, place
from como_core.motion.train import train

OPTIONS = {"inverse.placed": True, "inverse.antisymmetric": True, "loop.precision": "no"}


def changed(row: int, column: int, size: int = 1, cells: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Two grids of two channels that differ in one square."""
    first = torch.rand(1, 2, cells, cells)
    second = first.clone()
    second[:, :, row:row + size, column:column + size] += 1.0
    return first, second


def model(**options: object) -> MotionModel:
    torch.manual_seed(0)
    return MotionModel(with_options(load_preset("como-v1"), **{**OPTIONS, **options})).eval()


def frames(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_the_place_is_where_the_change_is() -> None:
    left, right = place(*changed(8, 1))[0], place(*changed(8, 14))[0]
    top, bottom = place(*changed(1, 8))[0], place(*changed(14, 8))[0]
    assert left[0] < -2 and right[0] > 2 and abs(left[1]) < 0.5, "x counts from the left"
    assert top[1] < -2 and bottom[1] > 2 and abs(top[0]) < 0.5, "y counts from the top"
    assert place(*changed(0, 0, 16))[0, 2] > place(*changed(6, 6, 4))[0, 2] > place(*changed(8, 8))[0, 2]


def test_it_is_the_same_for_both_directions_and_finite_at_rest() -> None:
    first, second = changed(3, 12, 2)
    torch.testing.assert_close(place(first, second), place(second, first))
    assert torch.equal(place(first, first), torch.zeros(1, 3))


def test_it_is_as_exact_under_autocast() -> None:
    first, second = changed(3, 12, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = place(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, place(first, second))


def test_z_is_the_code_and_its_products() -> None:
    first, second = changed(3, 12, 2)
    code = torch.randn(1, 5)
    z = in_place(code, first, second)
    assert z.shape == (1, BLOCKS * 5)
    torch.testing.assert_close(z[:, :5], code)
    torch.testing.assert_close(z[:, 5:10], code * place(first, second)[0, 0])
    torch.testing.assert_close(z[:, 15:], code * place(first, second)[0, 2])


def test_what_is_linear_at_every_place_is_linear_in_z() -> None:
    """A motion that looks twice as large at the right as at the left: no line reads it from the code, one does from z.
    """
    rng, pairs, codes, motions = torch.Generator().manual_seed(0), [], [], []
    for column in range(1, 15):
        for _ in range(8):
            motion = torch.randn(1, 2, generator=rng)
            pairs.append(changed(8, column))
            motions.append(motion)
            codes.append(motion * (1 + column / 15))
    code, motion = torch.cat(codes), torch.cat(motions)
    z = in_place(code, torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]))

    def error(features: torch.Tensor) -> float:
        # Row and spread are the same for all, so that some products repeat others: a rank is asked for, not a solution.
        weights = torch.linalg.pinv(features.double(), rtol=1e-4) @ motion.double()
        return float((features.double() @ weights - motion.double()).square().mean())

    assert error(z) < 0.25 * error(code), (error(z), error(code))


def test_swapped_frames_have_the_opposite_z_and_equal_frames_none() -> None:
    given, network = frames(), model()
    there, back = network.encode(given[:-1], given[1:]), network.encode(given[1:], given[:-1])
    assert there.shape == (4, network.config.latent_size)
    assert there.abs().max() > 0
    torch.testing.assert_close(there, -back)
    assert torch.equal(network.encode(given, given), torch.zeros(5, network.config.latent_size))
    assert torch.equal(network.encode(given[:-1], given[1:]), there), "the same pair, the same bits"


def test_d_z_counts_the_products() -> None:
    placed, free = model(latent_size=32), model(**{"latent_size": 32, "inverse.placed": False})
    assert placed.config.code_size == 8 and free.config.code_size == 32
    assert placed.parameter_counts()["bottleneck"] == free.parameter_counts()["bottleneck"] // BLOCKS
    given = frames()
    assert placed.reconstruct(given[:2], placed.encode(given[:2], given[2:4])).shape == (2, 64, 64, 3)


@pytest.mark.parametrize("kind", ["continuous", "variational"])
def test_training_moves_the_encoder_through_the_products(kind: str) -> None:
    options = {"bottleneck.kind": kind, "loss.kl": 1e-4 if kind == "variational" else 0.0}
    network = model(**options).train()
    pixels = [network.pixels(part) for part in (frames()[:2], frames()[2:4])]
    out = network(*pixels)
    assert out["latent"].shape == (2, 64)
    out["latent"][:, 16:].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.bottleneck.to_code.parameters()
               if p.ndim > 1)


def test_it_trains_loads_and_labels(tmp_path: Path) -> None:
    clips = squares(6)
    trained, history = train(clips, tiny("como-plus", **{"inverse.placed": True, "loop.steps": 40}), tmp_path / "run")
    assert history.loss[-1] < history.loss[0]
    loaded = load_motion(tmp_path / "run")
    assert loaded.config.inverse.placed
    labels = label_clip(loaded, clips[0])
    assert labels.latent.shape == (30, 16) and np.all(np.isfinite(labels.latent))
    np.testing.assert_array_equal(labels.latent, label_clip(trained, clips[0]).latent)


@pytest.mark.parametrize(("options", "message"), [
    ({"latent_size": 30}, r"multiple of inverse.queries = 1 times 4 \(inverse.placed\), got 30"),
    ({"bottleneck.kind": "vq", "inverse.antisymmetric": False}, "vq cannot be placed")])
def test_what_cannot_be_placed_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message):
        with_options(load_preset("como-v1"), **{**OPTIONS, **options})


def test_other_presets_are_as_they_were() -> None:
    config: MotionConfig = load_preset("como")
    assert not config.inverse.placed and config.code_size == config.latent_size
