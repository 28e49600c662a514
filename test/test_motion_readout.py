"""A few labels may shape z: read where they are asked for, never otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_clips import FPS, clip, moving_square, tiny

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.motion.model import load_motion
from como_core.motion.pairs import Pairs
from como_core.motion.readout import labels_of, readout_loss
from como_core.motion.train import train


def labelled(seed: int) -> Episode:
    """The square's own steps as actions."""
    frames = moving_square(seed)
    bright = [np.argwhere((frame == 255).all(axis=2)).mean(axis=0) for frame in frames]
    steps = np.diff(np.stack(bright), axis=0, append=bright[-1:])
    return dataclasses.replace(clip(frames, f"labelled#{seed}"), action=steps.astype(np.float32), provenance=None)


def videos(count: int) -> list[Episode]:
    return [clip(moving_square(seed), f"video#{seed}") for seed in range(100, 100 + count)]


def test_labels_are_summed_over_the_pair_and_absent_for_video() -> None:
    episodes = [videos(1)[0], labelled(0)]
    offsets, times = np.array([0, 30, 60]), np.concatenate([e.timestamps for e in episodes])
    pairs = Pairs.build(times, offsets, 2 / FPS)
    labels = labels_of(episodes, offsets, pairs)
    assert np.isnan(labels[pairs.episode == 0]).all()
    mine = pairs.episode == 1
    action = episodes[1].action
    assert action is not None
    sums = np.stack([action[a:b].sum(axis=0) for a, b in zip(pairs.first[mine] - 30, pairs.second[mine] - 30,
                                                               strict=True)])
    np.testing.assert_allclose(labels[mine], (sums - sums.mean(axis=0)) / sums.std(axis=0), atol=1e-4)


def test_pairs_without_labels_do_not_count() -> None:
    predicted = torch.tensor([[1.0], [5.0]], requires_grad=True)
    wanted = torch.tensor([[3.0], [torch.nan]])
    assert readout_loss(predicted, wanted).item() == 4.0
    nothing = readout_loss(predicted, wanted[1:].expand(2, 1))
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(predicted.grad, torch.zeros(2, 1))


def test_few_labels_train_a_readout_that_the_checkpoint_keeps(tmp_path: Path) -> None:
    episodes = [*videos(3), *(labelled(seed) for seed in range(4))]
    config = tiny("como-v1", **{"loss.action": 1.0, "loop.steps": 40, "loop.learning_rate": 3e-3})
    model, history = train(episodes, config, tmp_path / "run")
    assert history.terms["action"][-1] < 0.7 * history.terms["action"][0]
    kept = load_motion(tmp_path / "run")
    assert kept.readout is not None and model.readout is not None
    assert torch.equal(kept.readout.weight, model.readout.weight)


def test_without_the_loss_no_action_is_read(tmp_path: Path) -> None:
    plain, _ = train([*videos(2), clip(moving_square(0), "labelled#0")], tiny("como-v1"), tmp_path / "a")
    given, history = train([*videos(2), labelled(0)], tiny("como-v1"), tmp_path / "b")
    assert given.readout is None and "action" not in history.terms
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), given.parameters(), strict=True))


def test_labels_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    config = tiny("como-v1", **{"loss.action": 1.0})
    with pytest.raises(ComoError, match="no clip has actions"):
        train(videos(2), config, tmp_path / "none")
    other = dataclasses.replace(labelled(1), action=np.zeros((30, 5), np.float32), provenance=None)
    with pytest.raises(ComoError, match=r"2 values a step in labelled#0, 5 values a step in labelled#1"):
        train([labelled(0), other], config, tmp_path / "two")
