"""How fast relabelling is against its limits: decoding alone, encoding alone, and both frames of every pair encoded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from como_core.bench.measure import Row, Turns, in_turns, seconds
from como_core.episode import Episode
from como_core.formats.video_stream import stream_video
from como_core.motion.clip import CHUNK, ClipEncoder, squares
from como_core.motion.engine import one_core_spared
from como_core.motion.labeller import Job, Labeller, list_readers
from como_core.motion.model import MotionModel, load_motion
from como_core.motion.pairs import partner


def labelling_rows(name: str, run: Path, clips: list[Path], work: Path, repeats: int,
                   least_gain: float | None = None, warm_up: bool = True) -> list[Row]:
    """Relabelling of `clips` with the model in `run`, in one process, against what bounds it.

    warm_up     a first, uncounted turn; for work of seconds it is a waste
    least_gain  the goal for its speed over encoding both frames of every pair; None: no goal

    All cases have the threads of `como relabel`: those of the cores but one for encoding, one for decoding.
    """
    with one_core_spared():
        threads = torch.get_num_threads()
        model = load_motion(run)
        turns = in_turns(_cases(model, run, clips, work), repeats, warm_up)
    times = [stream_video(clip).timestamps for clip in clips]
    pairs = sum(int((partner(one, model.config.gap_s) >= 0).sum()) for one in times)
    return _rows(name, turns, sum(map(len, times)), pairs, threads, least_gain)


def _cases(model: MotionModel, run: Path, clips: list[Path], work: Path) -> dict[str, Callable[[], float]]:
    size = model.config.image_size
    readers = list_readers(clips)[0]
    episodes = {clip: stream_video(clip) for clip in clips}
    decoded = {clip: list(squares(episode, size)) for clip, episode in episodes.items()}
    number = itertools.count()

    def decode() -> None:
        for clip in clips:
            for _ in squares(stream_video(clip), size):
                pass

    def encode() -> None:
        for clip, episode in episodes.items():
            encoder = ClipEncoder(model, episode)
            for chunk in decoded[clip]:
                encoder.add(chunk)
            encoder.finish()

    def pairs() -> None:
        for clip, episode in episodes.items():
            _encode_both(model, episode, np.concatenate(decoded[clip]))

    def relabel() -> None:
        job = Job(tuple(clips), run, "bench", work / f"labels_{next(number)}")
        outcomes = Labeller(job, readers, model)(clips)
        assert all(outcome.labelled for outcome in outcomes), outcomes

    return {"decode": lambda: seconds(decode), "encode": lambda: seconds(encode),
            "relabel": lambda: seconds(relabel), "pairs": lambda: seconds(pairs)}


@torch.inference_mode()
def _encode_both(model: MotionModel, episode: Episode, frames: np.ndarray) -> None:
    """z and the rebuilt share of every pair, with the backbone run on both of its frames; no composition."""
    second = partner(episode.timestamps, model.config.gap_s)
    first = np.flatnonzero(second >= 0)
    for start in range(0, len(first), CHUNK):
        at = first[start:start + CHUNK]
        a, b = model.pixels(frames[at]), model.pixels(frames[second[at]])
        grids = model.features(a), model.features(b)
        model.explained(a, b, grids, model.latent(*grids))


def _rows(name: str, turns: Turns, frames: int, pairs: int, threads: int, least_gain: float | None) -> list[Row]:
    """Frames labelled per second against pairs encoded per second: so the ends of short clips, where there are frames
    without a pair, do not count."""
    limit = np.maximum(turns["decode"], turns["encode"])
    slower = "decoding" if np.median(turns["decode"]) > np.median(turns["encode"]) else "encoding"
    note = f"{frames} frames, encoding with {threads} thread{'s' if threads > 1 else ''}, decoding with one"
    return [
        Row.of(f"{name}: decoding alone", frames / turns["decode"], "frames/s", note=note),
        Row.of(f"{name}: encoding alone", frames / turns["encode"], "frames/s", note=note),
        Row.of(f"{name}: relabelling", frames / turns["relabel"], "frames/s", note=note),
        Row.of(f"{name}: relabelling over its limit ({slower})", limit / turns["relabel"], goal=0.9, note=note),
        Row.of(f"{name}: relabelling over encoding both frames of every pair",
               frames / turns["relabel"] / (pairs / turns["pairs"]), goal=least_gain, note=note),
    ]
