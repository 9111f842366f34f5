"""Checkpoints that were not written here: the original's four-key files, OpenSTL's `.pth` and `.ckpt`.

They are read as `stcore.training.foreign` reads them: nothing that a file names is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from stcore.errors import UserError
from stcore.training.checkpoint import Checkpoint, load_checkpoint
from stcore.training.foreign import read_torch_file, tensors_of
from stcore.training.loop import Select
from stcore.training.starting import weights_file
from stcore.training.state import pack
from stpred.convert import reference
from stpred.module import EnhancedModule

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
    entries = read_torch_file(path)
    state = tensors_of(entries, path)
    if "state_dict" not in entries:
        return ForeignFile(state, None, None, None)
    # OpenSTL's files have lists of optimiser states, as Lightning writes them; only the original's are continued.
    optimizer, scheduler, epoch = entries.get("optimizer"), entries.get("lr_scheduler"), entries.get("epoch")
    known = isinstance(optimizer, dict) and isinstance(epoch, int)
    return ForeignFile(state, epoch if known else None, optimizer if known else None,
                       scheduler if known and isinstance(scheduler, dict) else None)  # fmt: skip


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
