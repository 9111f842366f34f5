"""Read pickles of plain data (containers, numbers, text, NumPy arrays, CPU tensors) without running anything in them.

The file is interpreted by `plain_pickle.py` in a child process with limits of memory and time, which sends back JSON
and bytes. No name found in the file is ever imported or called, neither here nor there.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.limits import shown

_BASE_MEMORY = 64 * 2**20
_MEMORY_PER_BYTE = 60  # events take about 20, as values and again as JSON
_BASE_SECONDS = 20.0
_BYTES_PER_SECOND = 200_000.0


def read_plain_pickle(path: Path | str, *, max_bytes: int = 0, what: str = "events") -> Any:
    """Return the plain data in a pickle: nested lists, tuples, dicts, sets, scalars, NumPy arrays and torch tensors.

    NumPy scalars come back as arrays of no dimension, an OrderedDict as a dict, a frozenset as a set, text of Python 2
    as str (latin-1). Shared parts come back as copies.

    Args:
        path: the file, of any pickle protocol.
        max_bytes: largest size in memory; 0 means half of this machine's.
        what: what the file is expected to hold, for messages.

    Raises:
        UserError: the file asks for anything but plain data (the message names it), is broken, or is too large.
    """
    path = Path(path)
    size = limits.require_file(path, what)
    limits.require_size(path, 8 * size, limits.size_limit(max_bytes), "a pickle of this size needs about")
    with limits.open_file(path) as file:
        return plain_data(path, file.read(), max_bytes=max_bytes)


def plain_data(path: Path, data: bytes, *, max_bytes: int = 0) -> Any:
    """Return the plain data in a pickle that is part of the file `path`, as `read_plain_pickle` does.

    Raises:
        UserError: as there.
    """
    size, limit = len(data), limits.size_limit(max_bytes)
    if data[:4] == b"PK\x03\x04":
        raise UserError(f"{shown(path)}: a zip archive, as torch.save writes; expected a pickle of plain data")
    settings = {
        "memory": min(limit, _BASE_MEMORY + _MEMORY_PER_BYTE * size),
        "search_path": [entry for entry in sys.path if entry],
    }
    answer = _in_child(path, json.dumps(settings).encode() + b"\n" + data, _BASE_SECONDS + size / _BYTES_PER_SECOND)
    try:
        length = struct.unpack_from("<Q", answer)[0]
        found = json.loads(answer[8 : 8 + length])
        if "refused" in found:
            raise UserError(f"{shown(path)}: {found['refused']}; expected a pickle of plain lists, numbers and arrays")
        return _Decoder(memoryview(answer)[8 + length :]).value(found["value"])
    except (struct.error, KeyError) as error:
        raise UserError(
            f"{shown(path)}: the reader of pickles gave no answer; expected a pickle of plain data"
        ) from error


def _in_child(path: Path, message: bytes, seconds: float) -> bytes:
    """Run the interpreter on `message`, without environment, user site or working folder in its search path."""
    program = Path(__file__).with_name("plain_pickle.py")
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", str(program)], input=message, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{shown(path)}: not read within {seconds:.0f} s; expected a pickle of plain data") from error
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(
            f"{shown(path)}: the reader of pickles ended with code {child.returncode} ({' '.join(last)[:100]}); "
            "expected a pickle of plain data"
        )
    return child.stdout


class _Decoder:
    """Turn the child's JSON and bytes back into data."""

    def __init__(self, blobs: memoryview) -> None:
        self.blobs, self.at = blobs, 0

    def take(self, size: int) -> memoryview:
        self.at += size
        return self.blobs[self.at - size : self.at]

    def value(self, item: Any) -> Any:
        if type(item) is list:
            if all(type(entry) is float for entry in item):
                return item
            return [self.value(entry) for entry in item]
        if type(item) is not dict:
            return item
        ((tag, content),) = item.items()
        return getattr(self, f"_{tag}")(content)

    def _int(self, text: str) -> int:
        return int(text)

    def _tuple(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(self.value(item) for item in items)

    def _set(self, items: list[Any]) -> set[Any]:
        return {self.value(item) for item in items}

    def _dict(self, items: list[Any]) -> dict[Any, Any]:
        return {self.value(key): self.value(item) for key, item in items}

    def _bytes(self, size: int) -> bytes:
        return bytes(self.take(size))

    def _array(self, content: list[Any]) -> NDArray[Any]:
        dtype, shape, fortran, size = content
        return np.frombuffer(self.take(size), dtype=dtype).reshape(shape, order="F" if fortran else "C").copy()

    def _tensor(self, content: list[Any]) -> Any:
        import torch

        dtype, shape, stride, offset, size = content
        values = torch.from_numpy(np.frombuffer(self.take(size), dtype=dtype).copy())
        return values.as_strided(shape, stride, offset).clone()
