"""The report's pictures: what the trials looked like, what the motion model rebuilds, and z over one episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from como_core.evaluation.page import Page, film_strip, side_by_side, stacked
from como_core.formats.label_bag import LATENT_TOPIC
from como_core.formats.rosbag import read_bag
from como_core.formats.sources import open_sources
from como_core.formats.video import read_video
from como_core.motion.model import load_motion
from como_core.motion.pairs import partner
from como_ros.demo.stages import Result

STRIP_FRAMES = 10
REBUILT = 8


def add(page: Page, results: dict[str, Result], out: Path) -> None:
    """Add every picture to the page."""
    _films(page, results["trials"])
    _reconstructions(page, out)
    _latent_over_time(page, Path(results["record"]["episodes"][0]["bag"]), out)


def _films(page: Page, trials: Result) -> None:
    page.heading("What the arm did")
    *_, last = (name for name in trials if name != "seconds")
    for success in (True, False):
        trial = next((t for t in trials[last]["trials"] if bool(t["success"]) == success and t["film"]), None)
        word = "success" if success else "failure"
        if trial is None:
            page.text(f"{last}: no {word} among the trials.")
            continue
        frames = read_video(trial["film"]).images["video"][:]
        caption = f"{last}, a {word}: {trial['task']}, start state {trial['seed']}"
        page.picture(film_strip(frames, STRIP_FRAMES), caption, 920)


def _reconstructions(page: Page, out: Path) -> None:
    """Frame t, the true frame a gap later, and the one that the forward dynamics makes of frame t and z."""
    model = load_motion(out / "motion")
    episodes = open_sources([out / "videos"]).episodes
    chosen = [episodes[i] for i in np.linspace(0, len(episodes) - 1, REBUILT).round().astype(int)]
    before, after = [], []
    for episode in chosen:
        frames, second = next(iter(episode.images.values())), partner(episode.timestamps, model.config.gap_s)
        step = len(episode) // 2 if second[len(episode) // 2] >= 0 else 0
        before.append(frames[step])
        after.append(frames[int(second[step])])
    first, later = np.stack(before), np.stack(after)
    rebuilt = model.reconstruct(first, model.encode(first, later)).cpu().numpy()
    page.heading("What the latent motion carries")
    page.picture(
        stacked([side_by_side(list(row)) for row in (first, later, rebuilt)]),
        f"Above: frames. Middle: the same scenes {model.config.gap_s:g} s later. Below: rebuilt from the frame above "
        f"and z ({model.config.latent_size} numbers).",
        800,
    )


def _latent_over_time(page: Page, bag: Path, out: Path) -> None:
    """The leading components of z of a recorded demonstration beside the commands that were recorded with it."""
    labelled = next(e for e in open_sources([out / "relabeled"]).episodes if Path(e.source).resolve() == bag.resolve())
    action = read_bag(bag).action
    assert labelled.latent is not None and action is not None, "the demo records and relabels this bag"
    centred = labelled.latent - labelled.latent.mean(axis=0)
    components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
    time_s = labelled.timestamps - labelled.timestamps[0]
    figure = Figure(figsize=(9, 4.2))
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(time_s, components, label=["1st component", "2nd", "3rd"])
    upper.set_ylabel("z, centred")
    lower.plot(time_s, action[:, :3], label=["x", "y", "z"])
    lower.set_ylabel("command, m/s")
    lower.set_xlabel("time, s")
    for axes in (upper, lower):
        axes.legend(loc="upper right", fontsize="small", ncols=3)
        axes.spines[["top", "right"]].set_visible(False)
    page.figure(
        figure,
        f"One demonstration ({labelled.instruction}): latent motion, learned from video alone, over the recorded "
        f"commands. The sidecar bag carries z as {LATENT_TOPIC}.",
    )
