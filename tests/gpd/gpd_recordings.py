"""Recordings of the original GPD: found by their metadata, with a book of what was used.

`$STCORE_REFERENCE/gpd/metadata.json` lists every file with the sizes it was made with; nothing else is assumed of it.
`input` and `expect` enter the tensor they hand out into the book; `consumed` and `required` let the end of the session
check that nothing was left out. Tolerances are those that the description of the recordings states.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

_BOOK: dict[str, set[str]] = defaultdict(set)

WEIGHTS = ("sd.", "den.")
"""Beginnings of the names of weights, which go in as a whole."""


def folder() -> Path | None:
    """Folder of the recordings, or None when this machine has none."""
    root = os.environ.get("STCORE_REFERENCE")
    path = Path(root) / "gpd" if root else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Recording:
    """One recording: its metadata and its tensors."""

    name: str
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """What was recorded, such as `v_GWN`."""
        return self.meta.get("kind", "")

    def input(self, key: str) -> Tensor:
        """A tensor that our code is fed with, or has to reproduce."""
        _BOOK[self.name].add(key)
        return self.tensors[key]

    expect = input

    def has(self, key: str) -> bool:
        """Whether there is such a tensor."""
        return key in self.tensors

    def under(self, prefix: str) -> list[str]:
        """Names of the recorded tensors that start so."""
        return [key for key in self.tensors if key.startswith(prefix)]

    def weights(self, prefix: str = "sd.") -> dict[str, Tensor]:
        """State of the original under its own names; nothing is entered into the book."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def check(self, key: str, found: Tensor, *, atol: float = 0.0, rtol: float = 0.0) -> None:
        """Compare with the recorded tensor: absolute, plus relative to its largest absolute value."""
        expected = self.expect(key)
        assert found.shape == expected.shape, f"{key}: shape {tuple(found.shape)}, recorded {tuple(expected.shape)}"
        bound = atol + rtol * float(expected.abs().max())
        error = float((found.detach().double() - expected.double()).abs().max())
        assert error <= bound, f"{key} differs by {error:.3g}, allowed are {bound:.3g}"


@cache
def open_recording(name: str) -> Recording:
    """Load a recording by its name without ending; skips the test when this machine has none."""
    path = folder()
    if path is None:
        pytest.skip("STCORE_REFERENCE is not set: no recordings of the original to compare with")
    return Recording(name, _metadata()[name], load_file(path / f"{name}.safetensors"))


@cache
def _metadata() -> dict[str, dict[str, Any]]:
    path = folder()
    if path is None:
        return {}
    listed = json.loads((path / "metadata.json").read_text())["files"]
    return {name.removesuffix(".safetensors"): meta for name, meta in listed.items()}


def named(*beginnings: str) -> list[Any]:
    """Names of the recordings that start so, for `parametrize`; one skipped case on a machine without recordings."""
    if folder() is None:
        return [pytest.param("none", marks=pytest.mark.skip(reason="STCORE_REFERENCE is not set: no recordings"))]
    return [name for name in _metadata() if name.startswith(beginnings)]


def consumed() -> dict[str, set[str]]:
    """What of each recording a test of this session has used."""
    return {name: set(keys) for name, keys in _BOOK.items()}


def required() -> dict[str, set[str]]:
    """What of each recording tests have to use: all but the weights, which go in as a whole."""
    return {name: {key for key in open_recording(name).tensors if not key.startswith(WEIGHTS)} for name in _metadata()}
