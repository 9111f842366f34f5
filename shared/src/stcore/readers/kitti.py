"""KITTI (train) and Caltech Pedestrian (test), frames of 128 x 160 from a moving car.

Read as arrays, as OpenSTL keeps them: `kitticaltech_npy/train_data.npy`, `train_idx.npy`, `test_data.npy`,
`test_idx.npy`, frames (frame, height, width, 3) and the clip of each. Hickle files can run code when they are opened,
and `.seq` films need a reader of their own, so both are turned into arrays once, by hand; the message says how. Windows
are cut from the end of each clip back, by `find_windows(..., rule="kth")`.

Source: OpenSTL, `openstl/datasets/dataloader_kitticaltech.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import map_npy, require_grid_file
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.limits import shown

FOLDER = "kitticaltech_npy"
FILES = ("train_data.npy", "train_idx.npy", "test_data.npy", "test_idx.npy")
RAW = ("kitti_hkl", "caltech")
"""Folders of the publishers' own forms."""
_BY_HAND = (
    "in an environment of its own, since hickle runs what the file says: "
    "python -c \"import hickle, numpy; numpy.save('train_data.npy', hickle.load('X_train.hkl')); "
    "numpy.save('train_idx.npy', numpy.array(hickle.load('sources_train.hkl')))\"; of each .seq film every third "
    "frame, scaled to height 128, its middle 160 columns, as test_data.npy, and the film of each as test_idx.npy"
)


def looks_like_kitti(folder: Path) -> bool:
    """Return whether a folder holds the arrays, or what they are made from."""
    return _arrays_in(folder) is not None or _raw_in(folder) is not None


def _arrays_in(folder: Path) -> Path | None:
    return next((one for one in (folder / FOLDER, folder) if (one / FILES[0]).exists() and (one / FILES[1]).exists()),
                None)  # fmt: skip


def _raw_in(folder: Path) -> Path | None:
    if (folder / "X_train.hkl").exists():
        return folder
    return next((folder / name for name in RAW if _is_raw(folder / name)), None)


def _is_raw(folder: Path) -> bool:
    return (folder / "X_train.hkl").exists() or any(folder.glob("set*/*.seq"))


def read_kitti(folder: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read train and test; with `data.protocol paper` the test frames choose the model too, as published.

    Raises:
        UserError: the arrays are not there, or not what they must be.
    """
    place = _arrays_in(folder)
    if place is None:
        raw = _raw_in(folder)
        found = f"{shown(folder)}: no {FOLDER}" if raw is None else f"{shown(raw)}: hickle files or .seq films"
        raise UserError(f"{found}; expected {FOLDER} with {', '.join(FILES)}; make it once, {_BY_HAND}")
    parts = {part: _part(place, part) for part in ("train", "test")}
    if options.protocol == "paper":
        parts = {"train": parts["train"], "val": parts["test"], "test": parts["test"]}
    return parts


def _part(place: Path, part: str) -> RawGrid:
    frames, clips = (_mapped(place / f"{part}_{name}.npy") for name in ("data", "idx"))
    where = shown(place / f"{part}_data.npy")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype.kind not in "uf" or 0 in frames.shape:
        raise UserError(f"{where}: {frames.dtype} of shape {frames.shape}; expected colours (frame, height, width, 3), "
                        "uint8 or from 0 to 1")  # fmt: skip
    if frames.dtype.kind == "u" and frames.dtype != np.uint8:
        raise UserError(f"{where}: values of {frames.dtype}; expected uint8, or numbers from 0 to 1")
    if clips.shape != (len(frames),):
        raise UserError(f"{shown(place)}/{part}_idx.npy: shape {clips.shape}; expected ({len(frames)},), the clip of "
                        "each frame")  # fmt: skip
    numbers, names = _clips(f"{shown(place)}/{part}_idx.npy", np.asarray(clips))
    return RawGrid(
        where=where,
        values=np.moveaxis(frames, -1, 1),
        clip=numbers,
        clip_names=names,
        channels=("red", "green", "blue"),
        units=("8-bit value",) if frames.dtype == np.uint8 else (),
        value_range=(0.0, 255.0) if frames.dtype == np.uint8 else (0.0, 1.0),
    )


def _mapped(path: Path) -> NDArray[Any]:
    require_grid_file(path)
    return map_npy(path)


def _clips(where: str, sources: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return number and names of clips; a clip is a stretch of frames with one name.

    Raises:
        UserError: a name comes back after another clip.
    """
    edges = np.flatnonzero(sources[1:] != sources[:-1]) + 1
    names = [str(source) for source in sources[np.concatenate([[0], edges])]]
    if len(set(names)) != len(names):
        twice = next(place for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{where}: clip {names[twice]!r:.60} comes back at frame {edges[twice - 1]}; expected the "
                        "frames of a clip in one piece")  # fmt: skip
    return np.cumsum(np.isin(np.arange(len(sources)), edges)).astype(np.int64), tuple(names)
