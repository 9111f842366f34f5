"""Three parts of a data set, and how a count of things in order is cut into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from stcore.errors import UserError

T = TypeVar("T")
U = TypeVar("U")

PART_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Parts(Generic[T]):
    """The same kind of thing for training, for choosing a model, and for the final evaluation."""

    train: T
    val: T
    test: T

    def map(self, function: Callable[[T], U]) -> Parts[U]:
        """Apply `function` to each part.

        >>> Parts([1], [1, 2], []).map(len)
        Parts(train=1, val=2, test=0)
        """
        return Parts(function(self.train), function(self.val), function(self.test))

    def named(self) -> dict[str, T]:
        """Return the parts by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}


def cut(count: int, shares: tuple[float, float, float], *, where: str, things: str) -> Parts[range]:
    """Cut `count` things, in their order, into parts whose sizes follow `shares`; nobody with a share stays empty.

    Args:
        count: how many things there are.
        shares: shares of train, val and test, 0 to 1, with sum 1.
        where: what is cut, for the message.
        things: what is counted, for the message.

    Raises:
        UserError: fewer things than parts that are to have one.

    >>> cut(10, (0.8, 0.1, 0.1), where="a.csv", things="sequences")
    Parts(train=range(0, 8), val=range(8, 9), test=range(9, 10))
    """
    wanted = [share > 0.0 for share in shares]
    if count < sum(wanted):
        raise UserError(
            f"{where}: {count} {things}; expected at least {sum(wanted)} to split into train, val and test; "
            "pass --data.window to cut a long one, or three files"
        )
    sizes = [int(is_wanted) for is_wanted in wanted]
    for _ in range(count - sum(sizes)):
        # The next one goes to the part that lacks most of its share (ties: the earlier part).
        lacking = [
            share * count - size if share > 0.0 else -float("inf") for share, size in zip(shares, sizes, strict=True)
        ]
        sizes[lacking.index(max(lacking))] += 1
    first, second = sizes[0], sizes[0] + sizes[1]
    return Parts(range(first), range(first, second), range(second, count))
