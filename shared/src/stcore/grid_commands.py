"""Commands that every package for fields on a grid has: what is in a data set, what is odd about it, what there is.

No torch: a command line imports this beside its own options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from stcore.cli import CommonOptions, NameOptions, Outcome
from stcore.readers.grid_options import GridReadOptions


@dataclass(frozen=True, kw_only=True)
class DataOptions(CommonOptions):
    """Look at a data set."""

    data: GridReadOptions = field(default_factory=GridReadOptions)
    seed: int = 0
    """Not used; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CommonOptions):
    """Write a trained model for other runtimes, checked against this one."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    out: Path
    """File to write: .pt2 (torch.export) or .onnx."""
    format: Literal["auto", "pt2", "onnx"] = "auto"
    """Format; `auto` goes by the ending."""
    horizon: int = 0
    """Frames that the exported model forecasts; 0 takes as many as in training."""
    seed: int = 0
    """Of the frames that both are checked on."""


def check(options: Any) -> Outcome:
    """Do `data check`."""
    from stcore.readers.grids import read_grids_or_parts

    found = {name: part.check() for name, part in read_grids_or_parts(options.data).items()}
    lines = [f"{name}: {remark}" for name, remarks in found.items() for remark in (remarks or ["nothing odd"])]
    return Outcome("\n".join(lines), found)


def describe(options: Any) -> Outcome:
    """Do `data describe`."""
    from stcore.readers.grids import read_grids_or_parts

    found = {name: part.describe() for name, part in read_grids_or_parts(options.data).items()}
    lines = [f"{name}: {key} {value}" for name, facts in found.items() for key, value in facts.items()]
    return Outcome("\n".join(lines), found)


def catalogue(options: NameOptions) -> Outcome:
    """Do `data list`."""
    from stcore.catalog import cards, is_here

    rows = {name: {"what": card.title, "here": is_here(card)} for name, card in cards("grids", "digits").items()}
    lines = [f"{name}: {row['what']} ({'here' if row['here'] else 'not here'})" for name, row in rows.items()]
    return Outcome("\n".join(lines), rows)


def fetch(options: NameOptions) -> Outcome:
    """Do `data fetch`."""
    from stcore.catalog import fetch as bring
    from stcore.catalog import find

    path = bring(find(options.name, "grids", "digits"))
    return Outcome(f"{options.name} is in {path}", {"name": options.name, "folder": str(path)})
