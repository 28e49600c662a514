"""Co-training: what the video's latent motion becomes before a policy is trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.interface import Interface
from como_core.policy.data import check_cameras
from como_core.policy.decoder import ActionDecoder, DecoderConfig, Fit

CotrainingMode = Literal["none", "decoded"]
VELOCITY_KINDS = ("ee_twist", "joint_velocity")


@dataclass(frozen=True)
class CotrainingConfig:
    """mode        none: labelled demonstrations alone; decoded: latents become pseudo-actions, by a decoder that is
                   fitted on the labelled few
    video_share    share of each batch that comes from pseudo-labelled video
    """

    mode: CotrainingMode = "decoded"
    video_share: float = 0.5
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.video_share < 1:
            raise ValueError(f"video_share must be 0 or more and below 1, got {self.video_share}")


@dataclass(frozen=True)
class PseudoLabels:
    """Video with decoded actions, how well left-out demonstrations were decoded, and what was left out and why."""

    episodes: list[Episode]
    fit: Fit
    skipped: list[tuple[str, str]]


def pseudo_label(demonstrations: Sequence[Episode], videos: Sequence[Episode], interface: Interface,
                 config: CotrainingConfig) -> PseudoLabels | None:
    """Pseudo-labelled copies of the videos, provenance PSEUDO; None where the mode does not use video.

    A video whose instruction nobody demonstrated is skipped and named. Raises ComoError where there is no video to
    use, or a file's cameras or latents do not fit.
    """
    if config.mode == "none":
        return None
    if not videos:
        raise ComoError("no labelled video to co-train on: nothing with latents was given; run `como relabel` first, "
                        "or train on the demonstrations alone with --mode none")
    velocities = len(interface.action.names) if interface.action.kind in VELOCITY_KINDS else 0
    decoder = ActionDecoder.fit(demonstrations, config.decoder, velocities)
    assert decoder.fitted is not None, "a fitted decoder knows its error"
    episodes, skipped = [], []
    for video in videos:
        check_cameras(video, interface)
        if (video.instruction or "") in decoder.instructions:
            episodes.append(_decoded(video, decoder, interface))
        else:
            skipped.append((video.source, f"instruction {video.instruction!r} has no labelled demonstration"))
    if not episodes:
        raise ComoError(f"none of {len(videos)} videos can be decoded: {skipped[0][0]}: {skipped[0][1]}; demonstrated: "
                        f"{', '.join(map(repr, decoder.instructions))}")
    return PseudoLabels(episodes, decoder.fitted, skipped)


def _decoded(video: Episode, decoder: ActionDecoder, interface: Interface) -> Episode:
    action, confidence = decoder.decode(video)
    if interface.action.gripper is not None:
        action[:, -1] = np.clip(action[:, -1], 0.0, 1.0)
    return dataclasses.replace(video, action=action, confidence=confidence,
                               provenance=np.full(len(video), Provenance.PSEUDO, np.uint8))
