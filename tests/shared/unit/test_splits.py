"""Parts follow their shares, in order, and nobody with a share stays empty."""

from __future__ import annotations

import pytest

from stcore.errors import UserError
from stcore.splits import Parts, cut


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (100, (0.7, 0.2, 0.1), (70, 20, 10)),
        (7, (1.0, 0.0, 0.0), (7, 0, 0)),
        (9, (0.5, 0.0, 0.5), (5, 0, 4)),
    ],
)
def test_cut_sizes(count: int, shares: tuple[float, float, float], sizes: tuple[int, int, int]) -> None:
    parts = cut(count, shares, where="a.csv", things="sequences")
    assert tuple(len(part) for part in parts.named().values()) == sizes
    assert [*parts.train, *parts.val, *parts.test] == list(range(count))


def test_too_few_things_are_refused() -> None:
    with pytest.raises(UserError, match=r"a.csv: 2 sequences; expected at least 3 .* pass --data.window"):
        cut(2, (0.8, 0.1, 0.1), where="a.csv", things="sequences")


def test_map_and_named() -> None:
    assert Parts([1], [1, 2], []).map(len).named() == {"train": 1, "val": 2, "test": 0}
