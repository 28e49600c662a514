"""Action decoder: the latent motion around a step, and the instruction, to the action of that step.

Fitted on the labelled few: an ensemble of small networks predicts each action value as a distance from a centre, in
spreads. A velocity's centre is rest and its spread is that of all demonstrations: no motion in the picture means no
motion of the arm, in every task. Any other value has the mean and spread that the demonstrations of its instruction
gave it: a gripper that stays shut stays shut, whatever the latents say. A quaternion counts as the six numbers that a
policy learns of it (action_space): q and -q are one rotation, and their mean is none.

How strongly the networks are regularised is chosen for each action value by leaving whole episodes out, since what
latents do not tell, such as a gripper that hardly moves, needs another strength than what they do. How much of a value
that is no velocity is taken at all is found there too: nothing of one that is better guessed by its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from como_core.bounds import ABOVE_0, COUNT, FROM_0, SEED, SHARE, Bounds, require_bounds
from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.policy.action_space import ActionSpace

MIN_SPREAD = 1e-3  # of the action's spread over all demonstrations: keeps a constant value's residual finite


@dataclass(frozen=True)
class DecoderConfig:
    """lags_s    seconds from the step to the start of each latent that is read; a latent at -gap ends at the step
    input_noise  candidate strengths: noise on the standardised latents while fitting
    folds        parts that the demonstrations are split into to choose among them, by whole episodes
    doubtful     latents of less confidence than this count less, in proportion: most of whole clips have more, those of
                 cuts and broken pictures less (docs/relabel.md); 0 trusts all alike
    """

    lags_s: tuple[float, ...] = (-0.1, -0.05, 0.0)
    input_noise: tuple[float, ...] = (0.1, 0.4, 1.2)
    dropout: float = 0.3
    members: int = 6
    folds: int = 5
    doubtful: float = 0.2
    hidden: int = 64
    steps: int = 300
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lags_s or not self.input_noise:
            raise ValueError("lags_s and input_noise need one value or more each")
        require_bounds(self, lags_s=Bounds(), input_noise=FROM_0, dropout=Bounds(least=0, below=1), members=COUNT,
                       folds=Bounds(least=2), doubtful=SHARE, hidden=COUNT, steps=COUNT, learning_rate=ABOVE_0,
                       weight_decay=FROM_0, seed=SEED)


@dataclass(frozen=True)
class Fit:
    """How well left-out episodes were decoded. Lists have an item per action value, as ActionSpace encodes them.

    r2           before gains
    input_noise  the strength that was chosen
    gain         share of the networks' distance from the centre that is taken
    errors       strength -> mean squared error of each value before gains, in spreads of the task
    residual     mean squared error after gains, over all values
    steps        labelled steps that it was fitted on
    """

    r2: list[float]
    input_noise: list[float]
    gain: list[float]
    errors: dict[float, list[float]]
    residual: float
    steps: int


class ActionDecoder:
    """Decodes episodes with latents into actions; `fit` makes one."""

    def __init__(self, config: DecoderConfig, instructions: tuple[str, ...], latent: tuple[np.ndarray, np.ndarray],
                 centre: np.ndarray, spread: np.ndarray, space: ActionSpace) -> None:
        self._config, self.instructions, self._space = config, instructions, space
        self._latent_mean, self._latent_scale = latent
        self._centre, self._spread = centre, spread  # [tasks, A] each, encoded
        self._networks: _Ensemble | None = None  # `members` for each strength that a value chose, weakest first
        self.fitted: Fit | None = None

    @classmethod
    def fit(cls, demonstrations: Sequence[Episode], config: DecoderConfig, velocities: int = 0,
            space: ActionSpace | None = None) -> ActionDecoder:
        """From demonstrations with measured actions and latents; the first `velocities` action values are velocities.

        space  that of the robot; None where its actions hold no rotation

        Raises ComoError, naming the file, where a demonstration has no latents or latents of another size, and where
        the settings make the networks diverge.
        """
        size = _latent_size(demonstrations)
        instructions = tuple(sorted({e.instruction or "" for e in demonstrations}))
        latents = np.concatenate([e.latent for e in demonstrations])
        task = np.concatenate([np.full(len(e), instructions.index(e.instruction or "")) for e in demonstrations])
        given = np.concatenate([e.action for e in demonstrations])
        space = space or ActionSpace((), given.shape[1])
        action = space.encode(given)
        known = np.concatenate([e.provenance == Provenance.MEASURED for e in demonstrations])
        centre = np.stack([action[known & (task == i)].mean(0) for i in range(len(instructions))])
        spread = np.stack([action[known & (task == i)].std(0) for i in range(len(instructions))])
        centre[:, :velocities] = 0.0
        spread[:, :velocities] = action[known].std(0)[:velocities]
        spread = np.maximum(spread, MIN_SPREAD * np.maximum(action[known].std(0), 1e-6))
        labelled = latents[np.concatenate([e.trust > 0 for e in demonstrations])]
        decoder = cls(config, instructions, (labelled.mean(0), labelled.std(0) + 1e-6), centre, spread,
                      space)
        inputs = torch.cat([decoder._inputs(e, size) for e in demonstrations])
        target = torch.from_numpy(((action - centre[task]) / spread[task]).astype(np.float32))
        fold = _folds(demonstrations, config.folds)
        decoder._choose_and_fit(inputs, target, torch.from_numpy(known), torch.from_numpy(fold), velocities)
        return decoder

    def decode(self, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Actions float32 [T, A] and confidence float32 [T] of an episode with latents.

        Confidence is the share of the expected squared error that left-out demonstrations had too: it falls where the
        networks disagree, and where the latent is doubtful. At the end of a clip, where no latent says what the last
        actions led to, the one before is taken for them, and is trusted as it was there: a policy that was shown no
        action there would stop short of the goal (docs/policy.md). Raises ComoError where the latents are missing or
        of another size, or the instruction has no demonstration.
        """
        assert self._networks is not None and self.fitted is not None, "fit makes decoders"
        if (episode.instruction or "") not in self.instructions:
            raise ComoError(f"{episode.source}: instruction {episode.instruction!r} has no labelled demonstration, so "
                            f"its latents cannot be decoded; demonstrated: {', '.join(self.instructions)}")
        inputs = self._inputs(episode, len(self._latent_mean))
        with torch.inference_mode():
            every = self._networks(inputs.expand(len(self._networks), -1, -1)).numpy()
        every = every.reshape(-1, self._config.members, *every.shape[1:])  # [strengths, members, T, A]
        needed = sorted(set(self.fitted.input_noise))
        predicted = np.stack([every[needed.index(noise), ..., i] for i, noise in enumerate(self.fitted.input_noise)],
                             axis=-1) * np.asarray(self.fitted.gain)
        task = self.instructions.index(episode.instruction or "")
        residual = self.fitted.residual
        confidence = self._believed(episode) * residual / (residual + predicted.var(0).mean(-1))
        action = predicted.mean(0) * self._spread[task] + self._centre[task]
        return self._space.decode(action), confidence.astype(np.float32)

    def _believed(self, episode: Episode) -> np.ndarray:
        """How far the latent of each step is believed, [T] in [0, 1]; behind the last one, as that is."""
        if not self._config.doubtful:
            return np.ones(len(episode))
        last = int(require_labels(episode)[-1])
        return np.minimum(1.0, episode.trust[np.minimum(np.arange(len(episode)), last)] / self._config.doubtful)

    def _inputs(self, episode: Episode, size: int) -> Tensor:
        """Standardised latents at each lag and the instruction, float32 [T, lags * D + tasks]."""
        latent = require_latents(episode, size)
        standard = (latent - self._latent_mean) / self._latent_scale
        rows = [nearest_labelled(episode, episode.timestamps + lag) for lag in self._config.lags_s]
        task = np.zeros((len(episode), len(self.instructions)))
        if (episode.instruction or "") in self.instructions:
            task[:, self.instructions.index(episode.instruction or "")] = 1.0
        return torch.from_numpy(np.concatenate([*(standard[r] for r in rows), task], 1).astype(np.float32))

    def _choose_and_fit(self, inputs: Tensor, target: Tensor, known: Tensor, fold: Tensor, velocities: int) -> None:
        config, strengths = self._config, self._config.input_noise
        folds = fold.unique().tolist() if len(fold.unique()) > 1 else []
        # What networks give for the episodes that they did not see: [strengths, N, A]; rest where there is but one.
        unseen = torch.zeros(len(strengths), *target.shape)
        if folds:
            trials = [(row, part) for row in range(len(strengths)) for part in folds]
            used = torch.stack([known & (fold != part) for _, part in trials])
            networks = self._train(inputs, target, used, torch.tensor([strengths[row] for row, _ in trials]))
            with torch.inference_mode():
                every = networks(inputs.expand(len(trials), -1, -1))
            for index, (row, part) in enumerate(trials):
                unseen[row, fold == part] = every[index, fold == part]
        target_known, unseen = target[known], unseen[:, known]
        errors = (unseen - target_known).square().mean(1)  # [strengths, A]
        # Where nothing was left out all errors are alike, and the middle strength serves.
        best = errors.argmin(0) if folds else torch.full((target.shape[1],), len(strengths) // 2)
        values = torch.arange(target.shape[1])
        given = unseen[best, :, values].T  # [N, A]
        gain = torch.ones(target.shape[1])
        if folds:
            gain[velocities:] = _gains(given, target_known)[velocities:]
        variance = target_known.var(0, correction=0).clamp_min(1e-6)
        chosen = [strengths[row] for row in best.tolist()]
        self.fitted = Fit((1 - errors[best, values] / variance).tolist(), chosen, gain.tolist(),
                          dict(zip(strengths, errors.tolist(), strict=True)),
                          float((given * gain - target_known).square().mean()), int(known.sum()))
        noise = torch.tensor(sorted(set(chosen))).repeat_interleave(config.members)
        self._networks = self._train(inputs, target, known.expand(len(noise), -1), noise)

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
        if not all(bool(parameter.isfinite().all()) for parameter in networks.parameters()):
            raise ComoError("the decoder from latents to actions diverged while it was fitted; lower "
                            "cotraining.decoder.learning_rate, weight_decay or input_noise")
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
    labelled = require_labels(episode)
    stamps = episode.timestamps[labelled]
    middles = (stamps[1:] + stamps[:-1]) / 2
    return labelled[np.searchsorted(middles, times_s, side="right")]


def require_labels(episode: Episode) -> np.ndarray:
    """The rows that have a label. Raises ComoError where none has."""
    rows = np.flatnonzero(episode.trust > 0)
    if not len(rows):
        raise ComoError(f"{episode.source}: no label of confidence above 0; look at the confidence's parts in its "
                        "label file (docs/relabel.md)")
    return rows


def _latent_size(demonstrations: Sequence[Episode]) -> int:
    first = demonstrations[0]
    size = 0 if first.latent is None else first.latent.shape[1]
    for episode in demonstrations:
        require_latents(episode, size)
    return size


def _gains(given: Tensor, done: Tensor) -> Tensor:
    """The share of each value [A] that leaves the least squared error, from what was given for unseen episodes and
    what was done there, [N, A]: sum(given * done) / sum(given^2), within 0 and 1.
    """
    return ((given * done).sum(0) / given.square().sum(0).clamp_min(1e-9)).clamp(0.0, 1.0)


def _folds(demonstrations: Sequence[Episode], count: int) -> np.ndarray:
    """The fold of each step, int64 [N]: whole episodes in turn; those of one instruction are in different ones."""
    names = [e.instruction or "" for e in demonstrations]
    order = sorted(range(len(names)), key=names.__getitem__)
    fold = {index: turn % count for turn, index in enumerate(order)}
    return np.concatenate([np.full(len(episode), fold[index]) for index, episode in enumerate(demonstrations)])
