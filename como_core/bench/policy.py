"""`como bench policy`: training and inference of policies, beside LeRobot's at like size.

    report = bench_policy(peer=Path("/envs/lerobot/bin/python"))
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from como_core.bench import lerobot_peer
from como_core.bench.measure import Report, Row, in_turns, machine, seconds
from como_core.errors import ComoError
from como_core.interface import Interface, load_interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.checkpoint import TrainedConfig, TrainedPolicy, build_model
from como_core.policy.config import Family, PolicyConfig, load_preset
from como_core.policy.model import PolicyModel
from como_core.policy.network import NetworkConfig
from como_core.policy.normaliser import Affine, Normaliser
from como_core.policy.text import Vocabulary
from como_core.policy.train import loss
from como_core.resources import resource
from como_core.training.timing import time_steps

HORIZON = 16  # LeRobot's diffusion default, for all that is compared
_DEPTH, _WIDEST = 6, 16_384
_TEXT = Vocabulary(("push the block",))


@dataclass(frozen=True)
class Size:
    """How much is measured: turns, training steps and chunks in each, the batch beside a peer."""

    repeats: int
    steps: int
    chunks: int
    batch: int


# Of six steps the first two are slower, while memory is claimed; the median is not.
FULL = Size(repeats=3, steps=6, chunks=1, batch=8)
QUICK = Size(repeats=1, steps=1, chunks=1, batch=2)


def bench_policy(quick: bool = False, peer: Path | None = None) -> Report:
    """Measure our presets and, where `peer` is the Python of an environment with LeRobot, both side by side.

    Raises ComoError where the peer cannot be started.
    """
    size, start, here = QUICK if quick else FULL, time.monotonic(), machine()
    robot = load_interface(resource("config/interfaces/pusht.yaml"))
    rows: list[Row] = []
    for family in ("diffusion", "autoregressive"):
        print(f"measuring preset {family} ...", file=sys.stderr, flush=True)
        rows += _alone(family, robot, size, quick)
    built: dict[str, Any] = {}
    if peer is not None:
        for kind, families in {"diffusion": ("mlp", "transformer"), "act": ("mlp", "transformer", "autoregressive")
                               }.items():
            print(f"measuring beside LeRobot's {kind} ...", file=sys.stderr, flush=True)
            with Peer(peer, kind, robot, size.batch) as other:
                built[kind] = other.built
                rows += _beside(other, families[:1] if quick else families, robot, size)
    took = {"seconds": round(time.monotonic() - start), "load_at_end": machine()["load_at_start"]}
    return Report("policy", tuple(rows), {**here, **took}, {"quick": quick, **asdict(size), "peers": built})


class Peer:
    """A policy of LeRobot in a process of its own environment; it works only when it is asked."""

    def __init__(self, python: Path, kind: str, robot: Interface, batch: int) -> None:
        command = [str(python), str(Path(lerobot_peer.__file__)), kind, "--size", str(_pixels(robot)), "--horizon",
                   str(HORIZON), "--batch", str(batch), "--threads", str(torch.get_num_threads())]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process writes to it
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=self._said, text=True)
        except OSError as error:
            raise ComoError(f"--peer {python}: {error.strerror}; give the Python of an environment in which LeRobot is "
                            "installed, such as /path/to/env/bin/python") from error
        self.kind = kind
        self.built: dict[str, Any] = json.loads(self._read())

    @property
    def name(self) -> str:
        """As in the table."""
        return f"LeRobot {self.kind} ({_millions(self.built['parameters'])})"

    def seconds(self, what: str) -> float:
        """How long one `train` step or one chunk (`infer`) took."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or ["nothing was said"])[-1]
            raise ComoError(f"--peer: its process ended: {last}; LeRobot must be installed in that environment")
        return line


def like(parameters: int, config: PolicyConfig, robot: Interface) -> PolicyConfig:
    """`config` with the width of its network chosen so that it has as many parameters as nearly as it can."""
    low, high = 1, _WIDEST // config.network.heads
    while low < high:  # of all widths the first that reaches the count, and then the nearer of it and the one below
        middle = (low + high) // 2
        enough = count_parameters(_wide(config, middle), robot) >= parameters
        low, high = (low, middle) if enough else (middle + 1, high)
    nearest = min((low, max(1, low - 1)),
                  key=lambda heads: abs(count_parameters(_wide(config, heads), robot) - parameters))
    return _wide(config, nearest)


def _wide(config: PolicyConfig, per_head: int) -> PolicyConfig:
    width = per_head * config.network.heads
    return dataclasses.replace(config, network=dataclasses.replace(config.network, width=width))


def count_parameters(config: PolicyConfig, robot: Interface) -> int:
    """Of a policy for this robot, without making it."""
    with torch.device("meta"):
        return _parameters(build_model(config, _TEXT, robot, _scales(robot)))


def _alone(family: Family, robot: Interface, size: Size, quick: bool) -> list[Row]:
    """A preset as it is, at its own batch."""
    config = load_preset(family, "none")
    if quick:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, batch_size=size.batch))
    ours = FreshPolicy(config, robot)
    turns = in_turns({"train": lambda: ours.samples_per_s(5 * size.steps),
                      "infer": lambda: ours.chunk_ms(20 * size.chunks)},
                     size.repeats)
    name = f"preset {family} ({_millions(ours.parameters)})"
    note = f"{config.observation.image_size} px, chunk of {config.chunk_steps}"
    return [Row.of(f"{name}: training", turns["train"], "samples/s",
                   note=f"{note}, batch of {config.training.batch_size}"),
            Row.of(f"{name}: one chunk", turns["infer"], "ms", note=note)]


