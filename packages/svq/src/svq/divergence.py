"""TAU's second loss: how differently forecast and truth change from frame to frame."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-12


def differential_divergence(
    prediction: Float[Tensor, "batch horizon channel height width"],
    truth: Float[Tensor, "batch horizon channel height width"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence between the distributions of change over the cells of a frame.

    Args:
        prediction: forecast frames.
        truth: what came.
        temperature: of the softmax that turns differences of successive frames into distributions.

    Returns:
        Its mean over all cells; 0 for one or two frames, as in the original.

    Source: TAU (Tan et al., CVPR 2023, section 3.3), OpenSTL (Apache-2.0), `openstl/methods/tau.py::diff_div_reg`.
    """
    if prediction.shape[1] <= 2:
        return prediction.new_zeros(())
    p, q = _changes(prediction, temperature), _changes(truth, temperature)
    return (p * torch.log(p / (q + EPSILON) + EPSILON)).mean()


def _changes(
    frames: Float[Tensor, "batch horizon channel height width"], temperature: float
) -> Float[Tensor, "batch changes cells"]:
    changes = rearrange(
        frames.diff(dim=1), "batch horizon channel height width -> batch horizon (channel height width)"
    )
    return torch.softmax(changes / temperature, dim=-1)
