"""Batches as a function of (seed, epoch): what is asked for is what an uninterrupted run would have had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from stcore.sampling import Indices, share_of_rank


class Batches(Protocol):
    """What a package tells the loop about its batches; picklable, since worker processes may prepare them."""

    def order(self, epoch: int) -> Sequence[Indices]:
        """Return the samples of every batch of `epoch`, before ranks take their share."""
        ...

    def load(self, epoch: int, ids: Indices) -> Any:
        """Return the batch of the samples `ids`: tensors, or a tuple or mapping of them."""
        ...

    def names(self, ids: Indices) -> list[str]:
        """Return what a user calls the samples `ids`."""
        ...


class Fed(NamedTuple):
    """One batch as it reaches a process."""

    ids: Indices
    """The samples of the whole batch."""
    mine: Indices
    """The samples that this process works on."""
    idle: bool
    """True where there were more processes than samples: `mine` is borrowed and must count nothing."""
    batch: Any


class Feed:
    """The batches of a run, from a given place on; `workers` processes prepare them ahead."""

    def __init__(
        self, batches: Batches, *, epochs: int, workers: int, epoch: int, batch: int, rank: int, ranks: int
    ) -> None:
        self._batches = batches
        self._orders: dict[int, Sequence[Indices]] = {}
        keys = self._keys(epochs, epoch, batch, rank, ranks)
        self._stream: Iterator[Fed] = _prepared(batches, keys, workers) if workers else map(_Loader(batches), keys)

    def length(self, epoch: int) -> int:
        """Return the number of batches of `epoch`."""
        return len(self._order(epoch))

    def __next__(self) -> Fed:
        return next(self._stream)

    def close(self) -> None:
        """Stop the processes that prepare batches."""
        self._stream = iter(())

    def _order(self, epoch: int) -> Sequence[Indices]:
        if epoch not in self._orders:
            # Workers run ahead by a batch or two, so two epochs can be in use at once.
            self._orders = {key: order for key, order in self._orders.items() if key >= epoch - 1}
            self._orders[epoch] = self._batches.order(epoch)
        return self._orders[epoch]

    def _keys(self, epochs: int, first: int, batch: int, rank: int, ranks: int) -> Iterator[_Key]:
        for epoch in range(first, epochs):
            for ids in list(self._order(epoch))[batch if epoch == first else 0 :]:
                mine = share_of_rank(ids, rank=rank, ranks=ranks)
                yield _Key(epoch, ids, mine if len(mine) else ids[:1], not len(mine))


class _Key(NamedTuple):
    epoch: int
    ids: Indices
    mine: Indices
    idle: bool


class _Loader:
    """A dataset whose keys say everything; for `map` here and for torch's loader in worker processes."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __call__(self, key: _Key) -> Fed:
        return Fed(key.ids, key.mine, key.idle, self._batches.load(key.epoch, key.mine))

    __getitem__ = __call__


def _prepared(batches: Batches, keys: Iterator[_Key], workers: int) -> Iterator[Fed]:
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _Loader(batches),  # pyright: ignore[reportArgumentType]  keys are not integers
        batch_size=None,
        sampler=keys,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_unchanged,  # pyright: ignore[reportArgumentType]  torch expects lists
        multiprocessing_context="spawn",  # a fork after threads have started can deadlock
    )
    return iter(loader)


def _unchanged(fed: Fed) -> Fed:
    return fed
