"""Which city each row of the original's tables belongs to, and which networks rows of a length are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, row_size
from stcore.errors import UserError

Family = Literal["auto", "crowd", "traffic"]

FAMILIES: dict[str, tuple[tuple[str, int], ...]] = {
    "crowd": (("DC", 194), ("BM", 267), ("man", 195)),
    "traffic": (("metr-la", 207), ("pems-bay", 325), ("shenzhen", 627), ("chengdu_m", 524)),
}
"""Cities of each table with their rows, in the table's order: Shenzhen comes before Chengdu."""
FEATURES = 2
"""Channels that every network of the original reads."""
ORIGINAL_MODELS = (
    NodeModelConfig(kind="stgcn", norm="batch", row="legacy"),
    NodeModelConfig(kind="gwn", norm="batch", row="legacy"),
)
"""v_STGCN5 and v_GWN with their default sizes."""


def family_of(count: int, family: Family, where: str) -> str:
    """Return the family whose table has so many rows.

    Raises:
        UserError: none has, or the one that was named has not.
    """
    sizes = {name: sum(rows for _, rows in cities) for name, cities in FAMILIES.items()}
    found = next((name for name, size in sizes.items() if size == count and family in ("auto", name)), None)
    if found is None:
        known = ", ".join(f"{size:,} of {name}" for name, size in sizes.items() if family in ("auto", name))
        raise UserError(f"{where}: {count:,} rows; expected {known}; a table of one city needs its name")
    return found


def nodes_of(cities: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return city and name of each row; nodes are named by their number in their city.

    >>> nodes_of([("a", 2), ("b", 1)])
    (('a', 'a', 'b'), ('0', '1', '0'))
    """
    pairs = [(city, str(number)) for city, count in cities for number in range(count)]
    return tuple(city for city, _ in pairs), tuple(node for _, node in pairs)


def city_of(count: int, name: str, where: str) -> str:
    """Return the city with so many nodes, or `name` where it is given.

    Raises:
        UserError: it is not given, and no city of the original has so many.
    """
    if name:
        return name
    known = {rows: city for cities in FAMILIES.values() for city, rows in cities}
    if count not in known:
        listed = ", ".join(f"{city} {rows}" for rows, city in known.items())
        raise UserError(f"{where}: {count:,} rows, which is the size of no city of the original ({listed}); name the "
                        "city")  # fmt: skip
    return known[count]


def as_original(model: NodeModelConfig) -> NodeModelConfig:
    """Return the network as the original has it: all numbers in a row, normalised over batches."""
    return replace(model, row="legacy", norm="batch", append_statistics=False)


def model_of(numbers: int, model: NodeModelConfig | None, features: int, where: str) -> NodeModelConfig:
    """Return the networks whose rows have so many numbers.

    Args:
        numbers: in a row.
        model: what to expect; None takes that of the original's two whose rows are so long.
        features: channels that the networks read.
        where: the file, for messages.

    Raises:
        UserError: rows of these networks have other lengths.
    """
    candidates = ORIGINAL_MODELS if model is None else (as_original(model), model)
    # The first of two with rows of one length is the one that is meant.
    sizes = {row_size(build_node_model(each, features).spec): each for each in reversed(candidates)}
    if numbers not in sizes:
        known = ", ".join(f"{size:,} for {each.kind}" for size, each in sorted(sizes.items()))
        raise UserError(f"{where}: rows of {numbers:,} numbers; expected {known}; name what they were made for")
    return sizes[numbers]
