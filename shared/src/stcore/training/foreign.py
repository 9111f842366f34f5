"""Checkpoints that were written by other programs with torch, read without running anything that they name.

Torch's restricted reader (`weights_only=True`) builds tensors and plain containers only.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from stcore.errors import UserError

WRAPPERS = ("model.", "module.")
"""What Lightning and DataParallel put before every name."""


def read_torch_file(path: Path, *, mapped: bool = False) -> Mapping[str, Any]:
    """Read what `torch.save` wrote, a mapping.

    Args:
        path: the file.
        mapped: leave tensors in the file until they are used, where its format lets them.

    Raises:
        UserError: no such file, no checkpoint, or one that holds more than tensors and plain containers.
    """
    content = _load(path, mapped=mapped and zipfile.is_zipfile(path))
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path}: holds a {type(content).__name__}; expected a checkpoint, a mapping of tensors by name"
        )
    return cast("Mapping[str, Any]", content)


def tensors_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, which lie in it or in its `state_dict`, without the prefix of a wrapper.

    Raises:
        UserError: it holds none.
    """
    inner = content.get("state_dict", content)
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(content)[:6]))
        raise UserError(f"{path}: holds {keys or 'nothing'}; expected tensors by name, or a state_dict of them")
    return without_prefix(tensors)


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers put before every name."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            return without_prefix({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def _load(path: Path, *, mapped: bool) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats of torch's
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        first = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
        raise UserError(f"{path}: {first[:160]}; expected a checkpoint of tensors and plain values; nothing in it "
                        "was run") from error  # fmt: skip
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        first = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint of torch: {first}; expected one") from error
