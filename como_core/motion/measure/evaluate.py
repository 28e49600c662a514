"""Measure a MotionModel on recordings that it was not trained on: probes beside baselines, S-PCFC, leakage audit.

    report = evaluate(model, episodes, action_names=["linear.x", "linear.y", "linear.z"], cache="cache")
    report.flat_rows(preset="como")

For many models on the same recordings give the same `cache`: frames are decoded once, and the probes of baselines run
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.sources import action_names_of
from como_core.interface import Interface
from como_core.intervals import Score
from como_core.motion.measure import baselines
from como_core.motion.measure.appearance import appearance
from como_core.motion.measure.audit import AuditLine, audit
from como_core.motion.measure.eye import Encoded, Eye, encode_all
from como_core.motion.measure.metrics import (
    Consistency,
    Triples,
    latent_consistency,
    reconstruction_gain,
    true_consistency,
)
from como_core.motion.measure.mlp_probe import mlp
from como_core.motion.measure.probe import Probe, run_probe
from como_core.motion.measure.probe_store import ProbeStore
from como_core.motion.measure.question import Question
from como_core.motion.measure.recordings import FEW, Recordings
from como_core.motion.measure.report import Evaluation, ProbeRow
from como_core.motion.model import MotionModel
from como_core.motion.targets import Target

_FRAME_CELLS = 4  # a side; what the appearance probe knows of a frame is averaged to so many cells


@dataclass(frozen=True)
class Measures:
    """What to measure.

    target     what the probes are asked for
    actions    ask only for actions whose name contains one of these; for all that are named where empty
    baselines  which rows stand beside z, of `baselines.BASELINES`; none depends on what z is
    mlp        whether a two-layer MLP probe stands beside the linear one
    audit      whether to run the leakage audit
    seeds      how often the recordings are split anew for the probes
    """

    target: Target = field(default_factory=Target)
    actions: tuple[str, ...] = ()
    baselines: tuple[str, ...] = baselines.BASELINES
    mlp: bool = True
    audit: bool = True
    seeds: int = 3


def evaluate(model: MotionModel, episodes: Sequence[Episode], action_names: Sequence[str] = (),
             camera: str | None = None, cache: str | Path = "cache", seed: int = 0,
             measures: Measures | None = None) -> Evaluation:
    """Measure z on `episodes`. The probes use those with actions; all else uses all.

    action_names  names of the first action values. R2 and MSE are means over these; a gripper, the last value, is
                  left out, since the task's identity alone tells most of it. Empty: no probes
    cache         where decoded frames and the probes of baselines are kept
    seed          of the first split

    A recording without such a camera, that breaks or is shorter than the gap costs itself only. Raises ComoError where
    none is left, and where those with actions are not of one robot.
    """
    measures = measures or Measures()
    data = Recordings.of(model, episodes, camera, Path(cache))
    question = Question.of(data, list(action_names), measures.target, measures.actions)
    eye = Eye(model)
    encoded = encode_all(eye, data.cache.frames, data.pairs)
    rows, gain = _probes(model, data, question, encoded.latent, measures, range(seed, seed + measures.seeds),
                         ProbeStore(Path(cache) / "probes")) if question else ([], None)
    return Evaluation(
        rows=rows, gain=gain, reconstruction_gain=reconstruction_gain(encoded, data.pairs.episode),
        predicts=eye.predicts, consistency=_consistency(eye, data, encoded),
        audit=_audit(eye, data, encoded) if measures.audit else [],
        episodes=len(np.unique(data.pairs.episode)), pairs=len(data.pairs),
        labelled=len(np.unique(question.episode)) if question else 0,
        labelled_pairs=len(question.rows) if question else 0,
        gap_s=model.config.gap_s, latent_size=model.config.latent_size,
        actions=list(question.names) if question else [], target=measures.target, seeds=measures.seeds,
        notes=data.notes)


def _probes(model: MotionModel, data: Recordings, question: Question, latent: np.ndarray, measures: Measures,
            seeds: Sequence[int], store: ProbeStore) -> tuple[list[ProbeRow], Score | None]:
    """Rows of the baselines and, last, of z; and how far z is ahead of the PCA of the RGB difference."""
    chosen = sorted(column for mine in question.names.values() for column in mine)
    target = question.target[:, chosen]
    owned = {name: [chosen.index(column) for column in mine] for name, mine in question.names.items()}

    def run(name: str, values: np.ndarray) -> list[Probe]:
        linear = run_probe(name, values, target, question.episode, seeds)
        bent = measures.mlp and name != baselines.MEAN  # from nothing, an MLP can make no more than a line can
        return [linear, run_probe(name, values, target, question.episode, seeds, mlp)] if bent else [linear]

    given = baselines.Baselines(model, data, question.rows)
    found: dict[str, list[Probe]] = {}
    for name in measures.baselines:
        if given.there(name):
            key = (name, given.identity(name), data.cache.path.name, *data.pairs.ends(question.rows), target, *seeds,
                   measures.mlp)
            found[name] = store.probes(key, lambda name=name: run(name, given.features(name)))  # type: ignore[misc]
    found["z"] = run("z", latent[question.rows])
    rgb = found.get(baselines.RGB_DIFFERENCE)
    return [_row(probes, owned) for probes in found.values()], found["z"][0].r2_gain(rgb[0]) if rgb else None


def _row(probes: Sequence[Probe], columns: dict[str, list[int]]) -> ProbeRow:
    linear, *bent = probes
    return ProbeRow(linear.name, linear.size, linear.r2(), linear.mse(),
                    {name: linear.r2(mine).mean for name, mine in columns.items()}, linear.seed_spread(),
                    bent[0].r2() if bent else None, bent[0].mse() if bent else None)


def _consistency(eye: Eye, data: Recordings, encoded: Encoded) -> list[Consistency]:
    triples = Triples.of(data.pairs)
    if not len(triples):
        data.notes.append("no recording is two gaps long, so there is no S-PCFC")
        return []
    found = [latent_consistency(eye, data.cache.frames, triples, encoded.latent)]
    if (few := found[0].raw.recordings) < min(FEW, len(np.unique(data.pairs.episode))):
        data.notes.append(f"S-PCFC: only {few} recording{'' if few == 1 else 's'} hold two pairs that meet: its "
                          "intervals say little")
    if data.state is not None:
        ends = (triples.before, triples.middle, triples.after)
        known = np.all([np.isfinite(data.state[end]).all(axis=1) for end in ends], axis=0)
        if known.any():
            found.append(true_consistency(data.state, triples.only(known)))
    return found


def _audit(eye: Eye, data: Recordings, encoded: Encoded) -> list[AuditLine]:
    frames, pairs, moved = data.cache.frames, data.pairs, data.displacement
    describe = baselines.features_of(eye.model, frames, _FRAME_CELLS)
    frame = baselines.frame_components(describe, pairs.first, eye.model.config.latent_size)
    known = moved if moved is not None and np.isfinite(moved).all() else None
    return [*audit(eye, frames, pairs, encoded, data.scenes),
            appearance(encoded.latent, frame, pairs, data.scenes, known)]


def action_names(episodes: Sequence[Episode], interface: Interface | None = None) -> list[str]:
    """Names of the commanded values: of `interface`, or as the first recording with actions that says has them.

    A gripper is left out where the recording tells which value it is. Empty where no recording has actions. Raises
    ComoError where recordings have actions and none says what they are.
    """
    if interface is not None:
        return list(interface.action.names)
    labelled = [episode for episode in episodes if episode.action is not None]
    for episode in labelled:
        names = action_names_of(episode.source)
        if names:
            return names
    if labelled:
        raise ComoError(f"{len(labelled)} recordings have actions and none says what they mean; give the robot's "
                        "interface YAML with --interface")
    return []
