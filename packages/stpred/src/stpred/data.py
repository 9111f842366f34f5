"""From frames to what models see: parts, scaling fitted on the training part, windows, batches.

Frames are read by the core (`stcore.readers.grids`), or made on the fly where `data.generate` asks for moving digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from stcore.errors import UserError
from stcore.frame_batches import FrameBatches, WindowSamples
from stcore.frame_scaling import Scaling
from stcore.generate.digits import MovingDigits, resize_digits, sklearn_digits, split_digits
from stcore.grids import GridSeries
from stcore.readers.published import published_folder
from stcore.sampling import Indices, derive_seed
from stcore.splits import Parts
from stcore.windows import find_windows
from stpred.config import DataConfig, EvaluateConfig, TrainConfig
from stpred.models.configs import FrameShape

SKLEARN = "digits"
"""Source that names the digits of scikit-learn."""
IDX = "images-idx3-ubyte"
"""Part of the names of MNIST's files of pictures."""
DIGIT_SHARE = 28 / 64
"""Side of a digit over that of the canvas, as in Moving MNIST."""
STANDARD_TEST_FILE = "mnist_test_seq.npy"
PREVIEW = 256
"""Generated sequences that are looked at beforehand."""


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
        return self.digits.series(min(self.count, PREVIEW))


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
