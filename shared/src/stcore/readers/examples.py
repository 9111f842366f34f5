"""Folders of one file per sequence (`example000001`, …), the form in which the original splits its data.

Files are opened when their frames are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import Integers, Shape
from stcore.readers.frames import list_folder
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.limits import shown

_NAME = re.compile(r"example_?\d+")


@dataclass(frozen=True, eq=False)
class ExampleFrames:
    """Sequences of one length, each in its own file."""

    paths: tuple[Path, ...]
    one: tuple[int, ...]
    """Shape of one sequence (time, channel, height, width)."""
    dtype: np.dtype[Any]
    load: Callable[[Path], NDArray[Any]]

    @property
    def shape(self) -> Shape:
        return (len(self.paths) * self.one[0], *self.one[1:])  # pyright: ignore[reportReturnType]

    def read(self, ids: Integers) -> NDArray[Any]:
        out = np.empty((len(ids), *self.one[1:]), dtype=self.dtype)
        which = ids // self.one[0]
        for number in np.unique(which):
            mine = which == number
            out[mine] = self._sequence(self.paths[number])[ids[mine] % self.one[0]]
        return out

    def _sequence(self, path: Path) -> NDArray[Any]:
        sequence = self.load(path)
        if sequence.shape != self.one:
            raise UserError(f"{shown(path)}: sequence of shape {sequence.shape}; expected {self.one} as the first file")
        return sequence


def example_files(folder: Path, ending: str) -> list[Path]:
    """Return the files `example…` of a folder that end so, by number."""
    return [
        one
        for one in list_folder(folder)
        if one.suffix.lower() == ending and _NAME.fullmatch(one.stem) and not one.is_dir()
    ]


def read_examples(folder: Path, ending: str, load: Callable[[Path], NDArray[Any]]) -> RawGrid:
    """Read the sequences of a folder as clips; `load` returns one (time, channel, height, width).

    Raises:
        UserError: there are none, or one is damaged or of another shape.
    """
    paths = example_files(folder, ending)
    if not paths:
        raise UserError(f"{shown(folder)}: no example files; expected example000001{ending} and so on")
    first = load(paths[0])
    store = ExampleFrames(tuple(paths), first.shape, first.dtype, load)
    return RawGrid(
        where=shown(folder),
        values=store,
        clip=np.repeat(np.arange(len(paths), dtype=np.int64), first.shape[0]),
        clip_names=tuple(path.stem for path in paths),
    )
