"""`como relabel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from como_core.interface import Interface


def relabel(
    source: tyro.conf.Positional[tuple[Path, ...]],
    model: Path,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    camera: str | None = None,
    device: str = "cpu",
    engine: Literal["local"] = "local",
    workers: int | None = None,
    demos: tuple[Path, ...] = (),
    interface: Path | None = None,
) -> None:
    """Label recordings of any kind with latent motion: z and a confidence in [0, 1] for every step.

    The confidence tells how much of the change z rebuilds, whether overlapping windows agree with it, whether motion
    adds up, and whether a scene was cut (docs/relabel.md).

    Originals are never written. OUTPUT gets a label file for each episode, a bag of labels for each bag, and
    manifest.json with hashes. Run again, it does only what is missing.

    A bag of labels plays beside its bag: /como/latent_motion, /como/label_confidence and, with --demos, the action that
    z is decoded to on /como/pseudo_action (docs/relabel.md).

    Example: como relabel videos/ bags/ --model runs/motion -o relabeled/

    Args:
        source: Videos, bags, LeRobot data sets, robomimic or LIBERO HDF5 files, or folders of them.
        model: Folder of a motion model, as `como motion train` wrote it.
        output: Folder for the labels; give it to `como policy train --videos`.
        camera: Which camera of recordings with several, the first where not given; of bags without an interface, the
            image topic. A folder takes the labels of one camera.
        device: Torch device, such as cpu or cuda.
        engine: Where the work is done: local, in processes of this machine.
        workers: Processes; where not given, one for every two cores, or one where there are few recordings.
        demos: Demonstrations, among the sources too, on which the decoder from z to action is fitted.
        interface: Interface YAML of bags that hold none, such as those of `ros2 bag record`, and of the demonstrations;
            where not given, the one inside the first bag of these.
    """
    from como_core.formats.manifest import labelled_sources
    from como_core.formats.source_files import split_source
    from como_core.interface import load_interface
    from como_core.motion.relabel import relabel as run

    robot = load_interface(interface) if interface else None
    manifest = run(source, model, output, camera, device, engine, workers, robot)
    frames = sum(entry.frames for entry in manifest.labelled)
    print(f"{len(manifest.labelled)} recordings, {frames} frames labelled, in {output}")
    gone = [source for source, _ in labelled_sources(manifest, output) if not split_source(source)[0].exists()]
    if gone:
        print("\n".join([f"{len(gone)} of them, labelled before, are not there now; their labels are kept:",
                         *(f"  {source}" for source in gone)]))
    if manifest.skipped:
        print(f"{len(manifest.skipped)} skipped:")
        print("\n".join(f"  {entry.reason}" for entry in manifest.skipped))
    if demos:
        _decode(output, demos, robot)


def _decode(output: Path, demos: tuple[Path, ...], interface: Interface | None) -> None:
    from como_core.policy.label_actions import add_pseudo_actions
    from como_core.policy.sources import recorded_interface

    decoded = add_pseudo_actions(output, demos, interface or recorded_interface(demos))
    left_out = ", ".join(f"{value:.2f}" for value in decoded.fit.r2)
    print(f"{len(decoded.written)} bags of labels with pseudo-actions; R2 on left-out demonstrations: {left_out}")
    if decoded.skipped:
        print("\n".join([f"{len(decoded.skipped)} without:", *(f"  {path}: {why}" for path, why in decoded.skipped)]))
