"""Arrays of frames in .npy, .npz and HDF5 files, with what lies beside them: coordinates, times, step.

An .npy file is mapped, never loaded. Several arrays of one file are clips; `train_`, `val_` and `test_` before their
names make parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import join
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import ArrayFile, H5File, NpzFile, map_npy
from stcore.readers.grid_layout import with_layout
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import parse_times, step_of_seconds
from stcore.readers.limits import short, shown

OWN_MARK = "stcore_grid"
"""Array that an .npz file of ours holds beside the others: the version of its layout."""
OWN_VERSION = 1
_PART = re.compile(r"(train|training|val|valid|validation|test)_(.+)")
_PART_NAMES = {"training": "train", "valid": "val", "validation": "val"}
_Y, _X = ("lat", "latitude", "y"), ("lon", "lng", "longitude", "x")
_TIMES = ("time", "times", "timestamp", "timestamps", "date", "dates", "year", "years")
_OWN_OPTIONAL = {"times": "M", "units": "U", "y": "f", "x": "f", "mask": "b", "value_range": "f", "step": "m",
                  "axis_names": "U"}  # fmt: skip


def read_npy(path: Path, options: GridReadOptions) -> RawGrid:
    """Map one array; the standard test file of Moving MNIST, time first, is known by its name or shape.

    Raises:
        UserError: it is cut, of objects, or its axes cannot be told.
    """
    array = map_npy(path)
    where = shown(path)
    standard = is_standard_digits(path.name, array.shape, array.dtype) and options.format in ("auto", "moving-mnist")
    layout = options.layout or ("TNHW" if standard else "")
    values, clips = with_layout(where, array, layout)
    raw = RawGrid(where=where, values=values, **clips_of(values.shape[0], clips))
    return replace(raw, value_range=(0.0, 255.0)) if standard else raw


def is_standard_digits(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether an array is laid out as `mnist_test_seq.npy`: uint8 (20, sequence, 64, 64), time first."""
    if dtype != np.uint8 or len(shape) != 4:
        return False
    return name.startswith("mnist_test_seq") or (shape[0] == 20 and shape[1] != 20 and shape[2:] == (64, 64))


