"""Inference in one thread of its own, so that commands keep their time however slow the policy is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from como_core.action_chunk import ActionChunk, Policy
from como_core.control.observations import Snapshot


@dataclass(frozen=True)
class Inference:
    """One finished prediction: a chunk, or the error that came instead.

    epoch       the number that was handed in with the snapshot, so that the owner knows an answer of a past run
    seconds     wall time of decoding and prediction
    """

    snapshot: Snapshot
    epoch: int
    chunk: ActionChunk | None
    error: Exception | None
    seconds: float


class InferenceWorker:
    """Runs `policy.predict` on one snapshot at a time and hands each result to `done`, in the worker's thread.

    Warms the policy up first, in the same thread, because torch keeps pools and caches per thread. Raises what that
    raises.
    """

    def __init__(self, policy: Policy, done: Callable[[Inference], None]) -> None:
        self._policy, self._done = policy, done
        self._warm: Future[None] = Future()
        self._wake = threading.Condition()
        self._job: tuple[Snapshot, int] | None = None
        self._busy = self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()
        self._warm.result()

    @property
    def idle(self) -> bool:
        """Whether a snapshot handed in now would be worked on at once."""
        with self._wake:
            return not self._busy and self._job is None

    def submit(self, snapshot: Snapshot, epoch: int) -> None:
        """Predict for `snapshot`; one that still waits is replaced by it."""
        with self._wake:
            self._job = snapshot, epoch
            self._wake.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread after the prediction that it is at."""
        with self._wake:
            self._closed, self._job = True, None
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._policy.warm_up()
        except Exception as error:  # noqa: BLE001 - handed to whoever makes the worker
            self._warm.set_exception(error)
            return
        self._warm.set_result(None)
        while True:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._closed or self._job is not None)
                if self._job is None:
                    return
                (snapshot, epoch), self._job, self._busy = self._job, None, True
            result = self._predict(snapshot, epoch)
            if not self._closed:
                self._done(result)

    def _predict(self, snapshot: Snapshot, epoch: int) -> Inference:
        start_s = time.monotonic()
        chunk, failure = None, None
        try:
            answer = self._policy.predict(snapshot.observation())
            if not isinstance(answer, ActionChunk):
                raise TypeError(f"predict gave a {type(answer).__name__}, expected an ActionChunk")
            chunk = answer
        except Exception as error:  # noqa: BLE001 - whatever a policy raises must stop the arm, not this thread
            failure = error
        return Inference(snapshot, epoch, chunk, failure, time.monotonic() - start_s)
