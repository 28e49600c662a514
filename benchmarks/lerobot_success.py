"""Success beside LeRobot's diffusion policy: the same recordings, pictures, samples, start states, like parameters.

    python -m benchmarks.lerobot_success --peer PYTHON --data DIR --work DIR      # resumes
    python -m benchmarks.lerobot_success --print

PYTHON is that of an environment with LeRobot. Both see one picture of 64 pixels and the state, no instruction, give
chunks of 16 steps and are run with the same timing. One policy of each for all tasks, with all 50 recordings of each.
Theirs has its defaults (DDPM, 100 network calls) but for narrower convolutions: those of its defaults take half a
minute for one chunk on a CPU, see `como bench policy`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import lerobot_diffusion
from benchmarks.command_line import parsed, table_parser
from benchmarks.episodes import save_episodes
from benchmarks.policy_table import RECORDED, ROBOT, load
from benchmarks.results import FOLDER, Row, alone, read_rows, share, write_rows
from como_core.action_chunk import ActionChunk, Observation
from como_core.bench import lerobot_peer
from como_core.bench.policy import comparable, count_parameters, like
from como_core.evaluation.statistics import paired_bootstrap, wilson
from como_core.interface import Interface, load_interface
from como_core.policy.checkpoint import load_policy
from como_core.policy.train import train
from como_core.resources import resource
from como_core.simulation.rollout import run_trials

TASKS = ("drawer-open-v3", "window-close-v3", "button-press-v3")
STARTS = range(41_000, 41_050)
SEEDS = (0, 1, 2)
STEPS, BATCH = 2000, 32
NETWORKS = ("mlp", "transformer")
PEER = "LeRobot diffusion"
RESULTS = FOLDER / "lerobot_success.json"
_ASKED_ALIKE = "do the task"


class PeerPolicy:
    """LeRobot's policy in its own environment, behind our Policy protocol."""

    def __init__(self, python: Path, recordings: Path, checkpoint: Path, seed: int) -> None:
        self.interface: Interface = load_interface(resource(ROBOT))
        command = [str(python), str(Path(lerobot_diffusion.__file__)), str(recordings), str(checkpoint), "--steps",
                   str(STEPS), "--batch", str(BATCH), "--seed", str(seed), "--threads", str(torch.get_num_threads())]
        search = {"PYTHONPATH": str(Path(lerobot_peer.__file__).parent)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env={**os.environ, **search})
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.built: dict[str, Any] = json.loads(self._out.readline())

    def warm_up(self) -> None:
        camera, = self.interface.cameras.values()
        picture = np.zeros((camera.height, camera.width, 3), np.uint8)
        self.predict(Observation(0.0, {"front": picture}, np.zeros(self.interface.state_size, np.float32)))

    def predict(self, observation: Observation) -> ActionChunk:
        return self.predict_batch([observation])[0]

    def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        """Chunks for several observations, which LeRobot computes side by side."""
        lerobot_diffusion.send(self._in, images=np.stack([next(iter(o.images.values())) for o in observations]),
                               state=np.stack([o.state for o in observations]))  # type: ignore[arg-type, misc]
        answer = lerobot_diffusion.receive(self._out)
        assert answer is not None, "LeRobot's process has ended"
        times = np.arange(lerobot_diffusion.HORIZON) / self.interface.action.rate_hz
        return [ActionChunk(times, values.astype(np.float32), PEER) for values in answer["action"]]

    def close(self) -> None:
        self._in.close()
        self._process.wait()


class Untold:
    """A policy of ours that is told the same words in every task, since the other is told none."""

    def __init__(self, folder: Path) -> None:
        self._policy = load_policy(folder)
        self.interface = self._policy.interface

    def warm_up(self) -> None:
        self._policy.warm_up()

    def predict(self, observation: Observation) -> ActionChunk:
        return self.predict_batch([observation])[0]

    def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        return self._policy.predict_batch([dataclasses.replace(o, instruction=_ASKED_ALIKE) for o in observations])


def run_peer(python: Path, seed: int, data: Path, work: Path) -> Row:
    """Train and try LeRobot's policy."""
    recordings = work / "lerobot" / "recordings.npz"
    if not recordings.is_file():
        save_episodes(recordings, [episode for group in load(TASKS, data).values() for episode in group])
    policy = PeerPolicy(python, recordings, work / "lerobot" / f"diffusion-{seed}.pt", seed)
    try:
        return _tried(PEER, seed, lambda: policy, policy.built["parameters"], policy.built["seconds"])
    finally:
        policy.close()


