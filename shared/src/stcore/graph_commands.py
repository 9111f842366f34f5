"""Commands that every package for series on graphs has: what is in a data set, what is odd about it, what there is.

No torch: a command line imports this beside its own options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stcore.cli import CommonOptions, NameOptions, Outcome
from stcore.readers.graph_options import GraphReadOptions


@dataclass(frozen=True, kw_only=True)
class GraphDataOptions(CommonOptions):
    """Look at data sets."""

    data: GraphReadOptions = field(default_factory=GraphReadOptions)
    seed: int = 0
    """Not used; accepted everywhere."""


def check(options: Any) -> Outcome:
    """Do `data check`."""
    from stcore.readers.graph_files import read_graphs

    found = {series.name: series.check() for series in read_graphs(options.data)}
    lines = [f"{name}: {remark}" for name, remarks in found.items() for remark in (remarks or ["nothing odd"])]
    return Outcome("\n".join(lines), found)


def describe(options: Any) -> Outcome:
    """Do `data describe`."""
    from stcore.readers.graph_files import read_graphs

    found = {series.name: series.describe() for series in read_graphs(options.data)}
    lines = [f"{name}: {key} {value}" for name, facts in found.items() for key, value in facts.items()]
    return Outcome("\n".join(lines), found)


def catalogue(options: NameOptions) -> Outcome:
    """Do `data list`."""
    from stcore.catalog import cards, is_here

    rows = {name: {"what": card.title, "here": is_here(card)} for name, card in cards("graphs").items()}
    lines = [f"{name}: {row['what']} ({'here' if row['here'] else 'not here'})" for name, row in rows.items()]
    return Outcome("\n".join(lines), rows)


def fetch(options: NameOptions) -> Outcome:
    """Do `data fetch`."""
    from stcore.catalog import fetch as bring
    from stcore.catalog import find

    path = bring(find(options.name, "graphs"))
    return Outcome(f"{options.name} is in {path}", {"name": options.name, "folder": str(path)})
