"""card.md of a policy: what it was trained on, how, with what, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from como_core import __version__
from como_core.episode import Episode
from como_core.policy.checkpoint import TrainedConfig
from como_core.policy.cotraining import PseudoLabels
from como_core.training.loop import History


def write_card(trained: TrainedConfig, demonstrations: Sequence[Episode], labels: PseudoLabels | None, history: History,
               command: str) -> str:
    """The text of the card, Markdown."""
    config, loop = trained.policy, trained.policy.training
    lines = [
        f"# Policy: {config.family}, {config.sampler}, co-training {config.cotraining.mode}", "",
        f"- command: `{command or 'como_core.policy.train.train'}`",
        f"- versions: como_core {__version__}, torch {torch.__version__}",
        f"- demonstrations: {len(demonstrations)} episodes, {sum(len(e) for e in demonstrations)} steps",
        f"- instructions: {', '.join(repr(name) for name in trained.instructions)}",
        f"- training: {loop.steps} steps of {loop.batch_size}, seed {loop.seed}, {history.seconds:.0f} s, "
        f"last loss {history.loss[-1]:.4f}",
    ]
    if labels:
        fit = labels.fit
        lines += [
            f"- pseudo-labelled video: {len(labels.episodes)} episodes, {sum(len(e) for e in labels.episodes)} steps, "
            f"{config.cotraining.video_share:.0%} of each batch; {len(labels.skipped)} skipped",
            f"- decoder: fitted on {fit.steps} steps; R2 on left-out demonstrations, per action value: "
            f"{', '.join(f'{value:.2f}' for value in fit.r2)}",
        ]
        lines += [f"  - skipped {path}: {reason}" for path, reason in labels.skipped]
    return "\n".join(lines) + "\n"
