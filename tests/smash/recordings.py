"""Recordings of the original implementation: found by listing their metadata, with a book of what was compared.

A recording is a pair `<name>.json` and `<name>.safetensors` under `$STCORE_REFERENCE/smash`. `input` and `expect`
enter the tensor they hand out into the book; `consumed` and `required` let the end of the session check that
nothing was left out.
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


def folder() -> Path | None:
    """Folder of the recordings, or None when this machine has none."""
    root = os.environ.get("STCORE_REFERENCE")
    path = Path(root) / "smash" if root else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Recording:
    """One recording: its metadata and its tensors."""

    name: str
    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    def input(self, key: str) -> Tensor:
        """A tensor that our code is fed with."""
        _BOOK[self.name].add(key)
        return self.tensors[key]

    def expect(self, key: str) -> Tensor:
        """A tensor that our code has to reproduce."""
        return self.input(key)

    def has(self, *keys: str) -> bool:
        """Whether all of these tensors were recorded."""
        return all(key in self.tensors for key in keys)

    def under(self, prefix: str) -> list[str]:
        """Names of the recorded tensors that start so."""
        return [key for key in self.tensors if key.startswith(prefix)]

    @property
    def parameters(self) -> dict[str, Tensor]:
        """State of the original model under its own names."""
        return {key.removeprefix("param/"): value for key, value in self.tensors.items() if key.startswith("param/")}

    @property
    def marked(self) -> bool:
        """Whether the recorded events have marks."""
        return self.meta["dim"] == 3


@cache
def open_recording(name: str) -> Recording:
    """Load a recording; skips the test when this machine has none."""
    root = folder()
    if root is None:
        pytest.skip("STCORE_REFERENCE is not set: no recordings of the original to compare with")
    meta = json.loads((root / f"{name}.json").read_text())
    return Recording(name, meta, load_file(root / f"{name}.safetensors"))


def _metadata() -> dict[str, dict[str, Any]]:
    root = folder()
    return {path.stem: json.loads(path.read_text()) for path in sorted(root.glob("*.json"))} if root else {}


def names(*tensors: str) -> list[Any]:
    """Names of the recordings that hold all of these tensors, for `parametrize`; one skipped case when none does."""
    found = [name for name, meta in _metadata().items() if set(tensors) <= set(meta["tensors"])]
    if found or folder() is not None:
        return list(found)
    return [pytest.param("none", marks=pytest.mark.skip(reason="STCORE_REFERENCE is not set: no recordings"))]


def consumed() -> dict[str, set[str]]:
    """Tensors of each recording that a test of this session has used."""
    return {name: set(keys) for name, keys in _BOOK.items()}


def required() -> dict[str, set[str]]:
    """Tensors of each recording that tests have to use: all but the parameters, which go in as a whole."""
    return {
        name: {key for key in meta["tensors"] if not key.startswith("param/")} for name, meta in _metadata().items()
    }
