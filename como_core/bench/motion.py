"""`como bench motion`: training and relabelling of motion models.

    report = bench_motion(quick=True)
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from como_core.bench.clips import tiny_config, untrained, vit_config, write_clips
from como_core.bench.labelling import labelling_rows
from como_core.bench.learning import learning_rows
from como_core.bench.measure import Report, Row, machine
from como_core.bench.memory import memory_rows
from como_core.motion.config import load_preset


@dataclass(frozen=True)
class Size:
    """How much is measured.

    clips, vit_clips  (number, frames, height, width, Hz); of the slow backbone fewer, at a rate that makes the gap two
                      frames, so that the ends of so short a clip weigh little
    few, many         clips that peak memory is compared for
    """

    repeats: int
    steps: int
    clips: tuple[int, int, int, int, float]
    vit_clips: tuple[int, int, int, int, float]
    vit_layers: int
    few: int
    many: int


FULL = Size(repeats=3, steps=100, clips=(4, 150, 256, 256, 40), vit_clips=(1, 96, 256, 256, 16), vit_layers=24,
            few=100, many=10_000)
QUICK = Size(repeats=1, steps=4, clips=(2, 30, 64, 64, 40), vit_clips=(1, 20, 64, 64, 16), vit_layers=1, few=2, many=6)


def bench_motion(quick: bool = False) -> Report:
    """Measure everything in one run; `quick` only shows that it runs, its numbers mean nothing.

    Raises ComoError where a part of it fails.
    """
    size, start, here = QUICK if quick else FULL, time.monotonic(), machine()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="como_bench_") as folder:
        work = Path(folder)
        clips = write_clips(work / "clips", *size.clips)
        with _said("training"):
            small = tiny_config() if quick else load_preset("como-plus")
            rows += learning_rows("como-plus", small, clips, work / "learning", size.steps, size.repeats)
        with _said("relabelling, patch backbone"):
            run = untrained(small, work / "patch")
            rows += labelling_rows("patch", run, clips, work / "patch_labels", size.repeats)
        with _said("relabelling, vision transformer"):
            few = write_clips(work / "vit_clips", *size.vit_clips)
            run = untrained(vit_config(work / "vit_weights", size.vit_layers), work / "vit")
            rows += labelling_rows("ViT-L", run, few, work / "vit_labels", max(1, size.repeats - 1), 1.9,
                                   warm_up=False)
        with _said("memory"):
            rows += memory_rows(size.few, size.many, work / "memory")
    took = {"seconds": round(time.monotonic() - start), "load_at_end": machine()["load_at_start"]}
    return Report("motion", tuple(rows), {**here, **took}, {"quick": quick, **asdict(size)})


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Announce a part, and keep what it prints to itself."""
    print(f"measuring {what} ...", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
