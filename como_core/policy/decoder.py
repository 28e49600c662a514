"""Action decoder: the latent motion around a step, and the instruction, to the action of that step.

Fitted on the labelled few: an ensemble of small networks predicts each action value as a distance from a centre, in
spreads. A velocity's centre is rest and its spread is that of all demonstrations: no motion in the picture means no
motion of the arm, in every task. Any other value has the mean and spread that the demonstrations of its instruction
gave it: a gripper that stays shut stays shut, whatever the latents say. How strongly the networks are regularised
is chosen by leaving whole episodes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError

MIN_SPREAD = 1e-3  # of the action's spread over all demonstrations: keeps a constant value's residual finite


@dataclass(frozen=True)
class DecoderConfig:
    """lags_s    seconds from the step to the start of each latent that is read; a latent at -gap ends at the step
    input_noise  candidate strengths: noise on the standardised latents while fitting
    folds        parts that the demonstrations of each instruction are split into to choose among them
    """

    lags_s: tuple[float, ...] = (-0.1, -0.05, 0.0)
    input_noise: tuple[float, ...] = (0.4, 0.8, 1.2)
    dropout: float = 0.3
    members: int = 6
    folds: int = 5
    hidden: int = 64
    steps: int = 300
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lags_s or not self.input_noise:
            raise ValueError("lags_s and input_noise need one value or more each")
        if min(self.members, self.hidden, self.steps) < 1 or self.folds < 2 or not 0 <= self.dropout < 1:
            raise ValueError("members, hidden and steps must be 1 or more, folds 2 or more, dropout in [0, 1)")


@dataclass(frozen=True)
class Fit:
    """How well left-out episodes were decoded.

    r2           of each action value
    input_noise  the strength that was chosen
    errors       strength -> mean squared error, in spreads of the task
    steps        labelled steps that it was fitted on
    """

    r2: list[float]
    input_noise: float
    errors: dict[float, float]
    steps: int


class ActionDecoder:
    """Decodes episodes with latents into actions; `fit` makes one."""

    def __init__(self, config: DecoderConfig, instructions: tuple[str, ...], latent: tuple[np.ndarray, np.ndarray],
                 centre: np.ndarray, spread: np.ndarray) -> None:
        self._config, self.instructions = config, instructions
        self._latent_mean, self._latent_scale = latent
        self._centre, self._spread = centre, spread  # [tasks, A] each
        self._networks: _Ensemble | None = None
        self.fitted: Fit | None = None

    @classmethod
    def fit(cls, demonstrations: Sequence[Episode], config: DecoderConfig, velocities: int = 0) -> ActionDecoder:
        """From demonstrations with measured actions and latents; the first `velocities` action values are velocities.

        Raises ComoError, naming the file, where a demonstration has no latents or latents of another size.
        """
        size = _latent_size(demonstrations)
        instructions = tuple(sorted({e.instruction or "" for e in demonstrations}))
        latents = np.concatenate([e.latent for e in demonstrations])
        task = np.concatenate([np.full(len(e), instructions.index(e.instruction or "")) for e in demonstrations])
        action = np.concatenate([e.action for e in demonstrations])
        known = np.concatenate([e.provenance == Provenance.MEASURED for e in demonstrations])
        centre = np.stack([action[known & (task == i)].mean(0) for i in range(len(instructions))])
        spread = np.stack([action[known & (task == i)].std(0) for i in range(len(instructions))])
        centre[:, :velocities] = 0.0
        spread[:, :velocities] = action[known].std(0)[:velocities]
        spread = np.maximum(spread, MIN_SPREAD * np.maximum(action[known].std(0), 1e-6))
        decoder = cls(config, instructions, (latents.mean(0), latents.std(0) + 1e-6), centre, spread)
        inputs = torch.cat([decoder._inputs(e, size) for e in demonstrations])
        target = torch.from_numpy(((action - centre[task]) / spread[task]).astype(np.float32))
        fold = _folds(demonstrations, config.folds)
        decoder._choose_and_fit(inputs, target, torch.from_numpy(known), torch.from_numpy(fold))
        return decoder

    def decode(self, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Actions float32 [T, A] and confidence float32 [T] of an episode with latents.

        Confidence is the share of the expected squared error that left-out demonstrations had too: it falls where the
        networks disagree. Raises ComoError where the latents are missing or of another size, or the instruction has no
        demonstration.
        """
        assert self._networks is not None and self.fitted is not None, "fit makes decoders"
        if (episode.instruction or "") not in self.instructions:
            raise ComoError(f"{episode.source}: instruction {episode.instruction!r} has no labelled demonstration, so "
                            f"its latents cannot be decoded; demonstrated: {', '.join(self.instructions)}")
        inputs = self._inputs(episode, len(self._latent_mean))
        with torch.inference_mode():
            predicted = self._networks(inputs.expand(len(self._networks), -1, -1)).numpy()  # [members, T, A]
        task = self.instructions.index(episode.instruction or "")
        residual = self.fitted.errors[self.fitted.input_noise]
        confidence = residual / (residual + predicted.var(0).mean(-1))
        action = predicted.mean(0) * self._spread[task] + self._centre[task]
        return action.astype(np.float32), confidence.astype(np.float32)

    def _inputs(self, episode: Episode, size: int) -> Tensor:
        """Standardised latents at each lag and the instruction, float32 [T, lags * D + tasks]."""
        latent = require_latents(episode, size)
        standard = (latent - self._latent_mean) / self._latent_scale
        rows = [nearest_labelled(episode, episode.timestamps + lag) for lag in self._config.lags_s]
        task = np.zeros((len(episode), len(self.instructions)))
        if (episode.instruction or "") in self.instructions:
            task[:, self.instructions.index(episode.instruction or "")] = 1.0
        return torch.from_numpy(np.concatenate([*(standard[r] for r in rows), task], 1).astype(np.float32))

    def _choose_and_fit(self, inputs: Tensor, target: Tensor, known: Tensor, fold: Tensor) -> None:
        config = self._config
        folds = sorted(set(fold[fold >= 0].tolist()))
        trials = [(noise, part) for noise in config.input_noise for part in folds]
        used = torch.stack([known & (fold != part) for _, part in trials]) if trials else known[None][:0]
        errors = dict.fromkeys(config.input_noise, 1.0)
        squared = torch.ones_like(target)
        if trials:
            networks = self._train(inputs, target, used, torch.tensor([noise for noise, _ in trials]))
            with torch.inference_mode():
                off = (networks(inputs.expand(len(trials), -1, -1)) - target).square()  # [trials, N, A]
            squared_of = {}
            for noise in config.input_noise:
                parts = [(known & (fold == p), off[i]) for i, (n, p) in enumerate(trials) if n == noise]
                squared_of[noise] = torch.cat([error[left_out] for left_out, error in parts])
                errors[noise] = float(squared_of[noise].mean())
            squared = squared_of[min(errors, key=errors.__getitem__)]
        best = min(errors, key=errors.__getitem__)
        variance = target[known].var(0, correction=0).clamp_min(1e-6)
        self.fitted = Fit((1 - squared.mean(0) / variance).tolist(), best, errors, int(known.sum()))
        self._networks = self._train(inputs, target, known.expand(config.members, -1),
                                     torch.full((config.members,), best))

    def _train(self, inputs: Tensor, target: Tensor, used: Tensor, noise: Tensor) -> _Ensemble:
        """Fit one network per row of `used` [M, N], each with its own input noise [M], all at once."""
        config = self._config
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(config.seed)
            networks = _Ensemble(len(used), inputs.shape[1], config.hidden, target.shape[1], config.dropout)
            optimiser = torch.optim.AdamW(networks.parameters(), config.learning_rate, weight_decay=config.weight_decay)
            weight = (used / used.sum(1, keepdim=True).clamp_min(1))[:, :, None]
            tasks = len(self.instructions)
            scale = torch.cat([torch.ones(inputs.shape[1] - tasks), torch.zeros(tasks)])  # instructions stay clean
            for step in range(config.steps):
                optimiser.param_groups[0]["lr"] = config.learning_rate * (1 - step / config.steps)
                noisy = inputs + noise[:, None, None] * scale * torch.randn(len(used), *inputs.shape)
                loss = ((networks(noisy) - target).square() * weight).sum() / target.shape[1]
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return networks.eval()


