"""Stages that learn: film, motion, labels and both policies. Each calls what the `como` verb of its name calls."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

from como_core.errors import ComoError
from como_core.formats.sources import open_sources
from como_core.interface import load_interface
from como_core.motion.config import load_preset
from como_core.motion.measure.baselines import MEAN, RGB_DIFFERENCE
from como_core.motion.measure.evaluate import Measures, evaluate
from como_core.motion.model import load_motion
from como_core.motion.relabel import relabel as relabel_recordings
from como_core.motion.train import train as train_motion
from como_core.resources import resource
from como_core.simulation.dataset import record_demonstrations, render_videos
from como_ros.demo.plan import PROBE_SEEDS_FROM, VIDEO_SEEDS_FROM, DemoPlan
from como_ros.demo.stages import Result


def film(plan: DemoPlan, out: Path) -> Result:
    """Render `videos_per_task` episodes of each task to mp4: pictures and an instruction, no action anywhere."""
    videos = render_videos(plan.tasks, _seeds(VIDEO_SEEDS_FROM, plan.videos_per_task), out, plan.processes)
    return {"videos": len(videos)}


def learn_motion(plan: DemoPlan, videos: Path, out: Path) -> Result:
    """Train the motion model on the video, then probe it on labelled episodes that nothing else sees."""
    preset = load_preset(plan.motion_preset)
    config = dataclasses.replace(preset, loop=dataclasses.replace(preset.loop, steps=plan.motion_steps))
    sources = open_sources([videos])
    _, history = train_motion(sources.episodes, config, out)
    probed = record_demonstrations(plan.tasks, _seeds(PROBE_SEEDS_FROM, plan.probe_per_task), plan.processes)
    names = load_interface(resource(plan.interface)).action.names
    measures = Measures(baselines=(MEAN, RGB_DIFFERENCE), mlp=False, audit=False)
    found = evaluate(load_motion(out), probed, names, cache=out / "cache", measures=measures)
    assert found.gain is not None, "the baseline was asked for"
    rows = [
        {"input": row.features, "dimensions": row.size, "r2": row.r2.mean, "low": row.r2.low, "high": row.r2.high}
        for row in found.rows
    ]
    for row in rows:
        print(f"    R2 {row['r2']:.3f} [{row['low']:.3f}, {row['high']:.3f}]  {row['input']}")
    return {"probe": rows, "gain": dataclasses.asdict(found.gain),
            "reconstruction_gain": found.reconstruction_gain.mean,
            "probe_episodes": found.episodes, "clips": len(sources.episodes), "seconds_of_training": history.seconds}


def relabel(bags: Path, videos: Path, model: Path, out: Path) -> Result:
    """Label the videos, and the bags into sidecar bags; the originals stay as they are."""
    manifest = relabel_recordings([videos, bags], model, out)
    sidecars = [str(out / entry.sidecar) for entry in manifest.labelled if entry.sidecar]
    if not sidecars:
        reasons = "; ".join(entry.reason for entry in manifest.skipped)
        raise ComoError(f"{bags}: no bag was relabelled, so there is no sidecar; {reasons}")
    return {
        "recordings": len(manifest.labelled),
        "frames": sum(entry.frames for entry in manifest.labelled),
        "skipped": [entry.reason for entry in manifest.skipped],
        "sidecars": sidecars,
    }


def train_policies(plan: DemoPlan, bags: Path, labels: Path, policies: dict[str, Path], modes: dict[str, str],
                   logs: Path, cache: Path) -> Result:
    """Train every policy with the same budget, at the same time, a core each; the last one's progress is shown.

    `modes` maps a policy's name to its co-training mode. Raises ComoError with the end of the log where one fails.
    """
    *hidden, shown = policies
    commands = {name: _command(plan, bags, labels, policies[name], modes[name], cache) for name in policies}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    print(f"    {len(policies)} trainings at once; progress of {shown!r}:", flush=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in hidden:
            with _log(logs, name).open("wb") as log:
                running[name] = subprocess.Popen(commands[name], env=environment, stdout=log, stderr=subprocess.STDOUT)
        running[shown] = subprocess.Popen(commands[shown], env=environment)
        for name in (shown, *hidden):
            if running[name].wait():
                why = _last_words(_log(logs, name)) if name in hidden else "what it said stands above"
                raise ComoError(f"training of {name!r} failed; {why}")
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    return {"commands": {name: shlex.join(command[2:]) for name, command in commands.items()}}


def _command(plan: DemoPlan, bags: Path, labels: Path, out: Path, mode: str, cache: Path) -> list[str]:
    return [
        sys.executable, "-m", "como_core.cli.main", "policy", "train", "--preset", plan.policy_preset,
        "--demos", str(bags), "--videos", str(labels), "--mode", mode, "--steps", str(plan.policy_steps),
        "--interface", str(resource(plan.interface)), "--cache", str(cache), "-o", str(out),
    ]


def _log(logs: Path, name: str) -> Path:
    return logs / f"train_{name.replace(' ', '_')}.log"


def _last_words(log: Path) -> str:
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def _seeds(first: int, count: int) -> list[int]:
    return list(range(first, first + count))
