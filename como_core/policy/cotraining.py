"""Co-training: what a policy learns from video beside the labelled few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from como_core.bounds import FROM_0, SHARE, require_bounds
from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.formats.lazy import CAMERA
from como_core.interface import Interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.data import check_actions, check_cameras
from como_core.policy.decoder import ActionDecoder, DecoderConfig, Fit, require_labels, require_latents

CotrainingMode = Literal["none", "decoded", "heads", "joint"]
LATENT_MODES = ("heads", "joint")
# What the loss of latents weighs where nobody said, as tuning found it for both families (docs/policy.md).
TUNED_WEIGHTS = {"heads": 1.0, "joint": 0.3}
VELOCITY_KINDS = ("ee_twist", "joint_velocity")


@dataclass(frozen=True)
class CotrainingConfig:
    """mode        none: labelled demonstrations alone. decoded: latents become pseudo-actions, by a decoder that is
                   fitted on the labelled few. heads (CoMo's): a head for actions and one for latents on one trunk.
                   joint: latents and actions are predicted together
    video_share    share of each batch that comes from video
    latent_weight  of the latents' loss beside that of the actions (heads, joint); None: TUNED_WEIGHTS
    split          where the heads part: `trunk`, at its end; `encoder`, behind the observation encoder (heads,
                   diffusion)
    decoder        how latents are decoded (decoded)
    guard_steps    of each of the two short trainings by which the guard sees whether the video helps; 0: no guard
    """

    mode: CotrainingMode = "decoded"
    video_share: float = 0.5
    latent_weight: float | None = None
    split: Literal["trunk", "encoder"] = "trunk"
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    guard_steps: int = 0

    def __post_init__(self) -> None:
        require_bounds(self, video_share=SHARE, latent_weight=FROM_0, guard_steps=FROM_0)

    @property
    def weight_of_latents(self) -> float:
        """`latent_weight`, or that of the mode."""
        return TUNED_WEIGHTS.get(self.mode, 0.0) if self.latent_weight is None else self.latent_weight

    @property
    def predicts_latents(self) -> bool:
        """Whether the network learns to predict latents, so that video needs no action at all."""
        return self.mode in LATENT_MODES


@dataclass(frozen=True)
class Video:
    """The video that is trained on, as its mode has it, and what was left out and why.

    episodes  decoded: with pseudo-actions, provenance PSEUDO; heads, joint: with latents only
    given     each of them as it was given, for others to prepare once more
    fit       how well left-out demonstrations were decoded; None where nothing was
    """

    episodes: list[Episode]
    given: list[Episode]
    fit: Fit | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)


def prepare_video(demonstrations: Sequence[Episode], videos: Sequence[Episode], interface: Interface,
                  config: CotrainingConfig) -> Video | None:
    """What the mode makes of the videos; None where it uses none.

    A video may be of another robot: a state of another length is not read. One that lacks a camera, or has no label to
    be trusted, is skipped and named. Decoded, a video that has pseudo-actions and no latents is taken as it is, and one
    with latents whose instruction nobody demonstrated is skipped. Where latents are predicted, those of demonstrations
    may be all there are. Raises ComoError where there is no video to use, or latents are of several sizes.
    """
    if config.mode == "none":
        return None
    require_video(demonstrations, videos, config)
    fitting, skipped = _fitting(videos, interface) if videos else ([], [])
    if config.predicts_latents:
        given = [*fitting, *_with_latents(demonstrations)]
        size = 0 if given[0].latent is None else given[0].latent.shape[1]
        for episode in given:
            require_latents(episode, size)
        return Video([video.without_actions() for video in fitting], fitting, skipped=skipped)
    found = _decoded(demonstrations, fitting, interface, config)
    return dataclasses.replace(found, skipped=[*skipped, *found.skipped])


def require_video(demonstrations: Sequence[Episode], videos: Sequence[Episode], config: CotrainingConfig,
                  places: Sequence[Path] = ()) -> None:
    """Raise ComoError, naming `places`, where the mode has no video to learn from.

    Where it predicts latents, demonstrations that have some are video, too.
    """
    own = _with_latents(demonstrations)
    if config.mode == "none" or videos or (own and config.predicts_latents):
        return
    given = f" by {', '.join(map(str, places))}" if places else ""
    raise ComoError(f"no labelled video to co-train on: nothing with latents was given{given}"
                    f"{' besides the demonstrations' if own else ''}; run `como relabel` first, or train on the "
                    "demonstrations alone with --mode none")


def fit_decoder(demonstrations: Sequence[Episode], interface: Interface, config: DecoderConfig) -> ActionDecoder:
    """A decoder of the interface's actions. Raises as `ActionDecoder.fit` does."""
    velocities = len(interface.action.names) if interface.action.kind in VELOCITY_KINDS else 0
    return ActionDecoder.fit(demonstrations, config, velocities, ActionSpace.of(interface))


def decode_for(interface: Interface, decoder: ActionDecoder, video: Episode) -> tuple[np.ndarray, np.ndarray]:
    """What `ActionDecoder.decode` gives, a gripper within [0, 1]."""
    action, confidence = decoder.decode(video)
    if interface.action.gripper is not None:
        action[:, -1] = np.clip(action[:, -1], 0.0, 1.0)
    return action, confidence


def keep_labels(demonstrations: Sequence[Episode], share: float
                ) -> tuple[list[Episode], list[Episode], list[Episode]]:
    """The share of the demonstrations of each instruction that stays labelled, the others as video, and what is lost.

    Rounded to whole episodes and at least one of each instruction, unless `share` is 0. The first ones stay. An
    episode that has no latents is no video, so it is lost. Raises ComoError where `share` is none.
    """
    if not 0 <= share <= 1:
        raise ComoError(f"the share of labels must lie in [0, 1], got {share:g}")
    names = [e.instruction or "" for e in demonstrations]
    wanted = {name: max(round(share * names.count(name)), 1 if share else 0) for name in names}
    kept: list[Episode] = []
    freed: list[Episode] = []
    for i, episode in enumerate(demonstrations):
        labelled = names[:i].count(names[i]) < wanted[names[i]]
        (kept if labelled else freed).append(episode)
    return (kept, [episode.without_actions() for episode in _with_latents(freed)],
            [episode for episode in freed if episode.latent is None])


def _with_latents(episodes: Sequence[Episode]) -> list[Episode]:
    return [episode for episode in episodes if episode.latent is not None]


def _fitting(videos: Sequence[Episode], interface: Interface) -> tuple[list[Episode], list[tuple[str, str]]]:
    """Those that can be trained on, as the interface has it, and the others with why. Raises ComoError for none."""
    fitting: list[Episode] = []
    skipped: list[tuple[str, str]] = []
    for video in videos:
        try:
            fitting.append(_as_ours(video, interface))
        except ComoError as error:
            skipped.append((video.source, str(error)))
    if not fitting:
        raise ComoError(f"none of {len(videos)} videos can be trained on: {skipped[0][1]}")
    return fitting, skipped


def _as_ours(video: Episode, interface: Interface) -> Episode:
    if video.state is not None and video.state.shape[1] != interface.state_size:
        video = dataclasses.replace(video, state=None)
    try:
        check_cameras(video, interface)
    except ComoError as error:
        named = set(video.images) - {CAMERA}
        raise ComoError(f"{error}; --video-cameras tells which one stands for it" if named else str(error)) from None
    if video.latent is not None:
        require_labels(video)
    if _labelled_by_others(video):
        check_actions(video, interface)
    return video


def _decoded(demonstrations: Sequence[Episode], videos: Sequence[Episode], interface: Interface,
             config: CotrainingConfig) -> Video:
    if all(_labelled_by_others(video) for video in videos):
        return Video(list(videos), list(videos))
    decoder = fit_decoder(demonstrations, interface, config.decoder)
    assert decoder.fitted is not None, "a fitted decoder knows its error"
    known = [_labelled_by_others(video) or (video.instruction or "") in decoder.instructions for video in videos]
    given = [video for video, usable in zip(videos, known, strict=True) if usable]
    skipped = [(video.source, f"instruction {video.instruction!r} has no labelled demonstration")
               for video, usable in zip(videos, known, strict=True) if not usable]
    if not given:
        raise ComoError(f"none of {len(videos)} videos can be decoded: {skipped[0][0]}: {skipped[0][1]}; demonstrated: "
                        f"{', '.join(map(repr, decoder.instructions))}")
    episodes = [video if _labelled_by_others(video) else _pseudo_labelled(video, decoder, interface)
                for video in given]
    return Video(episodes, given, decoder.fitted, skipped)


def _labelled_by_others(video: Episode) -> bool:
    """Whether it has pseudo-actions and no latents: whoever made them, they are taken as they are."""
    return video.latent is None and video.action is not None and bool(np.all(video.provenance != Provenance.MEASURED))


def _pseudo_labelled(video: Episode, decoder: ActionDecoder, interface: Interface) -> Episode:
    action, confidence = decode_for(interface, decoder, video)
    return dataclasses.replace(video, action=action, confidence=confidence,
                               provenance=np.full(len(video), Provenance.PSEUDO, np.uint8))
