"""How a training starts, in every package: its run directory, first weights, optimiser, average of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.training.checkpoint import Checkpoint, load_checkpoint
from stcore.training.config import AdamConfig
from stcore.training.ranks import share_path, world_size
from stcore.training.run import Run


def new_run(folder: Path | None, config: Any, *, package: str, preset: str, accelerator: Any) -> Run:
    """Make the run directory once, on the main process, and tell the others where it is.

    Args:
        folder: where; None makes a fresh one under `runs/`.
        config: the resolved configuration, a dataclass.
        package: name of the method.
        preset: name of the preset.
        accelerator: says which process this is.

    Raises:
        UserError: the folder is taken, or cannot be made.
    """
    made = ""
    if accelerator.is_main_process:
        facts = {"preset": preset, **to_plain(config)}
        made = str(Run.create(folder, package=package, preset=preset, config=facts).folder)
    return Run(Path(share_path(made) if world_size() > 1 else made))


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


def load_start(source: Path) -> Checkpoint:
    """Load the best checkpoint of a run, or a checkpoint file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return load_checkpoint(weights_file(source) if source.is_dir() else source)


def load_weights(model: nn.Module, start: Checkpoint) -> None:
    """Put the weights of a checkpoint into `model`.

    Raises:
        UserError: they are of another model, or of other sizes.
    """
    try:
        model.load_state_dict(start.part("model"))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{start.path}: its weights do not fit this configuration: {first}; use its sizes") from error


def require_package(checkpoint: Checkpoint, package: str) -> None:
    """Refuse a checkpoint of another package.

    Raises:
        UserError: names both.
    """
    found = checkpoint.metadata.get("package")
    if found != package:
        raise UserError(f"{checkpoint.path}: a checkpoint of {found!r}; expected one of {package}")


def moving_average(model: nn.Module, decay: float) -> Any:
    """Return an exponential moving average of the weights of `model`; None where `decay` is 0."""
    if decay == 0.0:
        return None
    from ema_pytorch import EMA

    return EMA(model, beta=decay, update_after_step=0, update_every=1, include_online_model=False)


def make_adam(model: nn.Module, config: AdamConfig) -> torch.optim.Optimizer:
    """Return Adam over the parameters of `model` that are trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=config.learning_rate, betas=(config.beta1, config.beta2),
                            weight_decay=config.weight_decay)  # fmt: skip
