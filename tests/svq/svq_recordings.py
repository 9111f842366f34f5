"""Recordings of the original SVQ and of OpenSTL's SimVP and TAU: found by their metadata, with a book of what was used.

The recordings of SVQ are listed by `$STCORE_REFERENCE/svq/metadata.json`; those of SimVP and TAU, which came with the
recurrent models, are the `<name>.json` of their class under `$STCORE_REFERENCE/stpred`, named `stpred/<name>` here.
`input` and `expect` enter the tensor they hand out into the book; `consumed` and `required` let the end of the session
check that nothing was left out.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

_BOOK: dict[str, set[str]] = defaultdict(set)

NEIGHBOUR = "stpred"
"""Folder with the recordings of SimVP and TAU."""
CLASSES = ("SimVP_Model",)
FORWARD, BACKWARD = {"atol": 1e-6, "rtol": 1e-5}, {"atol": 0.0, "rtol": 1e-4}
"""Tolerances of the neighbour's recordings, whose README states them for all, for outputs and for gradients."""
WEIGHTS = ("weights/", "w/")
"""Beginnings of the names of weights, which go in as a whole."""


def folder() -> Path | None:
    """Folder of the recordings, or None when this machine has none."""
    root = os.environ.get("STCORE_REFERENCE")
    path = Path(root) / "svq" if root else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Recording:
    """One recording: its metadata and its tensors."""

    name: str
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """What was recorded, such as `model`."""
        return self.meta["kind"]

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the object."""
        return self.meta["config"]

    @property
    def tolerance(self) -> Mapping[str, float]:
        """`atol`, and `rtol` relative to the largest absolute value of a tensor."""
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
        """State of the original model under its own names; nothing is entered into the book."""
        found = ((prefix, key, value) for key, value in self.tensors.items() for prefix in WEIGHTS)
        return {key.removeprefix(prefix): value for prefix, key, value in found if key.startswith(prefix)}

    def check(self, key: str, found: Tensor) -> None:
        """Compare with the recorded tensor: absolute, plus relative to its largest absolute value."""
        expected = self.expect(key)
        assert found.shape == expected.shape, f"{key}: shape {tuple(found.shape)}, recorded {tuple(expected.shape)}"
        allowed = BACKWARD if self.kind == "openstl" and key.startswith("grad/") else self.tolerance
        bound = allowed["atol"] + allowed["rtol"] * float(expected.abs().max())
        error = float((found.detach() - expected).abs().max())
        assert error <= bound, f"{key} differs by {error:.3g}, allowed are {bound:.3g}"


@cache
def open_recording(name: str) -> Recording:
    """Load a recording; skips the test when this machine has none."""
    path = folder()
    if path is None:
        pytest.skip("STCORE_REFERENCE is not set: no recordings of the original to compare with")
    file = path.parent / f"{name}.safetensors" if "/" in name else path / f"{name}.safetensors"
    return Recording(name, _metadata()[name], load_file(file))


@cache
def _metadata() -> dict[str, dict[str, Any]]:
    path = folder()
    if path is None:
        return {}
    listed = json.loads((path / "metadata.json").read_text())["files"]
    found = {name.removesuffix(".safetensors"): meta for name, meta in listed.items()}
    for file in sorted((path.parent / NEIGHBOUR).glob("*.json")):
        meta = json.loads(file.read_text())
        if meta.get("class") in CLASSES:
            found[f"{NEIGHBOUR}/{file.stem}"] = {"kind": "openstl", "config": meta, "tolerance": FORWARD}
    return found


def of_kind(*kinds: str) -> list[Any]:
    """Names of the recordings of these kinds, for `parametrize`; one skipped case on a machine without recordings."""
    if folder() is None:
        return [pytest.param("none", marks=pytest.mark.skip(reason="STCORE_REFERENCE is not set: no recordings"))]
    return [name for name, meta in _metadata().items() if meta["kind"] in kinds]


def consumed() -> dict[str, set[str]]:
    """What of each recording a test of this session has used."""
    return {name: set(keys) for name, keys in _BOOK.items()}


def required() -> dict[str, set[str]]:
    """What of each recording tests have to use: all but the weights, which go in as a whole."""
    return {name: {key for key in open_recording(name).tensors if not key.startswith(WEIGHTS)} for name in _metadata()}
