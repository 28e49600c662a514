"""Scene cuts and still pairs: found in real video and in made-up video, left out, counted, and kept for later runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from motion_clips import FPS, GAP_S, clip, moving_square, squares, tiny

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.cache import FrameCache, square
from como_core.formats.video import read_video
from como_core.motion import selection
from como_core.motion.config import SelectionConfig
from como_core.motion.pairs import Pairs
from como_core.motion.selection import Selection, select

# The clips in which something jumps, looked at frame by frame: the GIF shows five trials one after the other, the
# simulator puts its scene back for the last frame.
TRUE_CUTS = {"robomimic_task_lift_real.gif": [33, 62, 91, 123], "embodimetry_libero-spatial-success.mp4": [59]}


def choose(clips: list[Episode], folder: Path, size: int = 64, gap_s: float = 0.125, **options: float) -> Selection:
    cache = FrameCache.build(clips, None, size, folder)
    pairs = Pairs.build(cache.timestamps, cache.offsets, gap_s)
    return select(cache, pairs, SelectionConfig(**options))


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, Episode]:
    """The real clips at 64 pixels, at most 400 frames of each."""
    files = sorted(p for p in (shared_data / "video").rglob("*") if p.suffix in (".mp4", ".gif"))
    clips = {}
    for path in files:
        episode = read_video(path)
        frames = next(iter(episode.images.values()))[:400]
        small = np.stack([square(frame, 64) for frame in frames])
        clips[path.name] = Episode(episode.timestamps[:len(small)], {"top": small}, path.name)
    return clips


def test_real_clips_have_the_cuts_that_one_sees_and_no_others(real: dict[str, Episode], tmp_path: Path) -> None:
    assert len(real) >= 14
    for name, episode in real.items():
        found = choose([episode], tmp_path, gap_s=0.2).cuts.tolist()
        assert found == TRUE_CUTS.get(name, []), name


def test_two_real_clips_joined_have_a_cut_where_they_join(real: dict[str, Episode], tmp_path: Path) -> None:
    names = [name for name in real if name not in TRUE_CUTS]
    for first, second in zip(names, [*names[1:], names[0]], strict=True):
        before, after = (next(iter(real[name].images.values())) for name in (first, second))
        joined = np.concatenate([before[-30:], after[:30]])
        chosen = choose([clip(joined, f"{first}+{second}", fps=15)], tmp_path, gap_s=0.2)
        assert chosen.cuts.tolist() == [len(before[-30:])], (first, second)
        pairs, cut = chosen.pairs, chosen.cuts[0]
        assert ((pairs.first < cut) == (pairs.second < cut)).all()
        assert chosen.crossing == 3


def test_neither_fast_motion_nor_a_change_of_light_is_a_cut(tmp_path: Path) -> None:
    start = np.concatenate([np.repeat(moving_square(0, 1), 10, 0), moving_square(0, 20, speed=9)])
    bright = np.concatenate([moving_square(3, 15), np.clip(moving_square(3, 15).astype(int) + 60, 0, 255)])
    rng = np.random.default_rng(0)
    world = rng.integers(0, 256, (64, 400, 3), dtype=np.uint8)
    pan = np.stack([world[:, x:x + 64] for x in range(0, 300, 12)])  # each frame unlike the one before
    for frames in (start, bright.astype(np.uint8), pan):
        assert choose([clip(frames, "fast")], tmp_path, size=frames.shape[1]).cuts.tolist() == []


def test_where_frames_were_dropped_more_may_change(tmp_path: Path) -> None:
    world = np.random.default_rng(0).integers(0, 256, (32, 300, 3), dtype=np.uint8)
    world = np.repeat(world[::4, ::4], 4, 0).repeat(4, 1)[:32]
    at = np.arange(20) + np.where(np.arange(20) >= 10, 8, 0)  # half a second is missing
    frames = np.stack([world[:, x:x + 32] for x in at])
    jumps = clip(frames, "jumps")
    holed = Episode(at / FPS, {"top": frames}, "holed")
    assert choose([jumps], tmp_path, size=32).cuts.tolist() == [10]
    assert choose([holed], tmp_path, size=32).cuts.tolist() == []


def encoded(frames: np.ndarray, path: Path, crf: int) -> Episode:
    """Frames as x264 gives them back, with a key frame every second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=int(FPS))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": str(crf), "g": str(int(FPS))}
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return read_video(path)


