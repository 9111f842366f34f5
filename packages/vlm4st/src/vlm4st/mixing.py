"""Batches of several data sets, for the training loop, and batches of one part of one of them, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from stcore.sampling import Indices, in_batches, random_stream, shuffled
from vlm4st.space import Space
from vlm4st.timestamps import slots_of
from vlm4st.windows import WindowSet

Batch = dict[str, Tensor]
"""`x` (sample, time, height, width) and `target` (sample, horizon, height, width) on the model's scale and grid;
`timestamps` (sample, time, 2) of `x`, unless models see none; `mask` like the target, True where cells count, unless
they all do; `dataset` and `channel` (sample,)."""
Mixing = Literal["concat", "temperature", "balanced", "homogeneous"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Some samples of one part of a data set."""

    windows: WindowSet
    space: Space
    history: int
    timed: bool
    """Whether timestamps go along."""
    ids: Indices
    """The samples; others of the part are not used."""
    name: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, places: Indices, *, dataset: int = 0) -> Batch:
        """Return the samples at `places` of `ids`."""
        ids = self.ids[places]
        channel = torch.from_numpy(ids % self.windows.channels)
        frames = torch.from_numpy(np.ascontiguousarray(self.windows.load(ids)))
        clock = self.windows.clock(ids)
        scaled, valid = self.space.to_model(frames, channel, clock)
        batch = {"x": scaled[:, : self.history], "target": scaled[:, self.history :], "channel": channel,
                 "dataset": torch.full((len(ids),), dataset)}  # fmt: skip
        if valid is not None:
            batch["mask"] = valid[:, self.history :]
        if self.timed and clock is not None:
            batch["timestamps"] = torch.from_numpy(slots_of(clock[:, : self.history]))
        return batch

    def names(self, places: Indices) -> list[str]:
        """Return what a user calls the samples at `places`."""
        names = self.windows.names(self.ids[places])
        return [f"{self.name}: {name}" for name in names] if self.name else names


