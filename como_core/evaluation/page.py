"""A self-contained HTML page: text, tables and pictures in one file that opens anywhere, without a network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from como_core.errors import ComoError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARK = '<meta name="generator" content="como">'
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #5c6878; --line: #d8dee6; --paper: #fff; --band: #f4f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --quiet: #9aa6b6; --line: #333d4b; --paper: #14181f; --band: #1c222b; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.2rem; margin-top: 2.4rem; border-bottom: 1px solid var(--line); padding-bottom: 0.3rem; }
p.lead { font-size: 1.1rem; } .quiet, figcaption { color: var(--quiet); font-size: 0.92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th, tr.strong td { font-weight: 600; }
figure { margin: 1rem 0; }
img { max-width: 100%; border-radius: 4px; background: #fff; }
img.pixels { image-rendering: pixelated; }
code { background: var(--band); padding: 0.1rem 0.3rem; border-radius: 3px; font-size: 0.9em; overflow-wrap: anywhere; }
"""


def require_own(page: Path) -> None:
    """Raises OutputError where a file lies at `page` that `Page` has not written, and so would be lost."""
    if page.exists() and not (page.is_file() and _MARK.encode() in page.read_bytes()):
        raise OutputError(f"{page}: is of something else than como, and would be lost; choose another output folder, "
                          "or move it away")


class Page:
    """Collects blocks in reading order; `write` makes the file."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._blocks: list[str] = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """A section heading."""
        self._blocks.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph; `kind` is "lead" or "quiet"."""
        self._blocks.append(f'<p class="{kind}">{html.escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], strong: Sequence[int] = ()) -> None:
        """A table; rows whose index is in `strong` stand out."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
        body = "".join(f"<tr{' class=strong' if i in strong else ''}>{line}</tr>" for i, line in enumerate(lines))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._blocks.append(f'<div class="scroll">{table}</div>')

    def figure(self, figure: Figure, caption: str) -> None:
        """A matplotlib figure, embedded as PNG."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        self._image(buffer.getvalue(), caption, "")

    def picture(self, image: np.ndarray, caption: str, width_px: int | None = None) -> None:
        """An RGB picture, uint8 [H, W, 3], shown with hard pixels."""
        encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not encoded:
            raise ComoError(f"a picture of shape {image.shape} could not be encoded as PNG ({caption})")
        self._image(data.tobytes(), caption, f' class="pixels"{f" width={width_px}" if width_px else ""}')

    def write(self, path: Path) -> Path:
        """Write the page, whole or not at all; returns the path."""
        body = "\n".join(self._blocks)
        text = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self._title)}</title>\n'
            f"{_MARK}\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
        )
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.replace(path)
        return path

    def _image(self, png: bytes, caption: str, attributes: str) -> None:
        source = base64.b64encode(png).decode()
        alt = html.escape(caption, quote=True)
        image = f'<img{attributes} alt="{alt}" src="data:image/png;base64,{source}">'
        self._blocks.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")


def film_strip(frames: np.ndarray, count: int = 8, gap_px: int = 2) -> np.ndarray:
    """Evenly spaced frames side by side, first and last kept: uint8 [T, H, W, 3] -> uint8 [H, about count * W, 3]."""
    if not len(frames):
        raise ComoError("a film strip needs at least one frame, got none")
    chosen = frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    return side_by_side(list(chosen), gap_px)


def side_by_side(images: Sequence[np.ndarray], gap_px: int = 2) -> np.ndarray:
    """Pictures of one height in a row, white lines between them."""
    line = np.full((images[0].shape[0], gap_px, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, line)][:-1], axis=1)


def stacked(images: Sequence[np.ndarray], gap_px: int = 2) -> np.ndarray:
    """Pictures below one another, padded to the widest, white lines between them."""
    width = max(image.shape[1] for image in images)
    padded = [np.pad(i, ((0, gap_px), (0, width - i.shape[1]), (0, 0)), constant_values=255) for i in images]
    return np.concatenate(padded)[:-gap_px]
