"""From frames to what models see: parts, scaling fitted on the training part, windows, batches.

Frames are read by the core (`stcore.readers.grids`), or made on the fly where `data.generate` asks for moving digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from stcore.catalog import DATA_VARIABLE
from stcore.errors import UserError
from stcore.generate.digits import MovingDigits, resize_digits, sklearn_digits, split_digits
from stcore.grids import GridSeries
from stcore.sampling import Indices, derive_seed, in_batches, shuffled
from stcore.splits import Parts
from stcore.windows import Windows, find_windows
from stpred.config import DataConfig, EvaluateConfig, TrainConfig
from stpred.models.configs import FrameShape

SKLEARN = "digits"
"""Source that names the digits of scikit-learn."""
IDX = "images-idx3-ubyte"
"""Part of the names of MNIST's files of pictures."""
DIGIT_SHARE = 28 / 64
"""Side of a digit over that of the canvas, as in Moving MNIST."""
PUBLISHED = {
    "moving-mnist": (("moving_mnist", "moving-mnist", "MovingMNIST", "mnist"),
                     "train-images-idx3-ubyte.gz of MNIST and mnist_test_seq.npy"),
    "kth": (("kth", "KTH"), "class folders of frames or videos"),
    "taxibj": (("taxibj", "TaxiBJ"), "dataset.npz or the yearly files BJ13_M32x32_T30_InOut.h5 to BJ16"),
}  # fmt: skip
"""Data sets that presets name: folders under $STCORE_DATA, and what must lie there."""
STANDARD_TEST_FILE = "mnist_test_seq.npy"
BLOCK = 256
"""Frames that are looked at together."""

Pair = tuple[Tensor, Tensor]
"""History and future of a batch, each (batch, time, channel, height, width), on the scale of the model."""


class Samples(Protocol):
    """Windows by number; `epoch` matters only where every epoch has new ones."""

    def __len__(self) -> int: ...
    def load(self, epoch: int, ids: Indices) -> tuple[ndarray, ndarray]: ...
    def names(self, ids: Indices) -> list[str]: ...


@dataclass(frozen=True, eq=False)
class WindowSamples:
    """Windows over frames that were read."""

    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    def load(self, epoch: int, ids: Indices) -> tuple[ndarray, ndarray]:
        return self.windows.load(ids)

    def names(self, ids: Indices) -> list[str]:
        return self.windows.names(ids)


@dataclass(frozen=True, eq=False)
class FreshDigits:
    """Sequences of moving digits, new ones in every epoch."""

    digits: MovingDigits
    count: int
    history: int

    def __len__(self) -> int:
        return self.count

    def load(self, epoch: int, ids: Indices) -> tuple[ndarray, ndarray]:
        frames = self.digits.sequences(ids, epoch=epoch).astype(np.float32)[:, :, None]
        return frames[:, : self.history], frames[:, self.history :]

    def names(self, ids: Indices) -> list[str]:
        return [f"generated sequence {i}" for i in ids]

    @cached_property
    def series(self) -> GridSeries:
        """The first sequences of the first epoch, for what has to look at frames beforehand."""
        return self.digits.series(min(self.count, BLOCK))


