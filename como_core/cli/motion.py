"""`como motion train` and `como motion eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def train(
    data: tuple[Path, ...],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    preset: str = "como",
    steps: int | None = None,
    seed: int | None = None,
    camera: str | None = None,
    cache: Path | None = None,
    cache_limit_gb: float | None = None,
) -> None:
    """Learn latent motion from video of any kind. No action labels are needed, and none are read.

    An interrupted run is taken up again by the same command.

    Example: como motion train --preset como --data videos/ bags/ -o runs/motion

    Args:
        data: Videos, bags, LeRobot data sets, robomimic or LIBERO HDF5 files, or folders of them, nested as you like.
            What cannot be read is named and left out.
        output: Folder for the checkpoint, the training state and the TensorBoard log.
        preset: A name in config/motion/ (como, como-v1, continuous), or a YAML file of your own.
        steps: Training steps; the preset's where not given.
        seed: Of the weights and batches; the preset's where not given.
        camera: Which camera of recordings with several; the first where not given.
        cache: Folder for decoded frames, to share between runs; OUTPUT/cache where not given.
        cache_limit_gb: How large that folder may grow, older caches making way; as the disk allows where not given.
    """
    import dataclasses

    from como_core.formats.sources import open_sources
    from como_core.motion.config import load_preset
    from como_core.motion.train import train as run
    from como_core.training.progress import track

    config = load_preset(preset)
    loop = dataclasses.replace(config.loop, steps=config.loop.steps if steps is None else steps,
                               seed=config.loop.seed if seed is None else seed)
    config = dataclasses.replace(config, loop=loop)
    sources = open_sources(data, progress=lambda found: track(found, "reading", "recordings"))
    print(sources.summary())
    run(sources.episodes, config, output, camera, cache, cache_limit_gb=cache_limit_gb)
    print(f"motion model in {output}; next: como relabel {' '.join(map(str, data))} --model {output} -o relabeled/")


def evaluate(
    run: tyro.conf.Positional[Path],
    data: tuple[Path, ...],
    interface: Path | None = None,
    camera: str | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> None:
    """Measure a motion model: what a linear probe reads of the real actions from z, beside baselines.

    Prints a table, and writes the same numbers to RUN/metrics.json. Use recordings that the model was not trained on;
    only those with actions count. Every recording is held out once; intervals are over recordings.

    Example: como motion eval runs/motion --data held_out/

    Args:
        run: Folder of the model, as `como motion train` wrote it.
        data: Bags, LeRobot data sets or HDF5 files with actions, or folders of them, all of one robot.
        interface: The robot's interface YAML; where not given, what the recordings say of their actions.
        camera: Which camera; the first where not given.
        cache: Folder for decoded frames; RUN/cache where not given.
        seed: Of the split into folds.
    """
    import json

    from rich.console import Console

    from como_core.formats.sources import open_sources
    from como_core.interface import load_interface
    from como_core.motion.evaluate import action_names, probe_table
    from como_core.motion.evaluate import evaluate as measure
    from como_core.motion.model import load_motion
    from como_core.training.progress import track

    model = load_motion(run)
    given = load_interface(interface) if interface else None
    sources = open_sources(data, given, lambda found: track(found, "reading", "recordings"))
    print(sources.summary())
    names = action_names(sources.episodes, given)
    report = measure(model, sources.episodes, names, camera, cache or run / "cache", seed)
    Console().print(probe_table(report))
    path = run / "metrics.json"
    path.write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    print(f"the same numbers: {path}")
