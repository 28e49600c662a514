"""Memory and time of motion training do not grow with the number of clips, and drawing costs next to nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from motion_clips import squares

from como_core.config import with_options
from como_core.motion.config import load_preset
from como_core.motion.mixture import Mixture
from como_core.motion.train import time_motion_steps
from como_core.motion.train_data import open_training_data


def own_mb(clips: int) -> float:
    """Memory of a process that has decoded, selected and trained 50 steps on so many clips, in MB."""
    ran = subprocess.run([sys.executable, str(Path(__file__).with_name("motion_clips.py")), str(clips)],
                         capture_output=True, text=True, timeout=280, check=True)
    found = re.search(rf"{clips} clips: ([0-9.]+) MB own", ran.stdout)
    assert found, ran.stdout
    return float(found[1])


@pytest.mark.timeout(600)
def test_memory_is_flat_from_100_clips_to_10000() -> None:
    assert own_mb(10_000) < 1.1 * own_mb(100)


def test_drawing_costs_less_than_a_twentieth_of_a_step(tmp_path: Path) -> None:
    """At the size of the preset; training draws ahead in a thread besides."""
    config = with_options(load_preset("como"), gap_s=0.1)
    data = open_training_data(squares(20), Mixture.of_one("squares", 20), config, None, tmp_path)
    times = time_motion_steps(data, config, steps=20)
    assert times.sample_s < 0.05 * times.compute_s
    assert times.samples_per_s == pytest.approx(config.loop.batch_size / times.compute_s)
