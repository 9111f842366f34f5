"""Where training starts from, of models that add to shares or to a linear map of the last known frames: from those that
fit the training samples best.

What lasts of a frame is the data's own, not the model's: weights that other data have taught start from it as fresh
ones do, and of several data sets it is that of the target where something of it is trained on. But a few days say
little of it; where other data are alike, what they have taught may count as if it came from some samples more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

from stcore.training.checkpoint import Checkpoint
from vlm4st.config import LossConfig
from vlm4st.data import Mixture, Source

if TYPE_CHECKING:
    from vlm4st.models.vlm4st import VLM4ST  # brings timm and transformers, which a look at the data need not wait for

FITTED, RIDGE = 512, 1e-4
"""Samples that a start is fitted on, and its ridge as a share of the mean square."""
REWEIGHTED, SMALL_ERROR = 10, 0.05
"""Rounds of fitting where absolute errors count, and the share of the mean error below which these are squared."""


def fitted_on(sources: Sequence[Source]) -> list[Source]:
    """Return the data sets that a start is fitted to, of those that are trained on."""
    used = _trained(sources)
    return [source for source in used if source.evaluated] or used


def taught_by_others(start: Checkpoint, sources: Sequence[Source]) -> bool:
    """Return whether a checkpoint was trained on other data sets than these."""
    before = [source["name"] for source in start.metadata["sources"] if source["trained"]]
    return before != [source.name for source in _trained(sources)]


def _trained(sources: Sequence[Source]) -> list[Source]:
    return [source for source in sources if len(source.training)]


def start_fitted(model: VLM4ST, batches: Mixture, loss: LossConfig, *, taught: int = 0) -> None:
    """Let a model that adds to shares or to a linear map of the history start from those that fit training samples
    best.

    Ridge regression over cells that count, of the batches of the first epoch up to `FITTED` samples; where absolute
    errors are in the loss, weighted anew a few times with what makes their squares such a loss (iteratively reweighted
    least squares).

    Args:
        model: its shares or its map are set, where it has them.
        batches: of what it is fitted to (`fitted_on`).
        loss: what is minimised.
        taught: samples that the start which the model has counts for, in the mean of both.
    """
    head = model.prediction_head
    if not head.fits:
        return
    x, y = _pairs(batches, lags=head.fits)
    if not x.shape[1]:
        return
    found = _ridge(x, y)
    for _ in range(REWEIGHTED if loss.mae_weight else 0):
        error = (y - torch.einsum("ln,lt->tn", x, found)).abs()
        least = SMALL_ERROR * error.mean(dim=1, keepdim=True).clamp_min(1e-12)
        root = (loss.mse_weight + 0.5 * loss.mae_weight / error.clamp_min(least)).sqrt()
        each = [_ridge(x * weight, lead * weight) for weight, lead in zip(root, y[:, None], strict=True)]
        found = torch.cat(each, dim=1)
    found = found.mT
    if taught:
        samples = sum(len(ids) for ids in batches.order(0))
        found = (samples * found + taught * head.started().to(found)) / (samples + taught)
    head.start_from(found)


def _pairs(batches: Mixture, *, lags: int) -> tuple[Float64[Tensor, "lag cell"], Float64[Tensor, "lead cell"]]:
    """Return the last frames of histories and the futures of cells whose whole future counts."""
    histories: list[Tensor] = []
    futures: list[Tensor] = []
    seen = 0
    for ids in batches.order(0):
        batch = batches.load(0, ids)
        x, y = (batch[name].movedim(1, 0).flatten(1) for name in ("x", "target"))
        mask = batch.get("mask")
        whole = slice(None) if mask is None else mask.expand_as(batch["target"]).all(dim=1).flatten()
        histories.append(x[-lags:, whole])
        futures.append(y[:, whole])
        seen += len(ids)
        if seen >= FITTED:
            break
    return torch.cat(histories, dim=1).double(), torch.cat(futures, dim=1).double()


def _ridge(x: Tensor, y: Tensor) -> Float64[Tensor, "lag lead"]:
    """Return the linear map from lags to leads."""
    inside, across = x @ x.mT, x @ y.mT
    scale = RIDGE * inside.diagonal().mean().clamp_min(1e-12)
    return torch.linalg.solve(inside + scale * torch.eye(len(x)).double(), across)
