"""The frozen part of a model: kept out of checkpoints, known by a hash of its content, halved or shared in memory.

A checkpoint holds what training changes. Where the frozen weights came from a file, a run refers to it by path and by
hash; where they did not (a random backbone, asked for), the run holds them once, beside its checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stcore.training.run import Run

FILE = "backbone.safetensors"
"""Name of the frozen weights inside a run."""


class Reference(NamedTuple):
    """Where the frozen weights of a checkpoint are, and what they are."""

    hash: str
    """SHA-256 over names, types, sizes and values; empty where nothing is frozen."""
    file: str
    """The file that they came from; empty for the one inside the run."""
    tensors: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Reference:
        """Return what a checkpoint says of its frozen weights."""
        return cls(**checkpoint.metadata.get("backbone", {"hash": "", "file": "", "tensors": 0}))


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are not trained, by name."""
    return {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and sizes, in order of names; empty of none.

    >>> content_hash({}), len(content_hash({"a": torch.zeros(2)}))
    ('', 64)
    """
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()


def reference_to(model: nn.Module, path: str | None) -> Reference:
    """Return what checkpoints of `model` shall say of its frozen weights.

    Args:
        model: with the weights that are frozen frozen.
        path: the file that they came from, if any.
    """
    frozen = frozen_tensors(model)
    file = str(Path(path).resolve()) if path and frozen else ""
    return Reference(content_hash(frozen), file, len(frozen))


def keep_in_run(model: nn.Module, reference: Reference, run: Run) -> None:
    """Write the frozen weights into a run once, where no file holds them.

    Raises:
        UserError: the disk refuses.
    """
    target = run.folder / FILE
    if reference.hash and not reference.file and not target.exists():
        facts = {"package": "vlm4st", "kind": "frozen weights", "hash": reference.hash}
        save_checkpoint(target, {f"frozen/{name}": value for name, value in frozen_tensors(model).items()}, facts)


def run_folder(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint file lies in."""
    return checkpoint.parent.parent


def restore_frozen(model: nn.Module, file: Path) -> None:
    """Put the frozen weights of a run's own file into `model`.

    Raises:
        UserError: the file is damaged, or of another model.
    """
    held = load_checkpoint(file).part("frozen")
    own = dict(model.named_parameters())
    for name, tensor in held.items():
        if name not in own or own[name].shape != tensor.shape:
            raise UserError(f"{file}: {name} {tuple(tensor.shape)} is no part of this model; expected frozen weights "
                            "of its sizes")  # fmt: skip
    with torch.no_grad():
        for name, tensor in held.items():
            own[name].copy_(tensor)
            own[name].requires_grad_(False)


def check_frozen(model: nn.Module, reference: Reference, *, where: str, names: list[str] | None = None) -> None:
    """Refuse a model whose frozen weights are not those that a checkpoint was trained with.

    Args:
        model: with its frozen weights.
        reference: what the checkpoint says of them.
        where: the file that they came from, for the message.
        names: which weights these are; by default those that are frozen.

    Raises:
        UserError: names both hashes.
    """
    held = dict(model.named_parameters())
    frozen = frozen_tensors(model) if names is None else {name: held[name] for name in names}
    found = content_hash(frozen)
    if found != reference.hash:
        raise UserError(f"{where}: {len(frozen)} frozen weights with hash {found[:12] or 'none'}; expected "
                        f"{reference.tensors} with {reference.hash[:12] or 'none'}, those of the training")  # fmt: skip


def halve(model: nn.Module) -> None:
    """Keep the frozen matrices in bfloat16; forward passes then need autocast to it."""
    for parameter in model.parameters():
        # Norms and biases are small, and computed in full precision.
        if not parameter.requires_grad and parameter.dim() > 1:
            parameter.data = parameter.data.to(torch.bfloat16)


def shard(model: nn.Module, *, device: torch.device) -> int:
    """Keep a share of every block's frozen weights in each process; return the bytes of them that stay here.

    A block's weights are gathered when it works and dropped again. Adapters inside a block are trained and stay whole,
    so that their gradients are exchanged as those of all other modules.

    Args:
        model: a model, its frozen weights the same in all processes.
        device: what processes compute on.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in frozen_blocks(model):
        trained = {parameter for parameter in block.parameters() if parameter.requires_grad}
        fully_shard(block, mesh=mesh, ignored_params=trained)
    return frozen_bytes_here(model)


def frozen_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks (of image and text encoder) that hold frozen weights, each called as a whole."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for stack in model.modules():
        if not isinstance(stack, (nn.ModuleDict, nn.ModuleList, nn.Sequential)):
            continue
        blocks = list(stack.children())
        if isinstance(stack, nn.ModuleDict):
            # Layers of the text encoder are applied part by part: it is their parts that are called.
            blocks = [part for layer in blocks for part in layer.children()]
        for block in blocks:
            whole = block not in inside and any(True for _ in block.children())
            if whole and any(not parameter.requires_grad for parameter in block.parameters()):
                found.append(block)
                inside |= set(block.modules())
    return found


def frozen_bytes_here(model: nn.Module) -> int:
    """Return the bytes of frozen weights that this process holds."""
    total = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            local: Any = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # pyright: ignore
            total += local.numel() * local.element_size()
    return total
