"""Features of a frozen backbone, once per frame: a memory-mapped float16 array beside the frames they were made of.

    features = cached_features(model.backbone, cache, config, limit_gb=None)      # [N, C, h, w], or None: too large

Without it a training step passes each frame of each pair through the backbone, which is most of its time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch

from como_core.errors import ComoError
from como_core.formats.cache import FrameCache
from como_core.formats.cache_room import make_room
from como_core.motion.backbone import PretrainedBackbone
from como_core.motion.config import MotionConfig
from como_core.motion.model import to_pixels
from como_core.training.precision import autocast, resolved
from como_core.training.progress import Progress

# Where no limit is given. Features are many times the size of the frames, and worth it only as long as reading them
# is faster than making them, which is while memory holds most of them.
DEFAULT_LIMIT_GB = 32.0

_VERSION = 1  # of the file; another number makes every cache anew
_BATCH = 64
_GB = 1e9


def cached_features(backbone: PretrainedBackbone, cache: FrameCache, config: MotionConfig, device: torch.device,
                    limit_gb: float | None = None, say: Callable[[str], None] = print) -> np.ndarray | None:
    """float16 [N, C, h, w] of all frames of `cache`, made at the first call, taken up where an earlier one broke off.

    None, and `say` is told why, where frames and features together would exceed `limit_gb` (None: the features
    DEFAULT_LIMIT_GB) or the disk, where the folder cannot be written, or where float16 cannot hold them. `backbone`
    moves to `device`.
    """
    shape = (len(cache.frames), backbone.width, backbone.cells, backbone.cells)
    path = cache.path / f"features-{_key(backbone, config, device)}.bin"
    needed = 2 * int(np.prod(shape))
    damage = _damage(path, needed)
    if damage:
        say(f"{path}: damaged: {damage}; its features are made anew")
        path.unlink()
    if not path.exists():
        why = _no_room(cache, needed, f"features of {shape[0]:,} frames", limit_gb)
        try:
            why = why or _write(path, backbone.to(device), cache, config, shape[1:])
        except OSError as error:
            why = f"{path.parent}: {error.strerror}"
        if why:
            say(f"features are computed anew in every step, which is slower: {why}")
            return None
    return np.memmap(path, np.float16, "r", shape=shape)


def _damage(path: Path, size: int) -> str:
    """What is wrong with a file that should have `size` bytes; empty where it has, or is not there yet."""
    found = path.stat().st_size if path.exists() else size
    return "" if found == size else f"it has {found} bytes, expected {size}"


def _no_room(cache: FrameCache, needed: int, what: str, limit_gb: float | None) -> str:
    """Why so many bytes more are too many; empty where they are not."""
    if limit_gb is None and needed > DEFAULT_LIMIT_GB * _GB:
        return (f"{what} need {needed / _GB:.1f} GB, more than {DEFAULT_LIMIT_GB:.0f}; "
                "--cache-limit-gb allows more for frames and features together")
    try:
        make_room(cache.path.parent, needed, what, limit_gb, lambda _: None)
    except ComoError as error:
        return str(error)
    return ""


def _write(path: Path, backbone: PretrainedBackbone, cache: FrameCache, config: MotionConfig, shape: tuple[int, ...]
           ) -> str:
    """Fill the file and give it its name. Returns why that cannot be, empty where it can. Raises OSError."""
    part = path.with_suffix(".part")
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another run may be making the same
        if path.exists():
            return ""
        each = 2 * int(np.prod(shape))
        done = min(os.fstat(file.fileno()).st_size // each, len(cache.frames))
        file.truncate(done * each)
        if not _append(file, done, backbone, cache, config):
            part.unlink(missing_ok=True)
            return f"{backbone.name}: its features exceed the range of float16"
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, path)
    return ""


@torch.no_grad()
def _append(file: IO[bytes], done: int, backbone: PretrainedBackbone, cache: FrameCache, config: MotionConfig) -> bool:
    """Write the features of frames `done` on; False where float16 cannot hold them."""
    device = backbone.device
    with Progress(len(cache.frames), "features", "frames", done) as progress:
        for start in range(done, len(cache.frames), _BATCH):
            frames = torch.from_numpy(cache.frames[start:start + _BATCH].copy()).to(device)
            with autocast(config.loop.precision, device):
                grid = backbone(to_pixels(frames)).half().cpu()
            if not torch.isfinite(grid).all():
                return False
            file.write(grid.contiguous().numpy().tobytes())
            progress.advance(len(frames))
    return True


def _key(backbone: PretrainedBackbone, config: MotionConfig, device: torch.device) -> str:
    """What features depend on beside the frames, in whose folder the file lies."""
    contents = [_VERSION, backbone.sha256, backbone.layer, backbone.mean, backbone.std, config.image_size,
                resolved(config.loop.precision, device)]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]
