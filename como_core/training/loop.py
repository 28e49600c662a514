"""The training loop of every model here.

    history = fit(model, sample, loss, LoopConfig(steps=800), out="runs/motion", title="motion")

Each step is a function of the weights before it and of (seed, step) alone: batches are drawn from a generator seeded
with both, and torch's own generator is seeded with both. So a run that was broken off and taken up again has the
same loss curve as an unbroken one, bit for bit on the CPU with the same number of threads.

Started by torchrun, several processes train one model (DDP). `batch_size` is that of all together: each draws the same
batch from (seed, step) and computes every n-th item of it, so that the loss curve does not depend on their number.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import nn

from como_core.ahead import Ahead
from como_core.bounds import ABOVE_0, COUNT, FROM_0, SEED, SHARE, Bounds, require_bounds
from como_core.errors import ComoError
from como_core.training.ema import Ema
from como_core.training.history import History
from como_core.training.precision import Precision, autocast, emulated, resolved
from como_core.training.progress import Progress
from como_core.training.ranks import Device, join, mean_over_ranks, on_cpu, wait_for_all
from como_core.training.state import STATES, load_state, restore, save_state

Sample = Callable[..., Any]
Loss = Callable[[nn.Module, Any], dict[str, torch.Tensor]]


class TrainingError(ComoError):
    """Training cannot go on; the message says at which step and what to do."""


@dataclass(frozen=True)
class LoopConfig:
    """How to optimise.

    The rate warms up linearly over `warmup_steps`, then falls by a cosine to the fraction `final_rate` of itself.

    batch_size  of a step, over all processes
    clip_norm  longest gradient; infinity: none is shortened
    precision  of the forward pass: "bf16", bfloat16 autocast; "no", float32; "auto", bf16 where the device multiplies
               in it. The weights stay float32
    ema_decay  average of the weights that the model holds at the end; None: the last weights
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 50
    final_rate: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float | None = None
    precision: Precision = "no"
    seed: int = 0
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        require_bounds(self, steps=COUNT, batch_size=COUNT, learning_rate=ABOVE_0, weight_decay=FROM_0,
                       betas=Bounds(least=0, below=1), warmup_steps=FROM_0, final_rate=SHARE,
                       clip_norm=Bounds(above=0, infinite=True), ema_decay=Bounds(above=0, below=1), seed=SEED,
                       save_every=COUNT, log_every=COUNT)

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        done = step / max(self.steps - 1, 1)
        cosine = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * warmup * cosine


def fit(model: nn.Module, sample: Sample, loss: Loss, config: LoopConfig, out: str | Path, title: str = "training",
        identity: Any = None, device: Device = "auto", unit: str = "steps") -> History:
    """Train `model` in place and return its loss curve; the model ends in eval mode, with averaged weights where asked.

    sample    draws a batch (nested dicts, lists and tensors) from a numpy generator; `config.batch_size` is for it to
              respect. It is called in a thread, a step or two ahead. To train in several processes it takes a slice as
              well, `part`, and returns those items of the batch. A mapping's key "source" (list of str) is named when
              the batch yields NaN
    loss      scalar terms of a batch; the one under "loss" is minimised, the others are logged. Of several processes
              the mean counts
    out       holds training/: the state to resume from, and the TensorBoard log. A finished run returns at once
    identity  whatever else makes this run what it is (model and data settings); a state of another identity is refused
    unit      what progress counts: steps, or the items of a batch under this name

    Raises TrainingError where the loss or its gradient is not finite (the last saved state stays) and where the
    processes cannot share the batch, CheckpointError where the state cannot be written or belongs to other settings.
    """
    directory = Path(out) / STATES
    join(device)
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(directory), cpu=on_cpu(device))
    _refuse_to_share(sample, config, accelerator.num_processes)
    model.to(accelerator.device)  # before optimiser and average, which stay where the weights were
    optimiser = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas,
                                  fused=True)
    ema = Ema(model, config.ema_decay) if config.ema_decay else None
    # Another machine may come to another precision, and so to another curve.
    run_as = replace(config, precision=resolved(config.precision, accelerator.device))
    ident = {"loop": run_as, "run": identity}
    state = load_state(directory, ident)
    history, done = History(), 0
    if state:
        restore(state, model, optimiser, ema)
        history, done = state.history, state.step
    wait_for_all()  # before the first process may write another state
    if done < config.steps:
        if emulated(config.precision, accelerator.device) and accelerator.is_main_process:
            print(f"{title}: this {accelerator.device.type} does not multiply in bfloat16, which precision bf16 asks "
                  "for, and takes some ten times as long; with precision auto it trains in float32", flush=True)
        wrapped, optimiser = accelerator.prepare(model.train(), optimiser)
        accelerator.init_trackers("tensorboard")
        run = _Run(accelerator, wrapped, model, optimiser, ema, config, directory, ident, history)
        each = 1 if unit == "steps" else config.batch_size
        with (torch.random.fork_rng(), Ahead(map(run.draw(sample), range(done, config.steps)), depth=1) as batches,
              Progress(config.steps * each, title, unit, done * each) as progress):
            run.steps(done, batches, loss, progress, each)
        for tracker in accelerator.trackers:  # end_training would part the processes as well
            tracker.finish()
        wait_for_all()  # what the first process has saved is complete for all
    if ema:
        ema.copy_to(model)
    model.eval()
    return history


