"""Files of the original implementation: checkpoints (torch zip files named `.pkl`) and sample files (pickles)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from stcore.readers.limits import one_line, require_file, shown, size_limit
from stcore.readers.pickles import read_plain_pickle

BASE_MEMORY = 256 * 2**20
MEMORY_PER_BYTE = 6
SECONDS = 120.0
PARAMETERS = "param/"


class OriginalSamples(NamedTuple):
    """A sample file of the original; samples in the unit box, truths in physical units."""

    gap: Float[ndarray, "event sample"]
    """Normalised log-gap; repeats follow each other along the samples."""
    location: Float[ndarray, "event sample 2"]
    probability: Float[ndarray, "event sample mark"] | None
    """Distribution of the mark, None when unmarked."""
    true_gap: Float[ndarray, "event"]
    true_location: Float[ndarray, "event 2"]
    true_mark: Int[ndarray, "event"] | None
    """0-based, None when unmarked."""


def read_foreign_state(path: Path | str, *, max_bytes: int = 0) -> dict[str, Tensor]:
    """Read the parameters in a checkpoint of the original, under its own names.

    Args:
        path: what the original saved (`model_best.pkl`), or the same as safetensors (names may begin with `param/`,
            then other tensors are ignored).
        max_bytes: memory that reading may take; 0 means half of this machine's.

    Raises:
        UserError: no such file, truncated, not a checkpoint, or not one of parameters alone.
    """
    path = Path(path)
    size = require_file(path)
    if path.suffix == ".safetensors":
        state = _load(path)
        inner = {name.removeprefix(PARAMETERS): value for name, value in state.items() if name.startswith(PARAMETERS)}
        return inner or state
    memory = min(size_limit(max_bytes), BASE_MEMORY + MEMORY_PER_BYTE * size)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "state.safetensors"
        _convert_in_child(path, target, memory)
        return _load(target)


def _convert_in_child(path: Path, target: Path, memory: int) -> None:
    program = Path(__file__).with_name("checkpoint_child.py")
    command = [sys.executable, "-I", str(program), str(path.resolve()), str(target), str(memory)]
    what = "expected a checkpoint that the original SMASH saved"
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{shown(path)}: not read within {SECONDS:.0f} s; {what}") from error
    if child.returncode:
        reason = child.stdout.strip() or f"the reader ended with code {child.returncode}"
        raise UserError(f"{shown(path)}: {reason}" + ("" if "expected" in reason else f"; {what}"))


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{shown(path)}: {one_line(error)}; expected a whole safetensors file") from error


def read_original_samples(path: Path | str, *, max_bytes: int = 0) -> OriginalSamples:
    """Read a sample file of the original (`samples/test_….pkl`).

    The file is a list of two: for each batch the repeats, each a pair of samples (event, sample, 3) and mark
    distributions (or None); and for each batch the true events (event, gap [mark] x y), marks from 1.

    Raises:
        UserError: the file is not plain data, or not arranged so.
    """
    path = Path(path)
    content = read_plain_pickle(path, max_bytes=max_bytes)
    pair = _listed(content, f"{shown(path)}: content")
    if len(pair) != 2:
        raise UserError(f"{shown(path)}: a list of {len(pair)}; expected two, samples and true events by batch")
    batches, truths = (_listed(part, f"{shown(path)}: part {i}") for i, part in enumerate(pair))
    if not batches or len(batches) != len(truths):
        raise UserError(
            f"{shown(path)}: {len(batches)} batches of samples and {len(truths)} of true events; expected as many, "
            "at least one"
        )
    where = [f"{shown(path)}: batch {number}" for number in range(len(batches))]
    read = [_batch(batch, truth, place) for batch, truth, place in zip(batches, truths, where, strict=True)]
    return OriginalSamples(*(_joined(parts, f"{shown(path)}") for parts in zip(*read, strict=True)))


def _batch(repeats: object, truth: object, where: str) -> OriginalSamples:
    pairs = [_listed(repeat, f"{where}, repeat {number}") for number, repeat in enumerate(_listed(repeats, where))]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{where}: no repeats of two entries; expected pairs of samples and mark distributions")
    true = _array(truth, f"{where}, true events", 2)
    samples = [_array(pair[0], f"{where}, samples", 3) for pair in pairs]
    marked = true.shape[1] == 4
    if true.shape[1] not in (3, 4) or any(part.shape[::2] != (len(true), 3) for part in samples):
        raise UserError(
            f"{where}: samples of shape {samples[0].shape} and true events of shape {true.shape}; expected "
            "(event, sample, 3) and (event, 3 or 4) with as many events"
        )
    x = np.concatenate(samples, axis=1)
    probability = None
    if marked:
        probability = np.concatenate([_array(pair[1], f"{where}, mark distributions", 3) for pair in pairs], axis=1)
        if probability.shape[:2] != x.shape[:2]:
            raise UserError(f"{where}: mark distributions of shape {probability.shape}; expected {x.shape[:2]} first")
    mark = true[:, 1].astype(np.int64) - 1 if marked else None
    return OriginalSamples(x[..., 0], x[..., 1:], probability, true[:, 0], true[:, -2:], mark)


def _joined(parts: Sequence[Any], where: str) -> Any:
    if all(part is None for part in parts):
        return None
    shapes = {None if part is None else part.shape[1:] for part in parts}
    if len(shapes) != 1:
        raise UserError(f"{where}: batches differ in shape ({shapes}); expected the same samples and marks in all")
    return np.concatenate(parts)


def _listed(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} is a {type(value).__name__}; expected a list, as the original's sample files hold")
    return value


def _array(value: object, where: str, rank: int) -> Float[ndarray, "..."]:
    array = np.asarray(value) if isinstance(value, Tensor | ndarray) else None
    if array is None or array.ndim != rank or array.dtype.kind not in "fiu":
        found = type(value).__name__ if array is None else f"{array.dtype} array of shape {array.shape}"
        raise UserError(f"{where}: a {found}; expected numbers with {rank} axes")
    return array.astype(np.float64)
