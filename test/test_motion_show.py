"""`como motion show`: the pictures of a small model, the page, and what is left out where it cannot be drawn."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_square import FPS, moving_square, tiny

from como_core.cli import motion as cli
from como_core.config import with_options
from como_core.errors import OutputError
from como_core.formats.video import write_video
from como_core.motion.flow import flow_of, mean_flow
from como_core.motion.model import MotionModel
from como_core.motion.show import Picture, show
from como_core.motion.targets import Target
from como_core.motion.train import train

SIZE = 64


def scene(x: int, y: int) -> np.ndarray:
    """A textured patch on grey."""
    picture = np.full((SIZE, SIZE, 3), 90, np.uint8)
    picture[y:y + 20, x:x + 20] = np.random.default_rng(0).integers(0, 256, (20, 20, 1))
    return cv2.GaussianBlur(picture, (3, 3), 0)


@pytest.mark.parametrize("way", [(3, 0), (-3, 0), (0, 3), (2, -2)])
def test_flow_is_the_way_that_things_went(way: tuple[int, int]) -> None:
    first, second = scene(20, 20), scene(20 + way[0], 20 + way[1])
    assert flow_of(first, second).shape == (SIZE, SIZE, 2)
    assert np.allclose(mean_flow(first, second), way, atol=0.8)
    assert np.abs(flow_of(first, first)).max() < 0.05


@pytest.fixture(scope="module")
def model() -> MotionModel:
    return MotionModel(tiny("como-plus")).eval()


def names(pictures: list[Picture]) -> list[str]:
    return [picture.name for picture in pictures]


def test_pictures_say_what_is_on_them(model: MotionModel, tmp_path: Path) -> None:
    clips = [dataclasses.replace(moving_square(seed), instruction=f"task {seed % 3}") for seed in range(5)]
    pictures = {picture.name: picture for picture in show(model, clips, ["down", "right"], cache=tmp_path,
                                                          target=Target("difference"))}
    assert list(pictures) == ["reconstruction", "transfer", "over_time", "map"]
    columns = [axes.get_title() for axes in pictures["reconstruction"].figure.axes if axes.get_title()]
    assert columns[:3] == ["task 0", "task 1", "task 2"], "every task comes before any comes again"
    assert "change of the command" in pictures["over_time"].caption
    upper, lower = pictures["over_time"].figure.axes
    action = clips[2].action
    assert action is not None
    drawn = {line.get_label(): line.get_ydata() for line in lower.lines}
    recordings = [c.action for c in clips if c.action is not None]
    assert any(np.allclose(drawn["down"], a[2:, 0] - a[:-2, 0]) for a in recordings)
    assert len(upper.lines) == 3 + 1
    assert "recorded actions" in pictures["map"].caption


def test_what_cannot_be_drawn_is_left_out(model: MotionModel, tmp_path: Path) -> None:
    clip = moving_square(0).without_actions()
    alone = show(model, [clip], cache=tmp_path)
    assert names(alone) == ["reconstruction", "over_time", "map"]
    assert "optical flow" in alone[-1].caption and "optical flow" in alone[-2].caption
    features = MotionModel(with_options(tiny("como-plus"), **{"loss.pixel": 0.0, "loss.feature": 1.0,
                                                              "backbone.frozen": True})).eval()
    assert names(show(features, [clip, moving_square(1)], cache=tmp_path)) == ["over_time", "map"]


@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.filterwarnings("error")
def test_the_shortest_recordings_are_drawn_without_a_warning(model: MotionModel, tmp_path: Path, steps: int) -> None:
    """One pair of frames has no spread, neither in z nor in time."""
    clip = moving_square(0)
    cut = dataclasses.replace(clip, timestamps=clip.timestamps[:steps], action=None, provenance=None, confidence=None,
                              state=None, images={"top": clip.images["top"][:steps]})
    drawn = show(model, [cut], cache=tmp_path)
    assert names(drawn) == ["reconstruction", "over_time", "map"]
    for picture in drawn:
        picture.figure.savefig(tmp_path / "picture.png")
    left, right = drawn[-1].figure.axes[0].get_xlim()
    assert left < 0 < right


def test_the_page_is_one_file_with_every_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("a$x^$.mp4", os.fsdecode(b"caf\xe9.mp4"))):  # no formula, and not UTF-8
        write_video(tmp_path / f"task{seed}" / "0.mp4", moving_square(seed).images["top"], FPS)
        (tmp_path / f"task{seed}" / "0.mp4").rename(tmp_path / f"task{seed}" / name)
    train([moving_square(0)], tiny("como-plus", steps=2), tmp_path / "run")
    cli.show(tmp_path / "run", (tmp_path / "task0", tmp_path / "task1"), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    for name in ("reconstruction", "transfer", "over_time", "map"):
        assert cv2.imread(str(tmp_path / "out" / f"{name}.png")) is not None
    assert "4 pictures" in capsys.readouterr().out
    cli.show(tmp_path / "run", (tmp_path / "task0",), tmp_path / "out")  # over a page of its own
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<title>Latent motion of mine</title>")
    with pytest.raises(OutputError, match="site/index.html: is of something else than como, and would be lost"):
        cli.show(tmp_path / "run", (tmp_path / "task0",), tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]
