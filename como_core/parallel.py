"""The same job in several processes, each with its own simulator; results come back as they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from como_core.errors import ComoError

J = TypeVar("J")
R = TypeVar("R")

_make: Callable[[], Callable[[Any], Any]] | None = None
_worker: Callable[[Any], Any] | None = None


def run_jobs(make_worker: Callable[[], Callable[[J], R]], jobs: Sequence[J], processes: int) -> Iterator[tuple[J, R]]:
    """Yield (job, worker(job)) in the order in which jobs end; each process makes its own worker, once.

    Processes are spawned, not forked, because an OpenGL context does not survive a fork: `make_worker`, the jobs and
    the results must be picklable. With one process, or one job, everything runs here. The first exception of a worker
    is raised and the jobs that have not begun are dropped. Raises ComoError where a process dies.
    """
    if processes <= 1 or len(jobs) <= 1:
        worker = make_worker() if jobs else None
        for job in jobs:
            assert worker is not None
            yield job, worker(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_enter, initargs=(make_worker,))
    try:
        futures = {pool.submit(_run, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ComoError("a worker process was ended from outside, for instance for lack of memory; "
                        "run again to go on, with fewer processes if it happens again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(job: Any) -> Any:
    global _worker
    if _worker is None:
        assert _make is not None
        _worker = _make()
    return _worker(job)


def _enter(make_worker: Callable[[], Callable[[Any], Any]]) -> None:
    """One thread each; Ctrl-C is the parent's to handle; no process outlives a parent that was killed."""
    global _make
    _make = make_worker
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if "torch" in sys.modules:  # it came with `make_worker`, too early to read the variable
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
