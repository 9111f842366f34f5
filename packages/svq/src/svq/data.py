"""From frames to what models see: parts, scaling fitted on the training part, windows, batches.

Frames are read by the core (`stcore.readers.grids`); the field of the demo is made. Under the protocol `paper` weights
are chosen on the test part, and for WeatherBench every part is scaled by its own statistics and windows lie as they
were published (see `stcore.weather_paper`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from stcore.errors import UserError
from stcore.frame_batches import FrameBatches, WindowSamples
from stcore.frame_scaling import Scaling
from stcore.generate.advection import Advection
from stcore.grids import GridSeries
from stcore.readers.grids import read_grid_parts, read_grids_or_parts
from stcore.readers.published import published_folder
from stcore.readers.weatherbench import WeatherSet, weather_set
from stcore.splits import Parts
from stcore.weather_paper import paper_windows
from stcore.windows import Windows, find_windows
from svq.config import DataConfig, TrainConfig
from svq.models import FrameShape

GENERATED = "advection"
"""Source that names the field of the demo: weather that winds carry, with a known law."""
GENERATED_FRAMES = (1000, 150, 250)
"""Hours of training, validation and test."""


def read_parts(config: TrainConfig) -> Parts[GridSeries]:
    """Read or generate the parts.

    Raises:
        UserError: the source cannot be read, or holds too little.
    """
    data = _of_store(replace(config.data, source=tuple(map(published_folder, config.data.source))))
    if data.source == (GENERATED,):
        return generated_parts(Advection(), seed=config.seed)
    if config.protocol == "strict" or data.format == "weatherbench":
        return read_grid_parts(data)
    found = read_grids_or_parts(data)
    if not {"train", "test"} <= set(found):
        raise UserError(f"{', '.join(data.source)}: parts {', '.join(found)}; expected train and test: data.protocol "
                        "paper has no cut of its own")  # fmt: skip
    return Parts(found["train"], found["test"], found["test"])


def is_store(data: DataConfig) -> bool:
    """Return whether the source is one store of frames, cut when it was made."""
    source = Path(data.source[0]) if len(data.source) == 1 else Path()
    return source.suffix == ".zarr" and (source / "values").is_dir()


def _of_store(data: DataConfig) -> DataConfig:
    """Return how a store that `svq convert` made of WeatherBench is read: its three clips are the parts.

    Raises:
        UserError: the protocol is `paper`, which cuts the archive itself.
    """
    if data.format != "weatherbench" or not is_store(data):
        return data
    if data.protocol == "paper":
        raise UserError(f"{data.source[0]}: a store; expected the folders of WeatherBench, which data.protocol paper "
                        "cuts in its own way")  # fmt: skip
    return replace(data, format="zarr", variable=(), levels=(), years=(), split_by="clip")


def generated_parts(world: Advection, *, seed: int) -> Parts[GridSeries]:
    """Make three stretches of one world's weather, one after the other."""
    whole = world.series(sum(GENERATED_FRAMES), seed=seed)
    first, second, _ = GENERATED_FRAMES
    cuts = (slice(0, first), slice(first, first + second), slice(first + second, None))
    return Parts(*(whole.select(cut) for cut in cuts))


def paper_set(data: DataConfig) -> WeatherSet | None:
    """Return the set of WeatherBench that is treated as it was published; None for all others."""
    return weather_set(data) if data.protocol == "paper" and data.format == "weatherbench" else None


def windows_of(
    series: GridSeries, data: DataConfig, *, horizon: int = 0, stride: int = 0, name: str = ""
) -> Windows:  # fmt: skip
    """Return the windows of a part.

    Args:
        series: the part.
        data: lengths and laying of windows.
        horizon: frames to forecast; 0 takes those of training.
        stride: frames from one window to the next; 0 takes that of training.
        name: of the part, for messages.

    Raises:
        UserError: no window fits.
    """
    ahead, step = horizon or data.horizon, stride or data.stride
    where = ": ".join(filter(None, (", ".join(data.source), name))) or "frames"
    if (published := paper_set(data)) is not None:
        places = replace(published, history=data.history, horizon=ahead)
        found = paper_windows(series, inputs=places.paper_inputs, outputs=places.paper_outputs, where=where)
        return replace(found, starts=found.starts[::step])
    return find_windows(series, history=data.history, horizon=ahead, stride=step, rule=data.windows, where=where)


def leads_of(data: DataConfig, horizon: int) -> tuple[int, ...]:
    """Return how many frames ahead each forecast frame is."""
    published = paper_set(data)
    return tuple(range(1, horizon + 1)) if published is None else replace(published, horizon=horizon).paper_outputs


def scaling_of(part: GridSeries, data: DataConfig, train: Scaling) -> Scaling:
    """Return what scales a part: the statistics of the training part, or its own where those were published."""
    return train if paper_set(data) is None else Scaling.fit(part, data.scaling)


def batches_of(
    parts: Parts[GridSeries], name: Literal["train", "val"], scaling: Scaling, config: TrainConfig
) -> FrameBatches:
    """Return the batches of a part, shuffled for training."""
    part, data = parts.named()[name], config.data
    return FrameBatches(
        WindowSamples(windows_of(part, data, name=name)), scaling_of(part, data, scaling), data.batch, config.seed,
        shuffle=name == "train", drop_last=data.drop_last and name == "train",
    )  # fmt: skip


def frame_shape(series: GridSeries) -> FrameShape:
    """Return channels, rows and columns of the frames of a series."""
    return FrameShape(series.num_channels, series.height, series.width)
