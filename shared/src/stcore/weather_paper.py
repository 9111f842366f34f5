"""Windows and scales of the published WeatherBench scores, quirks included; `strict` needs nothing of this.

Of n frames of a part, anchors run from the length of the history to n less the furthest output less 2, so that the
last good window is lost. Every part is scaled by its own mean and deviation per channel. Forecasts of sets of a single
variable are turned back by the statistics of the training part, those of the 6-hourly sets by the part's own.

Source: OpenSTL, `openstl/datasets/dataloader_weather.py`, class `WeatherBenchDataset`, and the denormalisation in its
`exp.py`. Statistics are summed in double precision here; the original's single-precision sums drift by about 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from stcore.frame_stores import batches
from stcore.grids import GridSeries
from stcore.readers.weatherbench import WeatherSet
from stcore.splits import Parts
from stcore.windows import Integers, WindowFrames, Windows, spaced_windows

Channels = Float32[ndarray, "channel"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PaperPart:
    """Windows of a part with the statistics that scale them and those that forecasts are turned back by."""

    windows: Windows
    mean: Channels
    std: Channels
    report_mean: Channels
    report_std: Channels

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def anchors(self) -> Integers:
        """Last frame of the history of each window."""
        return self.windows.rows(np.arange(len(self.windows)))[:, self.windows.history - 1]

    def load(self, ids: Integers) -> tuple[WindowFrames, WindowFrames]:
        """Return history and future of windows, scaled by the statistics of this part."""
        history, future = self.windows.load(ids)
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        return (history - mean) / std, (future - mean) / std

    def to_units(self, frames: WindowFrames) -> WindowFrames:
        """Turn scaled frames back as the publication does; see the module for by what."""
        return frames * self.report_std[:, None, None] + self.report_mean[:, None, None]


def paper_windows(
    series: GridSeries, *, inputs: Sequence[int], outputs: Sequence[int], where: str = "weather"
) -> Windows:
    """Return the windows of a part, without the last good one.

    Args:
        series: frames of the part, the last one dropped already (`data.protocol paper` does).
        inputs: places of the history relative to its last frame, such as `WeatherSet.paper_inputs`.
        outputs: places of the frames that are to be told.
        where: what the part is, for the message.

    Raises:
        UserError: there are too few frames.
    """
    return spaced_windows(series, inputs=inputs, outputs=outputs, drop_last=1, where=where)


def paper_parts(parts: Parts[GridSeries], weather: WeatherSet) -> Parts[PaperPart]:
    """Return windows and statistics of parts that were read with `data.protocol paper`.

    Raises:
        UserError: a part has too few frames.
    """
    moments = {name: channel_moments(part) for name, part in parts.named().items() if name != "val"}
    moments["val"] = moments["test"] if parts.val is parts.test else channel_moments(parts.val)

    def part(name: str) -> PaperPart:
        mean, std = moments[name]
        report_mean, report_std = moments["train"] if weather.hours == 1 else moments[name]
        windows = paper_windows(
            parts.named()[name], inputs=weather.paper_inputs, outputs=weather.paper_outputs, where=name
        )
        return PaperPart(windows=windows, mean=mean, std=std, report_mean=report_mean, report_std=report_std)

    return Parts(part("train"), part("val"), part("test"))


def channel_moments(series: GridSeries) -> tuple[Channels, Channels]:
    """Return mean and (population) standard deviation of each channel over frames and cells with data.

    One pass: sums are of deviations from the first frame, so that no digits are lost.
    """
    first = np.nan_to_num(series.frames([0])[0].astype(np.float64))
    start = first.mean(axis=(1, 2))[:, None, None]
    total, squares, count = (np.zeros(series.num_channels) for _ in range(3))
    for ids in batches(series.num_frames, 8 * int(np.prod(series.shape[1:]))):
        off = series.frames(ids) - start
        total += np.nansum(off, axis=(0, 2, 3))
        squares += np.nansum(np.square(off, out=off), axis=(0, 2, 3))
        count += np.isfinite(off).sum(axis=(0, 2, 3))
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
    return (mean + start[:, 0, 0]).astype(np.float32), np.sqrt(variance).astype(np.float32)
