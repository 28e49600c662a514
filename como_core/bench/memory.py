"""Peak memory of relabelling, and of building a training set, by the number of clips; each in a process of its own.

    python -m como_core.bench.memory relabel RUN CLIPS OUT     # prints the peak in MB
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from como_core.bench.clips import many_clips, tiny_config, untrained
from como_core.bench.measure import Row
from como_core.errors import ComoError

_KINDS = {"relabel": "relabelling", "train": "building a training set"}


def memory_rows(few: int, many: int, work: Path) -> list[Row]:
    """Peak resident memory with `few` and with `many` clips of 8 frames, and how much more the second is."""
    run = untrained(tiny_config(), work / "tiny")
    for count in (few, many):
        many_clips(work / f"clips_{count}", count)
    runs = {(kind, count): _start(kind, run, work / f"clips_{count}", work / f"{kind}_{count}")
            for kind in _KINDS for count in (few, many)}
    try:
        peaks = {what: _peak_mb(process) for what, process in runs.items()}
    finally:
        for process in runs.values():
            process.kill()
            process.wait()
    rows = []
    for kind, name in _KINDS.items():
        rows += [Row.of(f"memory of {name}, {count} clips", np.array([peaks[kind, count]]), "MB", note="peak, resident")
                 for count in (few, many)]
        rows.append(Row.of(f"memory of {name}, {many} clips over {few}",
                           np.array([peaks[kind, many] / peaks[kind, few]]), goal=1.1, at_most=True))
    return rows


def _start(kind: str, run: Path, clips: Path, out: Path) -> subprocess.Popen[str]:
    """All run at the same time: it is not their speed that is measured."""
    words = [sys.executable, "-m", "como_core.bench.memory", kind, str(run), str(clips), str(out)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def _peak_mb(process: subprocess.Popen[str]) -> float:
    out, error = process.communicate()
    if process.returncode:
        raise ComoError(f"a part of the benchmark failed: {error.strip()[-500:]}")
    return float(out)


def _build_training_set(run: Path, clips: Path, out: Path) -> None:
    """Everything `como motion train` does before its first step, and the first batch."""
    from como_core.formats.sources import open_sources
    from como_core.motion.mixture import Mixture
    from como_core.motion.model import load_motion
    from como_core.motion.train_data import open_training_data

    config = load_motion(run).config
    episodes = open_sources([clips]).episodes
    data = open_training_data(episodes, Mixture.of_one("clips", len(episodes)), config, None, out)
    data.sampler(config)(np.random.default_rng(0))


def main() -> None:
    """Do one kind of work and print the peak."""
    kind, run, clips, out = sys.argv[1], *map(Path, sys.argv[2:])
    with contextlib.redirect_stdout(io.StringIO()):
        if kind == "relabel":
            from como_core.motion.relabel import relabel

            relabel([clips], run, out, workers=1)
        else:
            _build_training_set(run, clips, out)
    print(_own_peak_mb())


def _own_peak_mb() -> float:
    """This program's peak; what getrusage gives includes that of the parent that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
