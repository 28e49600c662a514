"""`como data`: care of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro


def recover(folder: tyro.conf.Positional[Path]) -> int:
    """Save what is left of recordings that a crash or a power loss cut off; originals are only read.

    The recorder's `episode_0003.part` becomes the bag `episode_0003`, with its audit, and a line in episodes.jsonl
    without a label. Any other MCAP bag that has no end, such as one of a killed `ros2 bag record`, is saved as
    `NAME_recovered`. Remove the cut ones yourself when you have looked at what was saved. The recorder does the same
    for its own episodes when it starts. The exit code is 1 where something could not be saved.

    Example: como data recover bags/

    Args:
        folder: Folder to look through, with its folders; or one cut bag.
    """
    from como_core.formats.bag_recovery import cut_bags
    from como_core.formats.bag_recovery import recover as run

    found = run(cut_bags(folder), lambda item: print(item.summary(), flush=True))
    if not found:
        print(f"{folder}: nothing to recover")
    return int(any(item.bag is None for item in found))


def label(folder: tyro.conf.Positional[Path], episode: tyro.conf.Positional[str],
          verdict: tyro.conf.Positional[Literal["success", "failure"]]) -> None:
    """Say whether a recorded episode was a success; the newest word stands, older ones stay in the file.

    The recorder takes the same by its services record/success and record/failure. An episode that nobody has labelled
    has no label: there is no default.

    Example: como data label bags/ episode_0003 success

    Args:
        folder: Folder with the episodes and their episodes.jsonl.
        episode: Name of the episode's bag.
        verdict: What it was.
    """
    from como_core.formats import episode_index

    entry = episode_index.label(folder, episode, verdict == "success")
    print(f"{entry.name}: {verdict}")