@dataclass(frozen=True, eq=False, kw_only=True)
class Mixture:
    """The training samples of several data sets; their order follows from seed and epoch.

    `concat` shuffles all of them; `temperature` draws the data set of every sample by a power of its size, and
    `balanced` all alike, each data set being gone through in shuffled order, again where it is used up; under
    `homogeneous` every batch comes from one data set. An epoch always has as many samples as there are.
    """

    parts: Sequence[Samples]
    size: int
    seed: int
    mixing: Mixing = "concat"
    temperature: float = 0.5

    @cached_property
    def starts(self) -> Int64[ndarray, "part"]:
        """Number of the first sample of each data set, all of them being counted through."""
        return np.cumsum([0, *(len(part) for part in self.parts)], dtype=np.int64)[:-1]

    def __len__(self) -> int:
        return len(self.order(0))

    def order(self, epoch: int) -> list[Indices]:
        """Return the samples of every batch of an epoch."""
        total = sum(len(part) for part in self.parts)
        if self.mixing == "homogeneous":
            return self._homogeneous(epoch)
        if self.mixing == "concat":
            return in_batches(shuffled(total, seed=self.seed, epoch=epoch), self.size)
        return in_batches(self._drawn(epoch, total), self.size)

    def _homogeneous(self, epoch: int) -> list[Indices]:
        found = [
            batch for number in range(len(self.parts)) for batch in in_batches(self._own(number, epoch), self.size)
        ]
        order = random_stream(self.seed, "batches", epoch).permutation(len(found))
        return [found[at] for at in order]

    def _drawn(self, epoch: int, total: int) -> Indices:
        sizes = np.array([len(part) for part in self.parts], dtype=np.float64)
        power = 0.0 if self.mixing == "balanced" else self.temperature
        weights = np.where(sizes > 0.0, np.maximum(sizes, 1.0) ** power, 0.0)
        stream = random_stream(self.seed, "data sets", epoch)
        which = stream.choice(len(self.parts), size=total, p=weights / weights.sum())
        out = np.empty(total, dtype=np.int64)
        for number in range(len(self.parts)):
            mine = np.flatnonzero(which == number)
            rounds = -(-len(mine) // max(1, len(self.parts[number])))
            each = [self._own(number, epoch, again) for again in range(rounds)]
            out[mine] = np.concatenate([np.zeros(0, np.int64), *each])[: len(mine)]
        return out

    def _own(self, number: int, epoch: int, again: int = 0) -> Indices:
        """Return the samples of one data set, shuffled."""
        stream = random_stream(self.seed, "order", number, epoch, again)
        return self.starts[number] + stream.permutation(len(self.parts[number])).astype(np.int64)

    def load(self, epoch: int, ids: Indices) -> Batch:
        """Return the batch of the samples `ids`."""
        which = np.searchsorted(self.starts, ids, side="right") - 1
        pieces: list[Batch] = []
        places: list[Indices] = []
        for number in np.unique(which):
            mine = np.flatnonzero(which == number)
            pieces.append(self.parts[number].load(ids[mine] - self.starts[number], dataset=int(number)))
            places.append(mine)
        if any("mask" in piece for piece in pieces):  # one data set with cells that do not count makes all say so
            for piece in pieces:
                piece.setdefault("mask", torch.ones(piece["target"].shape, dtype=torch.bool))
        back = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return {key: torch.cat([piece[key] for piece in pieces])[back] for key in pieces[0]}

    def names(self, ids: Indices) -> list[str]:
        """Return what a user calls the samples `ids`."""
        which = np.searchsorted(self.starts, ids, side="right") - 1
        return [self.parts[number].names(np.array([at - self.starts[number]]))[0]
                for number, at in zip(which, ids, strict=True)]  # fmt: skip


@dataclass(frozen=True, eq=False)
class PartBatches:
    """The samples of one part of a data set, in order."""

    samples: Samples
    size: int

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def order(self, epoch: int = 0) -> list[Indices]:
        """Return the samples of every batch; the epoch makes no difference."""
        return in_batches(np.arange(len(self.samples), dtype=np.int64), self.size)

    def load(self, epoch: int, ids: Indices) -> Batch:
        """Return a batch; the epoch makes no difference."""
        return self.samples.load(ids)

    def channel(self, ids: Indices) -> Int64[Tensor, "sample"]:
        """Return the channel of each of the samples `ids`."""
        return torch.from_numpy(self.samples.ids[ids] % self.samples.windows.channels)

    def native(self, ids: Indices) -> Float32[Tensor, "sample frame row column"]:
        """Return history and future in units and on the grid of the data; NaN where there are none."""
        return torch.from_numpy(np.ascontiguousarray(self.samples.windows.load(self.samples.ids[ids])))

    def finer(self, ids: Indices, space: Space) -> Float32[Tensor, "sample time row column"] | None:
        """Return what the model's grid cannot hold of the known frames, see `Space.finer`."""
        known, clock = slice(self.samples.history), self.clock(ids)
        return space.finer(self.native(ids)[:, known], self.channel(ids), None if clock is None else clock[:, known])

    def ahead(self, ids: Indices) -> Int64[ndarray, "sample horizon 2"] | None:
        """Return the clock of every frame of the future, where it is known."""
        clock = self.clock(ids)
        return None if clock is None else clock[:, self.samples.history :]

    def truth(self, ids: Indices) -> Float32[Tensor, "sample horizon row column"]:
        """Return the future in units and on the grid of the data."""
        return self.native(ids)[:, self.samples.history :]

    def clock(self, ids: Indices) -> Int64[ndarray, "sample frame 2"] | None:
        """Return weekday and second of the day of every frame, where they are known."""
        return self.samples.windows.clock(self.samples.ids[ids])

    def names(self, ids: Indices) -> list[str]:
        """Return what a user calls the samples `ids`."""
        return self.samples.names(ids)
