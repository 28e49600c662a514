"""Loss terms of the motion model. Every term moves parameters: nothing here is computed without gradient.

Where several processes share a batch, `pixel` and `feature` are those of the whole batch. The other terms are the mean
of what each process has of its part: equal for `contrast` and `kl`, and for `reversal` and `composition` but for the
length of z that they are divided by; "batch" negatives of `contrast` are those of the part.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from como_core.motion.config import LossConfig
from como_core.motion.readout import readout_loss
from como_core.training.ranks import mean_over_ranks


def motion_loss(out: dict[str, torch.Tensor], first: torch.Tensor, second: torch.Tensor, config: LossConfig,
                action: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Weighted sum under "loss", and each term of it, from MotionModel.forward's output and pixels [B, 3, H, W].

    action  [B, A], z-scored, NaN for pairs without labels; needed where `config.action` is above 0
    """
    terms: dict[str, torch.Tensor] = {}
    if config.pixel:
        terms["pixel"] = prediction_loss(out["pixels"], second, first if config.relative else None)
    if config.feature:
        terms["feature"] = prediction_loss(out["features"], out["features_second"],
                                           out["features_first"] if config.relative else None)
    if config.contrast:
        latent = out["latent"][:len(out["later"])]
        terms["contrast"] = contrast_loss(latent, out["later"], out["reverse"], config.temperature, config.negatives)
    if config.reversal:
        terms["reversal"] = reversal_loss(out["latent"], out["reverse"])
    if config.composition:
        terms["composition"] = composition_loss(out["before"], out["after"], out["latent"])
    if config.action and action is not None:
        terms["action"] = readout_loss(out["action"], action)
    # The bottleneck's own; the quantiser has weighed its commitment already.
    terms |= {name: out[name] for name in ("kl", "commitment") if name in out}
    total = sum(getattr(config, name, 1.0) * term for name, term in terms.items())
    return {"loss": total, **terms}  # type: ignore[dict-item]


def prediction_loss(predicted: torch.Tensor, target: torch.Tensor, copied: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error, over that of predicting `copied` where it is given: 1 is copying frame t, 0 is perfect."""
    error = (predicted - target).square().mean()
    if copied is None:
        return error
    # Neither is predicted, so no gradient passes here, and the error of all processes' parts can be the measure.
    return error / mean_over_ranks((copied - target).detach().square().mean()).clamp_min(1e-8)


def contrast_loss(latent: torch.Tensor, later: torch.Tensor, reverse: torch.Tensor, temperature: float,
                  negatives: str = "reverse") -> torch.Tensor:
    """L_tcl = -log(e^S1 / (e^S1 + e^S2 + e^S3)), cosines over `temperature` (paper, section 3).

    S1 = (z_{t,t+n+d}, z_{t,t+n}) is drawn together; S2 = (z_{t,t+n+d}, z_{t+n,t}) and S3 = (z_{t,t+n}, z_{t+n,t})
    are pushed apart. With negatives "batch" so are (z_{t,t+n+d}, z) of every other pair. All inputs [B, D].
    """
    pairs = ((later, latent), (later, reverse), (latent, reverse))
    scores = torch.stack([functional.cosine_similarity(a, b, dim=-1) for a, b in pairs], dim=-1)
    if negatives == "batch":
        others = functional.cosine_similarity(later[:, None], latent[None], dim=-1)
        same = torch.eye(len(latent), dtype=torch.bool, device=latent.device)
        scores = torch.cat([scores, others.masked_fill(same, -torch.inf)], dim=1)
    return -functional.log_softmax(scores / temperature, dim=-1)[:, 0].mean()


def reversal_loss(latent: torch.Tensor, reverse: torch.Tensor) -> torch.Tensor:
    """|z(a, b) + z(b, a)|^2 over |z(a, b)|^2, of [B, D] each: 0 where going back undoes going there."""
    there = latent[:len(reverse)]
    return (there + reverse).square().mean() / there.square().mean().clamp_min(1e-8)


def composition_loss(before: torch.Tensor, after: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """|z(a, m) + z(m, b) - z(a, b)|^2 over |z(a, b)|^2, of [B, D] each: 0 where motions add up."""
    whole = latent[:len(before)]
    return (before + after - whole).square().mean() / whole.square().mean().clamp_min(1e-8)
