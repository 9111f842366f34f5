"""Folders of images: one folder is a clip, its frames sorted by the numbers in their names. Read with Pillow.

Sizes and modes of all images are known from their headers before one is decoded. What fits is decoded at once, so that
a broken image is found before work starts; large collections are decoded as they are asked for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import Integers, Shape
from stcore.readers import limits
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import require_grid_file
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.limits import shown

_log = logging.getLogger(__name__)

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")  # no format that runs another program, such as EPS
_GRAY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "F")
_DEEP = ("I", "I;16", "I;16L", "I;16B")
AT_ONCE_BYTES = 512 * 2**20
"""Images that take at most this much (bytes) are decoded when they are read."""


@dataclass(frozen=True)
class Clip:
    """The images of one clip, in order."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class ImageFrames:
    """Frames that are decoded from image files when asked for."""

    paths: tuple[Path, ...]
    mode: str
    """L, RGB, or I;16 for 16-bit grey; `first` keeps the first channel of whatever there is."""
    size: tuple[int, int]
    """Height and width of the files."""
    to: tuple[int, int]
    """Height and width of the frames."""

    @property
    def shape(self) -> Shape:
        return (len(self.paths), 3 if self.mode == "RGB" else 1, *self.to)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.mode == "I;16" else np.uint8)

    def read(self, ids: Integers) -> NDArray[Any]:
        out = np.empty((len(ids), *self.shape[1:]), dtype=self.dtype)
        for row, index in enumerate(ids):
            out[row] = self._decode(self.paths[index])
        return out

    def _decode(self, path: Path) -> NDArray[Any]:
        image = open_image(path)
        try:
            with image:
                _require_size(path, (image.height, image.width), self.size)
                plain = image if self.mode in ("first", "I;16") else image.convert(self.mode)
                if self.mode == "first" and image.mode not in ("L", "RGB", "RGBA"):
                    plain = image.convert("RGB")
                if self.to != self.size:
                    plain = plain.resize(self.to[::-1], _bilinear())
                pixels = np.asarray(plain)
        except _image_errors() as error:
            raise UserError(f"{shown(path)}: broken image ({limits.one_line(error)}); expected a whole one") from error
        if pixels.ndim == 2:
            return pixels[None].astype(self.dtype)
        return pixels[..., 0][None] if self.mode == "first" else np.moveaxis(pixels, -1, 0)


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR


def _image_errors() -> tuple[type[Exception], ...]:
    from PIL import Image

    return (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError,
            Image.DecompressionBombError, Image.DecompressionBombWarning)  # fmt: skip


def open_image(path: Path) -> Any:
    """Open an image by its header alone.

    Raises:
        UserError: it is no regular file, or no image of a kind that is read.
    """
    from PIL import Image

    require_grid_file(path, "an image")
    try:
        return Image.open(path, formats=_FORMATS)
    except _image_errors() as error:
        head = limits.looks_like(limits.read_head(path))
        raise UserError(
            f"{shown(path)}: no image that can be read, it starts with {head}; expected a PNG or JPEG image"
        ) from error


