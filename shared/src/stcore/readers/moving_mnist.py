"""Moving MNIST as published: split folders, and the digits themselves; `grid_arrays` reads the standard test file."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.examples import example_files, read_examples
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import NpzFile, require_grid_file
from stcore.readers.limits import shown

_IMAGES, _LABELS = 2051, 2049


def has_examples(folder: Path) -> bool:
    """Return whether a folder holds sequences in files `example000001.npz`."""
    return bool(example_files(folder, ".npz"))


def read_digit_examples(folder: Path) -> RawGrid:
    """Read `example000001.npz` …, each with `inputs` and `labels` (time, 1, height, width) in [0, 1], as clips.

    Raises:
        UserError: an array is missing or of another shape, or a value is outside [0, 1].
    """
    raw = read_examples(folder, ".npz", _example)
    return replace(raw, channels=("gray",), value_range=(0.0, 1.0))


def _example(path: Path) -> NDArray[np.float32]:
    require_grid_file(path)
    file = NpzFile(path, 0)
    for name in ("inputs", "labels"):
        if name not in file.headers:
            raise UserError(f"{file.where}: no array {name}; expected inputs and labels")
        shape, dtype = file.headers[name]
        if len(shape) != 4 or dtype.kind not in "iufb" or 0 in shape:
            raise UserError(
                f"{file.where}: array {name} is {dtype} of shape {shape}; expected numbers (time, channel, row, column)"
            )
    arrays = file.load(["inputs", "labels"])
    if arrays["inputs"].shape[1:] != arrays["labels"].shape[1:]:
        raise UserError(
            f"{file.where}: inputs {arrays['inputs'].shape} and labels {arrays['labels'].shape}; expected frames of "
            "one size"
        )
    return np.concatenate([arrays["inputs"], arrays["labels"]]).astype(np.float32)


def read_idx_images(path: Path, *, max_bytes: int = 0) -> UInt8[np.ndarray, "image row column"]:
    """Read the images of MNIST from `…-images-idx3-ubyte` or its .gz, as published.

    Raises:
        UserError: it is no such file, or holds fewer bytes than its header says.
    """
    return _idx(path, _IMAGES, 3, max_bytes)


def read_idx_labels(path: Path, *, max_bytes: int = 0) -> UInt8[np.ndarray, "image"]:
    """Read the labels of MNIST from `…-labels-idx1-ubyte` or its .gz.

    Raises:
        UserError: as for the images.
    """
    return _idx(path, _LABELS, 1, max_bytes)


def _idx(path: Path, magic: int, axes: int, max_bytes: int) -> NDArray[np.uint8]:
    size = require_grid_file(path, "digits")
    where = shown(path)
    header = 4 + 4 * axes
    head = limits.read_head(path)
    packed = head.startswith(b"\x1f\x8b")
    limit = limits.unpacked_limit(max_bytes, size) if packed else limits.size_limit(max_bytes)
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(header)
            if len(start) < header or struct.unpack(">i", start[:4])[0] != magic:
                raise UserError(
                    f"{where}: starts with {limits.looks_like(start)}; expected an idx file of bytes with {axes} axes "
                    f"(magic {magic})"
                )
            shape = struct.unpack(f">{axes}I", start[4:])
            needed = int(np.prod([int(length) for length in shape], dtype=object))
            limits.require_size(path, needed, limit, "declares")
            data = file.read(needed + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: broken gzip data ({limits.one_line(error)}); expected a whole file") from error
    if len(data) != needed:
        more = "more" if len(data) > needed else f"{len(data):,}"
        raise UserError(f"{where}: {more} bytes for {' x '.join(map(str, shape))}; expected {needed:,}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
