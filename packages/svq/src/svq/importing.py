"""`svq convert`: checkpoints of the original and of OpenSTL (`.pth`, `.ckpt`) become runs, data a chunked store.

Shapes of files: a bare state dict, one inside a dict beside optimiser and epoch, either of them behind the prefixes of
DataParallel or Lightning. Sizes are read from the tensors; what these do not tell, such as the place of the quantiser,
comes from the preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stcore.cli import Outcome, pick_preset
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.readers.grid_store import to_store
from stcore.readers.grids import read_grid
from stcore.training.checkpoint import save_checkpoint
from stcore.training.foreign import read_torch_file
from stcore.training.run import Run
from svq.config import TrainConfig
from svq.convert import read_sizes, to_ours
from svq.data import frame_shape, read_parts
from svq.models import FrameShape, build
from svq.options import ConvertOptions
from svq.presets import DEFAULT_PRESET, KNOWN

SIZES = {
    "weather": (32, 64),
    "taxibj": (32, 32),
    "kth": (128, 128),
    "kitticaltech": (128, 160),
    "human": (256, 256),
    "moving-mnist": (64, 64),
}
"""Rows and columns of the published frames, by source."""
RANGES = {"taxibj": (0.0, 1292.0), "kth": (0.0, 255.0), "kitticaltech": (0.0, 255.0), "human": (0.0, 255.0),
          "moving-mnist": (0.0, 255.0)}  # fmt: skip
"""Values that were mapped to [0, 1]."""


class Frames(NamedTuple):
    """Frames that weights were trained on, and their scale."""

    shape: FrameShape
    scaling: Scaling
    names: tuple[str, ...]
    units: tuple[str, ...]
    remark: str


def command(options: ConvertOptions) -> Outcome:
    """Do `svq convert`."""
    if options.out.suffix == ".zarr":
        return _store(options)
    if options.out.suffix:
        raise UserError(f"{options.out}: expected a folder for the run that a checkpoint becomes, without an ending, "
                        "or for data a name that ends in .zarr")  # fmt: skip
    preset = options.preset or DEFAULT_PRESET
    base = pick_preset(KNOWN, preset)
    content = read_torch_file(options.file)
    try:
        sizes = read_sizes(content, base.model, base.quantizer)
        state, dropped = to_ours(content, ema=options.ema)
    except UserError as error:
        raise UserError(f"{options.file}: {str(error).removeprefix('checkpoint: ')}") from error
    data = replace(base.data, history=sizes.history, horizon=_horizon(base, sizes.history))
    config = replace(base, model=sizes.simvp, quantizer=sizes.quantizer, data=data)
    frames = frames_of(options, config, sizes.channels)
    check_fit(state, config, frames.shape, options.file)
    run = write_run(options.out, state, config, frames, preset=preset)
    numbers = sum(tensor.numel() for tensor in state.values())
    lines = [
        f"{options.file}: {config.model.translator} with {config.quantizer.kind}, {len(state)} tensors, {numbers:,} "
        "numbers",
        f"dropped, since they are no weights or were not asked for: {', '.join(dropped) or 'none'}",
        frames.remark,
        f"run: {run.folder}",
    ]
    found = {
        "run": str(run.folder), "tensors": len(state), "numbers": numbers, "dropped": list(dropped),
        "translator": config.model.translator, "quantizer": config.quantizer.kind, "scale": frames.remark,
    }  # fmt: skip
    return Outcome("\n".join(lines), found)


def _store(options: ConvertOptions) -> Outcome:
    """Write data once as a store that is read piece by piece."""
    reading = pick_preset(KNOWN, options.preset).data if options.preset else options.data
    series = read_grid(str(options.file), reading)
    path = to_store(series, options.out)
    data = {"store": str(path), "frames": series.num_frames, "channels": list(series.channels)}
    return Outcome(f"{options.file}: {series.num_frames:,} frames of {series.num_channels} channels in {path}", data)


def _horizon(base: TrainConfig, history: int) -> int:
    """Return the horizon of the preset, or where its history is another than the file's, as many frames as that."""
    return base.data.horizon if base.data.history == history else history


