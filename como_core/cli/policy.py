"""`como policy train` and `como policy eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from como_core.evaluation.trials import Rate

Row = dict[str, str | int | float]


def train(
    demos: tuple[Path, ...],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    videos: tuple[Path, ...] = (),
    preset: str = "diffusion",
    mode: Literal["none", "decoded", "heads", "joint"] | None = None,
    labels: float = 1.0,
    interface: Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    cache: Path | None = None,
) -> None:
    """Train a policy on a few demonstrations and any amount of relabelled video.

    An interrupted run is taken up again by the same command.

    Examples:
        como policy train --demos bags/ --videos relabeled/ -o runs/policy
        como policy train --demos bags/ --mode none -o runs/labels_alone

    Args:
        demos: Bags with actions, or folders of them.
        output: Folder for the checkpoint, the training state and the TensorBoard log.
        videos: Folders that `como relabel` wrote. To decode, the demonstrations must be labelled there too.
        preset: A name in config/policy/ (diffusion, autoregressive), or a YAML file of your own.
        mode: Co-training: none (labels alone), decoded (latents become pseudo-actions), heads (CoMo's: a head for
            actions and one for latents) or joint (both predicted together); the preset's where not given, and none
            where there are no videos.
        labels: Share of the demonstrations of each instruction whose actions are read, 0 to 1; the others are video,
            if they have latents.
        interface: The robot's interface YAML; the one inside the bags where not given.
        steps: Training steps; the preset's where not given.
        seed: Of the weights and batches; the preset's where not given.
        cache: Folder for decoded frames, to share between runs; OUTPUT/cache where not given.
    """
    import shlex
    import sys

    from como_core.interface import load_interface
    from como_core.policy.config import load_preset
    from como_core.policy.cotraining import keep_labels
    from como_core.policy.sources import open_training_data, recorded_interface
    from como_core.policy.train import train as run

    config = load_preset(preset, mode=mode or (None if videos else "none"), steps=steps, seed=seed)
    robot = load_interface(interface) if interface else recorded_interface(demos)
    data = open_training_data(demos, videos, robot, config.observation.state)
    print(data.summary())
    labelled, freed = keep_labels(data.demonstrations, labels)
    if len(labelled) < len(data.demonstrations):
        print(f"labels: {len(labelled)} demonstrations stay labelled, {len(freed)} are video now")
    trained = run(labelled, [*data.videos, *freed], robot, config, output, shlex.join(sys.argv), cache)
    for line in trained.notes():
        print(line)
    print(f"policy in {output}; next: como policy eval {output} --env metaworld:drawer-open-v3 --trials 50")


def evaluate(
    run: tyro.conf.Positional[Path],
    env: tuple[str, ...],
    trials: int = 50,
    first_seed: int = 10_000,
    processes: int = 2,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    device: str = "cpu",
) -> None:
    """Measure a policy in simulation: its success from fixed start states, with Wilson's 95 % interval.

    Trials are stepped directly, with the latency of the real loop, in parallel processes. They are logged one by one:
    run again, it does only what is missing.

    Example: como policy eval runs/policy --env metaworld:drawer-open-v3 --trials 50

    Args:
        run: Folder of the policy, as `como policy train` wrote it.
        env: Environments, such as metaworld:drawer-open-v3.
        trials: Start states per environment.
        first_seed: Seed of the first start state; the others follow it.
        processes: How many simulators run at once.
        output: Folder for trials.jsonl and success.json; RUN/eval where not given.
        device: Torch device of the policy, such as cpu or cuda.
    """
    import json
    from functools import partial

    from rich.console import Console

    from como_core.errors import ComoError
    from como_core.evaluation.trials import rate, rates_by_env
    from como_core.formats.labels import sha256_of
    from como_core.formats.trials import TrialLog
    from como_core.policy.checkpoint import load_policy
    from como_core.simulation.rollout import run_trials
    from como_core.training.checkpoint import TENSORS

    if trials < 1 or processes < 1:
        raise ComoError(f"--trials and --processes must be 1 or more, got {trials} and {processes}")
    load_policy(run)  # a damaged checkpoint is refused here, not in a process of its own
    folder = output or run / "eval"
    log = TrialLog(folder / "trials.jsonl", {"policy_sha256": sha256_of(run / TENSORS)})
    done = run_trials(partial(load_policy, run, device), env, range(first_seed, first_seed + trials),
                      processes=processes, log=log)
    rows = [_row(name, found) for name, found in rates_by_env(done).items()]
    rows += [_row("all", rate(done))] if len(rows) > 1 else []
    Console().print(_table(f"{run}, {trials} start states from seed {first_seed}", rows))
    path = folder / "success.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"the same numbers: {path}; every trial: {log.path}")


def _row(env: str, found: Rate) -> Row:
    return {"env": env, "success": found.share, "low": found.interval.low, "high": found.interval.high,
            "k": found.successes, "n": found.trials}


def _table(title: str, rows: list[Row]) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for name in ("environment", "success", "k / n", "95 % Wilson"):
        table.add_column(name, justify="left" if name == "environment" else "right")
    for row in rows:
        table.add_row(str(row["env"]), f"{row['success']:.1%}", f"{row['k']} / {row['n']}",
                      f"{row['low']:.1%} to {row['high']:.1%}")
    return table
