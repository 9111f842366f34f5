"""Loaders of torch as batches that are a function of (seed, epoch), so that a run resumes inside an epoch exactly.

A plain `DataLoader` says what is in a batch (dataset, collate function) and how batches are cut; its random order is
replaced by ours. Everything random inside a dataset is seeded by (seed, epoch, sample), whichever process loads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from stcore.errors import UserError
from stcore.sampling import Indices, derive_seed, in_batches, shuffled


@dataclass(frozen=True, eq=False)
class DatasetBatches:
    """Batches of a map-style dataset; picklable if the dataset is."""

    dataset: Any
    size: int
    shuffle: bool
    drop_last: bool
    collate: Callable[[list[Any]], Any]
    seed: int
    limit: int | None = None
    """Batches of an epoch at most."""

    def order(self, epoch: int) -> list[Indices]:
        count = len(self.dataset)
        chosen = shuffled(count, seed=self.seed, epoch=epoch) if self.shuffle else np.arange(count, dtype=np.int64)
        batches = in_batches(chosen, self.size)
        if self.drop_last and batches and len(batches[-1]) < self.size:
            batches = batches[:-1]
        return batches[: self.limit]

    def load(self, epoch: int, ids: Indices) -> Any:
        with _own_randomness():
            return self.collate([self._sample(epoch, int(i)) for i in ids])

    def names(self, ids: Indices) -> list[str]:
        return [f"sample {i}" for i in ids]

    def _sample(self, epoch: int, index: int) -> Any:
        seed = derive_seed(self.seed, "sample", epoch, index)
        torch.default_generator.manual_seed(seed)  # not the device's: that is the step's own
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  datasets draw from the global generator
        return self.dataset[index]


class PassingBatches:
    """Batches of a loader whose order is not ours to say: one pass an epoch, from the beginning.

    Args:
        loader: anything with a length that can be iterated.
        limit: batches of an epoch at most.
    """

    def __init__(self, loader: Any, limit: int | None = None) -> None:
        self._loader, self._limit = loader, limit
        self._epoch = -1
        self._stream: Iterator[Any] = iter(())

    def order(self, epoch: int) -> list[Indices]:
        try:
            length = len(self._loader)
        except TypeError:
            if self._limit is None:
                raise UserError("train_loader: has no length; expected one, or limit_train_batches") from None
            length = self._limit
        count = length if self._limit is None else min(length, self._limit)
        return [np.array([i]) for i in range(count)]

    def load(self, epoch: int, ids: Indices) -> Any:
        if epoch != self._epoch:
            self._epoch, self._stream = epoch, iter(self._loader)
        try:
            return next(self._stream)
        except StopIteration:
            raise UserError(
                f"train_loader: ended before batch {int(ids[0]) + 1} of epoch {epoch + 1}; expected as many batches "
                "as its length says"
            ) from None

    def names(self, ids: Indices) -> list[str]:
        return [f"batch {i}" for i in ids]


def is_batches(loader: Any) -> bool:
    """Return whether `loader` says itself what its batches are."""
    return all(hasattr(loader, name) for name in ("order", "load", "names"))


def training_batches(loader: Any, *, seed: int, limit: int | None = None) -> Any:
    """Return what the loop needs to know of `loader`: batches in the sense of `stcore.training.feed`."""
    if is_batches(loader):
        return _Limited(loader, limit) if limit else loader
    return _of_dataset(loader, seed, limit) or PassingBatches(loader, limit)


def resumes_exactly(batches: Any) -> bool:
    """Return whether the order of `batches` is known in advance."""
    return not isinstance(batches, PassingBatches)


@dataclass(frozen=True, eq=False)
class _Limited:
    batches: Any
    limit: int

    def order(self, epoch: int) -> Sequence[Indices]:
        return self.batches.order(epoch)[: self.limit]

    def load(self, epoch: int, ids: Indices) -> Any:
        return self.batches.load(epoch, ids)

    def names(self, ids: Indices) -> list[str]:
        return self.batches.names(ids)


def passes(loader: Any, *, limit: int | None = None) -> Iterator[Any]:
    """Yield the batches of one pass over `loader`, whatever it is."""
    if is_batches(loader):
        stream: Iterator[Any] = (loader.load(0, ids) for ids in loader.order(0))
    else:
        stream = iter(loader)
    for number, batch in enumerate(stream):
        if limit is not None and number >= limit:
            return
        yield batch


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Return inputs and labels of a batch; labels are None where there are none."""
    if isinstance(batch, (tuple, list)):
        parts = cast("Sequence[Any]", batch)
        if len(parts) == 2:
            return parts[0], parts[1]
        if len(parts) == 1:
            return parts[0], None
        raise UserError(f"batch: {len(parts)} parts; expected inputs and labels, or inputs alone")
    return batch, None


def size_of(inputs: Any) -> int:
    """Return the number of samples in `inputs`: the length of its first tensor."""
    found = _first_tensor(inputs)
    return len(found) if found is not None and found.ndim else 1


def _first_tensor(node: Any) -> Tensor | None:
    if isinstance(node, Tensor):
        return node
    values = list(node.values()) if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else []
    found = (_first_tensor(value) for value in cast("list[Any]", values))
    return next((tensor for tensor in found if tensor is not None), None)


def _of_dataset(loader: Any, seed: int, limit: int | None) -> DatasetBatches | None:
    """Return our form of a `DataLoader` that cuts a random or a sequential order into batches; None for any other."""
    plain = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if not plain or type(loader.batch_sampler) is not BatchSampler or loader.batch_size is None:
        return None
    sampler = cast("Any", loader.sampler)
    whole = (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(cast("Any", loader.dataset))
    )
    if not whole and type(sampler) is not SequentialSampler:
        return None
    collate = cast("Any", loader.collate_fn)
    return DatasetBatches(loader.dataset, loader.batch_size, whole, loader.drop_last, collate, seed, limit)


@contextmanager
def _own_randomness() -> Generator[None]:
    """Leave the global generators as they were: loading a batch must not change what the step draws."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])  # noqa: NPY002