def _require_size(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    if size != wanted:
        raise UserError(
            f"{shown(path)}: {size[0]} x {size[1]} pixels (height x width); expected {wanted[0]} x {wanted[1]} as the "
            "frames before it; pass --data.size to resize all of one shape, or separate them"
        )


def number_of(name: str) -> tuple[int, ...]:
    """Return the numbers in a file name; the last one counts the frames.

    >>> number_of("person01_d2/image_0042.jpg")
    (1, 2, 42)
    """
    return tuple(int(digits) for digits in re.findall(r"\d{1,18}", name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names with their numbers as numbers."""
    pieces = re.split(r"(\d{1,18})", name)
    return [(1, int(piece), "") if piece.isdigit() and piece.isascii() else (0, 0, piece) for piece in pieces]


def list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder, hidden things aside, sorted with numbers as numbers.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        return sorted(
            (one for one in folder.iterdir() if not one.name.startswith(".")), key=lambda one: natural(one.name)
        )
    except OSError as error:
        raise UserError(f"{shown(folder)}: {error.strerror}; expected a readable folder") from error


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, by number."""
    return [one for one in list_folder(folder) if one.suffix.lower() in IMAGE_ENDINGS and not one.is_dir()]


def read_frames(folder: Path, options: GridReadOptions) -> RawGrid:
    """Read a folder of images as one clip, or its folders of images as a clip each.

    Raises:
        UserError: there are no images, they differ in size or colours, or one is broken.
    """
    if images := images_in(folder):
        return from_clips(shown(folder), pieces_of(Clip(folder.name, tuple(images))), options)
    inside = [(one, images_in(one)) for one in list_folder(folder) if one.is_dir()]
    clips = [clip for one, found in inside if found for clip in pieces_of(Clip(one.name, tuple(found)))]
    if options.color == "auto" and clips and (options.format == "kth-examples" or is_example(clips[0].name)):
        options = replace(options, color="gray")  # the split folders of KTH, which the original turns to grey
    if not clips:
        raise UserError(f"{shown(folder)}: 0 images in it or its folders; expected frames such as 0001.png")
    return from_clips(shown(folder), clips, options)


def is_example(name: str) -> bool:
    """Return whether a folder is named as one sequence of a split folder."""
    return re.fullmatch(r"example_?\d+", name) is not None


def pieces_of(clip: Clip) -> list[Clip]:
    """Cut a clip where the numbers of its frames jump, so that no window crosses a missing frame.

    Raises:
        UserError: two frames carry the same number.
    """
    numbers = [number_of(path.stem)[-1:] for path in clip.paths]
    if not all(numbers):
        return [clip]
    values = np.array([number[0] for number in numbers], dtype=np.int64)
    steps = np.diff(values)
    if (twice := np.flatnonzero(steps == 0)).size:
        first, second = (clip.paths[int(twice[0]) + more].name for more in (0, 1))
        raise UserError(
            f"{shown(clip.paths[0].parent)}: {first} and {second} carry the same number; expected one frame of each"
        )
    if not steps.size:
        return [clip]
    jumps = np.flatnonzero(steps != np.median(steps)) + 1
    if not jumps.size:
        return [clip]
    if len(jumps) > len(steps) // 2:
        _log.warning("%s: frame numbers follow no regular order; taken as they are sorted", clip.name)
        return [clip]
    _log.warning("%s: frame numbers jump %d times, first to %d; a new clip begins there", clip.name, len(jumps),
                 values[jumps[0]])  # fmt: skip
    bounds = [0, *jumps.tolist(), len(values)]
    names = [clip.name, *(f"{clip.name}@{values[start]}" for start in bounds[1:-1])]
    return [
        Clip(name, clip.paths[start:stop]) for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
    ]


def from_clips(where: str, clips: Sequence[Clip], options: GridReadOptions, *, mode: str = "") -> RawGrid:
    """Read images as clips, after their headers were compared.

    Raises:
        UserError: sizes or colours differ, or the frames need too much memory.
    """
    paths = tuple(path for clip in clips for path in clip.paths)
    chosen, size = _headers(paths, options, mode)
    to = options.size or size
    store = ImageFrames(paths, chosen, size, to)
    frame_bytes = int(np.prod(store.shape[1:])) * store.dtype.itemsize
    limits.require_size(
        paths[0], max(frame_bytes, 3 * size[0] * size[1]), limits.size_limit(options.max_bytes), "declares a frame of"
    )
    at_once = len(paths) * frame_bytes <= min(AT_ONCE_BYTES, limits.size_limit(options.max_bytes))
    values = store.read(np.arange(len(paths))) if at_once else store
    return RawGrid(
        where=where,
        values=values,
        clip=np.repeat(np.arange(len(clips), dtype=np.int64), [len(clip.paths) for clip in clips]),
        clip_names=tuple(clip.name for clip in clips),
        channels=("red", "green", "blue") if chosen == "RGB" else ("gray",),
        units=("gray value",) if chosen != "RGB" else ("8-bit value",),
        value_range=(0.0, 65535.0 if chosen == "I;16" else 255.0),
    )


def _headers(paths: Sequence[Path], options: GridReadOptions, mode: str) -> tuple[str, tuple[int, int]]:
    """Return the mode that all images are read in, and their size."""
    chosen, size, first = mode, (0, 0), ""
    for number, path in enumerate(paths):
        with open_image(path) as image:
            if not number:
                size, first = (image.height, image.width), _mode(image.mode, options)
            _require_size(path, (image.height, image.width), size)
            if not mode and _mode(image.mode, options) != first:
                raise UserError(
                    f"{shown(path)}: an image of mode {image.mode}; expected {first} as the frames before it; pass "
                    "--data.color gray or rgb"
                )
    return chosen or first, size


def _mode(mode: str, options: GridReadOptions) -> str:
    if options.color != "auto":
        return "L" if options.color == "gray" else "RGB"
    if mode in _DEEP:
        return "I;16"
    return "L" if mode in _GRAY else "RGB"
