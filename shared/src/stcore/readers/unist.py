"""Windows of flows in the JSON of UniST: walked through once, kept as mapped arrays, found again by their content.

    {"X_train": [[window, …], periodic], "X_val": …, "X_test": …,
     "timestamps": {"train": [[stamp, …], …], "val": …, "test": …}}

A window holds frames (frame, row, column); a stamp is a moment in words, a running number, or a pair of weekday and
slot of the day. The periodic data are not used. The nested lists are never held: each window is decoded, checked,
written as float32 and forgotten. Source: UniST (Yuan et al., KDD 2024), data files of its repository.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.files import _is_another_process as is_another_process  # pyright: ignore[reportPrivateUsage]
from stcore.files import sync_folder, write_refused
from stcore.readers import limits
from stcore.readers.grid_files import map_npy
from stcore.readers.grid_times import parse_text
from stcore.readers.limits import short, shown
from stcore.readers.unist_stream import JsonStream
from stcore.splits import PART_NAMES, Parts

StampForm = Literal["text", "index", "pair"]
VERSION = 1
"""Of what the cache holds; a newer reader makes it anew."""
_KEYS = tuple(f"X_{part}" for part in PART_NAMES)
_LARGEST = float(np.finfo(np.float32).max)
Progress = Callable[[int, int], None]
"""Is told how many bytes of the file are done, of how many."""


@dataclass(frozen=True, eq=False)
class WindowArrays:
    """The windows of one part, and the stamps of their frames."""

    values: NDArray[np.float32]
    """Windows (window, frame, row, column), mapped from the cache."""
    stamps: NDArray[Any]
    """Moments (datetime64[s]), running numbers, or pairs of weekday and slot (window, frame, 2)."""


@dataclass(frozen=True, eq=False)
class UnistFile:
    """What one file holds."""

    where: str
    digest: str
    """SHA-256 of the file."""
    form: StampForm
    """What its stamps are."""
    parts: Parts[WindowArrays]


def is_unist(path: Path) -> bool:
    """Return whether a path is called like a file of UniST."""
    return path.suffix.lower() == ".json"


def default_cache() -> Path:
    """Return the folder of the user's cache."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("stcore")) / "unist"


def read_unist(
    path: str | Path, *, cache: str | Path = "", max_bytes: int = 0, progress: Progress | None = None
) -> UnistFile:
    """Return the windows of a file, mapped; the first time it is read into the cache.

    Args:
        path: a .json file.
        cache: folder of what was read before; empty takes the user's.
        max_bytes: largest size of the arrays on disk; 0 sets no limit but the disk's.
        progress: called now and then while the file is read for the first time.

    Raises:
        UserError: the file is broken, or something in it is not what it must be; the message names place and value.
    """
    source = Path(path)
    size = limits.require_file(source, "windows of flows")
    folder = Path(cache) if cache else default_cache()
    digest = _digest(source)
    held = folder / f"{digest[:32]}-{VERSION}"
    if not held.is_dir():
        _convert(source, held, size=size, digest=digest, max_bytes=max_bytes, progress=progress)
    return _mapped(held, shown(source), digest)


def _digest(path: Path) -> str:
    with limits.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(held: Path, where: str, digest: str) -> UnistFile:
    try:
        form = cast("StampForm", json.loads((held / "facts.json").read_text(encoding="utf-8"))["form"])
        parts = {part: WindowArrays(map_npy(held / f"{part}.npy"), map_npy(held / f"{part}-stamps.npy"))
                 for part in PART_NAMES}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(held)}: damaged ({limits.one_line(error)}); expected what was read of {where}; remove "
                        "the folder, and it is made anew") from error  # fmt: skip
    return UnistFile(where, digest, form, Parts(**parts))


