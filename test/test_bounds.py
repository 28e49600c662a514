"""Numbers out of bounds: every one of a motion model's, a policy's and a training's settings is refused by its name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import policy_data
import pytest
from motion_clips import squares, tiny

from como_core.bounds import Bounds, require_bounds
from como_core.config import ConfigError, to_dict, with_options
from como_core.errors import ComoError
from como_core.motion.train import train

ANY_INTEGER = {"backbone.layer"}  # counted from either end

# Key -> values that are refused, beside those that no number of its kind may be.
MOTION = {
    "loop.betas": [(0.9, 1.0), (-0.1, 0.9)], "loop.final_rate": [1.5], "loop.ema_decay": [0.0, 1.0],
    "loop.seed": [2**63], "backbone.patch": [0, 5], "inverse.width": [0, 8, 20], "inverse.queries": [0],
    "inverse.layers": [0], "inverse.heads": [0], "bottleneck.tokens": [0], "bottleneck.codebook": [0, 1],
    "forward.patch": [0, 3], "forward.width": [0, 7], "forward.coarse_width": [0, 20], "forward.layers": [0],
    "forward.heads": [0], "loss.temperature": [0.0], "loss.contrast_pairs": [0], "selection.cut_likeness": [-1.5, 1.5],
    "selection.still_share": [1.5], "image_size": [0, 36], "latent_size": [0], "gap_s": [0.0]}
POLICY = {
    "observation.channels": [(16, 0, 16)], "observation.history_s": [(0.1, 0.0)], "network.width": [33],
    "autoregressive.input_dropout": [1.5], "cotraining.video_share": [1.5], "cotraining.decoder.dropout": [1.0],
    "cotraining.decoder.folds": [1], "cotraining.decoder.learning_rate": [0.0], "cotraining.decoder.seed": [2**63],
    "shift_px": [8], "chunk_steps": [0]}
# What a transformer and a codebook need more.
VIT = {"inverse.kind": "qformer", "inverse.width": 24, "inverse.heads": 2, "inverse.queries": 4, "forward.kind": "vit",
       "forward.width": 24, "forward.heads": 2}
KINDS = [(VIT, "forward.heads", 5), (VIT, "inverse.heads", 5), (VIT, "inverse.queries", 3),
         ({"bottleneck.kind": "vq"}, "bottleneck.tokens", 3), ({"inverse.placed": True}, "latent_size", 18)]


def odd_values(settings: Any, more: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    """Every numeric key below `settings` with values that no such number may have, and those of `more`."""
    found: list[tuple[str, Any]] = []

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            key = prefix + name
            if isinstance(value, dict):
                walk(value, f"{key}.")
            elif isinstance(value, list):
                found.extend((key, (*value, bad)) for bad in (math.inf, math.nan))
            elif isinstance(value, int) and not isinstance(value, bool) and key not in ANY_INTEGER:
                found.append((key, -1))
            elif isinstance(value, float):
                found.extend((key, bad) for bad in (-2.0, -math.inf, math.nan))
                found.extend([(key, math.inf)] if not key.endswith("clip_norm") else [])

    walk(to_dict(settings), "")
    return found + [(key, value) for key, values in more.items() for value in values]


@pytest.mark.parametrize(("key", "value"), odd_values(tiny(), MOTION))
def test_every_number_of_a_motion_model_has_its_bounds(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        with_options(tiny(), **{key: value})


@pytest.mark.parametrize(("key", "value"), odd_values(policy_data.config("decoded"), POLICY))
def test_every_number_of_a_policy_has_its_bounds(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        with_options(policy_data.config("decoded"), **{key: value})


@pytest.mark.parametrize(("options", "key", "value"), KINDS)
def test_what_kinds_need_more_is_refused_too(options: dict[str, Any], key: str, value: int) -> None:
    fitting = tiny(**options)
    with pytest.raises(ConfigError, match=f"must be a multiple of .*{value}" if key != "latent_size" else "got 18"):
        with_options(fitting, **{key: value})


def test_ddim_takes_no_more_steps_than_it_was_trained_on() -> None:
    with pytest.raises(ConfigError, match="diffusion: steps must be at most 100, got 101"):
        with_options(policy_data.config(sampler="ddim"), **{"diffusion.steps": 101})
    with_options(policy_data.config(), **{"diffusion.steps": 101})


def test_settings_made_in_python_are_bounded_alike() -> None:
    """Of NaN every comparison is false, so that `value < 0` would not find it."""
    for name in ("learning_rate", "clip_norm", "weight_decay"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number, got nan"):
            dataclasses.replace(tiny().loop, **{name: math.nan})
    assert dataclasses.replace(tiny().loop, clip_norm=math.inf).clip_norm == math.inf


@pytest.mark.parametrize("options", [
    {"loop.batch_size": 1, "loss.contrast_pairs": 1, "loss.negatives": "batch"}, {"loop.warmup_steps": 0},
    {"backbone.patch": 32, "backbone.width": 1, "inverse.hidden": 1, "latent_size": 1}, {"forward.width": 8},
    {"forward.coarse_width": 8, "inverse.width": 16}, {"bottleneck.kind": "vq", "bottleneck.codebook": 2},
    {**VIT, "inverse.layers": 1, "forward.layers": 1, "forward.patch": 32}, {"loop.clip_norm": math.inf}])
def test_the_least_that_is_allowed_trains(options: dict[str, Any], tmp_path: Any) -> None:
    train(squares(2, 8), tiny(**({"loop.steps": 2} | options)), tmp_path)


def test_a_decoder_that_diverges_says_so() -> None:
    from como_core.policy.decoder import ActionDecoder

    given = policy_data.config("decoded").cotraining.decoder
    with pytest.raises(ComoError, match="diverged while it was fitted; lower cotraining.decoder.learning_rate"):
        ActionDecoder.fit(policy_data.demonstrations(), dataclasses.replace(given, learning_rate=1e30, steps=3), 2)


def test_bounds_say_what_was_expected() -> None:
    @dataclasses.dataclass
    class Settings:
        share: float | None
        sizes: tuple[int, ...] = (1, 2)

    bounds = {"share": Bounds(above=0, below=1), "sizes": Bounds(least=1, most=2)}
    require_bounds(Settings(None), **bounds)
    for settings, expected in ((Settings(0.0), "share must be above 0, got 0.0"),
                               (Settings(1.0), "share must be below 1, got 1.0"),
                               (Settings(0.5, (2, 0)), r"sizes\[1\] must be 1 or more, got 0"),
                               (Settings(0.5, (3,)), r"sizes\[0\] must be at most 2, got 3")):
        with pytest.raises(ValueError, match=expected):
            require_bounds(settings, **bounds)
