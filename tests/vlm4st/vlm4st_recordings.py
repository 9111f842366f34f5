"""Recordings of the original VLM4ST: found by their metadata, with a book of what was used.

Each is `$STCORE_REFERENCE/vlm4st/<name>.json` with `<name>.safetensors`. `input` and `expect` enter the tensor that
they hand out into the book, `fact` a value of the metadata; `consumed` and `required` let the end of the session check
that nothing was left out.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

_BOOK: dict[str, set[str]] = defaultdict(set)

WEIGHTS = "weights/"
"""Beginning of the names of weights, which go in as a whole."""
GRADIENT = {"atol": 1e-4, "rtol": 1e-3}
"""Tolerance of gradients: absolute, and relative to each value."""
NORM = {"atol": 1e-6, "rtol": 2e-3}
"""Tolerance of the norms of gradients."""
FACTS = ("num_selected_coarse", "seq_length", "counts", "trainable_names_at_construction", "grad_norms",
         "trainable_without_gradient", "baselines_test")  # fmt: skip
"""Keys of the metadata that hold results."""


def folder() -> Path | None:
    """Folder of the recordings, or None when this machine has none."""
    root = os.environ.get("STCORE_REFERENCE")
    path = Path(root) / "vlm4st" if root else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Recording:
    """One recording: its metadata and its tensors."""

    name: str
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the object."""
        return self.meta["config"]

    @property
    def tolerance(self) -> float:
        """Largest absolute error that is accepted."""
        return self.meta["tolerance"]

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

    def weights(self) -> dict[str, Tensor]:
        """State of the original under its own names; nothing is entered into the book."""
        return {key.removeprefix(WEIGHTS): value for key, value in self.tensors.items() if key.startswith(WEIGHTS)}

    def check(self, key: str, found: Tensor) -> None:
        """Compare with a recorded tensor."""
        expected = self.expect(key)
        assert found.shape == expected.shape, f"{key}: shape {tuple(found.shape)}, recorded {tuple(expected.shape)}"
        error = float((found.detach() - expected).abs().max())
        assert error <= self.tolerance, f"{key} differs by {error:.3g}, allowed are {self.tolerance:.3g}"

    def check_gradient(self, key: str, found: Tensor | None) -> None:
        """Compare with a recorded gradient."""
        expected = self.expect(key)
        assert found is not None and found.shape == expected.shape, key
        excess = (found - expected).abs() - GRADIENT["rtol"] * expected.abs()
        assert float(excess.max()) <= GRADIENT["atol"], f"{key} differs by {float(excess.max()):.3g} too much"


@cache
def open_recording(name: str) -> Recording:
    """Load a recording; skips the test when this machine has none."""
    path = folder()
    if path is None:
        pytest.skip("STCORE_REFERENCE is not set: no recordings of the original to compare with")
    return Recording(name, _metadata()[name], load_file(path / f"{name}.safetensors"))


@cache
def _metadata() -> dict[str, dict[str, Any]]:
    path = folder()
    if path is None:
        return {}
    found = {file.stem: json.loads(file.read_text()) for file in sorted(path.glob("*.json"))}
    return {name: meta for name, meta in found.items() if "fixture" in meta}


def _cases(names: Iterable[str]) -> list[Any]:
    if folder() is None:
        return [pytest.param("none", marks=pytest.mark.skip(reason="STCORE_REFERENCE is not set: no recordings"))]
    return list(names)


def of_module(start: str) -> list[Any]:
    """Names of the recordings whose module starts so, for `parametrize`; one skipped case where there are none."""
    return _cases(name for name, meta in _metadata().items() if meta.get("module", "").startswith(start))


def with_gradients() -> list[Any]:
    """Names of the recordings of whole models that hold gradients."""
    return _cases(name for name, meta in _metadata().items() if "grad_norms" in meta)


def consumed() -> dict[str, set[str]]:
    """What of each recording a test of this session has used."""
    return {name: set(keys) for name, keys in _BOOK.items()}


def required() -> dict[str, set[str]]:
    """What of each recording tests have to use: all but the weights, which go in as a whole, and facts."""
    found: dict[str, set[str]] = {}
    for name, meta in _metadata().items():
        tensors = {key for key in open_recording(name).tensors if not key.startswith(WEIGHTS)}
        found[name] = tensors | {f"json:{key}" for key in FACTS if key in meta}
    return found
