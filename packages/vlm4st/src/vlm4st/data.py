"""From files to what models see: data sets with their parts, batches of several of them, and the way back.

`read_datasets` reads; `sources_of` cuts, scales and selects (few-shot); `read_sources` does both. `training_batches`
mixes the sources for the core's loop, `part_batches` walks through one part of one of them, and `Space.to_native` turns
forecasts into units and cells of the data. Source: VLM4ST, `dataset.py`, for the rules of its batches and selections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from stcore.errors import UserError
from stcore.generate.crowd_flow import CrowdFlow
from stcore.grids import GridSeries
from stcore.readers.grids import read_grid_parts
from stcore.readers.unist import UnistFile, is_unist, read_unist
from stcore.sampling import Indices
from stcore.splits import Parts
from vlm4st.config import FewShotConfig
from vlm4st.data_options import DataConfig, StampForm, WindowShape, dataset_name
from vlm4st.few_shot_selection import by_days, by_ratio
from vlm4st.mixing import Mixture, PartBatches, Samples
from vlm4st.resizing import Resizing, Size
from vlm4st.space import Space
from vlm4st.timestamps import require_form
from vlm4st.usual import HistoricalAverage
from vlm4st.windows import (
    Block,
    WindowSet,
    array_windows,
    samples_of,
    series_windows,
    step_seconds,
)

__all__ = [
    "GENERATED", "Dataset", "Mixture", "Part", "PartBatches", "Source", "batch_size", "evaluation_size", "find_target",
    "largest_grid", "part_batches", "read_datasets", "read_sources", "sources_of", "training_batches",
]  # fmt: skip

GENERATED = "crowd-flow"
"""Source that names the world of the demo: people on a street grid, with the rhythm of days and weeks."""
GENERATED_DAYS = 35
SEEN = 3
"""Times that a moment of the day or week was seen before its mean is taken for what is usual then."""
Part = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """What was read, before it is cut into windows."""

    name: str
    where: str
    """As the user named it, for messages and to find a target."""
    content: UnistFile | Parts[GridSeries]

    @property
    def native(self) -> Size:
        """Rows and columns."""
        if isinstance(self.content, UnistFile):
            rows, columns = self.content.parts.train.values.shape[2:]
            return int(rows), int(columns)
        return self.content.train.height, self.content.train.width

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; a file of UniST has one without a name."""
        return ("0",) if isinstance(self.content, UnistFile) else self.content.train.channels

    @property
    def units(self) -> tuple[str, ...]:
        return () if isinstance(self.content, UnistFile) else self.content.train.units


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """One data set, ready: windows of its parts, the model's scale and grid, and which samples are trained on."""

    name: str
    where: str
    windows: Parts[WindowSet]
    space: Space
    shape: WindowShape
    training: Indices
    """Samples of the training part that are trained on: all of them but for a target of few shots."""
    evaluated: bool
    """Whether validation and test part count: those of all sources, or of the target alone."""
    channels: tuple[str, ...]
    units: tuple[str, ...]
    timed: bool
    """Whether the model sees timestamps."""
    step_seconds: int | None
    """Seconds from one frame to the next, where they are known."""

    @property
    def native(self) -> Size:
        """Rows and columns of the data."""
        return self.space.resizing.native

    @property
    def training_windows(self) -> Indices:
        """Windows of the training part that are trained on."""
        return np.unique(self.training // self.windows.train.channels)

    def samples(self, part: Part, ids: Indices | None = None) -> Samples:
        """Return all samples of a part, or some."""
        windows = self.windows.named()[part]
        chosen = np.arange(len(windows), dtype=np.int64) if ids is None else ids
        return Samples(windows, self.space, self.shape.history, self.timed, chosen, self.name)


def read_sources(
    data: DataConfig, shape: WindowShape, *, target: str = "", few_shot: FewShotConfig | None = None, seed: int = 42
) -> list[Source]:
    """Read the data sets and make them ready.

    Args:
        data: which, and how.
        shape: frames and grid of the model.
        target: the data set of few shots; with none, all of all data sets is trained on.
        few_shot: how much of the target is trained on.
        seed: of generated data.

    Raises:
        UserError: a source cannot be read or used.
    """
    return sources_of(read_datasets(data, seed=seed), data, shape, target=target, few_shot=few_shot)


def read_datasets(data: DataConfig, *, seed: int = 42) -> list[Dataset]:
    """Read every data set; a file of UniST is mapped from the cache.

    Raises:
        UserError: there is none, one is named twice, or one cannot be read.
    """
    if not data.source:
        raise UserError("data.source: no data set; expected at least one file or name; pass --data")
    names = _names(data.source)
    return [_read(source, name, data, seed) for source, name in zip(data.source, names, strict=True)]


def _read(source: str, name: str, data: DataConfig, seed: int) -> Dataset:
    if source == GENERATED:
        world = CrowdFlow()
        series = world.series(GENERATED_DAYS * world.steps_per_day, seed=seed)
        first, second = (round(len(series) * share) for share in (data.split[0], data.split[0] + data.split[1]))
        cuts = (slice(0, first), slice(first, second), slice(second, None))
        return Dataset(name=name, where=source, content=Parts(*(series.select(cut) for cut in cuts)))
    if is_unist(Path(source)):
        content = read_unist(source, cache=data.cache, max_bytes=data.max_bytes)
        require_form(content.form, _form(data, name), name=name, where=content.where)
        return Dataset(name=name, where=source, content=content)
    return Dataset(name=name, where=source, content=_read_series(replace(data, source=(source,)), len(data.source)))


def _read_series(data: DataConfig, sources: int) -> Parts[GridSeries]:
    """Read a series; of several data sets, a start is for those alone that have no times."""
    if sources > 1 and data.start:
        parts = read_grid_parts(replace(data, start="", step=""))
        if parts.train.times is not None:
            return parts
    return read_grid_parts(data)


def _form(data: DataConfig, name: str) -> StampForm:
    return data.stamp_form(name)  # pyright: ignore[reportReturnType]  checked when the options were made


def _names(sources: Sequence[str]) -> list[str]:
    """Return names of the data sets, all different: where files are called alike, with their folders.

    Raises:
        UserError: a source is named twice.
    """
    places = [_place(source) for source in sources]
    for at, place in enumerate(places):
        if place in places[:at]:
            raise UserError(f"data.source: {sources[at]} is named twice; expected different data sets")
    names = [dataset_name(source) for source in sources]
    longer = [f"{Path(place).parent.name}/{name}" if names.count(name) > 1 else name
              for place, name in zip(places, names, strict=True)]  # fmt: skip
    return [name if longer.count(name) == 1 else place for place, name in zip(places, longer, strict=True)]


def _place(source: str) -> str:
    """Return one and the same text for all ways to name a file."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def find_target(names: Sequence[str], sources: Sequence[str], target: str) -> int:
    """Return which data set `target` names: by its name, or by its file whatever the path looks like.

    Raises:
        UserError: none of them.
    """
    for at, (name, source) in enumerate(zip(names, sources, strict=True)):
        if target in (name, source) or _place(target) == _place(source):
            return at
    raise UserError(f"few-shot.target: {target!r:.80}; expected one of the data sets {', '.join(names)}")


def largest_grid(datasets: Sequence[Dataset]) -> Size:
    """Return rows and columns that hold the frames of every data set."""
    return max(one.native[0] for one in datasets), max(one.native[1] for one in datasets)


def sources_of(
    datasets: Sequence[Dataset],
    data: DataConfig,
    shape: WindowShape,
    *,
    target: str = "",
    few_shot: FewShotConfig | None = None,
) -> list[Source]:
    """Cut data sets into windows, and fit their scales on the windows that are trained on.

    A target of which nothing is trained on is scaled by its training part; that much of it is known.

    Raises:
        UserError: a data set is too short, constant, or without times; or nothing is left to train on.
    """
    few = few_shot or FewShotConfig()
    at = find_target([one.name for one in datasets], [one.where for one in datasets], target) if target else -1
    found: list[Source] = []
    for number, dataset in enumerate(datasets):
        windows = _windows(dataset, data, shape)
        mine = None
        if target and number == at:
            mine = _few(windows.train, few, where=f"{dataset.where}: train")
        elif target and not few.others:
            mine = np.zeros(0, dtype=np.int64)
        found.append(_source(dataset, windows, mine, data, shape, evaluated=not target or number == at))
    if not any(len(source.training) for source in found):
        raise UserError(f"few-shot: nothing to train on for target {target}; expected other data sets, or a ratio or "
                        "days above 0")  # fmt: skip
    return found


def _few(windows: WindowSet, few: FewShotConfig, *, where: str) -> Indices:
    if few.days:
        return by_days(windows, few.days, step_seconds(windows), where=where)
    return by_ratio(windows.windows, few.ratio, selection=few.selection)


def _windows(dataset: Dataset, data: DataConfig, shape: WindowShape) -> Parts[WindowSet]:
    found: dict[str, WindowSet] = {}
    timed = not data.timeless
    if isinstance(dataset.content, UnistFile):
        content = dataset.content
        for part, arrays in content.parts.named().items():
            found[part] = array_windows(arrays, shape, form=content.form, slots=data.slots(dataset.name), timed=timed,
                                        where=f"{content.where}: {part}", name=part)  # fmt: skip
    else:
        for part, series in dataset.content.named().items():
            found[part] = series_windows(
                series, shape, stride=data.stride, where=f"{dataset.where}: {part}", timed=timed
            )
    return Parts(**found)


def _source(
    dataset: Dataset,
    windows: Parts[WindowSet],
    few: Indices | None,
    data: DataConfig,
    shape: WindowShape,
    *,
    evaluated: bool,
) -> Source:
    resizing = Resizing(kind=data.resize, native=dataset.native, model=(shape.height, shape.width))
    chosen = few if few is not None and len(few) else None
    usual = None
    if data.anomalies != "none":
        usual = HistoricalAverage.fit(windows.train, chosen, by_weekday=data.anomalies == "week", average=data.usual,
                                      at_least=SEEN, around=data.usual_around, pooled=data.usual_pooled)  # fmt: skip
    ranged = windows.named().values() if data.scaler_fit == "all" else (windows.train,)
    some = None if data.scaler_fit == "all" else chosen
    blocks = (block for part in ranged for block in _blocks(part, some, usual))
    space = Space.fit_range(blocks, resizing, part=data.scaler_fit, constant=data.constant,
                            where=f"{dataset.where}: train", channels=dataset.channels, usual=usual)  # fmt: skip
    training = np.arange(len(windows.train), dtype=np.int64) if few is None else samples_of(few, windows.train.channels)
    return Source(name=dataset.name, where=dataset.where, windows=windows, space=space, shape=shape, training=training,
                  evaluated=evaluated, channels=dataset.channels, units=dataset.units, timed=not data.timeless,
                  step_seconds=step_seconds(windows.train))  # fmt: skip


def _blocks(windows: WindowSet, chosen: Indices | None, usual: HistoricalAverage | None) -> Iterator[Block]:
    """Yield frames as they are scaled."""
    if usual is None:
        yield from windows.blocks(chosen)
        return
    for block, clock in windows.frames(chosen):
        assert clock is not None  # asked for when the usual frames were taken
        yield usual.off(block, clock)


def batch_size(data: DataConfig, shape: WindowShape, *, sources: int) -> int:
    """Return the samples of a training batch; with `adaptive` and a single data set, fewer on larger grids.

    >>> [batch_size(DataConfig(batch_rule="adaptive"), WindowShape(height=side, width=side), sources=1)
    ...  for side in (8, 20, 30, 32)]
    [32, 16, 8, 4]
    """
    if data.batch_rule == "fixed" or sources > 1:
        return data.batch
    around = shape.height + shape.width
    share = 1 if around < 32 else 2 if around < 48 else 4 if around < 64 else 8
    return max(1, data.batch // share)


def training_batches(sources: Sequence[Source], data: DataConfig, *, seed: int) -> Mixture:
    """Return the batches of training, for the core's loop. `dataset` in a batch counts the sources that are trained on,
    in their order."""
    used = [source.samples("train", source.training) for source in sources if len(source.training)]
    size = batch_size(data, sources[0].shape, sources=len(used))
    return Mixture(parts=used, size=size, seed=seed, mixing=data.mixing, temperature=data.temperature)


def part_batches(source: Source, part: Part, *, size: int, limit: int = 0) -> PartBatches:
    """Return the batches of one part, in order.

    Args:
        source: the data set.
        part: which part.
        size: samples in a batch.
        limit: windows at most, spread evenly; 0 takes all.
    """
    windows = source.windows.named()[part]
    count = windows.windows
    chosen = np.arange(count, dtype=np.int64)
    if 0 < limit < count:
        chosen = np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))
    return PartBatches(source.samples(part, samples_of(chosen, windows.channels)), size)


def evaluation_size(data: DataConfig, shape: WindowShape, *, sources: int) -> int:
    """Return the samples of a batch of evaluation: four times those of training, as in the original."""
    return 4 * batch_size(data, shape, sources=sources)
