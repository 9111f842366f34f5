"""Human3.6M as OpenSTL lists it: windows of eight frames, every fifth of a film, 256 x 256, in colours.

Layout: `train.txt` and `test.txt` with lines `prefix,begin,end`, and `images/` with frames `<prefix>NNNNNN.jpg`; a
window is the frames begin, begin + 5, … of a prefix. Both lists draw from the same films of the same people, and nearly
every test window overlaps one for training, so the lists are parts under `data.protocol paper` only. By default people
make the parts: S1, S5, S6 and S7 train, S8 chooses the model, S9 and S11 test.

Source: OpenSTL, `openstl/datasets/dataloader_human.py`, which also resizes by cubic interpolation as OpenCV does, and
keeps blue first (`paper`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import Integers, Shape
from stcore.readers import limits
from stcore.readers.frames import open_image
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import require_grid_file
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import step_of_seconds
from stcore.readers.limits import short, shown

LENGTH, SPACING, SIZE = 8, 5, (256, 256)
"""Frames of a window, frames of the film from one to the next, and height and width they are resized to."""
SUBJECTS = {"train": (1, 5, 6, 7), "val": (8,), "test": (9, 11)}
_LISTS = ("train", "test")
_SUBJECT = re.compile(r"(?:^|/)S(\d+)(?=\D)")
_SHARPNESS = -0.75
"""Parameter of the cubic kernel in OpenCV."""
_RATE = 50.0


@dataclass(frozen=True)
class _Line:
    where: str
    prefix: str
    begin: int

    @property
    def names(self) -> list[str]:
        """Names of the images."""
        return [f"{self.prefix}{self.begin + SPACING * step:06d}.jpg" for step in range(LENGTH)]


@dataclass(frozen=True, eq=False)
class CubicFrames:
    """Images that are decoded and resized when asked for."""

    folder: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    colors: Literal["rgb", "bgr"]

    @property
    def shape(self) -> Shape:
        return (len(self.names), 3, *self.size)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def read(self, ids: Integers) -> NDArray[Any]:
        out = np.empty((len(ids), *self.shape[1:]), dtype=self.dtype)
        for row, index in enumerate(ids):
            pixels = _decoded(self.folder / self.names[index])
            resized = pixels if pixels.shape[0] == self.size[0] else resize_cubic(pixels, self.size)
            if resized.shape[:2] != self.size:
                raise UserError(f"{shown(self.folder / self.names[index])}: {pixels.shape[0]} x {pixels.shape[1]} "
                                f"pixels; expected {self.size[0]} x {self.size[1]}, or another height")  # fmt: skip
            out[row] = np.moveaxis(resized if self.colors == "rgb" else resized[..., ::-1], -1, 0)
        return out


def _decoded(path: Path) -> NDArray[np.uint8]:
    with open_image(path) as image:
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{shown(path)}: broken image ({limits.one_line(error)}); expected a whole one") from error


def resize_cubic(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (height, width, channel) by cubic interpolation as OpenCV does: kernel of -0.75, no smoothing first."""
    rows, columns = (cubic_weights(old, new) for old, new in zip(pixels.shape[:2], size, strict=True))
    half = np.tensordot(rows, pixels.astype(np.float32), axes=(1, 0))
    whole = np.moveaxis(np.tensordot(columns, half, axes=(1, 1)), 0, 1)
    return np.clip(np.rint(whole), 0.0, 255.0).astype(np.uint8)