@dataclass
class _Run:
    accelerator: Accelerator
    wrapped: nn.Module
    model: nn.Module
    optimiser: torch.optim.Optimizer
    ema: Ema | None
    config: LoopConfig
    directory: Path
    identity: dict[str, Any]
    history: History

    def steps(self, done: int, batches: Ahead[Any], loss: Loss, progress: Progress, each: int) -> None:
        """Steps `done` .. config.steps; the window of averaged losses is closed before each save."""
        config, window, start = self.config, _Window(), time.monotonic() - self.history.seconds
        waited = self.history.waited_s
        for step in range(done, config.steps):
            batch = send_to_device(next(batches), self.accelerator.device, non_blocking=True)
            torch.manual_seed(self._seed(step))
            window.add(self._step(step, batch, loss))
            count = step + 1
            last, save = count == config.steps, count % config.save_every == 0
            if last or save or count % config.log_every == 0:
                means = window.close()
                self.history.add(count, means)
                self.accelerator.log({**means, "learning_rate": config.rate(step)}, step=count)
            progress.advance(each, note=f"loss {self.history.loss[-1]:.4g}" if self.history.loss else "")
            self.history.seconds, self.history.waited_s = time.monotonic() - start, waited + batches.waited_s
            if (last or save) and self.accelerator.is_main_process:
                save_state(self.directory, count, self.identity, self.history, self.model, self.optimiser,
                           self.ema)

    def draw(self, sample: Sample) -> Callable[[int], Any]:
        """The batch of a step, or this process's part of it, from (seed, step) alone."""
        count = self.accelerator.num_processes
        part = () if count == 1 else (slice(self.accelerator.process_index, None, count),)
        pin = self.accelerator.device.type == "cuda"

        def batch(step: int) -> Any:
            drawn = sample(np.random.default_rng(np.random.SeedSequence([self.config.seed, step, 0])), *part)
            return _pinned(drawn) if pin else drawn

        return batch

    def _seed(self, step: int) -> int:
        """For torch's own generator: noise and dropout differ between processes."""
        entropy = np.random.SeedSequence([self.config.seed, step, self.accelerator.process_index])
        return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _step(self, step: int, batch: Any, loss: Loss) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(step)
        with autocast(self.config.precision, self.accelerator.device):
            terms = loss(self.wrapped, batch)
        means = mean_over_ranks(torch.stack([term.detach().float() for term in terms.values()]))
        values = dict(zip(terms, means.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise self._not_finite(step, f"the loss is {values['loss']}", batch)
        self.optimiser.zero_grad()
        self.accelerator.backward(terms["loss"])
        self._refuse_unused()
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        if norm is not None and not math.isfinite(float(norm)):
            raise self._not_finite(step, f"the gradient's norm is {float(norm)}", batch)
        self.optimiser.step()
        if self.ema:
            self.ema.update(self.model, step + 1)
        return values

    def _refuse_unused(self) -> None:
        """DDP waits for the gradient of every parameter, and at the next step it would say so in its own words."""
        if self.accelerator.num_processes > 1:
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad and parameter.grad is None:
                    raise TrainingError(f"{name} has no part in the loss, which several processes cannot train; start "
                                        "it without torchrun, or with a preset that uses it")

    def _not_finite(self, step: int, what: str, batch: Any) -> TrainingError:
        """Every process sees the same loss and gradient, so all come here and together name their files."""
        own = sorted(set(batch.get("source", []))) if isinstance(batch, Mapping) else []
        sources = sorted(set(gather_object(own))) if self.accelerator.num_processes > 1 else own
        files = f"; the batch came from {', '.join(sources)}" if sources else ""
        kept = (f"the last good state lies in {self.directory}" if any(self.directory.glob("step_*")) else
                "none of its states was saved before")
        return TrainingError(f"step {step + 1}: {what}, so training stopped; {kept}. Lower learning_rate (now "
                             f"{self.config.learning_rate:g}) or look at the data{files}")


def _refuse_to_share(sample: Sample, config: LoopConfig, processes: int) -> None:
    if processes == 1:
        return
    if "part" not in inspect.signature(sample).parameters:
        raise TrainingError(f"this training runs in one process, {processes} were started; start it without torchrun")
    if config.batch_size % processes:
        raise TrainingError(f"batch_size must be a multiple of the {processes} processes, which share it equally; "
                            f"got {config.batch_size}")


def _pinned(batch: Any) -> Any:
    """Tensors of nested dicts and lists in memory that a GPU can copy from while it computes."""
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory()
    if isinstance(batch, Mapping):
        return {name: _pinned(item) for name, item in batch.items()}
    return batch


class _Window:
    """Running sums of loss terms between two entries of the history."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, terms: Mapping[str, float]) -> None:
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def close(self) -> dict[str, float]:
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay is for matrices and kernels; biases, norms and single vectors go without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]
