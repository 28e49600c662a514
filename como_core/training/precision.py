"""Which numbers a forward pass is computed in: bfloat16 where the hardware has it, float32 elsewhere.

A CPU without bfloat16 arithmetic computes it all the same, some ten times as slowly as float32.
"""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "bf16", "no"]
Resolved = Literal["bf16", "no"]

# What `torch.cpu.get_capabilities` calls bfloat16 products: those of x86, and those of ARM.
_IN_CPUS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself, rather than by other instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _IN_CPUS)


def resolved(precision: Precision, device: torch.device) -> Resolved:
    """What `precision` comes to on a device: auto is bf16 where that pays."""
    if precision == "auto":
        return "bf16" if has_bfloat16(device) else "no"
    return precision


def emulated(precision: Precision, device: torch.device) -> bool:
    """Whether `precision` asks for bfloat16 of a device that has to make it of other instructions."""
    known = device.type in ("cpu", "cuda")
    return known and resolved(precision, device) == "bf16" and not has_bfloat16(device)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context whose products are in that precision; weights, and what needs the range, stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(precision, device) == "bf16")
