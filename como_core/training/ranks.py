"""Processes that train one model together: torchrun starts them, accelerate joins them, one is the first.

    torchrun --nproc_per_node=2 -m como_core.cli.main motion train ...

Where a command was started plainly, every function here is a matter of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from typing import Literal

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import distributed

from como_core.errors import ComoError

Device = Literal["auto", "cpu", "cuda"]

# The first process may decode all the video there is while the others wait.
_PATIENCE = timedelta(days=7)


def join(device: Device = "auto") -> torch.device:
    """Join the processes that torchrun has started, if it has, and return this one's device.

    auto  a GPU where there is one. Raises ComoError where a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ComoError("device cuda: this machine has no GPU that torch can use (`como doctor` says why); "
                        "give --device cpu")
    cpu, several = on_cpu(device), _started() > 1
    # accelerate keeps the first choice of a process for good.
    if not several and PartialState._shared_state and PartialState()._cpu != cpu:
        AcceleratorState._reset_state(reset_partial_state=True)
    return PartialState(cpu=cpu, **({"timeout": _PATIENCE} if several else {})).device


def named_device(name: str | torch.device) -> torch.device:
    """The device of that name. Raises ComoError where torch knows none, or this machine has no such."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the second from a torch that was built without CUDA
        raise ComoError(f"device {name}: not one that torch can use on this machine (expected cpu, or a GPU such as "
                        "cuda or cuda:1; `como doctor` says why there is none); give --device cpu") from error


def on_cpu(device: Device) -> bool:
    """Whether to tell accelerate to stay on the CPU. Without a GPU it joins processes only where it is told."""
    return device == "cpu" or (_started() > 1 and not torch.cuda.is_available())


def _started() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which process this is; 0 is the first, which prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait_for_all() -> None:
    """Return when every process has come here."""
    if processes() > 1:
        distributed.barrier()


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs the block alone, then the others, which find what it made; these print nothing."""
    with ExitStack() as stack:
        if rank():
            wait_for_all()
            stack.enter_context(quiet_unless_first())
        yield
    if not rank():
        wait_for_all()


@contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Only the first process prints."""
    with ExitStack() as stack:
        if rank():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean over all processes of a tensor that asks for no gradient."""
    if processes() > 1:
        values = values.detach().clone()
        distributed.all_reduce(values)
        values /= processes()
    return values


def leave() -> None:
    """Let go of the other processes, at the end of a command."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
