"""`como motion train`, `como motion eval` and `como motion show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from como_core.bounds import ABOVE_0, COUNT, FROM_0, SEED

if TYPE_CHECKING:
    from como_core.episode import Episode
    from como_core.motion.model import MotionModel


def train(
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH[=WEIGHT] ...")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    preset: str = "como",
    size: Literal["small", "full"] = "small",
    options: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="KEY=VALUE ...")] = (),
    steps: Annotated[int | None, COUNT] = None,
    seed: Annotated[int | None, SEED] = None,
    camera: str | None = None,
    cache: Path | None = None,
    cache_limit_gb: Annotated[float | None, ABOVE_0] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Learn latent motion from video of any kind. No action labels are needed, nor read but with --set loss.action=1.

    Pairs of frames that lie `gap_s` apart are what it learns from. Those across a scene cut, and those whose frames
    differ by no more than noise, are left out and counted. An interrupted run is taken up again by the same command.

    Examples:
        como motion train --data videos/ bags/ -o runs/motion
        como motion train --data robot/=3 human/=1 -o runs/motion             three pairs of robots to each of people
        como motion train --data videos/ -o runs/kl --preset como-v1 --set bottleneck.kind=variational loss.kl=1e-6
        torchrun --nproc_per_node=4 -m como_core.cli.main motion train --size full --data videos/ -o runs/full

    Args:
        data: Videos, bags, LeRobot data sets, robomimic or LIBERO HDF5 files, or folders of them, nested as you like.
            What cannot be read is named and left out. With =WEIGHT, a path gives that share of all pairs drawn,
            relative to the other weights, however much it holds; without, every pair is drawn as often as any other.
        output: Folder for the checkpoint, the training state, run.json and the TensorBoard log.
        preset: A name in config/motion/ (como, como-v1, como-plus, continuous, vq, ...), or a YAML file of your own.
        size: How large the parts are: small (minutes on two cores) or full (the paper's: a frozen MAE ViT-L at 224
            pixels, for GPUs).
        options: Settings to change, by their keys in the YAML files, such as gap_s=0.2 loop.batch_size=64
            selection.still_share=0. loop.batch_size is that of all processes together.
        steps: Training steps; the preset's where not given.
        seed: Of the weights and batches; the preset's where not given.
        camera: Which camera of recordings with several, the first where not given; of bags without an interface, the
            image topic.
        cache: Folder for decoded frames and backbone features, to share between runs; OUTPUT/cache where not given.
        cache_limit_gb: How large that folder may become. Older caches there that no run uses make way. Where features
            of a frozen backbone do not fit they are computed anew in every step. Not given: the disk is the limit for
            frames, 32 GB for features.
        device: Where to compute; auto takes a GPU where there is one.
    """
    from como_core.config import parse_options, with_options
    from como_core.motion.config import load_preset
    from como_core.motion.mixture import open_mixture
    from como_core.motion.train import train as run
    from como_core.training.progress import track
    from como_core.training.ranks import join, leave, quiet_unless_first

    given = parse_options(options, **{"loop.steps": ("--steps", steps), "loop.seed": ("--seed", seed)})
    config = with_options(load_preset(preset, size), **given)
    join(device)
    with quiet_unless_first():
        sources, mixture = open_mixture(data, lambda found: track(found, "reading", "recordings"), camera)
        print(sources.summary())
        run(sources.episodes, config, output, camera, cache, mixture, cache_limit_gb, device)
        paths = " ".join(mixture.names)
        print(f"motion model in {output}; next: como relabel {paths} --model {output} -o relabeled/")
    leave()