def cubic_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return what each of `old` pixels gives to each of `new` ones (new, old); pixels beyond the edge repeat it.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE ASSP 1981, equation 15.
    """
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    base = np.floor(centre).astype(np.int64)
    weights = np.zeros((new, old), dtype=np.float64)
    a = _SHARPNESS
    for step in range(-1, 3):
        away = np.abs(centre - (base + step))
        near = (a + 2.0) * away**3 - (a + 3.0) * away**2 + 1.0
        far = a * away**3 - 5.0 * a * away**2 + 8.0 * a * away - 4.0 * a
        np.add.at(weights, (np.arange(new), np.clip(base + step, 0, old - 1)), np.where(away <= 1.0, near, far))
    return weights.astype(np.float32)


def looks_like_human36m(folder: Path) -> bool:
    """Return whether a folder holds the two lists and the images."""
    return (folder / "images").is_dir() and all((folder / f"{name}.txt").is_file() for name in _LISTS)


def read_human36m(folder: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read the windows of the lists, each a clip, by people or, as published, by list.

    Raises:
        UserError: a list or an image is missing, or a line is none.
    """
    for name in _LISTS:
        if not (folder / f"{name}.txt").is_file():
            raise UserError(f"{shown(folder)}: no {name}.txt; expected train.txt, test.txt and images/")
    lines = {name: _lines(folder / f"{name}.txt") for name in _LISTS}
    _require_images(folder / "images", [line for name in _LISTS for line in lines[name]])
    if options.protocol == "paper":
        parts = {"train": lines["train"], "val": lines["test"], "test": lines["test"]}
    else:
        parts = _by_subject(shown(folder), lines["train"] + lines["test"])
    colors: Literal["rgb", "bgr"] = "bgr" if options.protocol == "paper" else "rgb"
    return {name: _part(folder, name, mine, colors, options) for name, mine in parts.items()}


def _lines(path: Path) -> list[_Line]:
    require_grid_file(path)
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)}: no text in UTF-8; expected lines prefix,begin,end") from error
    found: list[_Line] = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        fields = [field.strip() for field in text.split(",")]
        if len(fields) != 3 or not fields[0] or not fields[1].isdecimal() or ".." in fields[0].split("/"):
            raise UserError(f"{shown(path)}: line {number} is {short(text)}; expected prefix,begin,end")
        found.append(_Line(f"{shown(path)}: line {number}", fields[0].removeprefix("images/"), int(fields[1])))
    if not found:
        raise UserError(f"{shown(path)}: no line; expected lines prefix,begin,end")
    return found


def _require_images(images: Path, lines: list[_Line]) -> None:
    """Refuse lists that name images which are not there, by listing the folder once."""
    if not images.is_dir():
        raise UserError(f"{shown(images)}: no such folder; expected the frames")
    folders = {str(Path(line.prefix).parent) for line in lines}
    have: set[str] = set()
    for inside in sorted(folders):
        place = images if inside == "." else images / inside
        if place.is_dir():
            with os.scandir(place) as listing:
                have |= {one.name if inside == "." else f"{inside}/{one.name}" for one in listing}
    for line in lines:
        if lost := [name for name in line.names if name not in have]:
            raise UserError(f"{line.where}: no image {lost[0]:.100} in {shown(images)}; expected {LENGTH} frames, "
                            f"every {SPACING}th from {line.begin} on")  # fmt: skip


def _by_subject(where: str, lines: list[_Line]) -> dict[str, list[_Line]]:
    """Return the windows of each part by the person in the name, each window once."""
    parts: dict[str, list[_Line]] = {name: [] for name in SUBJECTS}
    seen: set[tuple[str, int]] = set()
    for line in lines:
        match = _SUBJECT.search(line.prefix)
        if match is None:
            raise UserError(f"{line.where}: no person in {short(line.prefix)}; expected one such as S11_Walking_")
        part = next((name for name, people in SUBJECTS.items() if int(match[1]) in people), "")
        if part and (line.prefix, line.begin) not in seen:
            seen.add((line.prefix, line.begin))
            parts[part].append(line)
    for name, mine in parts.items():
        if not mine:
            people = ", ".join(f"S{person}" for person in SUBJECTS[name])
            raise UserError(f"{where}: no window of {people} ({name}); expected some; pass --data.protocol paper for "
                            "the lists as they are")  # fmt: skip
    return parts


def _part(
    folder: Path, name: str, lines: list[_Line], colors: Literal["rgb", "bgr"], options: GridReadOptions
) -> RawGrid:
    names = tuple(image for line in lines for image in line.names)
    rgb = ("red", "green", "blue")
    twice = len({(line.prefix, line.begin) for line in lines}) != len(lines)
    return RawGrid(
        where=f"{shown(folder)}: {name}",
        values=CubicFrames(folder / "images", names, options.size or SIZE, colors),
        clip=np.repeat(np.arange(len(lines), dtype=np.int64), LENGTH),
        clip_names=() if twice else tuple(f"{line.prefix}{line.begin:06d}" for line in lines),
        channels=rgb if colors == "rgb" else rgb[::-1],
        units=("8-bit value",),
        value_range=(0.0, 255.0),
        step=step_of_seconds(SPACING / _RATE),
    )
