"""Where the recordings of a job are labelled: an engine takes them to a Labeller and brings the outcomes back.

    for outcome in make_engine("local", workers=None).run(job, readers, tick): ...

An engine needs nothing but `Labeller(job)(sources)`, which any process that sees the files can call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import cv2
import torch

from como_core.errors import ComoError
from como_core.motion.labeller import Job, Labeller, Outcome, Readers
from como_core.parallel import run_jobs

EngineName = Literal["local"]

_BATCH = 16  # recordings sent to a process at once; neighbours share what their reader went through
_GPU_WORKERS = 4  # each holds a model, and half a gigabyte, on the GPU


class Engine(Protocol):
    """Labels the recordings of `readers`; `tick` may be told of frames as they are encoded.

    Outcomes come in any order, one for each recording. Raises OutputError, which ends the work.
    """

    def run(self, job: Job, readers: Readers, tick: Callable[[int], None]) -> Iterator[Outcome]: ...


def make_engine(name: EngineName, workers: int | None = None) -> Engine:
    """The engine of that name. Raises ComoError for a number of workers below 1."""
    if workers is not None and workers < 1:
        raise ComoError(f"workers must be at least 1, got {workers}; leave it out to have it chosen")
    return {"local": LocalEngine}[name](workers)


class LocalEngine:
    """This machine: one process, or `workers` of them; None chooses by cores and recordings.

    Each worker decodes in one thread and encodes in another, so that two cores are busy; so there is a worker for every
    two cores, and none for fewer than _BATCH recordings, since starting one takes seconds.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def run(self, job: Job, readers: Readers, tick: Callable[[int], None]) -> Iterator[Outcome]:
        sources = list(readers)
        workers = self._workers or _workers_for(len(sources), job.device)
        if workers == 1:
            with one_core_spared():
                yield from Labeller(job, readers).label(sources, tick)
            return
        for _, outcomes in run_jobs(partial(Labeller, job), _batches(sources, workers), workers):
            yield from outcomes


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _workers_for(recordings: int, device: str) -> int:
    most = cores() // 2 if device == "cpu" else min(cores() // 2, _GPU_WORKERS)
    return max(1, min(most, recordings // _BATCH))


def _batches(sources: Sequence[Path], workers: int) -> list[list[Path]]:
    size = max(1, min(_BATCH, len(sources) // (4 * workers)))
    return [list(sources[i:i + size]) for i in range(0, len(sources), size)]


@contextmanager
def one_core_spared() -> Iterator[None]:
    """Encode with one thread fewer than there are cores: the decoder's, which the threads would fight over."""
    encoding, resizing = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(max(1, min(encoding, cores() - 1)))
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(encoding)
        cv2.setNumThreads(resizing)
