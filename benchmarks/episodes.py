"""Simulated episodes on disk, so that a benchmark renders each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from como_core.episode import Episode


def save_episodes(path: Path, episodes: list[Episode]) -> None:
    """Write episodes of one camera, with state and action, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    steps = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in ("timestamps", "state", "action")}
    np.savez(part, lengths=[len(e) for e in episodes], source=[e.source for e in episodes],
             instruction=[e.instruction or "" for e in episodes],
             images=np.concatenate([next(iter(e.images.values()))[:] for e in episodes]),
             timestamps=steps["timestamps"], state=steps["state"], action=steps["action"])
    part.rename(path)


def load_episodes(path: Path) -> list[Episode]:
    """What `save_episodes` wrote."""
    stored = np.load(path)
    ends = np.cumsum(stored["lengths"])[:-1]
    parts = {name: np.split(stored[name], ends) for name in ("timestamps", "images", "state", "action")}
    words = stored["instruction"] if "instruction" in stored else [""] * len(stored["source"])
    rows = zip(stored["source"], words, *parts.values(), strict=True)
    return [Episode(times, {"front": images}, str(source), state=state, action=action, instruction=str(said) or None)
            for source, said, times, images, state, action in rows]