def _convert(source: Path, held: Path, *, size: int, digest: str, max_bytes: int, progress: Progress | None) -> None:
    """Fill a folder beside the place of `held` and put it there when it is whole."""
    partial = held.with_name(f".{held.name}.tmp-{os.getpid()}")
    try:
        held.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with limits.open_file(source) as file:
            reading = _Reading(JsonStream(cast("BinaryIO", file), shown(source)), partial, size, max_bytes, progress)
            form = reading.whole()
        facts = {"source": source.name, "sha256": digest, "form": form, "version": VERSION}
        (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        sync_folder(partial)
        try:
            os.replace(partial, held)
        except OSError:  # another process was quicker: what it made is the same
            if not held.is_dir():
                raise
    except OSError as error:
        raise write_refused(held, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove_left_behind(held.parent)


def _remove_left_behind(folder: Path) -> None:
    """Remove what killed readers had begun."""
    for entry in folder.glob(".*.tmp-*"):
        process = entry.name.rpartition("-")[2]
        if process.isdecimal() and not is_another_process(int(process)):
            shutil.rmtree(entry, ignore_errors=True)


class _Rows:
    """An .npy file that grows row by row; NumPy's header leaves room for the count.

    Args:
        path: the new file.
        dtype: of its values.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self.file = path.open("w+b")
        self.dtype = np.dtype(dtype)
        self.shape: tuple[int, ...] | None = None
        self.count = 0

    def add(self, row: NDArray[Any]) -> None:
        if self.shape is None:
            self.shape = row.shape
            self._header()
        self.file.write(np.ascontiguousarray(row, dtype=self.dtype).tobytes())
        self.count += 1

    def _header(self) -> None:
        shape = (self.count, *(self.shape or ()))
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, facts)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.flush()
        os.fsync(self.file.fileno())


class _Reading:
    """One pass over a file, from its first byte to its last."""

    def __init__(self, stream: JsonStream, folder: Path, size: int, max_bytes: int, progress: Progress | None) -> None:
        self.stream, self.folder, self.size, self.limit, self.progress = stream, folder, size, max_bytes, progress
        self.where = stream.where
        self.frames: dict[str, tuple[int, int]] = {}
        """Windows of each part, and frames of each of them."""
        self.stamps: dict[str, tuple[int, int]] = {}
        self.shape: tuple[int, ...] = ()
        self.form: StampForm | None = None
        self.written = 0

    def whole(self) -> StampForm:
        """Read the file and return the form of its stamps."""
        if self.stream.peek() != b"{":
            raise self.stream.wrong("an object with X_train, X_val, X_test and timestamps")
        seen: set[str] = set()
        for key in self.stream.pairs():
            if key in seen:
                raise UserError(f"{self.where}: key {short(key)} occurs twice; expected it once")
            seen.add(key)
            if key in _KEYS:
                self._part(key.removeprefix("X_"))
            elif key == "timestamps":
                self._timestamps()
            else:
                self.stream.skip()
        if self.stream.peek():
            raise self.stream.wrong("the end of the file")
        if lost := [key for key in (*_KEYS, "timestamps") if key not in seen]:
            raise UserError(f"{self.where}: keys {short(', '.join(sorted(seen)))}; expected X_train, X_val, X_test and "
                            f"timestamps; {lost[0]} is missing")  # fmt: skip
        self._agree()
        assert self.form is not None  # set with the first stamp, and every part has some
        return self.form

    def _agree(self) -> None:
        for part in PART_NAMES:
            if part not in self.stamps:
                raise UserError(f"{self.where}: timestamps of {', '.join(self.stamps) or 'nothing'}; expected train, "
                                f"val and test; {part} is missing")  # fmt: skip
            (windows, frames), (rows, entries) = self.frames[part], self.stamps[part]
            if windows != rows:
                raise UserError(f"{self.where}: X_{part} has {windows:,} windows and timestamps.{part} {rows:,} rows; "
                                "expected as many")  # fmt: skip
            if entries > frames:
                raise UserError(f"{self.where}: timestamps.{part} has {entries} entries a sample, windows {frames} "
                                "frames; expected at most one entry for each frame")  # fmt: skip

    def _part(self, part: str) -> None:
        """Read windows; what comes after them (the periodic data) is passed over."""
        name = f"X_{part}"
        if self.stream.peek() != b"[":
            raise self._misplaced(name, "a list of windows and periodic data")
        with ExitStack() as stack:
            rows = _Rows(self.folder / f"{part}.npy", np.float32)
            stack.callback(rows.file.close)
            for number in self.stream.items():
                if number:
                    self.stream.skip()
                    continue
                if self.stream.peek() != b"[":
                    raise self._misplaced(f"{name}[0]", "a list of windows")
                for window in self.stream.items():
                    rows.add(self._window(f"{name}, window {window}"))
                    self._told()
            if not rows.count:
                raise UserError(f"{self.where}: {name}: no windows; expected some")
            rows.close()
        self.frames[part] = (rows.count, (rows.shape or (0,))[0])

    def _misplaced(self, name: str, expected: str) -> UserError:
        """Say that what begins here is not what `name` must be."""
        return UserError(str(self.stream.wrong(expected)).replace(": byte", f": {name}: byte", 1))

    def _window(self, place: str) -> NDArray[np.float64]:
        place = f"{self.where}: {place}"
        found = self.stream.value(parse_int=float)
        try:
            values = np.array(found)
        except ValueError as error:
            raise UserError(f"{place}: {_uneven(found)}; expected frames of rows, all of one length") from error
        if values.dtype.kind not in "fb" or values.ndim != 3 or not values.size:
            raise UserError(f"{place}: {_strange(found, values)}; expected numbers (frame, row, column)")
        if self.shape and values.shape != self.shape:
            raise UserError(f"{place}: {_times(values.shape)} (frame x row x column); expected {_times(self.shape)} as "
                            "the first window")  # fmt: skip
        self.shape = values.shape
        if not (np.abs(values) <= _LARGEST).all():
            frame, row, column = (int(at) for at in np.argwhere(~(np.abs(values) <= _LARGEST))[0])
            raise UserError(f"{place}, frame {frame}, row {row}, column {column}: {values[frame, row, column]:g}; "
                            "expected finite numbers")  # fmt: skip
        self.written += 4 * values.size
        if self.limit and self.written > self.limit:
            raise UserError(f"{place}: arrays of more than {self.limit:,} bytes; expected at most those; pass "
                            "--data.max-bytes if this is right")  # fmt: skip
        return values

    def _timestamps(self) -> None:
        if self.stream.peek() != b"{":
            raise self._misplaced("timestamps", "an object with train, val and test")
        for part in self.stream.pairs():
            if part not in PART_NAMES:
                self.stream.skip()
                continue
            if part in self.stamps:
                raise UserError(f"{self.where}: key 'timestamps.{part}' occurs twice; expected it once")
            self._stamp_rows(part)

    def _stamp_rows(self, part: str) -> None:
        name = f"timestamps.{part}"
        if self.stream.peek() != b"[":
            raise self._misplaced(name, "a list with a row for each window")
        with ExitStack() as stack:
            rows: _Rows | None = None
            for number in self.stream.items():
                row = self._stamp_row(self.stream.value(), f"{self.where}: {name}, sample {number}")
                if rows is None:
                    rows = _Rows(self.folder / f"{part}-stamps.npy", row.dtype)
                    stack.callback(rows.file.close)
                if rows.shape is not None and row.shape != rows.shape:
                    raise UserError(f"{self.where}: {name}, sample {number}: {len(row)} entries; expected "
                                    f"{rows.shape[0]} as before")  # fmt: skip
                rows.add(row)
                self._told()
            if rows is None:
                raise UserError(f"{self.where}: {name}: no rows; expected one for each window")
            rows.close()
        self.stamps[part] = (rows.count, (rows.shape or (0,))[0])

    def _stamp_row(self, found: Any, place: str) -> NDArray[Any]:
        if not isinstance(found, list) or not found:
            raise UserError(f"{place}: {short(found)}; expected a list of stamps")
        entries = cast("list[Any]", found)
        forms: list[StampForm | None] = [_form_of(entry) for entry in entries]
        form = forms[0]
        if form is None or any(other != form for other in forms):
            at = 0 if form is None else next(at for at, other in enumerate(forms) if other != form)
            expected = "a moment in words, a running number, or a pair of weekday and slot"
            expected = expected if form is None else f"{_FORM_WORDS[form]} as before"
            raise UserError(f"{place}, entry {at}: {short(entries[at])}; expected {expected}")
        if self.form is not None and form != self.form:
            raise UserError(f"{place}, entry 0: {short(entries[0])}; expected {_FORM_WORDS[self.form]} as before")
        self.form = form
        if form == "text":
            return parse_text(place, entries).astype("datetime64[s]")
        large = np.array(entries, dtype=np.float64)
        if not (np.abs(large) < 2**53).all() or (large < 0).any():
            at = int(np.argwhere(~((large >= 0) & (large < 2**53)))[0][0])
            raise UserError(f"{place}, entry {at}: {short(entries[at])}; expected numbers of 0 or more")
        return large.astype(np.int64)

    def _told(self) -> None:
        if self.progress is not None:
            self.progress(self.stream.offset, self.size)


_FORM_WORDS = {"text": "a moment in words", "index": "a running number", "pair": "a pair of weekday and slot"}


def _form_of(entry: Any) -> StampForm | None:
    if isinstance(entry, str):
        return "text"
    if _is_whole(entry):
        return "index"
    if isinstance(entry, list):
        both = cast("list[Any]", entry)
        return "pair" if len(both) == 2 and all(_is_whole(one) for one in both) else None
    return None


def _is_whole(entry: Any) -> bool:
    return (isinstance(entry, int) and not isinstance(entry, bool)) or (isinstance(entry, float) and entry.is_integer())


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _uneven(found: Any) -> str:
    """Say where nested lists are of unequal length."""
    frames = _entries(found)
    for number, frame in enumerate(frames):
        rows = [len(_entries(row)) for row in _entries(frame)]
        if uneven := [at for at, length in enumerate(rows) if length != rows[0]]:
            return f"row {uneven[0]} of frame {number} has {rows[uneven[0]]} values where row 0 has {rows[0]}"
    counts = [len(_entries(frame)) for frame in frames]
    if uneven := [at for at, count in enumerate(counts) if count != counts[0]]:
        return f"frame {uneven[0]} has {counts[uneven[0]]} rows where frame 0 has {counts[0]}"
    return "lists of unequal length"


def _entries(found: Any) -> list[Any]:
    return cast("list[Any]", found) if isinstance(found, list) else []


def _strange(found: Any, values: NDArray[Any]) -> str:
    """Say what a window is that is no array of numbers in three axes."""
    if values.dtype.kind in "fb":
        return f"{values.ndim} axes ({_times(values.shape) or 'a single value'})"
    flat = np.array(found, dtype=object).reshape(-1)
    wrong = next((entry for entry in flat if not isinstance(entry, float)), found)
    return short(wrong)
