"""Devices, precision and processes, through accelerate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stcore.errors import UserError


def make_accelerator(device: str = "auto", precision: str = "fp32") -> Any:
    """Return accelerate's view of this process: device, precision, rank.

    Raises:
        UserError: the machine has no such device, or the device no such precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: {device!r}; expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda asked for, none found; expected a machine with a CUDA device; use --device cpu")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    # The state is one per process and keeps the first precision; each training of a process chooses its own.
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    try:
        return Accelerator(cpu=on_cpu, mixed_precision="bf16" if precision == "bf16" else "no")
    except ValueError as error:
        raise UserError(f"fit.precision: {precision} is not available here ({error}); use fp32") from error


def world_size() -> int:
    """Return how many processes the launcher started, without asking torch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_path(path: str) -> str:
    """Return the main process's `path` on every process."""
    if world_size() == 1:
        return path
    from accelerate.utils import broadcast_object_list

    box = [path]
    broadcast_object_list(box)
    return box[0]


def sum_over_ranks(
    values: Mapping[str, Tensor | float], *, ranks: int, device: torch.device, largest: Sequence[str] = ()
) -> dict[str, float]:
    """Add up `values` over all processes in one exchange; for the names in `largest` take the maximum instead."""
    names = list(values)
    row = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
    if ranks > 1:
        rows = [torch.empty_like(row, device=device) for _ in range(ranks)]
        torch.distributed.all_gather(rows, row.to(device))
        table = torch.stack(rows).cpu()
        top = torch.tensor([name in largest for name in names])
        row = torch.where(top, table.max(dim=0).values, table.sum(dim=0))
    return dict(zip(names, row.tolist(), strict=True))


def pick_device(device: str) -> torch.device:
    """Return the device that a trained model is applied on.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: cuda asked for, none found; use cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
