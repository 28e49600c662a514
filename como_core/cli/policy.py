"""`como policy train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from como_core.bounds import COUNT, SEED, SHARE


def train(
    demos: tuple[Path, ...],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    videos: tuple[Path, ...] = (),
    preset: str = "diffusion",
    mode: Literal["none", "decoded", "heads", "joint"] | None = None,
    labels: Annotated[float, SHARE] = 1.0,
    size: Literal["small", "full"] = "small",
    options: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="KEY=VALUE ...")] = (),
    interface: Path | None = None,
    video_cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS ...")] = (),
    steps: Annotated[int | None, COUNT] = None,
    seed: Annotated[int | None, SEED] = None,
    cache: Path | None = None,
    start_from: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Train a policy on a few demonstrations and any amount of relabelled video.

    An interrupted run is taken up again by the same command.

    Examples:
        como policy train --demos bags/ --videos relabeled/ -o runs/policy
        como policy train --demos bags/ --mode none -o runs/labels_alone
        torchrun --nproc_per_node=4 -m como_core.cli.main policy train --size full --demos demos/ -o runs/full

    Args:
        demos: Recordings with actions, or folders of them: bags, and with --interface HDF5 files and LeRobot data sets.
        output: Folder for the checkpoint, the training state and the TensorBoard log.
        videos: Folders that `como relabel` wrote. To decode, the demonstrations must be labelled there too.
        preset: A name in config/policy/ (diffusion, autoregressive), or a YAML file of your own.
        mode: Co-training: none (labels alone), decoded (latents become pseudo-actions), heads (CoMo's: a head for
            actions and one for latents) or joint (both predicted together); the preset's where not given, and none
            where there are no videos.
        labels: Share of the demonstrations of each instruction whose actions are read, 0 to 1; the others are video,
            if they have latents. With 0 (modes heads and joint) it learns motion and no action, to start from.
        size: How large the network is and how long it trains: small (minutes on two cores) or full (a DiT-B, for a
            GPU).
        options: Settings to change, by their keys in the YAML files, such as cotraining.video_share=0.25
            diffusion.sampler=ddim observation.state=true
        interface: The robot's interface YAML; the one inside the bags where not given.
        video_cameras: For a camera of the robot, the one of videos that stands for it where they have none of its
            name, such as front=top
        steps: Training steps; the preset's where not given.
        seed: Of the weights and batches; the preset's where not given.
        cache: Folder for decoded frames, to share between runs; OUTPUT/cache where not given.
        start_from: A policy of the same network whose weights training begins with.
        device: Where to compute; auto takes a GPU where there is one.
    """
    import shlex
    import sys

    from como_core.config import parse_options, with_options
    from como_core.errors import ComoError
    from como_core.interface import load_interface
    from como_core.policy.config import load_preset
    from como_core.policy.cotraining import keep_labels, require_video
    from como_core.policy.sources import camera_names, open_training_data, recorded_interface
    from como_core.policy.train import train as run
    from como_core.training.ranks import join, leave, quiet_unless_first, rank

    given = parse_options(options, **{"training.steps": ("--steps", steps), "training.seed": ("--seed", seed),
                                      "cotraining.mode": ("--mode", mode)})
    config = with_options(load_preset(preset, None if videos else "none", size=size), **given)
    join(device)
    with quiet_unless_first():
        robot = load_interface(interface) if interface else recorded_interface(demos)
        data = open_training_data(demos, videos, robot, config.observation.state, bool(config.observation.text.model),
                                  camera_names(video_cameras, robot))
        print(data.summary())
        labelled, freed, lost = keep_labels(data.demonstrations, labels)
        if not labelled and not config.cotraining.predicts_latents:
            raise ComoError(f"--labels {labels:g} leaves no demonstration with actions, and co-training "
                            f"{config.cotraining.mode} learns nothing else; give a larger share, or --mode heads or "
                            "joint to learn motion from --videos")
        if len(labelled) < len(data.demonstrations):
            print("\n  ".join([f"labels: {len(labelled)} demonstrations stay labelled, {len(freed)} are video now"
                               f"{f', {len(lost)} are not used, for want of latents:' if lost else ''}",
                               *(episode.source for episode in lost)]))
        require_video(labelled, [*data.videos, *freed], config.cotraining, videos)
        trained = run(labelled, [*data.videos, *freed], robot, config, output, shlex.join(sys.argv), cache, start_from,
                      device, data.latents)
        for line in trained.notes():
            print(line)
        if rank() == 0:
            print(f"policy in {output}; {_next(output, demos)}")
    leave()


def _next(output: Path, demos: tuple[Path, ...]) -> str:
    """What can be done with the policy that was trained."""
    import shlex

    from como_core import config
    from como_core.interface import load_interface
    from como_core.policy.checkpoint import TrainedConfig
    from como_core.simulation.rollout import env_to_try
    from como_core.training.checkpoint import CONFIG, INTERFACE

    trained, run = config.load(TrainedConfig, output / CONFIG), shlex.quote(str(output))
    if not trained.demonstrations:
        return ("it knows motion and no action, and is there to start from; next: como policy train --start-from "
                f"{run} --mode {trained.policy.cotraining.mode} --demos bags/ --videos relabeled/ -o OUTPUT, of the "
                "same preset, size and instructions")
    any_sentence = bool(trained.policy.observation.text.model) or trained.instructions == ("",)
    env = env_to_try(load_interface(output / INTERFACE), trained.instructions, any_sentence)
    if env is not None:
        return f"next: como policy eval {run} --env {env} --trials 50"
    return f"next: como policy show {run} --data {shlex.join(map(str, demos))} -o pictures/"
