"""Recordings of the original implementations: found by listing their metadata, with a book of what was compared.

A recording is a `<name>.json` under `$STCORE_REFERENCE/stpred`, most with a `<name>.safetensors` beside it. `input`
and `expect` enter the tensor they hand out into the book, `fact` an expected value of the metadata; `consumed` and
`required` let the end of the session check that nothing was left out.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

_BOOK: dict[str, set[str]] = defaultdict(set)

VALUES = {"metrics": ("overall", "spatial_norm", "ssim_legacy_data_range_2", "ssim_data_range_1", "per_lead_time"),
          "moving_mnist": ("cases",)}  # fmt: skip
"""Expected values that stand in the metadata itself; of `schedules` all do."""
ELSEWHERE = ("SimVP_Model",)
"""Classes whose recordings are checked in svq, where these models live."""


def folder() -> Path | None:
    """Folder of the recordings, or None when this machine has none."""
    root = os.environ.get("STCORE_REFERENCE")
    path = Path(root) / "stpred" if root else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Recording:
    """One recording: its metadata and its tensors."""

    name: str
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    def input(self, key: str) -> Tensor:
        """A tensor that our code is fed with, or has to reproduce."""
        _BOOK[self.name].add(key)
        return self.tensors[key]

    expect = input

    def fact(self, key: str) -> Any:
        """An expected value that stands in the metadata."""
        _BOOK[self.name].add(f"json:{key}")
        return self.meta[key]

    def under(self, prefix: str) -> list[str]:
        """Names of the recorded tensors that start so."""
        return [key for key in self.tensors if key.startswith(prefix)]

    def weights(self, prefix: str = "w/") -> dict[str, Tensor]:
        """State of the original model under its own names; nothing is entered into the book."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


@cache
def open_recording(name: str) -> Recording:
    """Load a recording; skips the test when this machine has none."""
    root = folder()
    if root is None:
        pytest.skip("STCORE_REFERENCE is not set: no recordings of the original to compare with")
    file = root / f"{name}.safetensors"
    return Recording(name, _metadata()[name], load_file(file) if file.is_file() else {})


@cache
def _metadata() -> dict[str, dict[str, Any]]:
    root = folder()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(root.glob("*.json"))} if root else {}
    return {name: meta for name, meta in found.items() if meta.get("class") not in ELSEWHERE}


def names(fits: Callable[[str, dict[str, Any]], bool]) -> list[Any]:
    """Names of the recordings that fit, for `parametrize`; one skipped case on a machine without recordings."""
    if folder() is None:
        return [pytest.param("none", marks=pytest.mark.skip(reason="STCORE_REFERENCE is not set: no recordings"))]
    return [name for name, meta in _metadata().items() if fits(name, meta)]


def of_class(*classes: str) -> list[Any]:
    """Names of the recordings of these original classes."""
    return names(lambda _, meta: meta.get("class") in classes)


def consumed() -> dict[str, set[str]]:
    """What of each recording a test of this session has used."""
    return {name: set(keys) for name, keys in _BOOK.items()}


def required() -> dict[str, set[str]]:
    """What of each recording tests have to use: all but the weights, which go in as a whole."""
    return {name: _outputs(name) for name in _metadata()}


def _outputs(name: str) -> set[str]:
    meta, recording = _metadata()[name], open_recording(name)
    values = meta if name == "schedules" else VALUES.get(name, ())
    tensors = {key for key in recording.tensors if "w" not in key.split("/")[:-1] and not key.startswith("w0/")}
    return tensors | {f"json:{key}" for key in values}
