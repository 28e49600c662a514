"""A policy's work on the GPU, queued apart from what else runs there."""

from __future__ import annotations

import torch

from como_core.action_chunk import ActionChunk, Observation, Policy, history_of
from como_core.interface import Interface


class StreamedPolicy:
    """`policy` on a CUDA stream of its own, in whichever thread it is asked: it waits for no other work on the GPU.

    The chunk is on the host when `predict` returns, so whoever gets it has nothing to wait for either.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())  # which the weights were brought over on

    @property
    def interface(self) -> Interface:
        """The interface that the policy was trained with."""
        return self._policy.interface

    @property
    def history_s(self) -> tuple[float, ...]:
        """How long before the newest pictures those of `Observation.past` should be, in seconds."""
        return history_of(self._policy)

    @property
    def uses_state(self) -> bool:
        """Whether it looks at the state."""
        return bool(getattr(self._policy, "uses_state", True))

    def warm_up(self) -> None:
        """As the policy's own."""
        with torch.cuda.stream(self._stream):
            self._policy.warm_up()

    def predict(self, observation: Observation) -> ActionChunk:
        """As the policy's own, which raises what it raises."""
        with torch.cuda.stream(self._stream):
            return self._policy.predict(observation)
