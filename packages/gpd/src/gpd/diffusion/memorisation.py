"""How close generated rows come to rows that the diffusion model was trained on."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest_rows(
    rows: Float[Tensor, "row number"], known: Float[Tensor, "known number"], *, batch: int = 256
) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
    """Return the distance of each row to the nearest known one, and which that is.

    Args:
        rows: generated ones.
        known: training rows.
        batch: known rows that are compared with at once.

    >>> nearest_rows(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
    (tensor([5.]), tensor([0]))
    """
    best = torch.full((len(rows),), torch.inf)
    index = torch.zeros(len(rows), dtype=torch.int64)
    for start in range(0, len(known), batch):
        # Differences, not products: rows are much closer to each other than to nought.
        found = torch.cdist(rows, known[start : start + batch], compute_mode="donot_use_mm_for_euclid_dist")
        distance, place = found.min(dim=1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        index = torch.where(closer, place + start, index)
    return best, index
