"""The trunk that both families share: residual blocks over the steps of a chunk, conditioned by the observation.

Adaptive layer norm (DiT, arXiv 2212.09748): the condition shifts, scales and gates each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from como_core.bounds import COUNT, require_bounds

Cache = list[tuple[Tensor, Tensor]]  # keys and values [B, heads, steps so far, width / heads] of each block


@dataclass(frozen=True)
class NetworkConfig:
    """kind   `transformer`: attention between the steps of the chunk; `mlp`: the chunk as one vector, which at a dozen
              steps of a handful of values is several times as fast on a CPU (diffusion only)
    width  of a token, or of the chunk's vector;  depth  residual blocks;  heads  of the attention
    """

    kind: Literal["transformer", "mlp"] = "transformer"
    width: int = 128
    depth: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        require_bounds(self, width=COUNT, depth=COUNT, heads=COUNT)
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads = {self.heads}, got {self.width}")


class Transformer(nn.Module):
    """tokens [B, T, width], condition [B, C] -> [B, T, width]; causal where asked, then with a cache step by step."""

    def __init__(self, config: NetworkConfig, tokens: int, condition_width: int, causal: bool = False) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(tokens, config.width) * 0.02)
        self.blocks = nn.ModuleList(_AttentionBlock(config, condition_width, causal) for _ in range(config.depth))

    def forward(self, tokens: Tensor, condition: Tensor, cache: Cache | None = None) -> Tensor:
        """With a `cache` the tokens are those after the cached ones, one at a time; the cache grows in place."""
        start = cache[0][0].shape[2] if cache else 0
        x = tokens + self.places[start:start + tokens.shape[1]]
        kept: Cache = []
        for i, block in enumerate(self.blocks):
            x, seen = block(x, condition, cache[i] if cache else None)
            kept.append(seen)
        if cache is not None:
            cache[:] = kept
        return F.layer_norm(x, x.shape[-1:])


class Mlp(nn.Module):
    """The chunk as one vector [B, width], condition [B, C] -> [B, width]."""

    def __init__(self, config: NetworkConfig, condition_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_DenseBlock(config.width, condition_width) for _ in range(config.depth))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return F.layer_norm(x, x.shape[-1:])


class _AttentionBlock(nn.Module):
    """Self-attention and an MLP, each shifted, scaled and gated by the condition."""

    def __init__(self, config: NetworkConfig, condition_width: int, causal: bool) -> None:
        super().__init__()
        width = config.width
        self.heads, self.causal = config.heads, causal
        self.modulate = nn.Linear(condition_width, 6 * width)
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, condition: Tensor, past: tuple[Tensor, Tensor] | None
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulate(condition)[:, None].chunk(6, -1)
        mixed = self.into(F.layer_norm(x, x.shape[-1:]) * (1 + scale_a) + shift_a)
        query, key, value = mixed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        # One new token may see all that is cached; several together may not see what comes after each.
        masked = self.causal and query.shape[2] > 1
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=masked)
        x = x + gate_a * self.out(seen.transpose(1, 2).flatten(2))
        x = x + gate_m * self.mlp(F.layer_norm(x, x.shape[-1:]) * (1 + scale_m) + shift_m)
        return x, (key, value)


class _DenseBlock(nn.Module):
    """Two layers, shifted, scaled and gated by the condition."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(condition_width, 3 * width)
        self.into = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(condition).chunk(3, -1)
        hidden = F.silu(self.into(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift))
        return x + gate * self.out(hidden)
