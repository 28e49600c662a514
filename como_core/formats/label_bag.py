"""Motion labels of a bag as a bag of their own, to be played or plotted beside it; the original is never written.

    write_label_bag("relabeled/0003", labels, frame_stamps_ns(read_bag("bags/0003")))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_writer import BagError, RawBagWriter, Storage, serialize, typestore
from como_core.formats.labels import LabelError, LabelFile

LATENT_TOPIC = "/como/latent_motion"
ACTION_TOPIC = "/como/pseudo_action"
CONFIDENCE_TOPIC = "/como/label_confidence"
LABEL_KEY = "como_labels"

_TYPE = "sensor_msgs/msg/JointState"


@dataclass(frozen=True)
class PseudoActions:
    """What z was decoded to: names of the action's values, values float32 [T, A], confidence float32 [T] in [0, 1]."""

    names: Sequence[str]
    values: np.ndarray
    confidence: np.ndarray


def write_label_bag(path: str | Path, labels: LabelFile, stamps_ns: np.ndarray, log_ns: np.ndarray | None = None,
                    actions: PseudoActions | None = None, storage: Storage = "mcap") -> Path:
    """Write labels as sensor_msgs/JointState on LATENT_TOPIC, CONFIDENCE_TOPIC and, where given, ACTION_TOPIC.

    Names are z0, z1, ..., those of the action, and confidence (of z) with pseudo_action (of the action) behind it;
    values stand in `position`. `stamps_ns` and `log_ns`, int64 [T], are header stamps and log times of the labelled
    pictures, so that the bag plays in step with theirs; without log times the stamps stand for them. Source, hash and
    model go into metadata.yaml. A bag of labels that is there already is replaced, any other is not. Raises LabelError
    where there is not one stamp, or action, for each label, and BagError where the bag cannot be written.
    """
    steps = len(labels.timestamps)
    log_ns = stamps_ns if log_ns is None else log_ns
    if not len(stamps_ns) == len(log_ns) == steps:
        raise LabelError(f"{labels.source}: {len(stamps_ns)} stamps for {steps} labels, not one each")
    if actions is not None and actions.values.shape != (steps, len(actions.names)):
        raise LabelError(f"{labels.source}: actions {list(actions.values.shape)} for {steps} labels of "
                         f"{len(actions.names)} values each")
    note = {"source": labels.source, "source_sha256": labels.source_sha256, "model": labels.model,
            "gap_s": labels.gap_s}
    names = [f"z{i}" for i in range(labels.latent.shape[1])]
    if holds_labels(Path(path)):
        shutil.rmtree(path)
    with RawBagWriter(path, {LABEL_KEY: json.dumps(note)}, storage) as bag:
        for step, (stamp_ns, at_ns) in enumerate(zip(stamps_ns.tolist(), log_ns.tolist(), strict=True)):
            bag.write(LATENT_TOPIC, _TYPE, at_ns, _joint_state(stamp_ns, names, labels.latent[step]))
            confidence = {"confidence": labels.confidence[step]}
            if actions is not None:
                confidence["pseudo_action"] = actions.confidence[step]
                bag.write(ACTION_TOPIC, _TYPE, at_ns, _joint_state(stamp_ns, list(actions.names), actions.values[step]))
            bag.write(CONFIDENCE_TOPIC, _TYPE, at_ns, _joint_state(stamp_ns, list(confidence), [*confidence.values()]))
    return bag.path


def holds_labels(path: Path) -> bool:
    """Whether the bag at `path` is a bag of labels."""
    try:
        with BagReader(path) as bag:
            return LABEL_KEY in bag.custom_data
    except BagError:
        return False


def _joint_state(stamp_ns: int, names: list[str], values: Sequence[float] | np.ndarray) -> bytes:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    return serialize(types[_TYPE](header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=""), name=names,
                                  position=np.asarray(values, np.float64), velocity=np.empty(0), effort=np.empty(0)))
