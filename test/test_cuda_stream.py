"""On the GPU a policy works on a stream of its own: seen with a stream that only notes, since CI has no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted_policy import Script, ScriptedPolicy

from como_core.action_chunk import ActionChunk, Observation
from como_core.control.observations import Snapshot
from como_core.control.worker import Inference, InferenceWorker
from como_core.interface import Interface, load_interface
from como_core.policy import checkpoint
from como_core.resources import resource
from como_ros.policy_node import load_checkpoint
from como_ros.processes import wait_until

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))


class NotedStream:
    """In place of torch.cuda.Stream."""

    def __init__(self) -> None:
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited_for.append(other)


class Policy(ScriptedPolicy):
    """Notes the stream that was current in each call."""

    def __init__(self, interface: Interface, current: list[NotedStream]) -> None:
        super().__init__(interface, Script((0.0, 0.1, 0.0, 0.5)))
        self.history_s = (0.2,)
        self._current = current
        self.seen: list[NotedStream] = []

    def warm_up(self) -> None:
        self.seen.append(self._current[-1])

    def predict(self, observation: Observation) -> ActionChunk:
        self.seen.append(self._current[-1])
        return super().predict(observation)


@pytest.mark.parametrize(("device", "streams"), [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_warm_up_and_inference_are_on_a_stream_of_their_own(device: str, streams: int, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    default = NotedStream()
    current = [default]
    made: list[NotedStream] = []
    loaded: list[tuple[Policy, str]] = []

    @contextmanager
    def stream(chosen: NotedStream) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    def make() -> NotedStream:
        made.append(NotedStream())
        return made[-1]

    def load_policy(folder: Path, where: str) -> Policy:
        loaded.append((Policy(INTERFACE, current), where))
        return loaded[-1][0]

    for name, value in {"is_available": lambda: True, "Stream": make, "stream": stream,
                        "current_stream": lambda: default}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(checkpoint, "load_policy", load_policy)
    served = load_checkpoint(tmp_path, device)
    policy, where = loaded[0]
    assert where == ("cuda" if streams else "cpu") and len(made) == streams
    assert served.interface == INTERFACE and served.history_s == (0.2,)  # type: ignore[attr-defined]
    assert all(own.waited_for == [default] for own in made), "the weights are there before they are used"

    answers: list[Inference] = []
    worker = InferenceWorker(served, answers.append)
    picture = np.zeros((64, 64, 3), np.uint8)
    worker.submit(Snapshot(1.0, 1.0, {"front": lambda: picture}, np.zeros(4, np.float32), None), 1)
    assert wait_until(lambda: bool(answers), 10.0)
    worker.close()
    assert answers[0].chunk is not None, answers[0].error
    assert policy.seen == [made[0] if streams else default] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_stream_of_its_own_gives_the_same_numbers() -> None:
    from como_ros.cuda_stream import StreamedPolicy

    class Sum(ScriptedPolicy):
        def predict(self, observation: Observation) -> ActionChunk:
            assert torch.cuda.current_stream() != torch.cuda.default_stream()
            values = torch.full((2, 4), 3.0, device="cuda").cumsum(0).cpu().numpy()
            return ActionChunk(np.arange(2) / 40, values, "sum")

    given = Observation(0.0, {}, None, None)
    streamed = StreamedPolicy(Sum(INTERFACE, Script((0.0,) * 4)))
    np.testing.assert_array_equal(streamed.predict(given).values, [[3.0] * 4, [6.0] * 4])