def run_ours(network: str, parameters: int, seed: int, data: Path, work: Path) -> Row:
    """Train and try ours with as many parameters."""
    robot = load_interface(resource(ROBOT))
    config = like(parameters, comparable(network, (), robot, BATCH), robot)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=STEPS, seed=seed))
    episodes = [dataclasses.replace(e, instruction=_ASKED_ALIKE) for group in load(TASKS, data).values() for e in group]
    out = work / "lerobot" / f"ours-{network}-{seed}"
    took_s = train(episodes, [], robot, config, out, cache=work / "cache").history.seconds
    return _tried(f"ours, {network}", seed, partial(Untold, out), count_parameters(config, robot), took_s)


def _tried(name: str, seed: int, make: Any, parameters: int, seconds: float) -> Row:
    trials = run_trials(make, [f"metaworld:{task}" for task in TASKS], STARTS, processes=1, title=name)
    policy = make()
    policy.warm_up()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        policy.warm_up()
        times.append(1e3 * (time.perf_counter() - start))
    successes = {task: "".join(str(int(trial.success)) for trial in trials if trial.env == f"metaworld:{task}")
                 for task in TASKS}
    return {"policy": name, "seed": seed, "parameters": parameters, "steps": STEPS, "batch": BATCH,
            "recordings": len(RECORDED) * len(TASKS), "training_s": round(seconds, 1),
            "chunk_ms": round(float(np.median(times)), 2), "threads": torch.get_num_threads(), "successes": successes}


def markdown(rows: Sequence[Row]) -> str:
    """Success over seeds, ours minus theirs in pairs, times."""
    lines = ["| policy | parameters | seeds | success | minus LeRobot | one chunk | training |", "|" + "---|" * 7]
    theirs = {row["seed"]: row for row in rows if row["policy"] == PEER}
    for name in dict.fromkeys(row["policy"] for row in rows):
        mine = {row["seed"]: row for row in rows if row["policy"] == name}
        text = "".join(run for row in mine.values() for run in row["successes"].values())
        low, high = wilson(text.count("1"), len(text))
        both = sorted(mine.keys() & theirs.keys()) if name != PEER else []
        a, b = (_pooled([which[seed] for seed in both]) for which in (theirs, mine))
        difference = ""
        if both:
            strata = [task for _ in both for task in TASKS for _ in STARTS]
            worst, best = paired_bootstrap(a, b, strata)
            difference = f"{np.mean(b) - np.mean(a):+.1%} [{worst:+.1%}, {best:+.1%}]"
        chunk, trained = (np.median([row[key] for row in mine.values()]) for key in ("chunk_ms", "training_s"))
        lines.append(f"| {name} | {next(iter(mine.values()))['parameters'] / 1e6:.1f} M | {len(mine)} | "
                     f"{text.count('1')}/{len(text)} = {text.count('1') / len(text):.1%} [{low:.1%}, {high:.1%}] | "
                     f"{difference} | {chunk:.1f} ms | {trained / 60:.0f} min |")
    return "\n".join(lines)


def _pooled(rows: Sequence[Row]) -> list[bool]:
    return [character == "1" for row in rows for task in TASKS for character in row["successes"][task]]


def main() -> None:
    """Run what is not done yet, or print the table."""
    options = parsed(table_parser(__doc__, peer="the Python of an environment with LeRobot",
                                  data="recordings, made where they are not there yet", work="caches and checkpoints"))
    if options.show:
        print(markdown(read_rows(RESULTS)))
        return
    for seed in share(options.seed or SEEDS, options.part):
        for name in (PEER, *NETWORKS):
            rows = read_rows(RESULTS)
            policy = name if name == PEER else f"ours, {name}"
            if any((row["policy"], row["seed"]) == (policy, seed) for row in rows):
                continue
            if name == PEER:
                found = run_peer(options.peer, seed, options.data, options.work)
            else:
                parameters = next(row["parameters"] for row in rows if row["policy"] == PEER)
                found = run_ours(name, parameters, seed, options.data, options.work)
            with alone():
                write_rows(RESULTS, [*read_rows(RESULTS), found])


if __name__ == "__main__":
    main()
