"""`como relabel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def relabel(
    source: tyro.conf.Positional[tuple[Path, ...]],
    model: Path,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    camera: str | None = None,
    device: str = "cpu",
) -> None:
    """Label recordings of any kind with latent motion: z and a confidence in [0, 1] for every step.

    Originals are never written. OUTPUT gets a label file for each episode, a bag of labels for each bag, and
    manifest.json with hashes. Run again, it does only what is missing.

    Example: como relabel videos/ bags/ --model runs/motion -o relabeled/

    Args:
        source: Videos, bags, LeRobot data sets, robomimic or LIBERO HDF5 files, or folders of them.
        model: Folder of a motion model, as `como motion train` wrote it.
        output: Folder for the labels; give it to `como policy train --videos`.
        camera: Which camera of recordings with several; the first where not given.
        device: Torch device, such as cpu or cuda.
    """
    from como_core.motion.relabel import relabel as run

    manifest = run(source, model, output, camera, device)
    frames = sum(entry.frames for entry in manifest.labelled)
    print(f"{len(manifest.labelled)} recordings, {frames} frames labelled, in {output}")
    if manifest.skipped:
        print(f"{len(manifest.skipped)} skipped:")
        print("\n".join(f"  {entry.reason}" for entry in manifest.skipped))