class _Ensemble(nn.Module):
    """M independent networks of one hidden layer; [M, N, inputs] -> [M, N, outputs]."""

    def __init__(self, members: int, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.into = nn.Parameter((torch.rand(members, inputs, hidden) * 2 - 1) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.out = nn.Parameter((torch.rand(members, hidden, outputs) * 2 - 1) * hidden**-0.5)
        self.offset = nn.Parameter(torch.zeros(members, 1, outputs))

    def __len__(self) -> int:
        return len(self.into)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(F.gelu(torch.baddbmm(self.bias, x, self.into)), self.dropout, self.training)
        return torch.baddbmm(self.offset, hidden, self.out)


def require_latents(episode: Episode, size: int) -> np.ndarray:
    """The latents [T, size]. Raises ComoError where they are missing or of another size."""
    if episode.latent is None:
        raise ComoError(f"{episode.source}: no latent motion; run `como relabel` on it and give that folder too")
    if episode.latent.shape[1] != size:
        raise ComoError(f"{episode.source}: latents have {episode.latent.shape[1]} numbers, those of the first "
                        f"demonstration {size}: another motion model; run `como relabel` on all of them with one")
    return episode.latent


def nearest_labelled(episode: Episode, times_s: np.ndarray) -> np.ndarray:
    """Row of the labelled step nearest to each of `times_s`; steps of confidence 0 have no label (the last gap)."""
    labelled = np.arange(len(episode)) if episode.confidence is None else np.flatnonzero(episode.confidence > 0)
    if not len(labelled):
        raise ComoError(f"{episode.source}: no label of confidence above 0; it is shorter than the frame gap")
    stamps = episode.timestamps[labelled]
    middles = (stamps[1:] + stamps[:-1]) / 2
    return labelled[np.searchsorted(middles, times_s, side="right")]


def _latent_size(demonstrations: Sequence[Episode]) -> int:
    first = demonstrations[0]
    size = 0 if first.latent is None else first.latent.shape[1]
    for episode in demonstrations:
        require_latents(episode, size)
    return size


def _folds(demonstrations: Sequence[Episode], count: int) -> np.ndarray:
    """The fold of each step, int64 [N]: episodes of an instruction in turn; -1 (never left out) for an only episode."""
    names = [e.instruction or "" for e in demonstrations]
    folds = []
    for index, (name, episode) in enumerate(zip(names, demonstrations, strict=True)):
        turn = names[:index].count(name) % count
        folds.append(np.full(len(episode), turn if names.count(name) > 1 else -1))
    return np.concatenate(folds)
