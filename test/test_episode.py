"""Episode: lengths and values are checked, nothing absent is made up, and provenance follows the actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from como_core.episode import Episode, Provenance

STEPS = 5


def episode(**changes: Any) -> Episode:
    """A plain episode of five steps with the given fields replaced."""
    fields: dict[str, Any] = {
        "timestamps": np.arange(STEPS) / 40.0,
        "images": {"front": np.zeros((STEPS, 8, 8, 3), np.uint8)},
        "source": "bags/x",
    }
    return Episode(**{**fields, **changes})


def test_what_is_absent_stays_absent() -> None:
    plain = episode()
    assert plain.state is plain.action is plain.latent is plain.confidence is plain.instruction is None
    assert len(plain) == STEPS
    assert plain.duration_s == pytest.approx(0.1)


def test_provenance_follows_the_action() -> None:
    assert episode().provenance.tolist() == [Provenance.NONE] * STEPS
    assert episode(action=np.zeros((STEPS, 4))).provenance.tolist() == [Provenance.MEASURED] * STEPS
    mixed = np.array([1, 1, 2, 2, 0], np.uint8)
    labelled = episode(action=np.zeros((STEPS, 4)), provenance=mixed, confidence=np.linspace(0, 1, STEPS))
    assert labelled.provenance.tolist() == mixed.tolist()


@pytest.mark.parametrize(("changes", "message"), [
    ({"timestamps": np.array([0.0, 1, 2, 2, 3])}, "finite and strictly increasing"),
    ({"timestamps": np.array([0.0, 1, 2, 1, 3])}, "finite and strictly increasing"),
    ({"timestamps": np.array([0.0, 1, np.nan, 3, 4])}, "finite and strictly increasing"),
    ({"state": np.zeros((STEPS - 1, 4))}, "state has 4 steps, expected 5"),
    ({"action": np.zeros((STEPS + 1, 4))}, "action has 6 steps, expected 5"),
    ({"latent": np.zeros((3, 64))}, "latent has 3 steps, expected 5"),
    ({"action": np.full((STEPS, 4), np.nan)}, "action holds NaN or infinity"),
    ({"state": np.full((STEPS, 4), np.inf)}, "state holds NaN or infinity"),
    ({"images": {"wrist": np.zeros((4, 8, 8, 3), np.uint8)}}, "camera 'wrist' has 4 frames, expected 5"),
    ({"provenance": np.ones(STEPS, np.uint8)}, "provenance speaks of actions, but the episode has none"),
    ({"confidence": np.full(STEPS, 1.01)}, r"confidence must lie in \[0, 1\]"),
    ({"confidence": np.full(STEPS, -0.01)}, r"confidence must lie in \[0, 1\]"),
])
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^bags/x: .*{message}"):
        episode(**changes)


def test_an_episode_of_one_step_or_none_has_no_duration() -> None:
    one = episode(timestamps=np.array([7.0]), images={"front": np.zeros((1, 8, 8, 3), np.uint8)})
    none = episode(timestamps=np.array([]), images={"front": np.zeros((0, 8, 8, 3), np.uint8)})
    assert one.duration_s == none.duration_s == 0.0
    assert len(none) == 0
