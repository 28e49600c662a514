"""Pseudo-actions in the bags of labels that `como relabel` wrote: z decoded as the co-training decodes it.

    add_pseudo_actions("relabeled/", ["demos/"], load_interface("config/interfaces/panda.yaml"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from como_core.errors import ComoError, OutputError
from como_core.formats.bag_writer import BagError
from como_core.formats.label_bag import PseudoActions, write_label_bag
from como_core.formats.labels import read_labels, with_labels
from como_core.formats.manifest import located, read_manifest
from como_core.formats.rosbag import frame_log_ns, frame_stamps_ns, read_bag
from como_core.interface import Interface
from como_core.policy.cotraining import decode_for, fit_decoder
from como_core.policy.decoder import ActionDecoder, DecoderConfig, Fit
from como_core.policy.sources import open_training_data


@dataclass(frozen=True)
class Decoded:
    """How well left-out demonstrations were decoded, the sidecar bags written, and the recordings left out and why."""

    fit: Fit
    written: list[Path]
    skipped: list[tuple[str, str]]


def add_pseudo_actions(folder: str | Path, demos: Sequence[Path], interface: Interface,
                       config: DecoderConfig | None = None) -> Decoded:
    """Write `/como/pseudo_action` into the sidecar of every labelled bag in `folder` whose instruction is demonstrated.

    demos    demonstrations with commands; they need labels in `folder` too
    config   of the decoder that is fitted on them; the co-training's default where None

    Raises ComoError where no demonstration can be used or no bag can be decoded, OutputError where `folder` cannot be
    written.
    """
    folder = Path(folder)
    data = open_training_data(demos, [folder], interface)
    decoder = fit_decoder(data.demonstrations, interface, config or DecoderConfig())
    assert decoder.fitted is not None, "a fitted decoder knows its error"
    written, skipped = [], []
    for entry in read_manifest(folder).labelled:
        source = located(entry.source, folder)
        if entry.sidecar is None:
            continue
        try:
            written.append(_write(source, folder / entry.labels, folder / entry.sidecar, decoder, interface))
        except OutputError:
            raise
        except ComoError as error:
            skipped.append((str(source), str(error)))
    if not written:
        why = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else "; it holds labels of no bag"
        raise ComoError(f"{folder}: no bag of it can be given pseudo-actions{why}")
    return Decoded(decoder.fitted, written, skipped)


def _write(source: Path, label_file: Path, sidecar: Path, decoder: ActionDecoder, interface: Interface) -> Path:
    labels = read_labels(label_file)
    episode = with_labels(read_bag(source, otherwise=interface), labels)
    action, confidence = decode_for(interface, decoder, episode)
    names = [*interface.action.names, *(["gripper"] if interface.action.gripper else [])]
    try:
        return write_label_bag(sidecar, labels, frame_stamps_ns(episode), frame_log_ns(episode),
                               PseudoActions(names, action, confidence))
    except BagError as error:
        raise OutputError(str(error)) from error
