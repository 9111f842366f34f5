"""Orders and batches: every sample once, limits held, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.sampling import (
    derive_seed,
    in_batches,
    length_batches,
    random_stream,
    share_of_rank,
    shuffled,
    sorted_batches,
)

_LENGTHS = st.lists(st.integers(0, 60), max_size=80)


@settings(max_examples=80, deadline=None)
@given(
    lengths=_LENGTHS, seed=st.integers(), epoch=st.integers(0, 50), samples=st.integers(1, 9), tokens=st.integers(0, 90)
)
def test_batches_are_a_partition_within_their_limits(
    lengths: list[int], seed: int, epoch: int, samples: int, tokens: int
) -> None:
    batches = length_batches(lengths, seed=seed, epoch=epoch, max_samples=samples, max_tokens=tokens)
    for found in (batches, sorted_batches(lengths, max_samples=samples, max_tokens=tokens)):
        assert sorted(int(i) for batch in found for i in batch) == list(range(len(lengths)))
        for batch in found:
            longest = max(lengths[i] for i in batch)
            assert 1 <= len(batch) <= samples
            assert tokens == 0 or len(batch) == 1 or longest * len(batch) <= tokens
    again = length_batches(
        np.array(lengths, dtype=np.int64), seed=seed, epoch=epoch, max_samples=samples, max_tokens=tokens
    )
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 200),
    seed=st.integers(),
    epoch=st.integers(0, 9),
    size=st.integers(1, 50),
    ranks=st.integers(1, 9),
)
def test_orders_and_shares_are_partitions(count: int, seed: int, epoch: int, size: int, ranks: int) -> None:
    order = shuffled(count, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(count))
    batches = in_batches(order, size)
    assert [int(i) for batch in batches for i in batch] == order.tolist()
    assert all(len(batch) == size for batch in batches[:-1])
    shares = [share_of_rank(order, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert np.concatenate(shares).tolist() == order.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(seed=st.integers(), path=st.lists(st.integers() | st.text(), max_size=3))
def test_streams_are_named_by_everything_on_their_path(seed: int, path: list[int | str]) -> None:
    own = derive_seed(seed, *path)
    assert 0 <= own < 2**63
    assert own != derive_seed(seed + 1, *path) and own != derive_seed(seed, *path, 0)
    assert derive_seed(seed, *path, 1) != derive_seed(seed, *path, "1")
    assert random_stream(seed, *path).random() == random_stream(seed, *path).random()


def test_epochs_differ_and_shuffle_well() -> None:
    orders = np.array([shuffled(100, seed=1, epoch=epoch) for epoch in range(400)])
    assert len({tuple(order) for order in orders}) == 400
    # The place of a sample is uniform: mean 49.5, standard error sqrt((100^2 - 1) / 12 / 400) = 1.44.
    assert abs(orders.mean(axis=0) - 49.5).max() < 5 * 1.44


_PROGRAM = """
from stcore.sampling import derive_seed, length_batches, random_stream
batches = length_batches([i % 7 for i in range(50)], seed=3, epoch=2, max_samples=4, max_tokens=12)
print([b.tolist() for b in batches], derive_seed(5, "noise", 1), random_stream(5, "x").random(3).tolist())
"""


def test_another_process_draws_the_same() -> None:
    """Hashes of strings differ between processes; orders must not."""
    said = {
        subprocess.run([sys.executable, "-c", _PROGRAM], env={**os.environ, "PYTHONHASHSEED": hashed}, text=True,
                       capture_output=True, check=True).stdout
        for hashed in ("0", "1", "12345")
    }  # fmt: skip
    assert len(said) == 1
    (text,) = said
    assert f"{derive_seed(5, 'noise', 1)} {random_stream(5, 'x').random(3).tolist()}" in text