@dataclass(frozen=True, eq=False)
class Scaling:
    """What maps values to what a model sees, channel by channel: (value - low) / span."""

    low: Float[Tensor, "channel 1 1"]
    span: Float[Tensor, "channel 1 1"]

    @classmethod
    def fit(cls, train: GridSeries, kind: str) -> Scaling:
        """Take the declared range of the training part, or what its values say; see `DataConfig.scaling`.

        Raises:
            UserError: the declared range is asked for and there is none, or a channel has one value only.
        """
        channels = train.num_channels
        if kind == "none":
            return cls(torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1))
        if kind == "range" or (kind == "auto" and train.value_range is not None):
            if train.value_range is None:
                raise UserError("data.scaling: 'range' without a declared range; expected one; pass --data.value-range")
            low, high = train.value_range
            return cls(torch.full((channels, 1, 1), low), torch.full((channels, 1, 1), high - low))
        low, span = _moments(train) if kind == "standard" else _extremes(train)
        for name, width in zip(train.channels, span, strict=True):
            if not width > 0.0:
                raise UserError(f"training part: channel {name} has one value only; expected one that varies; pass "
                                "--data.scaling none, or --data.value-range")  # fmt: skip
        return cls(*(torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (low, span)))

    def transform(self, frames: Float[Tensor, "*batch channel height width"]) -> Tensor:
        """Map values to the model's scale; missing cells become 0."""
        return ((frames - self.low.to(frames)) / self.span.to(frames)).nan_to_num(nan=0.0)

    def inverse(self, frames: Float[Tensor, "*batch channel height width"]) -> Tensor:
        """Undo `transform`."""
        return frames * self.span.to(frames) + self.low.to(frames)

    def constants(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {"scaling/low": self.low, "scaling/span": self.span}

    @classmethod
    def restore(cls, constants: dict[str, Tensor]) -> Scaling:
        """Rebuild what `constants` kept."""
        return cls(constants["scaling/low"], constants["scaling/span"])


@dataclass(frozen=True, eq=False)
class FrameBatches:
    """Batches of windows for the training loop and for `Trainer.fit`; the order follows from seed and epoch."""

    samples: Any
    scaling: Scaling
    size: int
    seed: int
    shuffle: bool = True

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def order(self, epoch: int) -> list[Indices]:
        count = len(self.samples)
        chosen = shuffled(count, seed=self.seed, epoch=epoch) if self.shuffle else np.arange(count, dtype=np.int64)
        return in_batches(chosen, self.size)

    def load(self, epoch: int, ids: Indices) -> Pair:
        history, future = (torch.from_numpy(part) for part in self.samples.load(epoch, ids))
        return self.scaling.transform(history), self.scaling.transform(future)

    def names(self, ids: Indices) -> list[str]:
        return self.samples.names(ids)

    def __iter__(self) -> Iterator[Pair]:
        """Yield the batches of the first epoch, as a loader would."""
        return (self.load(0, ids) for ids in self.order(0))


def read_parts(config: DataConfig, *, seed: int = 0) -> Parts[Any]:
    """Read or generate the parts: each a `GridSeries`, the training one `FreshDigits` where digits are generated.

    Raises:
        UserError: the source cannot be read, or holds too little.
    """
    config = replace(config, source=tuple(map(published_folder, config.source)))
    if config.generate.sequences and len(config.source) == 1 and holds_digits(config.source[0]):
        return generated_parts(config, seed=seed)
    from stcore.readers.grids import read_grid_parts

    return read_grid_parts(config)


def published_folder(source: str) -> str:
    """Return where the data set that a preset names lies; any other source as it is.

    Raises:
        UserError: it is not under $STCORE_DATA; the message says what to put there.
    """
    if source not in PUBLISHED or Path(source).exists():
        return source
    folders, what = PUBLISHED[source]
    root = os.environ.get(DATA_VARIABLE, "")
    places = [Path(root, folder) for folder in folders if root]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        looked = f"{DATA_VARIABLE}={root}" if root else f"{DATA_VARIABLE} (not set)"
        raise UserError(f"{source}: not found under {looked}; expected {what} in a folder {folders[0]}, or --data with "
                        "the path of yours")  # fmt: skip
    return str(found)


def generated_parts(config: DataConfig, *, seed: int) -> Parts[Any]:
    """Make moving digits, other ones for validation and test than for training; a standard test file stays as it is."""
    options = config.generate
    side = max(4, round(options.canvas * DIGIT_SHARE))
    images = split_digits(resize_digits(digit_images(config.source[0]), side), seed=seed)

    def moving(part: UInt8[ndarray, "image size size"], name: str) -> MovingDigits:
        return MovingDigits(images=part, num_digits=options.digits, length=config.history + config.horizon,
                            canvas=options.canvas, speed=options.speed, seed=derive_seed(seed, name))  # fmt: skip

    held_back = max(options.sequences // 10, 1)
    standard = _standard_test_file(config.source[0])
    return Parts(
        FreshDigits(moving(images.train, "train"), options.sequences, config.history),
        moving(images.val, "val").series(held_back),
        _read_file(standard) if standard and options.canvas == 64 else moving(images.test, "test").series(held_back),
    )


def digit_images(source: str) -> UInt8[ndarray, "image size size"]:
    """Return the digits of `source`: `digits` (scikit-learn), an idx file of MNIST, or a folder or card with one.

    Raises:
        UserError: there are none.
    """
    if source == SKLEARN:
        return sklearn_digits()
    from stcore.readers.moving_mnist import read_idx_images

    path = Path(source)
    if path.is_file():
        return read_idx_images(path)
    files = _idx_files(source)
    if not files:
        raise UserError(f"{source}: no digits there; expected an idx file of MNIST such as "
                        f"train-images-idx3-ubyte.gz, a folder with one, or {SKLEARN}")  # fmt: skip
    training = [file for file in files if file.name.startswith("train")]
    return read_idx_images((training or files)[0])


def holds_digits(source: str) -> bool:
    """Return whether `source` is digits rather than frames."""
    return source == SKLEARN or IDX in Path(source).name or bool(_idx_files(source))


def _idx_files(source: str) -> list[Path]:
    return [file for folder in _folders(source) for file in sorted(folder.glob(f"*{IDX}*"))]


def samples_of(part: Any, config: DataConfig, evaluate: EvaluateConfig | None = None, *, name: str = "") -> Any:
    """Return the windows of a part; with `evaluate`, those that a trained model is applied to.

    Args:
        part: frames, or digits made on the fly.
        config: lengths and laying of windows.
        evaluate: lengths and laying where a trained model is applied.
        name: of the part, for messages.

    Raises:
        UserError: no window fits.
    """
    if isinstance(part, FreshDigits):
        if evaluate is None:
            return part
        part = part.series
    horizon = (evaluate.horizon if evaluate else 0) or config.horizon
    stride = (evaluate.stride if evaluate else 0) or config.stride
    where = ": ".join(filter(None, (", ".join(config.source), name))) or "frames"
    return WindowSamples(
        find_windows(part, history=config.history, horizon=horizon, stride=stride, rule=config.windows, where=where)
    )


def series_of(part: Any) -> GridSeries:
    """Return frames of a part that can be looked at beforehand."""
    return part.series if isinstance(part, FreshDigits) else part


def frame_shape(part: Any) -> FrameShape:
    """Return channels, rows and columns of the frames of a part."""
    series = series_of(part)
    return FrameShape(series.num_channels, series.height, series.width)


def batches_of(parts: Parts[Any], name: Literal["train", "val"], scaling: Scaling, config: TrainConfig) -> FrameBatches:
    """Return the batches of a part, shuffled for training."""
    samples = samples_of(parts.named()[name], config.data, name=name)
    return FrameBatches(samples, scaling, config.data.batch, config.seed, name == "train")


def _extremes(series: GridSeries) -> tuple[ndarray, ndarray]:
    low, high = np.full(series.num_channels, np.inf), np.full(series.num_channels, -np.inf)
    for frames in _blocks(series):
        flat = np.moveaxis(frames, 1, 0).reshape(series.num_channels, -1)
        low, high = np.fmin(low, np.fmin.reduce(flat, axis=1)), np.fmax(high, np.fmax.reduce(flat, axis=1))
    return low, high - low


def _moments(series: GridSeries) -> tuple[ndarray, ndarray]:
    """Return mean and deviation of each channel, over two passes: sums of squares alone would lose digits."""
    total = np.zeros(series.num_channels)
    count = np.zeros(series.num_channels)
    for frames in _blocks(series):
        total += np.nansum(frames, axis=(0, 2, 3), dtype=np.float64)
        count += np.isfinite(frames).sum(axis=(0, 2, 3))
    mean = total / np.maximum(count, 1)
    squares = np.zeros(series.num_channels)
    for frames in _blocks(series):
        squares += np.nansum((frames - mean[:, None, None]) ** 2, axis=(0, 2, 3), dtype=np.float64)
    return mean, np.sqrt(squares / np.maximum(count, 1))


def _blocks(series: GridSeries) -> Iterator[ndarray]:
    for first in range(0, series.num_frames, BLOCK):
        yield series.frames(range(first, min(first + BLOCK, series.num_frames)))


def _folders(source: str) -> list[Path]:
    """Return where the files of a source may lie: the folder itself, or that of a named data set."""
    if Path(source).is_dir():
        return [Path(source)]
    from stcore.catalog import known, locate

    card = known(source, "digits") or known(source, "grids")
    return [] if card is None else [locate(card)]


def _standard_test_file(source: str) -> Path | None:
    if source == SKLEARN or Path(source).is_file():
        return None
    files = [folder / STANDARD_TEST_FILE for folder in _folders(source)]
    return next((file for file in files if file.is_file()), None)


def _read_file(path: Path) -> GridSeries:
    from stcore.readers.grid_options import GridReadOptions
    from stcore.readers.grids import read_grid

    return read_grid(str(path), GridReadOptions(format="moving-mnist"))