def clips_of(frames: int, clips: int) -> dict[str, Any]:
    """Return the clip numbers of `clips` equally long clips, as fields of `RawGrid`."""
    if clips <= 1:
        return {}
    return {"clip": np.repeat(np.arange(clips, dtype=np.int64), frames // clips)}


def read_array_file(path: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read the arrays of frames of an .npz or HDF5 file, by part; the part is empty where there are no parts.

    Raises:
        UserError: an array is missing, several may be meant, or one is of another shape than its meaning needs.
    """
    file: ArrayFile = (NpzFile if path.suffix.lower() == ".npz" else H5File)(path, options.max_bytes)
    if OWN_MARK in file.headers:
        return {"": _own(file)}
    chosen = choose(file, options)
    extras = {name for name in file.headers if name in (*_Y, *_X, *_TIMES, "start", "step_minutes", "fps")}
    extras |= {f"{name}_fps" for names in chosen.values() for name in names} & set(file.headers)
    small = sorted(name for name in extras if len(file.headers[name][0]) <= 1)
    loaded = file.load([*(name for names in chosen.values() for name in names), *small])
    beside = {name: loaded[name] for name in small}
    return {
        part: _raw(f"{file.where}: {part}" if part else file.where, {name: loaded[name] for name in names}, beside,
                   options)
        for part, names in chosen.items()
    }  # fmt: skip


def choose(file: ArrayFile, options: GridReadOptions) -> dict[str, list[str]]:
    """Return the names of the arrays to read, by part.

    Raises:
        UserError: none can be meant, several may be, or a wanted one is not there.
    """
    have = ", ".join(f"{short(name, 30)} {shape}" for name, (shape, _) in sorted(file.headers.items())[:8]) or "none"
    if options.key:
        if lost := [key for key in options.key if key not in file.headers]:
            raise UserError(f"{file.where}: no array {lost[0]!r:.60} among {have}; expected one; pass --data.key")
        return {"": list(options.key)}
    frames = {name: dtype for name, (shape, dtype) in file.headers.items() if len(shape) >= 3}
    parts: dict[str, list[str]] = {}
    for name in frames:
        if match := _PART.fullmatch(name):
            parts.setdefault(_PART_NAMES.get(match[1], match[1]), []).append(name)
    if {"train", "test"} <= set(parts):
        return {part: parts[part] for part in ("train", "val", "test") if part in parts}
    if len(frames) == 1:
        return {"": list(frames)}
    if not frames:
        raise UserError(f"{file.where}: arrays {have}; expected one of frames, with three axes or more")
    raise UserError(f"{file.where}: arrays {have}; expected to know which holds the frames; pass --data.key")


def _raw(
    where: str, arrays: dict[str, NDArray[Any]], beside: dict[str, NDArray[Any]], options: GridReadOptions
) -> RawGrid:
    pieces: list[Any] = []
    numbers: list[NDArray[np.int64]] = []
    names: list[str] = []
    for name, array in arrays.items():
        values, clips = with_layout(f"{where}: array {short(name)}", array, options.layout)
        if pieces and values.shape[1:] != pieces[0].shape[1:]:
            raise UserError(
                f"{where}: array {short(name)} has frames {values.shape[1:]}; expected {pieces[0].shape[1:]} as "
                f"{short(next(iter(arrays)))}, to be clips of one series; pass --data.key for one of them"
            )
        numbers.append(np.repeat(np.arange(clips, dtype=np.int64) + len(names), values.shape[0] // clips))
        names += [name] if clips == 1 else [f"{name}/{number}" for number in range(clips)]
        pieces.append(values)
    many = len(names) > 1
    raw = RawGrid(
        where=where,
        values=join(pieces),
        clip=np.concatenate(numbers) if many else None,
        clip_names=tuple(names) if len(pieces) > 1 else (),
    )
    return _with_facts(raw, beside, next(iter(arrays)), many)


def _with_facts(raw: RawGrid, beside: dict[str, NDArray[Any]], key: str, many: bool) -> RawGrid:
    """Add coordinates, times and step where the file has them."""
    found = {axis: name for axis, names in (("y", _Y), ("x", _X)) for name in names if name in beside}
    time_name = next((name for name in _TIMES if name in beside and beside[name].ndim == 1), "")
    times = parse_times(raw.where, time_name, beside[time_name]) if time_name else None
    if times is not None and raw.clip is not None and len(times) != raw.values.shape[0]:
        lengths = np.bincount(raw.clip)
        if (lengths == len(times)).all():  # the same moments in each clip
            times = np.tile(times, len(lengths))
    step = _step(raw.where, beside, key)
    if times is None and step is not None and not many and "start" in beside and beside["start"].dtype.kind == "U":
        first = parse_times(raw.where, "start", beside["start"].reshape(-1))
        if first is not None and first.size == 1:
            times = first[0] + step * np.arange(raw.values.shape[0])
    y, x = (beside[found[axis]] if axis in found else None for axis in ("y", "x"))
    return replace(raw, y=y, x=x, names=found, times=times, step=step)


def _step(where: str, beside: dict[str, NDArray[Any]], key: str) -> np.timedelta64 | None:
    for name, seconds in (("step_minutes", lambda n: 60.0 * n), (f"{key}_fps", _invert), ("fps", _invert)):
        if name in beside:
            value = beside[name]
            if value.size != 1 or value.dtype.kind not in "iuf" or not 1e-6 < float(value.reshape(-1)[0]) < 1e9:
                raise UserError(f"{where}: array {name} is {short(value)}; expected one number above 0")
            return step_of_seconds(seconds(float(value.reshape(-1)[0])))
    return None


def _invert(value: float) -> float:
    return 1.0 / value


def _own(file: ArrayFile) -> RawGrid:
    """Read what `GridSeries.write` wrote."""
    where, optional = file.where, {name: kind for name, kind in _OWN_OPTIONAL.items() if name in file.headers}
    _require(file, ("values", "clip", "channels", "clip_names"))
    arrays = file.load([OWN_MARK, "values", "clip", "channels", "clip_names", *optional])
    if arrays[OWN_MARK].dtype.kind not in "iu" or arrays[OWN_MARK].tolist() != OWN_VERSION:
        found = short(arrays[OWN_MARK].tolist())
        raise UserError(f"{where}: written as version {found}; expected {OWN_VERSION}; a newer stcore may read it")
    for name, kind in (("channels", "U"), ("clip_names", "U"), *optional.items()):
        if arrays[name].dtype.kind != kind or (name != "mask" and arrays[name].ndim != (0 if name == "step" else 1)):
            raise UserError(f"{where}: array {name} is {arrays[name].dtype} of shape {arrays[name].shape}; expected "
                            f"kind {kind}")  # fmt: skip
    if arrays["values"].ndim != 4:
        raise UserError(f"{where}: array values of shape {arrays['values'].shape}; expected four axes")
    bounds = arrays.get("value_range")
    if bounds is not None and bounds.shape != (2,):
        raise UserError(f"{where}: array value_range of shape {bounds.shape}; expected two numbers")
    values, _ = with_layout(where, arrays["values"], "TCHW")
    return RawGrid(
        where=where,
        values=values,
        clip=arrays["clip"],
        clip_names=words(arrays["clip_names"]),
        channels=words(arrays["channels"]),
        units=words(arrays["units"]) if "units" in optional else (),
        times=arrays.get("times"),
        y=arrays.get("y"),
        x=arrays.get("x"),
        mask=arrays.get("mask"),
        value_range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        step=_own_step(where, arrays["step"]) if "step" in optional else None,
        names=dict(zip("yx", words(arrays["axis_names"]), strict=False)) if "axis_names" in optional else {},
    )


def _own_step(where: str, array: NDArray[Any]) -> np.timedelta64:
    value: Any = array[()]
    step: np.timedelta64 = value
    if np.isnat(step) or step <= np.timedelta64(0) or np.datetime_data(step.dtype)[0] == "generic":
        raise UserError(f"{where}: array step is {step}; expected a time above 0")
    return step


def _require(file: ArrayFile, names: Sequence[str]) -> None:
    if lost := [name for name in names if name not in file.headers]:
        raise UserError(f"{file.where}: no array {lost[0]}; expected {', '.join(names)}")


def words(array: NDArray[Any]) -> tuple[str, ...]:
    """Return the words of an array of text."""
    return tuple(str(word) for word in array.reshape(-1))
