"""Generated clips for tests of motion training, and the memory that training takes of any number of them.

    python test/motion_clips.py 10000      # MB of this process after cache, selection and 50 steps on so many clips
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core.config import with_options
from como_core.episode import Episode
from como_core.motion.config import MotionConfig, load_preset

SIZE = 32
FPS = 20.0
GAP_S = 0.1


def moving_square(seed: int, steps: int = 30, speed: float = 3.0, size: int = SIZE) -> np.ndarray:
    """uint8 [steps, size, size, 3]: a bright square that wanders over a random background."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
    place, pictures = rng.uniform(0, size - 8, 2), []
    velocity = rng.choice([-1.0, 1.0], 2) * speed
    for _ in range(steps):
        picture = background.copy()
        y, x = np.round(place).astype(int)
        picture[y:y + 8, x:x + 8] = 255
        pictures.append(picture)
        velocity = np.where((place + velocity < 0) | (place + velocity > size - 8), -velocity, velocity)
        place = place + velocity
    return np.stack(pictures)


def clip(frames: np.ndarray, name: str, fps: float = FPS) -> Episode:
    return Episode(np.arange(len(frames)) / fps, {"top": frames}, name)


def squares(count: int, steps: int = 30) -> list[Episode]:
    return [clip(moving_square(seed, steps), f"square#{seed}") for seed in range(count)]


def tiny(preset: str = "como", **options: object) -> MotionConfig:
    """A preset, small enough for seconds."""
    small = {"gap_s": GAP_S, "image_size": SIZE, "latent_size": 16, "inverse.width": 32, "inverse.hidden": 64,
             "forward.width": 32, "forward.coarse_width": 32, "loop.steps": 12, "loop.batch_size": 16,
             "loop.precision": "no", "loop.save_every": 4, "loop.log_every": 2, "loop.warmup_steps": 5}
    return with_options(load_preset(preset), **(small | options))


@dataclass(frozen=True)
class Generated:
    """Frames that are made when they are asked for, as a video's are decoded."""

    seed: int
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int | slice) -> np.ndarray:
        return moving_square(self.seed, self.steps)[index]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(moving_square(self.seed, self.steps))


def resident_mb() -> float:
    """Memory of this process that is its own: pages of mapped files go back whenever others need them."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def main(count: int) -> None:
    from como_core.motion.train import train

    clips = [Episode(np.arange(8) / FPS, {"top": Generated(seed, 8)}, f"square#{seed}") for seed in range(count)]
    config = dataclasses.replace(tiny(), loop=dataclasses.replace(tiny().loop, steps=50))
    with tempfile.TemporaryDirectory() as out:
        train(clips, config, out)
    print(f"{count} clips: {resident_mb():.1f} MB own, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} "
          "MB at the highest with what was mapped")


if __name__ == "__main__":
    main(int(sys.argv[1]))
