"""Batches of windows over frames, for the training loop and for sums over a held-back part.

A batch is a pair: history and future, on the scale of the model. Where cells are missing a third part says where both
hold data; the cells themselves are 0 then, which no loss may count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.sampling import Indices, in_batches, share_of_rank, shuffled
from stcore.training.ranks import sum_over_ranks
from stcore.windows import Windows

Pair = tuple[Tensor, Tensor]
"""History and future of a batch, each (batch, time, channel, height, width)."""
FrameBatch = Pair | tuple[Tensor, Tensor, Tensor]
"""A pair, or with cells that are missing a third tensor of bool, history and future one after the other."""


class Samples(Protocol):
    """Windows by number; `epoch` matters only where every epoch has new ones."""

    def __len__(self) -> int: ...
    def load(self, epoch: int, ids: Indices) -> tuple[ndarray, ndarray]: ...
    def names(self, ids: Indices) -> list[str]: ...


@dataclass(frozen=True, eq=False)
class WindowSamples:
    """Windows over frames that were read."""

    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    def load(self, epoch: int, ids: Indices) -> tuple[ndarray, ndarray]:
        return self.windows.load(ids)

    def names(self, ids: Indices) -> list[str]:
        return self.windows.names(ids)


@dataclass(frozen=True, eq=False)
class FrameBatches:
    """Batches of windows; their order follows from seed and epoch."""

    samples: Any
    """`Samples`."""
    scaling: Scaling
    size: int
    seed: int
    shuffle: bool = True
    drop_last: bool = False
    """Leave out a last batch that is not full, unless it is the only one."""

    def __len__(self) -> int:
        return len(self.order(0))

    def order(self, epoch: int) -> list[Indices]:
        """Return the samples of every batch of an epoch."""
        count = len(self.samples)
        chosen = shuffled(count, seed=self.seed, epoch=epoch) if self.shuffle else np.arange(count, dtype=np.int64)
        found = in_batches(chosen, self.size)
        return found[:-1] if self.drop_last and len(found) > 1 and len(found[-1]) < self.size else found

    def load(self, epoch: int, ids: Indices) -> FrameBatch:
        """Return history, future and, where cells are missing, where both hold data."""
        history, future = (torch.from_numpy(np.ascontiguousarray(part)) for part in self.samples.load(epoch, ids))
        pair = self.scaling.transform(history), self.scaling.transform(future)
        missing = torch.cat([history.isnan(), future.isnan()], dim=1)
        return (*pair, ~missing) if bool(missing.any()) else pair

    def names(self, ids: Indices) -> list[str]:
        """Return what a user calls the samples `ids`."""
        return self.samples.names(ids)

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs of the first epoch, as a loader would."""
        for ids in self.order(0):
            history, future, *_ = self.load(0, ids)
            yield history, future


def require_same_frames(shapes: Mapping[str, tuple[int, int, int]], channels: int) -> None:
    """Refuse parts whose frames differ in size, or in channels from what a scaling knows.

    Args:
        shapes: channels, rows and columns of the frames of each part, the training part first.
        channels: of the scaling.

    Raises:
        UserError: names the part.
    """
    (first, wanted), *others = shapes.items()
    for name, shape in others:
        if shape != wanted:
            raise UserError(f"{name} part: frames {_words(shape)}; expected {_words(wanted)} as in {first}")
    if channels != wanted[0]:
        raise UserError(f"{first} part: {wanted[0]} channels; expected {channels}, as in the run to start from")


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def split_valid(
    batch: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Bool[Tensor, "batch frame channel height width"] | None]:
    """Return history, future, and where both hold data; None for everywhere."""
    history, future, *rest = batch
    return history, future, rest[0] if rest else None


def future_error(
    forecast: Float[Tensor, "batch horizon channel height width"],
    future: Float[Tensor, "batch horizon channel height width"],
    valid: Bool[Tensor, "batch frame channel height width"] | None,
) -> Float[Tensor, "batch horizon channel height width"]:
    """Return forecast minus future; 0 where the future holds no data."""
    error = forecast - future
    return error if valid is None else error.where(valid[:, -future.shape[1] :], 0.0)


def sum_over_batches(
    measure: Callable[[Tensor, Tensor, Tensor | None], Mapping[str, Tensor | float]],
    batches: FrameBatches,
    model: nn.Module,
    *,
    names: Sequence[str],
    rank: int,
    ranks: int,
) -> dict[str, float]:
    """Add up what `measure` finds in each batch, over batches and processes, without gradients.

    Args:
        measure: from history, future and validity, on the model's device, to the sums of `names`.
        batches: the windows; every process takes its share of each batch.
        model: says where to compute.
        names: of the sums.
        rank: this process.
        ranks: how many there are.
    """
    device = next(model.parameters()).device
    sums: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
    for ids in batches.order(0):
        mine = share_of_rank(ids, rank=rank, ranks=ranks)
        if not len(mine):
            continue
        with torch.inference_mode():
            history, future, valid = split_valid([part.to(device) for part in batches.load(0, mine)])
            for name, value in measure(history, future, valid).items():
                sums[name] += value
    return sum_over_ranks(sums, ranks=ranks, device=device)
