"""Checkpoints that were not written here: the original's four-key files, OpenSTL's `.pth` and `.ckpt`.

They are read with torch's restricted reader (`weights_only=True`), which builds tensors and plain containers only and
runs nothing that a file names.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.training.checkpoint import Checkpoint, load_checkpoint
from stcore.training.loop import Select
from stcore.training.run import Run
from stcore.training.state import pack
from stpred.convert import reference
from stpred.module import EnhancedModule

OPENSTL_PREFIXES = ("model.", "module.")
"""What Lightning and DataParallel put before every name."""
TRAJGRU_MARK = "encoder.layer1.gammma_x.weight"
"""A name, misspelt, that only the original's TrajGRU has."""


class ForeignFile(NamedTuple):
    """What a foreign checkpoint holds."""

    state: dict[str, Tensor]
    """Weights by their original names, without the prefix of a wrapper."""
    epoch: int | None
    """Epochs done, in the original's four-key files."""
    optimizer: dict[str, Any] | None
    lr_scheduler: dict[str, Any] | None


def read_foreign(path: Path) -> ForeignFile:
    """Read a checkpoint of the original or of OpenSTL.

    Raises:
        UserError: no such file, no checkpoint, or one that holds more than tensors and plain containers.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path}: holds a {type(content).__name__}; expected a checkpoint, a mapping of tensors by name"
        )
    entries = cast("Mapping[str, Any]", content)
    inner = entries.get("state_dict", entries)
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(entries)[:6]))
        raise UserError(f"{path}: holds {keys or 'nothing'}; expected tensors by name, or a state_dict of them")
    if inner is entries:
        return ForeignFile(_without_prefix(tensors), None, None, None)
    # OpenSTL's files have lists of optimiser states, as Lightning writes them; only the original's are continued.
    optimizer, scheduler, epoch = entries.get("optimizer"), entries.get("lr_scheduler"), entries.get("epoch")
    known = isinstance(optimizer, dict) and isinstance(epoch, int)
    return ForeignFile(_without_prefix(tensors), epoch if known else None, optimizer if known else None,
                       scheduler if known and isinstance(scheduler, dict) else None)  # fmt: skip


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats of torch's
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
        raise UserError(f"{path}: {first[:160]}; expected a checkpoint of tensors and plain values; nothing in it "
                        "was run") from error  # fmt: skip
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        first = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint of torch: {first}; expected one") from error


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in OPENSTL_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def fitting_state(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return `state` under the names of `module`, and whether it had to be converted (the original's TrajGRU).

    Raises:
        UserError: it fits neither directly nor through the converters of the published models.
    """
    wanted = module.state_dict()
    if set(state) == set(wanted):
        return dict(state), False
    if TRAJGRU_MARK in state:
        converted = reference.to_ours(state, "trajgru")
        if set(converted) == set(wanted):
            return converted, True
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    lacks = f"lacks {', '.join(missing[:3])}" if missing else "lacks nothing"
    has = f"has {', '.join(unknown[:3])}" if unknown else "has nothing more"
    raise UserError(f"{path}: {lacks} and {has}; expected the weights of {type(module).__name__}")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights into `module`, from a run, one of its checkpoints, or a file of the original.

    Raises:
        UserError: no such file, or weights of another module.
    """
    source = weights_file(path) if path.is_dir() else path
    if source.suffix == ".safetensors":
        state: Mapping[str, Tensor] = load_checkpoint(source).part("model")
    else:
        state = read_foreign(source).state
    try:
        module.load_state_dict(fitting_state(module, state, source)[0])
    except RuntimeError as error:
        raise UserError(f"{source}: {_first_misfit(error)}; expected the weights of {type(module).__name__}") from error


def weights_file(folder: Path, which: str = "") -> Path:
    """Return the checkpoint of a run: its `best`, its `last`, or by default the best that there is.

    Raises:
        UserError: the run has none.
    """
    run = Run.reopen(folder)
    steps = run.step_files()
    if which != "last" and run.best.exists():
        return run.best
    if which == "best" or not steps:
        wanted = "checkpoints/best.safetensors" if which == "best" else "checkpoint"
        raise UserError(f"{folder}: no {wanted} yet; expected a run that has come so far")
    return steps[-1]


def start_of(file: ForeignFile, module: EnhancedModule, path: Path, *, select: Select, epochs: int) -> Checkpoint:
    """Make of a four-key file the checkpoint from which a fresh run goes on with the next epoch.

    Raises:
        UserError: it is of the last epoch already, or its weights do not fit.
    """
    done = file.epoch or 0
    if done >= epochs:
        raise UserError(f"{path}: epoch {done} is done; expected max_epoch above {done}, now {epochs}")
    state, converted = fitting_state(module, file.state, path)
    assert module.optimizer is not None
    ours = module.optimizer.state_dict()
    if file.optimizer is None or converted:
        why = "its weights had to be converted" if converted else "it has none of the original's form"
        warnings.warn(f"{path}: the optimiser starts afresh, since {why}", stacklevel=3)
    else:
        ours = file.optimizer
    kept: dict[str, Any] = {"scheduler": file.lr_scheduler or {}, "epoch_open": False, "kept": []}
    optim, optim_tree = pack(ours, "optim")
    schedule, schedule_tree = pack(kept, "schedule")
    tensors = {f"model/{name}": value for name, value in state.items()} | optim | schedule
    loop = {"at": {"epoch": done}, "select": asdict(select), "optim": optim_tree, "schedule": schedule_tree,
            "metrics_bytes": 0}  # fmt: skip
    return Checkpoint(path, tensors, {"loop": loop})


def _first_misfit(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return (lines[1] if len(lines) > 1 else lines[0])[:160]
