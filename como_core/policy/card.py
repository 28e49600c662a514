"""card.md of a policy: what it was trained on, how, with what, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from como_core import __version__
from como_core.episode import Episode
from como_core.policy.checkpoint import TrainedConfig
from como_core.policy.config import PolicyConfig
from como_core.policy.cotraining import Video
from como_core.policy.guard import Verdict
from como_core.training.history import History


def write_card(trained: TrainedConfig, demonstrations: Sequence[Episode], video: Video | None,
               verdict: Verdict | None, history: History, command: str) -> str:
    """The text of the card, Markdown."""
    config, loop = trained.policy, trained.policy.training
    lines = [
        f"# Policy: {config.family}{_sampler(config)}, co-training {config.cotraining.mode}", "",
        f"- command: `{command or 'como_core.policy.train.train'}`",
        f"- versions: como_core {__version__}, torch {torch.__version__}",
        f"- demonstrations: {len(demonstrations)} episodes, {sum(len(e) for e in demonstrations)} steps",
        f"- instructions: {', '.join(repr(name) for name in trained.instructions)}",
        f"- training: {loop.steps} steps of {loop.batch_size}, seed {loop.seed}, {history.seconds:.0f} s, "
        f"last loss {history.loss[-1]:.4f}",
    ]
    if video:
        lines.append(f"- video: {len(video.episodes)} episodes, {sum(len(e) for e in video.episodes)} steps, "
                     f"{config.cotraining.video_share:.0%} of each batch; {len(video.skipped)} skipped")
        lines += [f"  - skipped {path}: {reason}" for path, reason in video.skipped]
        if video.fit:
            r2 = ", ".join(f"{value:.2f}" for value in video.fit.r2)
            lines.append(f"- decoder: fitted on {video.fit.steps} steps; R2 on left-out demonstrations: {r2}")
    if trained.latents.model:
        lines.append(f"- latents: of motion model {trained.latents}")
    lines += [f"- {line.strip()}" for line in (verdict.lines() if verdict else [])]
    return "\n".join(lines) + "\n"


def _sampler(config: PolicyConfig) -> str:
    return f", {config.diffusion.sampler}" if config.family == "diffusion" else ""