def evaluate(
    run: tyro.conf.Positional[Path],
    data: tuple[Path, ...],
    interface: Path | None = None,
    camera: str | None = None,
    cache: Path | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    target: Literal["sum", "stack", "difference", "absolute"] = "sum",
    lag: Annotated[float, FROM_0] = 0.0,
    actions: tuple[str, ...] = (),
    seeds: Annotated[int, COUNT] = 3,
    seed: Annotated[int, SEED] = 0,
    baselines: bool = True,
    name: str | None = None,
    split: str = "held_out",
    device: str = "cpu",
) -> None:
    """Measure a motion model: probes for the real actions beside baselines, S-PCFC, reconstruction, a leakage audit.

    Prints tables, and writes RUN/metrics.json and the figure RUN/metrics.png. Use recordings that the model was not
    trained on. Those with actions are probed, all are audited; plain videos will do. What each number means:
    docs/motion_metrics.md.

    Examples:
        como motion eval runs/motion --data held_out/
        como motion eval runs/motion --data dataset/ --target difference --lag 0.15 --actions Right

    Args:
        run: Folder of the model, as `como motion train` wrote it.
        data: Videos, bags, LeRobot data sets or HDF5 files, or folders of them; those with actions all of one robot.
        interface: The robot's interface YAML; where not given, what the recordings say of their actions.
        camera: Which camera, the first where not given; of bags without an interface, the image topic.
        cache: Folder for decoded frames and the probes of baselines, to share between models; RUN/cache where not
            given.
        output: The JSON file, NAME.json; the figure lies beside it, NAME.png. An earlier result there is replaced, any
            other file refused. RUN/metrics.json where not given.
        target: What is made of the actions of the gap. For velocities and steps: their sum, or several stacked. For
            commanded positions: the difference of the last and the first, or the mean (absolute).
        lag: Seconds by which the arm follows its commands.
        actions: Ask only for actions whose name contains one of these words.
        seeds: How often the recordings are split anew for the probes.
        seed: The first of these.
        baselines: Leave out what z is compared with, for speed.
        name: Of the model in the JSON and the figure; RUN's where not given.
        split: Of the data, a word for the JSON.
        device: Where the model runs: cpu, cuda.
    """
    import shlex
    import sys

    from rich.console import Console

    from como_core.formats.output_folder import writable_folder
    from como_core.formats.result_file import require_replaceable, write_result
    from como_core.motion.measure.baselines import BASELINES
    from como_core.motion.measure.evaluate import Measures
    from como_core.motion.measure.evaluate import evaluate as measure
    from como_core.motion.measure.figure import save
    from como_core.motion.measure.report import tables
    from como_core.motion.targets import Target

    path = output or run / "metrics.json"
    figure = path.with_suffix(".png")
    require_replaceable(path, "motion eval", ("rows", "summary"), figure)
    measures = Measures(Target(target, lag), actions, BASELINES if baselines else (), seeds=seeds)
    model, episodes, names = _opened(run, data, interface, camera, device)
    writable_folder(path.parent)
    report = measure(model, episodes, names, camera, cache or run / "cache", seed, measures)
    Console().print(tables(report))
    title = name or run.resolve().name
    rows = report.flat_rows(title, split, shlex.join(["como", *sys.argv[1:]]))
    write_result(path, {"rows": rows, "summary": report.to_dict()})
    save(report, f"Latent motion of {title}, measured on {', '.join(map(str, data))}", figure)
    print(f"the same numbers: {path}\nfigure: {figure}")


def show(
    run: tyro.conf.Positional[Path],
    data: tuple[Path, ...],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    interface: Path | None = None,
    camera: str | None = None,
    cache: Path | None = None,
    target: Literal["sum", "difference", "absolute"] = "sum",
    device: str = "cpu",
) -> None:
    """See what a motion model has learned: reconstructions, motion carried to other scenes, z over time, a map of z.

    Writes OUTPUT/index.html, one file that opens anywhere, and each picture as PNG. Give recordings of more than one
    task, camera or robot to see motion transferred between them; plain videos will do.

    Example: como motion show runs/motion --data videos/ bags/ -o runs/motion/show

    Args:
        run: Folder of the model, as `como motion train` wrote it.
        data: Videos, bags, LeRobot data sets or HDF5 files, or folders of them.
        output: Folder for the page and the pictures.
        interface: The robot's interface YAML; where not given, what the recordings say of their actions.
        camera: Which camera, the first where not given; of bags without an interface, the image topic.
        cache: Folder for decoded frames; RUN/cache where not given.
        target: What is made of the actions of the gap: their sum, for velocities and steps; for commanded positions
            the difference of the last and the first, or the mean (absolute).
        device: Where the model runs: cpu, cuda.
    """
    from como_core.evaluation.page import Page, require_own
    from como_core.formats.output_folder import writable_folder
    from como_core.motion.show import show as draw
    from como_core.motion.targets import Target

    require_own(output / "index.html")
    model, episodes, names = _opened(run, data, interface, camera, device)
    writable_folder(output)
    pictures = draw(model, episodes, names, camera, cache or run / "cache", Target(target))
    page = Page(f"Latent motion of {run.resolve().name}")
    page.text(f"{len(episodes)} recordings from {', '.join(map(str, data))}. z has {model.config.latent_size} "
              f"numbers and is made of two frames {model.config.gap_s:g} s apart.", "quiet")
    for picture in pictures:
        page.heading(picture.heading)
        page.figure(picture.figure, picture.caption)
        picture.figure.savefig(output / f"{picture.name}.png", dpi=110, facecolor="white")
    print(f"{len(pictures)} pictures: {page.write(output / 'index.html')}")


def _opened(run: Path, data: tuple[Path, ...], interface: Path | None, camera: str | None, device: str
            ) -> tuple[MotionModel, list[Episode], list[str]]:
    """The model of a run, the recordings below `data` and the names of their actions; says what could be read."""
    from como_core.formats.sources import open_sources
    from como_core.interface import load_interface
    from como_core.motion.measure.evaluate import action_names
    from como_core.motion.model import load_motion
    from como_core.training.progress import track

    model = load_motion(run, device)
    given = load_interface(interface) if interface else None
    sources = open_sources(data, given, lambda found: track(found, "reading", "recordings"), camera)
    print(sources.summary())
    return model, sources.episodes, action_names(sources.episodes, given)