@pytest.mark.parametrize(("noise", "crf"), [(0, 23), (4, 23), (8, 23), (0, 30), (4, 30)])
def test_compression_and_camera_noise_are_no_motion(tmp_path: Path, noise: float, crf: int) -> None:
    """What keyframes do to a coarsely compressed picture may pass for motion, seldom."""
    rng, picture = np.random.default_rng(0), moving_square(0, 1, size=240)[0]
    picture = np.repeat(picture[::8, ::8], 8, 0).repeat(8, 1)
    frames = np.clip(picture + rng.normal(0, noise, (60, 240, 240, 3)), 0, 255).astype(np.uint8)
    moving = moving_square(1, 60, size=240, speed=10)
    both = [encoded(frames, tmp_path / "still.mp4", crf), encoded(moving, tmp_path / "moving.mp4", crf)]
    chosen = choose(both, tmp_path / "cache")
    still = (chosen.pairs.episode == 0).sum()
    assert still <= 0.1 * 58
    assert (chosen.pairs.episode == 1).sum() == chosen.found / 2
    assert chosen.still == chosen.found - len(chosen.pairs)


def test_a_small_gripper_that_moves_a_little_is_motion(tmp_path: Path) -> None:
    frames = np.full((20, 64, 64, 3), 90, np.uint8)
    for t in range(20):
        frames[t, 30:34, 10 + t:15 + t] = 200
    assert len(choose([clip(frames, "gripper")], tmp_path, gap_s=GAP_S).pairs) == 18


def test_real_motion_is_kept(real: dict[str, Episode], tmp_path: Path) -> None:
    """Arms that move in every frame, as one sees; the bottle clip stands still for long."""
    for name in ("fractal20220817_eps_00084376.mp4", "lapa_bridge_real_1.mp4", "crisp_franka_pap_demo.mp4"):
        chosen = choose([real[name]], tmp_path, gap_s=0.2)
        assert len(chosen.pairs) >= 0.95 * chosen.found, name
    chosen = choose([real["intel_bottle-detection.mp4"]], tmp_path)
    assert 0.2 < len(chosen.pairs) / chosen.found < 0.8


def test_third_and_middle_stay_on_this_side_of_a_cut(tmp_path: Path) -> None:
    frames = np.concatenate([moving_square(0, 12), 255 - moving_square(5, 12)])
    chosen = choose([clip(frames, "joined")], tmp_path, size=32, gap_s=0.3)
    assert chosen.cuts.tolist() == [12]
    pairs = chosen.pairs
    index = np.arange(len(pairs))
    for seed in range(30):
        third = pairs.third(index, np.random.default_rng(seed))
        assert ((third < 12) == (pairs.first < 12)).all()
        assert (third != pairs.second).all()


def test_nothing_left_says_how_much_was_left_out_and_why(tmp_path: Path) -> None:
    still = clip(np.full((20, 32, 32, 3), 80, np.uint8), "still")
    message = r"none of 18 frame pairs is left: 0 across 0 scene cuts, 18 still; give video in which"
    with pytest.raises(ComoError, match=message):
        choose([still], tmp_path, 32, GAP_S)
    assert len(choose([still], tmp_path, 32, GAP_S, still_share=0).pairs) == 18


def test_the_result_is_kept_beside_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = squares(3)
    first = choose(clips, tmp_path, 32, GAP_S)
    reads: list[object] = []
    measure = selection._measure
    monkeypatch.setattr(selection, "_measure", lambda *given: reads.append(given) or measure(*given))
    again = choose(clips, tmp_path, 32, GAP_S)
    assert not reads
    assert again.to_dict() == first.to_dict()
    assert np.array_equal(again.pairs.first, first.pairs.first)
    assert np.array_equal(again.pairs.shots, first.pairs.shots)
    choose(clips, tmp_path, 32, GAP_S, still_change=9.0)
    assert len(reads) == 1, "other settings are measured anew"
    for file in tmp_path.rglob("selection-*.npz"):
        file.write_bytes(b"damaged")
    choose(clips, tmp_path, 32, GAP_S)
    choose(clips, tmp_path, 32, GAP_S)
    assert len(reads) == 2, "what is damaged is measured once more, and mended"


def test_blocks_of_frames_give_what_one_block_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.concatenate([moving_square(i, 17), np.repeat(255 - moving_square(i + 9, 1), 9, 0)]) for i in range(4)]
    clips = [clip(f, str(i)) for i, f in enumerate(frames)]
    whole = choose(clips, tmp_path / "a", 32, 0.2)
    monkeypatch.setattr(selection, "_BLOCK", 7)
    parts = choose(clips, tmp_path / "b", 32, 0.2)
    assert parts.to_dict() == whole.to_dict()
    assert np.array_equal(parts.pairs.first, whole.pairs.first)
    assert whole.cuts.tolist() == [17, 43, 69, 95]


def test_settings_are_checked() -> None:
    for options, message in (({"still_share": 2.0}, "still_share must be at most 1, got 2"),
                             ({"cut_ratio": -1.0}, "cut_ratio must be 0 or more"),
                             ({"cut_likeness": 3.0}, "cut_likeness must be at most 1, got 3")):
        with pytest.raises(ValueError, match=message):
            SelectionConfig(**options)
    assert dataclasses.replace(tiny(), selection=SelectionConfig(cut_ratio=0)).selection.cut_ratio == 0
