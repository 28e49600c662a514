"""The same job in several processes, each with its own simulator; results come back as they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from como_core.errors import ComoError

J = TypeVar("J")
R = TypeVar("R")

POLL_S = 0.05

Stream = Callable[[Iterator[J]], Iterator[tuple[J, R]]]

_shared: _Shared | None = None


def run_jobs(make_worker: Callable[[], Callable[[J], R]], jobs: Sequence[J], processes: int) -> Iterator[tuple[J, R]]:
    """Yield (job, worker(job)) in the order in which jobs end; each process makes its own worker, once.

    Otherwise as `run_streams`.
    """
    return run_streams(partial(_OneByOne, make_worker), jobs, processes)


def run_streams(make_worker: Callable[[], Stream[J, R]], jobs: Sequence[J], processes: int) -> Iterator[tuple[J, R]]:
    """Yield what the workers yield, (job, result), as it comes; each process makes its own worker, once.

    A worker is called with an iterator of jobs, draws from it when it has room, and may have several in hand at once.
    Processes are spawned, not forked, because an OpenGL context does not survive a fork: `make_worker`, the jobs and
    the results must be picklable. With one process, or one job, everything runs here. The first exception of a worker
    is raised and the jobs that have not begun are dropped. Raises ComoError where a process dies.
    """
    if processes <= 1 or len(jobs) <= 1:
        if jobs:
            yield from make_worker()(iter(jobs))
        return
    context = multiprocessing.get_context("spawn")
    shared = _Shared(make_worker, jobs, context.Value("q", 0), context.SimpleQueue())
    workers = min(processes, len(jobs))
    pool = ProcessPoolExecutor(workers, context, initializer=_enter, initargs=(shared,))
    try:
        running = [pool.submit(_work) for _ in range(workers)]
        while True:
            ended = all(worker.done() for worker in running)  # before the look into the queue: nothing comes after
            while not shared.results.empty():
                yield shared.results.get()
            for worker in running:
                if worker.done():
                    worker.result()
            if ended:
                return
            wait(running, POLL_S, FIRST_EXCEPTION)
    except BrokenProcessPool as error:
        raise ComoError("a worker process was ended from outside, for instance for lack of memory; "
                        "run again to go on, with fewer processes if it happens again") from error
    finally:
        shared.stop()
        pool.shutdown(wait=True, cancel_futures=True)


class _OneByOne:
    """A worker for one job at a time as a stream."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._worker = make_worker()

    def __call__(self, jobs: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        return ((job, self._worker(job)) for job in jobs)


class _Shared:
    """What all processes hold: the jobs, how many of them are taken, and the way back for the results."""

    def __init__(self, make_worker: Callable[[], Stream[Any, Any]], jobs: Sequence[Any], taken: Synchronized[int],
                 results: SimpleQueue[tuple[Any, Any]]) -> None:
        self.make_worker, self.results = make_worker, results
        self._jobs, self._taken = list(jobs), taken

    def draw(self) -> Iterator[Any]:
        """Jobs that no other process has taken, until there are none."""
        while True:
            with self._taken.get_lock():
                index = self._taken.value
                self._taken.value = index + 1
            if index >= len(self._jobs):
                return
            yield self._jobs[index]

    def stop(self) -> None:
        """Let nobody take a further job."""
        self._taken.get_obj().value = len(self._jobs)  # without the lock, which a killed process may hold


def _work() -> None:
    assert _shared is not None
    for result in _shared.make_worker()(_shared.draw()):
        _shared.results.put(result)


def _enter(shared: _Shared) -> None:
    """One thread each; Ctrl-C is the parent's to handle; no process outlives a parent that was killed."""
    global _shared
    _shared = shared
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if "torch" in sys.modules:  # it came with `shared`, too early to read the variable
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
