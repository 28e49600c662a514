"""The autoregressive family: a causal transformer predicts the chunk step by step, in continuous values.

A step is predicted from the observation and the steps before it. In training these are the true ones, noised and in
part unseen; at run time they are its own predictions, with keys and values of earlier steps cached.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from como_core.policy.config import PolicyConfig
from como_core.policy.losses import shared_error
from como_core.policy.network import Cache, Transformer


class AutoregressiveHead(nn.Module):
    """Step k of a chunk from the steps before it, and what co-training asks of the same network.

    none, decoded  actions
    heads          an action and a latent per step, by light layers of their own from one hidden state; each step sees
                   the action and the latent before it
    joint          first the latent of a step, then its action, which sees that latent (CoMo's setting on CALVIN)
    """

    def __init__(self, config: PolicyConfig, action_size: int, latent_size: int) -> None:
        super().__init__()
        width, context = config.network.width, config.observation.width
        self._steps, self._mode = config.chunk_steps, config.cotraining.mode
        self._noise, self._dropout = config.autoregressive.input_noise, config.autoregressive.input_dropout
        self._latent_weight = config.cotraining.weight_of_latents
        self.begin = nn.Linear(context, width)
        self.trunk = Transformer(config.network, config.chunk_steps * (2 if self._mode == "joint" else 1), context,
                                 causal=True)
        self.action_into, self.action_out = nn.Linear(action_size, width), nn.Linear(width, action_size)
        self.action_unseen = nn.Parameter(torch.zeros(width))
        self.latent_into: nn.Linear | None = None
        if self._mode in ("heads", "joint"):
            self.latent_into, self.latent_out = nn.Linear(latent_size, width), nn.Linear(width, latent_size)
            self.latent_unseen = nn.Parameter(torch.zeros(width))

    def loss(self, context: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Squared error of each step, given those before it: "loss", and its parts where there are two."""
        weight = batch["action_weight"]
        seen = self._seen(self.action_into, self.action_unseen, batch["action"], weight)
        if self.latent_into is None:
            tokens = torch.cat((self.begin(context)[:, None], seen[:, :-1]), 1)
            return {"loss": shared_error(self.action_out(self._run(tokens, context)), batch["action"], weight)}
        of_latent = batch["latent_weight"]
        motion = self._seen(self.latent_into, self.latent_unseen, batch["latent"], of_latent)
        if self._mode == "heads":
            tokens = torch.cat((self.begin(context)[:, None], (seen + motion)[:, :-1]), 1)
            for_action = for_latent = self._run(tokens, context)
        else:
            pairs = torch.stack((motion, seen), 2).flatten(1, 2)  # latent, action, latent, action ...
            hidden = self._run(torch.cat((self.begin(context)[:, None], pairs[:, :-1]), 1), context)
            for_latent, for_action = hidden[:, 0::2], hidden[:, 1::2]
        terms = {"action": shared_error(self.action_out(for_action), batch["action"], weight),
                 "latent": shared_error(self.latent_out(for_latent), batch["latent"], of_latent)}
        return {"loss": terms["action"] + self._latent_weight * terms["latent"], **terms}

    def sample(self, context: Tensor, prefix: Tensor | None) -> Tensor:
        """Chunks [B, K, A]; the steps of `prefix` [B, P, A] are taken as they are, and continued."""
        cache: Cache = []
        token, actions = self.begin(context), []
        for step in range(self._steps):
            hidden = self._next(token, context, cache)
            if self._mode == "joint":
                latent = self.latent_out(hidden)
                hidden = self._next(self.latent_into(latent), context, cache)  # type: ignore[misc]
            given = prefix is not None and step < prefix.shape[1]
            action = prefix[:, step] if given else self.action_out(hidden)  # type: ignore[index]
            token = self.action_into(action)
            if self._mode == "heads":
                token = token + self.latent_into(self.latent_out(hidden))  # type: ignore[misc]
            actions.append(action)
        return torch.stack(actions, 1).float()

    def _run(self, tokens: Tensor, context: Tensor) -> Tensor:
        return self.trunk(tokens, F.silu(context))

    def _next(self, token: Tensor, context: Tensor, cache: Cache) -> Tensor:
        return self.trunk(token[:, None], F.silu(context), cache)[:, 0]

    def _seen(self, into: nn.Linear, unseen: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """Tokens [B, K, width] of true steps as training shows them: noised, and `unseen` where unknown or dropped."""
        if self.training:
            values = values + self._noise * torch.randn_like(values)
        shown = weight > 0
        if self.training and self._dropout:
            shown = shown & (torch.rand(weight.shape, device=weight.device) >= self._dropout)
        tokens = into(values)
        return torch.where(shown[..., None], tokens, unseen.to(tokens.dtype))
