"""The same job in several processes, each with its own simulator; results come back as they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], processes: int) -> Iterator[tuple[J, R]]:
    """Yield (job, function(job)) in the order in which jobs end.

    Processes are spawned, not forked, because an OpenGL context does not survive a fork; `function` and the jobs must
    be importable and picklable. With one process, or one job, everything runs here. The first exception of a job is
    raised and the jobs that have not begun are dropped.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_prepare_worker)
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    """One thread each; Ctrl-C is the parent's to handle; no worker outlives a parent that was killed."""
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