def _beside(peer: Peer, networks: tuple[str, ...], robot: Interface, size: Size) -> list[Row]:
    """Ours with as many parameters, as large pictures, as long chunks and as large batches as the peer's, in turns."""
    rows: list[Row] = []
    history = () if peer.kind == "act" else (0.1,)
    for network in networks:
        config = like(peer.built["parameters"], comparable(network, history, robot, size.batch), robot)
        ours = FreshPolicy(config, robot)
        name = f"ours, {network} ({_millions(ours.parameters)})"

        def peer_rate() -> float:
            return size.batch / float(np.median([peer.seconds("train") for _ in range(size.steps)]))

        def peer_ms() -> float:
            return 1e3 * float(np.median([peer.seconds("infer") for _ in range(size.chunks)]))

        cases: dict[str, Callable[[], float]] = {
            "train": lambda ours=ours: ours.samples_per_s(size.steps), "their train": peer_rate,  # type: ignore[misc]
            "infer": lambda ours=ours: ours.chunk_ms(size.chunks), "their infer": peer_ms}  # type: ignore[misc]
        turns = in_turns(cases, size.repeats)
        note = (f"{_pixels(robot)} px, chunk of {HORIZON}, {1 + len(history)} moments, batch of {size.batch}; "
                f"ours in {ours.config.training.precision}, theirs in float32")
        goal = peer.kind == "diffusion" and network == networks[0]
        rows += [Row.of(f"{name}: training", turns["train"], "samples/s", note=note),
                 Row.of(f"{peer.name}: training", turns["their train"], "samples/s", note=note),
                 Row.of(f"{name}: training, times as fast as {peer.name}", turns["train"] / turns["their train"],
                        goal=2.0 if goal else None, note=note),
                 Row.of(f"{name}: one chunk", turns["infer"], "ms", note=note),
                 Row.of(f"{peer.name}: one chunk", turns["their infer"], "ms", note=note),
                 Row.of(f"{name}: one chunk, times as fast as {peer.name}", turns["their infer"] / turns["infer"],
                        goal=5.0 if goal else None, note=note)]
    return rows


def comparable(network: str, history: tuple[float, ...], robot: Interface, batch: int) -> PolicyConfig:
    """The preset of the family, seeing what the peer sees."""
    config = load_preset("autoregressive" if network == "autoregressive" else "diffusion", "none")
    observation = dataclasses.replace(config.observation, image_size=_pixels(robot), history_s=history, state=True)
    kind = "mlp" if network == "mlp" else "transformer"
    shape = NetworkConfig(kind=kind, width=64, depth=_DEPTH, heads=8)  # type: ignore[arg-type]
    return dataclasses.replace(config, observation=observation, network=shape, chunk_steps=HORIZON,
                               training=dataclasses.replace(config.training, batch_size=batch))


class FreshPolicy:
    """A fresh policy: its training step on random windows, and a chunk for one observation."""

    def __init__(self, config: PolicyConfig, robot: Interface) -> None:
        torch.manual_seed(0)
        self.config, self._robot, scales = config, robot, _scales(robot)
        self._model = build_model(config, _TEXT, robot, scales)
        self.parameters = _parameters(self._model)
        self._policy = TrainedPolicy(self._model, TrainedConfig(config, ("push the block",)), _TEXT, robot, scales,
                                     "fresh weights")
        self._batch = self._windows(config.training.batch_size)

    def samples_per_s(self, steps: int) -> float:
        """Of training steps on the same windows, their drawing not counted."""
        times = time_steps(self._model, lambda rng: self._batch, loss, self.config.training, steps, warmup=1)
        return self.config.training.batch_size / times.compute_s

    def chunk_ms(self, count: int) -> float:
        """From a black observation to its chunk, the picture's resizing and the limits counted."""
        self._model.eval()
        return 1e3 * float(np.median([seconds(self._policy.warm_up) for _ in range(count)]))

    def _windows(self, count: int) -> dict[str, Any]:
        observation, size = self.config.observation, self.config.observation.image_size
        pictures = len(self._robot.cameras) * (1 + len(observation.history_s))
        seen: dict[str, Any] = {"images": torch.randint(0, 255, (count, pictures, size, size, 3), dtype=torch.uint8),
                                "instruction": torch.ones(count, 1)}
        if observation.state:
            seen |= {"state": torch.randn(count, self._robot.state_size), "state_known": torch.ones(count).bool()}
        steps = self.config.chunk_steps
        return {"observation": seen, "action": torch.randn(count, steps, ActionSpace.of(self._robot).size),
                "action_weight": torch.ones(count, steps)}


def _scales(robot: Interface) -> Normaliser:
    return Normaliser(Affine.identity(ActionSpace.of(robot).size), Affine.identity(robot.state_size))


def _parameters(model: PolicyModel) -> int:
    return sum(p.numel() for p in model.parameters())


def _pixels(robot: Interface) -> int:
    return next(iter(robot.cameras.values())).width


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M"
