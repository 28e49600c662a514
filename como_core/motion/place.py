"""Where a motion happens, and a z that says it: what a picture makes of a motion depends on where it is seen.

    z = in_place(code, grid_a, grid_b)       # [B, 4 d] of code [B, d]

A camera shows the same motion of a hand otherwise near and far, left and right. So motions that are alike in the world
are alike in the picture only at one place; beside the code stand its products with the place, and what is linear in
the motion at every place is linear in these. The place is measured, not learned: centre and spread of what changes. It
is the same for both directions, so that swapped frames have -z where they have minus the code.
"""

from __future__ import annotations

import torch

BLOCKS = 4  # the code itself, and its products with x, y and spread

# Centres lie within a third of the picture's half from the middle, most of them; spreads around 0.4 of that half.
_UNIT, _USUAL_SPREAD, _SPREAD_UNIT = 1 / 3, 0.4, 0.15


def in_place(code: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The code [B, d] and its products with the place of the motion between two feature grids [B, C, h, w]: [B, 4 d].
    """
    return torch.cat([code, *(code * number[:, None] for number in place(first, second).unbind(dim=1))], dim=1)


@torch.no_grad()
def place(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """x and y of the centre of what changes between two grids [B, C, h, w], and its spread, of about unit size: [B, 3].

    Where nothing changes it is the middle of the picture, of usual spread. Float32 also under autocast: a spread is a
    small difference of large numbers.
    """
    change = (second.float() - first.float()).square().sum(dim=1)  # [B, h, w]
    share = change / change.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    rows, columns = ((2 * torch.arange(n, device=share.device) + 1) / n - 1 for n in share.shape[1:])
    by_row, by_column = share.sum(dim=2), share.sum(dim=1)
    with torch.autocast(share.device.type, enabled=False):
        y, x = by_row @ rows, by_column @ columns
        square = by_row @ rows.square() + by_column @ columns.square()
    spread = (square - y.square() - x.square()).clamp_min(0).sqrt()
    known = share.sum(dim=(1, 2)) > 0.5
    spread = torch.where(known, (spread - _USUAL_SPREAD) / _SPREAD_UNIT, 0.0)
    return torch.stack([x / _UNIT, y / _UNIT, spread], dim=1)
