"""The checkpoint: one safetensors file with a digest over every byte, written so that no crash can tear it.

The safetensors library writes neither fsync nor checksum, so the writer here adds both to its format: the
metadata holds a SHA-256 per tensor, and one over the header (with its own place zeroed). Together they cover the
whole file, so every flipped bit is found and named. Files written here open with the safetensors library.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from stcore.errors import UserError
from stcore.files import replace_durably, write_all

FORMAT = "stcore-checkpoint-1"
MAX_HEADER_BYTES = 16 << 20
_CHUNK = 4 << 20
_MAX_AXES = 64
_MAX_MARKS = 400_000
"""Names, lists and objects in a header, as many as 80,000 tensors need; each costs memory before it can be judged."""
_UNSIGNED = "0" * 64
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}


class _Facts(NamedTuple):
    """What the header says beside the tensors."""

    metadata: dict[str, Any]
    digests: dict[str, str]
    aliases: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: tensors by name, and JSON-like facts about the run."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix/`, without the prefix."""
        start = f"{prefix}/"
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and `metadata` to `path`; a reader finds the old file or the new one, never a part.

    Args:
        path: file to write or replace.
        tensors: any mixture of dtypes; tensors that are views of the same data are stored once.
        metadata: JSON-like facts (finite numbers, strings, lists, dicts).

    Raises:
        UserError: the disk is full or refuses the write; whatever was at `path` before is still there.
    """
    stored, aliases = _without_aliases(tensors)
    header: dict[str, Any] = {}
    digests: dict[str, str] = {}
    offset = 0
    for name, tensor in stored.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        digests[name] = hashlib.sha256(_bytes(tensor)).hexdigest()
        offset += size
    facts = {"format": FORMAT, "metadata": dict(metadata), "digests": digests, "aliases": aliases}
    header["__metadata__"] = {"stcore": json.dumps(facts, allow_nan=False), "digest": _UNSIGNED}
    head = _sign(header)

    def fill(descriptor: int) -> None:
        write_all(descriptor, head)
        for tensor in stored.values():
            data = _bytes(tensor)
            # In pieces, so that a signal or a kill finds the writer between them on large tensors.
            for start in range(0, len(data), _CHUNK):
                write_all(descriptor, data[start : start + _CHUNK])

    try:
        replace_durably(path, fill)
    except UserError as error:
        raise UserError(f"{error} (a checkpoint of {offset + len(head):,} bytes)") from error.__cause__


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint written by `save_checkpoint`, onto the CPU.

    Raises:
        UserError: no such file, not one of our checkpoints, or damaged; the message names the damaged part.
    """
    try:
        # Anything else, a pipe for instance, may never end.
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a regular file; expected a .safetensors file of a run")
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; expected a .safetensors file of a run") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; expected a checkpoint") from error


def _read(path: Path, file: BufferedReader) -> Checkpoint:
    header, facts = _read_header(path, file)
    extents = list(_extents(path, header, os.fstat(file.fileno()).st_size - file.tell()))
    stored: dict[str, Tensor] = {}
    for name, size, dtype, shape in extents:
        data = bytearray(size)
        if file.readinto(data) != size or hashlib.sha256(data).hexdigest() != facts.digests.get(name):
            raise _damaged(path, f"tensor '{_shown(name)}' does not match its digest")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        stored[name] = flat.reshape(shape)
    tensors = stored | {alias: stored[name] for alias, name in facts.aliases.items() if name in stored}
    return Checkpoint(path, tensors, facts.metadata)


def _read_header(path: Path, file: BufferedReader) -> tuple[dict[str, Any], _Facts]:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise _damaged(path, f"header of {length:,} bytes in a file of {size:,}")
    body = file.read(length)
    try:
        header = _json_object(body.decode())
        signature = header["__metadata__"]["digest"].encode()
        text = header.pop("__metadata__")["stcore"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path, "the header is not that of a checkpoint of this workspace") from None
    unsigned = (prefix + body).replace(signature, _UNSIGNED.encode(), 1)
    if hashlib.sha256(unsigned).hexdigest().encode() != signature:
        raise _damaged(path, "the header does not match its digest")
    try:
        facts = _json_object(text)
        version, parts = facts["format"], [facts[name] for name in _Facts._fields]
        aliased = [name for name in facts["aliases"].values() if isinstance(name, str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path, "the header lacks the facts of a checkpoint") from None
    if version != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {version!r}; expected {FORMAT!r}; read it with the stcore it is from"
        )
    if not all(isinstance(part, dict) for part in parts) or len(aliased) != len(facts["aliases"]):
        raise _damaged(path, "the header lacks the facts of a checkpoint")
    return header, _Facts(*parts)


def _json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object strictly: no name twice, no NaN or infinity, which JSON does not have."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) != len(pairs):
            raise ValueError("a name occurs twice")
        return names

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    if sum(map(text.count, ":[{")) > _MAX_MARKS:
        raise ValueError("too many names and lists")
    parsed = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    if not isinstance(parsed, dict):
        raise ValueError("no object")
    return cast("dict[str, Any]", parsed)


def _extents(path: Path, header: dict[str, Any], payload: int) -> Iterator[tuple[str, int, torch.dtype, list[int]]]:
    """Yield name, size in bytes, dtype and shape of every tensor; the extents must tile the payload exactly."""
    position = 0
    for name, entry in header.items():
        try:
            begin, end = entry["data_offsets"]
            dtype, shape = _TORCH_DTYPES[entry["dtype"]], entry["shape"]
            # An int64 holds the sizes that torch can have; also where a size of 0 hides them from the product.
            whole = all(type(number) is int and 0 <= number < 1 << 40 for number in (begin, end, *shape))
        except (KeyError, TypeError, ValueError):
            raise _damaged(path, f"tensor '{_shown(name)}' has no dtype, shape and place") from None
        size = math.prod(shape) * dtype.itemsize if whole and len(shape) <= _MAX_AXES else -1
        if begin != position or end - begin != size:
            raise _damaged(path, f"tensor '{_shown(name)}' lies outside its place")
        position = end
        yield name, size, dtype, shape
    if position != payload:
        raise _damaged(path, f"{payload:,} bytes of tensors where the header says {position:,}")


def _shown(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:97]}..."


def _sign(header: dict[str, Any]) -> bytes:
    """Encode the header, put the digest of those very bytes in its place, and return prefix and header."""
    body = json.dumps(header, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    head = len(body).to_bytes(8, "little") + body
    place = f'"digest":"{_UNSIGNED}"'.encode()
    signed = f'"digest":"{hashlib.sha256(head).hexdigest()}"'.encode()
    return head.replace(place, signed, 1)


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split tensors that share the same data into one stored tensor and names that point to it."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        stored[name] = tensor.detach().contiguous().cpu()
    return stored, aliases


def _bytes(tensor: Tensor) -> memoryview:
    if sys.byteorder != "little":
        raise RuntimeError("checkpoints are little-endian; this machine is not")
    if not tensor.numel():
        return memoryview(b"")
    # A single number may be contiguous with any stride, and then refuses to be seen as bytes.
    flat = tensor.reshape(-1).as_strided((tensor.numel(),), (1,))
    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: damaged checkpoint: {what}; expected the file as it was written")
