"""`stpred convert`: checkpoints of the original (four keys) and of OpenSTL (`.pth`, `.ckpt`) become runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stcore.cli import Outcome, pick_preset
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.training.checkpoint import save_checkpoint
from stcore.training.run import Run
from stpred.config import PRESETS, TrainConfig
from stpred.convert import openstl, reference
from stpred.foreign import read_foreign
from stpred.models import FrameShape, build
from stpred.models.configs import ConvLSTMConfig
from stpred.options import ConvertOptions


class Frames(NamedTuple):
    """The frames of a published data set."""

    shape: FrameShape
    value_range: tuple[float, float]
    names: tuple[str, ...]


FRAMES = {
    "moving-mnist": Frames(FrameShape(1, 64, 64), (0.0, 255.0), ("grey",)),
    "kth": Frames(FrameShape(1, 128, 128), (0.0, 255.0), ("gray",)),
    "taxibj": Frames(FrameShape(2, 32, 32), (0.0, 1292.0), ("inflow", "outflow")),
}
"""What the published weights were trained on, before it was mapped to [0, 1]."""
SIGNS = {
    "encoder.encoder.0.conv_x.": "convlstm",
    "encoder.layer1.gammma_x.": "trajgru",
    "gradient_highway.": "predrnnpp",
    "adapter.": "predrnnv2",
    "stlstm_layer.": "mim",
    "cell_list.0.conv_gm.": "e3dlstm",
    "phycell.": "phydnet",
    "cell_list.0.conv_t_next.": "mau",
    "cell_list.0.conv_m.": "predrnn",
    "cell_list.0.conv_x.": "openstl-convlstm",
}
"""Beginnings of names that tell a model, most telling first."""


class Converted(NamedTuple):
    """A foreign checkpoint in our terms."""

    config: TrainConfig
    shape: FrameShape
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    """Parameters that no computation uses."""


def command(options: ConvertOptions) -> Outcome:
    """Do `stpred convert`."""
    if options.out.suffix:
        raise UserError(f"{options.out}: expected a folder for the run that the checkpoint becomes, without an ending")
    state = read_foreign(options.file).state
    kind = kind_of(state, options.file)
    preset = options.preset or f"moving-mnist/{kind}"
    dataset = preset.split("/")[0]
    base = pick_preset(PRESETS, preset)
    if dataset not in FRAMES or base.model.kind != kind:
        fitting = [name for name in PRESETS if PRESETS[name].model.kind == kind and name.split("/")[0] in FRAMES]
        raise UserError(f"--preset: {preset!r}; expected one of a {kind}, such as {', '.join(fitting)}")
    converted = convert(state, base, FRAMES[dataset].shape, update=options.update)
    check_fit(converted, options.file)
    run = write_run(options.out, converted, FRAMES[dataset], preset=preset)
    numbers = sum(tensor.numel() for tensor in converted.state.values())
    lines = [
        f"{options.file}: a {kind}, {len(converted.state)} tensors, {numbers:,} numbers",
        f"dropped, since they never took part: {', '.join(converted.dropped) or 'none'}",
        f"run: {run.folder}",
    ]
    data = {"run": str(run.folder), "kind": kind, "tensors": len(converted.state), "numbers": numbers,
            "dropped": list(converted.dropped)}  # fmt: skip
    return Outcome("\n".join(lines), data)


def kind_of(state: Mapping[str, Tensor], path: Path) -> str:
    """Tell the model by the names of its parameters.

    Raises:
        UserError: they are of none that is known.
    """
    for start, kind in SIGNS.items():
        if any(name.startswith(start) for name in state):
            return kind
    raise UserError(f"{path}: parameters {', '.join(list(state)[:3])}; expected those of the original's ConvLSTM or "
                    "TrajGRU, or of a recurrent model of OpenSTL")  # fmt: skip


def convert(
    state: Mapping[str, Tensor], base: TrainConfig, shape: FrameShape, *, update: str = "reference"
) -> Converted:
    """Convert a state, with the sizes that its tensors tell and all else from `base`.

    Args:
        state: parameters under their original names.
        base: the preset that they were trained with.
        shape: frames of its data set; the size gives way where the tensors tell another.
        update: of a TrajGRU.

    Raises:
        UserError: parameters are missing or unknown.
    """
    kind = base.model.kind
    if kind in ("convlstm", "trajgru"):
        patch = base.model.patch if isinstance(base.model, ConvLSTMConfig) else None
        found = reference.read(state, patch=patch, update=update)
        shape = FrameShape(found.channels, *(found.size or shape[1:]))
        return Converted(dataclasses.replace(base, model=found.config), shape, dict(found.state), ())
    given: Any = base.model
    if kind == "e3dlstm":
        # Its weights were trained with a memory that stays zero.
        given = dataclasses.replace(given, memory="reference")
    sizes = openstl.read_sizes(state, given)
    shape = FrameShape(sizes.channels, *(sizes.area or shape[1:]))
    config: Any = sizes.config
    return Converted(dataclasses.replace(base, model=config), shape, openstl.to_ours(state, kind),
                     openstl.dropped(state, kind))  # fmt: skip


def check_fit(converted: Converted, path: Path) -> None:
    """Build the model and load the weights into it.

    Raises:
        UserError: the sizes of the preset are not those of the file.
    """
    with torch.device("meta"):
        model = build(converted.config.model, converted.shape, history=converted.config.data.history)
    for name, wanted in model.state_dict().items():
        given = converted.state.get(name)
        if given is None or given.shape != wanted.shape:
            found = "missing" if given is None else f"{tuple(given.shape)}"
            raise UserError(f"{path}: parameter {name} is {found}; expected {tuple(wanted.shape)} of this preset; name "
                            "the data set that it was trained on with --preset")  # fmt: skip


def write_run(folder: Path, converted: Converted, frames: Frames, *, preset: str) -> Run:
    """Write weights as the best checkpoint of a new run."""
    plain = to_plain(converted.config)
    run = Run.create(folder, package="stpred", preset=preset, config={"preset": preset, **plain})
    low, high = frames.value_range
    ones = torch.ones(converted.shape.channels, 1, 1)
    tensors = {f"model/{name}": value for name, value in converted.state.items()}
    tensors |= {
        f"constants/{name}": value for name, value in Scaling(ones * low, ones * (high - low)).constants().items()
    }
    facts = {
        "package": "stpred", "version": version("stpred"), "core": version("stcore"), "preset": preset,
        "kind": "forecaster", "config": plain, "step": 0, "metrics": {},
        "frames": {**converted.shape._asdict(), "names": list(frames.names), "units": [], "value_range": [low, high]},
    }  # fmt: skip
    save_checkpoint(run.best, tensors, facts)
    return run
