"""Order and randomness as pure functions of seed and position, so that a run can start at any step.

Nothing here has state: a resumed run asks for epoch 7, batch 12 and gets what an uninterrupted run got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def derive_seed(seed: int, *path: int | str) -> int:
    """Derive an independent 63-bit seed for the stream named by `path`, the same in every process.

    >>> derive_seed(1, "order", 0) == derive_seed(1, "order", 0) != derive_seed(1, "noise", 0)
    True
    """
    text = "/".join(map(repr, (seed, *path))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def random_stream(seed: int, *path: int | str) -> np.random.Generator:
    """Return numpy's counter-based generator for the stream named by `path`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *path)))


def shuffled(count: int, *, seed: int, epoch: int) -> Indices:
    """Return the order of `count` samples in `epoch`."""
    return random_stream(seed, "order", epoch).permutation(count).astype(np.int64)


def in_batches(order: Indices, size: int) -> list[Indices]:
    """Cut `order` into batches of `size`; the last may be smaller."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def length_batches(
    lengths: Sequence[int] | NDArray[np.int64], *, seed: int, epoch: int, max_samples: int, max_tokens: int
) -> list[Indices]:
    """Cut samples of unequal length into batches of like lengths, in random order.

    Samples are shuffled, sorted by length within windows of eight batches, cut so that neither `max_samples` nor
    `max_tokens` (longest length times samples; 0 lifts it) is exceeded, and the batches shuffled. A sample that is
    longer than `max_tokens` makes a batch of its own.

    >>> [sorted(b.tolist()) for b in length_batches([9, 1, 9, 1], seed=0, epoch=0, max_samples=2, max_tokens=0)][0] in (
    ...     [0, 2], [1, 3])
    True
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = shuffled(len(sizes), seed=seed, epoch=epoch)
    window = 8 * max_samples
    batches: list[Indices] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(sizes[part], kind="stable")]
        batches += _cut(part, sizes, max_samples, max_tokens)
    shuffle = random_stream(seed, "batches", epoch).permutation(len(batches))
    return [batches[i] for i in shuffle]


def sorted_batches(lengths: Sequence[int] | NDArray[np.int64], *, max_samples: int, max_tokens: int) -> list[Indices]:
    """Cut all samples, longest together, into batches within the limits of `length_batches`; no randomness."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return _cut(np.argsort(sizes, kind="stable").astype(np.int64), sizes, max_samples, max_tokens)


def _cut(ascending: Indices, sizes: NDArray[np.int64], max_samples: int, max_tokens: int) -> list[Indices]:
    batches: list[Indices] = []
    start = 0
    for stop in range(1, len(ascending) + 1):
        full = stop == len(ascending) or stop - start == max_samples
        # Ascending lengths: the next sample would set the padded length of the batch.
        over = not full and 0 < max_tokens < int(sizes[ascending[stop]]) * (stop - start + 1)
        if full or over:
            batches.append(ascending[start:stop])
            start = stop
    return batches


def share_of_rank(batch: Indices, *, rank: int, ranks: int) -> Indices:
    """Return the part of a global batch that one of `ranks` processes works on; parts differ by one sample at most."""
    return np.array_split(batch, ranks)[rank]