def frames_of(options: ConvertOptions, config: TrainConfig, channels: int) -> Frames:
    """Return size and scale of the frames: from the data, from what the user says, or as published.

    Raises:
        UserError: nothing tells the size, or means and deviations are not one for each channel.
    """
    if options.data.source:
        data = replace(options.data, format=options.data.format, scaling=config.data.scaling)
        train = read_parts(replace(config, data=data)).train
        return Frames(frame_shape(train), Scaling.fit(train, config.data.scaling), train.channels, train.units,
                      "scale: of the training part of the data")  # fmt: skip
    name = next(iter(config.data.source), "")
    size = options.size or SIZES.get(name)
    if size is None:
        raise UserError(f"--size: not known for {name or 'this preset'}; expected rows and columns, or --data")
    shape, ones = FrameShape(channels, *size), torch.ones(channels, 1, 1)
    names, units = tuple(map(str, range(channels))), ()
    if options.mean or options.std:
        if not len(options.mean) == len(options.std) == channels:
            raise UserError(f"--mean: {len(options.mean)} and --std: {len(options.std)}; expected {channels} of each")
        low, span = (torch.tensor(values)[:, None, None] for values in (options.mean, options.std))
        return Frames(shape, Scaling(low, span), names, units, "scale: means and deviations as given")
    if name in RANGES:
        low, high = RANGES[name]
        return Frames(shape, Scaling(ones * low, ones * (high - low)), names, units,
                      f"scale: {low:g} to {high:g} is 0 to 1, as published")  # fmt: skip
    remark = "scale: none; the run takes normalised values; pass --data, or --mean and --std, for others"
    return Frames(shape, Scaling(0.0 * ones, ones), names, units, remark)


def check_fit(state: Mapping[str, Tensor], config: TrainConfig, shape: FrameShape, path: Path) -> None:
    """Build the model and compare its tensors with those of the file.

    Raises:
        UserError: names the first that is missing, unknown, or of another size.
    """
    # The library's residual FSQ looks at its levels when it is made, which must then be there.
    with torch.device("cpu" if config.quantizer.kind == "residual-fsq" else "meta"):
        wanted = build(config.model, config.quantizer, shape, config.data.history).state_dict()
    for name, tensor in wanted.items():
        given = state.get(name)
        if given is None or given.shape != tensor.shape:
            found = "missing" if given is None else f"{tuple(given.shape)}"
            raise UserError(f"{path}: {name} is {found}; expected {tuple(tensor.shape)}; name what it was trained as "
                            "with --preset, and the size of its frames with --size")  # fmt: skip
    if unknown := sorted(set(state) - set(wanted)):
        raise UserError(f"{path}: {', '.join(unknown[:3])} ({len(unknown)} in all) left over; expected the weights of "
                        f"{config.model.translator} with {config.quantizer.kind} alone")  # fmt: skip


def write_run(folder: Path, state: Mapping[str, Tensor], config: TrainConfig, frames: Frames, *, preset: str) -> Run:
    """Write weights as the best checkpoint of a new run."""
    plain = to_plain(config)
    run = Run.create(folder, package="svq", preset=preset, config={"preset": preset, **plain})
    tensors = {f"model/{name}": value for name, value in state.items()}
    tensors |= {f"constants/{name}": value for name, value in frames.scaling.constants().items()}
    facts: dict[str, Any] = {
        "package": "svq", "version": version("svq"), "core": version("stcore"), "preset": preset, "config": plain,
        "step": 0, "metrics": {},
        "frames": {**frames.shape._asdict(), "names": list(frames.names), "units": list(frames.units)},
    }  # fmt: skip
    save_checkpoint(run.best, tensors, facts)
    return run
