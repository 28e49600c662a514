"""The guard against negative transfer: does the video make the policy better at demonstrations that it did not see?

Two short trainings, alike but for the video, leave a demonstration of each instruction out; their chunks are compared
with what was done there. The decoder of pseudo-actions does not see these demonstrations either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from como_core.episode import Episode
from como_core.intervals import mean_of
from como_core.policy.data import Windows
from como_core.policy.losses import weighted_error
from como_core.policy.model import PolicyModel

CLEAR = 0.1  # of the error without video: less than this on every demonstration may be the chance of two trainings
_BATCH = 64
_WINDOWS = 40  # of a left-out demonstration, evenly spread


@dataclass(frozen=True)
class Verdict:
    """Squared error of chunks on left-out demonstrations, in squared standard deviations of the action.

    low, high  95 % interval of the difference (with video - without), over demonstrations, by Student's t: NaN for one
    worse      how many of the demonstrations have a larger error with the video
    """

    with_video: float
    without: float
    low: float
    high: float
    worse: int
    episodes: int
    steps: int

    @property
    def harmful(self) -> bool:
        """Whether the video makes it worse: with the whole interval, or clearly so on every one of the demonstrations.

        An interval over two or three of them is too wide to tell anything, so that alone would never warn.
        """
        return self.low > 0 or (self._several and self.worse == self.episodes
                                and self.with_video > (1 + CLEAR) * self.without)

    @property
    def helpful(self) -> bool:
        """Whether it makes it better, by the same rule."""
        return self.high < 0 or (self._several and not self.worse and self.with_video < (1 - CLEAR) * self.without)

    @property
    def doubtful(self) -> bool:
        """Whether it seems to make it worse: not shown, but clearly so on average and on most of the demonstrations."""
        return (self._several and not self.harmful and 2 * self.worse > self.episodes
                and self.with_video > (1 + CLEAR) * self.without)

    @property
    def _several(self) -> bool:
        return self.episodes > 1

    def lines(self) -> list[str]:
        """For people: what was found and, where the video harms, what to do about it."""
        what = "the video helps" if self.helpful else "no difference that they show"
        if self.doubtful:
            what = "the video may make it worse: it does on most of them, and clearly on average"
        if self.harmful:
            what = "NEGATIVE TRANSFER, the video makes it worse"
        if (self.helpful or self.harmful) and self.low <= 0 <= self.high:
            what += " on each of them, though they are too few for the interval to say so"
        interval = f"[{self.low:+.3f}, {self.high:+.3f}]" if self._several else "[of one there is no interval]"
        said = [f"guard: error on {self.episodes} left-out demonstrations after {self.steps} steps: "
                f"{self.with_video:.3f} with video, {self.without:.3f} without; difference "
                f"{self.with_video - self.without:+.3f} {interval}, worse on {self.worse} of {self.episodes}: {what}"]
        if self.harmful or self.doubtful:
            said.append("  try another co-training mode, a smaller video_share or latent_weight, or --mode none")
        return said


def leave_out(demonstrations: Sequence[Episode]) -> tuple[list[Episode], list[Episode]]:
    """The last demonstration of each instruction that has several, and the demonstrations with these emptied.

    Emptied, not taken away: pictures keep their places.
    """
    names = [e.instruction or "" for e in demonstrations]
    last = {name: i for i, name in enumerate(names) if names.count(name) > 1}
    out = set(last.values())
    emptied = [dataclasses.replace(e.without_actions(), latent=None, confidence=None)
               if i in out else e for i, e in enumerate(demonstrations)]
    return [demonstrations[i] for i in sorted(out)], emptied


def watch(learn: Callable[[bool], tuple[PolicyModel, Windows]], offsets: Sequence[tuple[int, int]], steps: int
          ) -> Verdict:
    """Train both ways and compare.

    learn    trains with the video (True) or without, and gives the model and windows of everything in its units
    offsets  first row and row behind the last of each left-out demonstration
    """
    errors = [_errors(*learn(with_video), offsets) for with_video in (True, False)]
    difference = errors[0] - errors[1]
    found = mean_of(difference, np.arange(len(difference)))
    return Verdict(float(errors[0].mean()), float(errors[1].mean()), found.low, found.high,
                   int((difference > 0).sum()), len(difference), steps)


def _errors(model: PolicyModel, windows: Windows, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Mean squared error of the chunks of each left-out demonstration, [E]."""
    return np.array([_error(model, windows, np.arange(first, end)) for first, end in offsets])


def _error(model: PolicyModel, windows: Windows, rows: np.ndarray) -> float:
    chosen = rows[np.linspace(0, len(rows) - 1, min(_WINDOWS, len(rows))).round().astype(int)]
    total, count = 0.0, 0
    for start in range(0, len(chosen), _BATCH):
        batch: dict[str, Any] = windows.batch(chosen[start:start + _BATCH], 0, np.random.default_rng(0))
        device = next(model.parameters()).device
        observation = {name: value.to(device) for name, value in batch["observation"].items()}
        predicted = model.sample(observation).cpu()
        size = len(predicted)
        total += size * float(weighted_error(predicted, batch["action"], (batch["action_weight"] > 0).float()))
        count += size
    return total / max(count, 1)
