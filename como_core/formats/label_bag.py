"""Motion labels of a bag as a bag of their own, to be played or plotted beside it; the original is never written.

    write_label_bag("relabeled/0003", labels, frame_stamps_ns(read_bag("bags/0003")))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_writer import BagError, RawBagWriter, Storage, serialize, typestore
from como_core.formats.labels import LabelError, LabelFile

LATENT_TOPIC = "/como/latent_motion"
CONFIDENCE_TOPIC = "/como/label_confidence"
LABEL_KEY = "como_labels"

_TYPE = "sensor_msgs/msg/JointState"


def write_label_bag(path: str | Path, labels: LabelFile, stamps_ns: np.ndarray, storage: Storage = "mcap") -> Path:
    """Write latent motion and confidence as sensor_msgs/JointState, on LATENT_TOPIC and CONFIDENCE_TOPIC.

    Names are z0, z1, ... and confidence, values stand in `position`. `stamps_ns`, int64 [T], are the header stamps of
    the labelled pictures, which become header stamp and log time. Source, hash and model go into metadata.yaml. A bag
    of labels that is there already is replaced, any other is not. Raises LabelError where there is not one stamp for
    each label, and BagError where the bag cannot be written.
    """
    if len(stamps_ns) != len(labels.timestamps):
        raise LabelError(f"{labels.source}: {len(stamps_ns)} stamps for {len(labels.timestamps)} labels, not one each")
    note = {"source": labels.source, "source_sha256": labels.source_sha256, "model": labels.model,
            "gap_s": labels.gap_s}
    names = [f"z{i}" for i in range(labels.latent.shape[1])]
    if _holds_labels(Path(path)):
        shutil.rmtree(path)
    with RawBagWriter(path, {LABEL_KEY: json.dumps(note)}, storage) as bag:
        for stamp_ns, latent, confidence in zip(stamps_ns.tolist(), labels.latent, labels.confidence, strict=True):
            bag.write(LATENT_TOPIC, _TYPE, stamp_ns, _joint_state(stamp_ns, names, latent))
            bag.write(CONFIDENCE_TOPIC, _TYPE, stamp_ns, _joint_state(stamp_ns, ["confidence"], [confidence]))
    return bag.path


def _holds_labels(path: Path) -> bool:
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
