"""Loss terms of the motion model. Every term moves parameters: nothing here is computed without gradient."""

from __future__ import annotations

import torch
from torch.nn import functional

from como_core.motion.config import LossConfig


def motion_loss(out: dict[str, torch.Tensor], first: torch.Tensor, second: torch.Tensor, config: LossConfig
                ) -> dict[str, torch.Tensor]:
    """Weighted sum under "loss", and each term of it, from MotionModel.forward's output and its input pixels."""
    terms = {"pixel": pixel_loss(out["change"], second - first)}
    if config.contrast:
        latent = out["latent"][:len(out["later"])]
        terms["contrast"] = contrast_loss(latent, out["later"], out["reverse"], config.temperature)
    if config.prior:
        terms["prior"] = out["latent"].square().mean()
    return {"loss": sum(getattr(config, name) * term for name, term in terms.items()), **terms}  # type: ignore[dict-item]


def pixel_loss(predicted: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Squared error of the predicted change over that of predicting none: 1 is copying frame t, 0 is perfect."""
    return (predicted - change).square().mean() / change.square().mean().clamp_min(1e-8)


def contrast_loss(latent: torch.Tensor, later: torch.Tensor, reverse: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_tcl = -log(e^S1 / (e^S1 + e^S2 + e^S3)), cosines over `temperature` (paper, section 3).

    S1 = (z_{t,t+n+d}, z_{t,t+n}) is drawn together; S2 = (z_{t,t+n+d}, z_{t+n,t}) and S3 = (z_{t,t+n}, z_{t+n,t})
    are pushed apart. All inputs [B, D].
    """
    pairs = ((later, latent), (later, reverse), (latent, reverse))
    scores = torch.stack([functional.cosine_similarity(a, b, dim=-1) for a, b in pairs], dim=-1) / temperature
    return -functional.log_softmax(scores, dim=-1)[:, 0].mean()
