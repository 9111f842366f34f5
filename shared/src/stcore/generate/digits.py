"""Moving digits: frames in which handwritten digits drift in straight lines and bounce off the walls.

The future follows from the history up to the rounding of positions, so a forecaster can be judged against the truth.
A sequence depends on (seed, epoch, index) and on nothing else: any order and any batch gives the same frames.

Source: Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", ICML 2015 (Moving MNIST),
in the form of the loader of OpenSTL (`openstl/datasets/dataloader_moving_mnist.py`), whose draws `rng="python"`
repeats: position and direction first, then the digit; move, bounce, and only then the frame.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

from stcore.errors import UserError
from stcore.splits import Parts, cut

if TYPE_CHECKING:
    from stcore.grids import GridSeries

_BLOCK = 16
"""Sequences painted at once: few enough that their frames stay in cache."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Starts:
    """How digits set out: position in the unit square, direction, and which image; one row for a sequence, if many."""

    x: Float64[ndarray, "*sequence digit"]
    """From the left wall, 0, to the right one, 1."""
    y: Float64[ndarray, "*sequence digit"]
    """From the top, 0, to the bottom, 1."""
    theta: Float64[ndarray, "*sequence digit"]
    """Direction in radians, from that of x towards that of y."""
    digit: Int64[ndarray, "*sequence digit"]
    """Index of the image; -1 for a place left empty, where sequences have unequal numbers of digits."""


def draw_with_python(rng: random.Random, num_digits: int, num_images: int) -> Starts:
    """Draw the start of a sequence as the original does: x, y, direction and image of one digit after another."""
    rows = [
        (rng.random(), rng.random(), rng.random() * 2 * math.pi, rng.randint(0, num_images - 1))
        for _ in range(num_digits)
    ]
    x, y, theta, digit = zip(*rows, strict=True)
    return Starts(x=np.array(x), y=np.array(y), theta=np.array(theta), digit=np.array(digit, dtype=np.int64))


def trajectory(
    starts: Starts, *, length: int, room: int, speed: float
) -> tuple[Int64[ndarray, "*sequence frame digit"], Int64[ndarray, "*sequence frame digit"]]:
    """Move digits and return the top row and left column of each in every frame.

    Args:
        starts: how they set out.
        length: number of frames; the first already shows the position after one step.
        room: how far a digit can go on the canvas, in cells: canvas minus digit.
        speed: step from frame to frame, as a share of that way.
    """
    # math, not numpy: the last digit of numpy's sine depends on the processor, and a truncation may depend on it.
    step_x = np.array([math.cos(angle) for angle in starts.theta.ravel()]).reshape(starts.theta.shape) * speed
    step_y = np.array([math.sin(angle) for angle in starts.theta.ravel()]).reshape(starts.theta.shape) * speed
    x, y = starts.x.copy(), starts.y.copy()
    left, top = (np.empty((length, *x.shape), dtype=np.int64) for _ in range(2))
    for frame in range(length):  # each position comes from the one before
        for place, step, corner in ((x, step_x, left), (y, step_y, top)):
            place += step
            step *= np.where((place <= 0.0) | (place >= 1.0), -1.0, 1.0)
            np.clip(place, 0.0, 1.0, out=place)
            corner[frame] = room * place  # truncates
    return np.moveaxis(top, 0, -2), np.moveaxis(left, 0, -2)


def paint(
    images: UInt8[ndarray, "image size size"],
    digit: Int64[ndarray, "sequence digit"],
    top: Int64[ndarray, "sequence frame digit"],
    left: Int64[ndarray, "sequence frame digit"],
    *,
    canvas: int,
) -> UInt8[ndarray, "sequence frame canvas canvas"]:
    """Paint digits on black frames; where they overlap the brighter cell shows."""
    size = images.shape[-1]
    frames = np.zeros((*top.shape[:2], canvas, canvas), dtype=np.uint8)
    # One window of the canvas for every place a digit can take: all frames are painted at once, digit by digit.
    windows = sliding_window_view(frames, (size, size), axis=(2, 3), writeable=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for place in range(digit.shape[1]):
        here = np.flatnonzero(digit[:, place] >= 0)
        at = here[:, None], np.arange(top.shape[1]), top[here, :, place], left[here, :, place]
        windows[at] = np.maximum(windows[at], images[digit[here, place], None])
    return frames


@dataclass(frozen=True, eq=False, kw_only=True)
class MovingDigits:
    """An endless set of sequences of moving digits."""

    images: UInt8[ndarray, "image height width"]
    """The digits, square, bright on black."""
    num_digits: int | tuple[int, ...] = 2
    """Digits in a sequence; of several counts each sequence takes one at random."""
    length: int = 20
    """Frames in a sequence, history and future together."""
    canvas: int = 64
    """Height and width of a frame."""
    speed: float = 0.1
    """Step from frame to frame, as a share of the way from wall to wall."""
    seed: int = 0
    rng: Literal["numpy", "python"] = "numpy"
    """Where draws come from: `python` follows the original's order of draws, and is slower."""

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or len(self.images) == 0 or self.images.shape[1] != self.images.shape[2]:
            raise UserError(f"digits: images of shape {self.images.shape}; expected (image, size, size)")
        if self.canvas < self.images.shape[1]:
            raise UserError(f"digits: {self.images.shape[1]} cells wide on a canvas of {self.canvas}; "
                            "expected a canvas at least as wide as a digit; make the digits smaller")  # fmt: skip
        if not self.counts or min(self.counts) < 1:
            raise UserError(f"digits: {self.num_digits} in a sequence; expected at least 1")
        if self.length < 1 or self.seed < 0 or not 0.0 <= self.speed <= 1.0:
            raise UserError(f"digits: length {self.length}, speed {self.speed:g}, seed {self.seed}; "
                            "expected length ≥ 1, speed from 0 to 1, seed ≥ 0")  # fmt: skip

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of digits a sequence may have."""
        return (self.num_digits,) if isinstance(self.num_digits, int) else self.num_digits

    def sequence(self, index: int, *, epoch: int = 0) -> UInt8[ndarray, "frame canvas canvas"]:
        """Return one sequence."""
        return self.sequences([index], epoch=epoch)[0]

    def sequences(
        self, indices: Sequence[int] | Int64[ndarray, "sequence"], *, epoch: int = 0
    ) -> UInt8[ndarray, "sequence frame canvas canvas"]:
        """Return the sequences with these indices."""
        starts = self.starts(indices, epoch=epoch)
        top, left = trajectory(starts, length=self.length, room=self.canvas - self.images.shape[-1], speed=self.speed)
        frames = np.empty((len(indices), self.length, self.canvas, self.canvas), dtype=np.uint8)
        for first in range(0, len(indices), _BLOCK):
            block = slice(first, first + _BLOCK)
            frames[block] = paint(self.images, starts.digit[block], top[block], left[block], canvas=self.canvas)
        return frames

    def starts(self, indices: Sequence[int] | Int64[ndarray, "sequence"], *, epoch: int = 0) -> Starts:
        """Draw how the digits of these sequences set out."""
        draw = self._draw_with_numpy if self.rng == "numpy" else self._draw_with_python
        shape = (len(indices), max(self.counts))
        x, y, theta = (np.zeros(shape) for _ in range(3))
        digit = np.full(shape, -1, dtype=np.int64)
        for row, index in enumerate(indices):  # a stream for each sequence
            one = draw(int(index), epoch)
            place = row, slice(len(one.digit))
            x[place], y[place], theta[place], digit[place] = one.x, one.y, one.theta, one.digit
        return Starts(x=x, y=y, theta=theta, digit=digit)

    def _draw_with_numpy(self, index: int, epoch: int) -> Starts:
        # A counter of 2⁶⁴ blocks for each index: streams of one seed and epoch never meet.
        key, counter = (np.array(words, dtype=np.uint64) for words in ((self.seed, epoch), (0, index, 0, 0)))
        rng = np.random.Generator(np.random.Philox(key=key, counter=counter))
        count = self.counts[rng.integers(len(self.counts)) if len(self.counts) > 1 else 0]
        uniform = rng.random((3, count))
        return Starts(x=uniform[0], y=uniform[1], theta=2.0 * math.pi * uniform[2],
                      digit=rng.integers(0, len(self.images), count))  # fmt: skip

    def _draw_with_python(self, index: int, epoch: int) -> Starts:
        # The first sequence has the plain seed, as a user of the original would set it; the others a hash of theirs.
        rng = random.Random(self.seed if index == epoch == 0 else f"{self.seed}/{epoch}/{index}")
        count = self.counts[0] if len(self.counts) == 1 else rng.choice(self.counts)
        return draw_with_python(rng, count, len(self.images))

    def series(self, count: int, *, epoch: int = 0) -> GridSeries:
        """Return the first sequences as a series of 8-bit frames, one clip for each sequence."""
        from stcore.grids import GridSeries

        return GridSeries(
            values=self.sequences(range(count), epoch=epoch).reshape(-1, 1, self.canvas, self.canvas),
            clip=np.repeat(np.arange(count), self.length),
            channels=("grey",),
            value_range=(0.0, 255.0),
        )


def sklearn_digits(size: int = 28) -> UInt8[ndarray, "image size size"]:
    """Load the 1,797 handwritten digits that come with scikit-learn, enlarged from 8 × 8 cells.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (CC BY 4.0).

    Raises:
        UserError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("digits: scikit-learn is not installed; expected it or MNIST files; install the extra 'grids'")
    # The file it ships, since importing all of scikit-learn takes seconds.
    shipped = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    if shipped.is_file():
        ink = np.loadtxt(shipped, delimiter=",")[:, :64]
    else:
        from sklearn.datasets import load_digits

        ink = np.asarray(load_digits(return_X_y=True)[0])
    images = np.rint(ink.reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    return resize_digits(images, size)


def resize_digits(images: UInt8[ndarray, "image old old"], size: int) -> UInt8[ndarray, "image size size"]:
    """Scale square images bilinearly; every cell of a smaller one averages over the cells it covers."""
    if images.shape[-1] == size:
        return images
    weight = _triangle_weights(images.shape[-1], size)
    return np.rint(weight @ images.astype(np.float64) @ weight.T).clip(0.0, 255.0).astype(np.uint8)


def _triangle_weights(old: int, new: int) -> Float64[ndarray, "new old"]:
    """Weigh old cells by their distance from each new one; the triangle widens when the image shrinks."""
    centre = (np.arange(new) + 0.5) * old / new
    apart = np.abs(centre[:, None] - (np.arange(old) + 0.5)) / max(1.0, old / new)
    weight = np.maximum(1.0 - apart, 0.0)
    return weight / weight.sum(axis=1, keepdims=True)


def split_digits(
    images: UInt8[ndarray, "image size size"],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Parts[UInt8[ndarray, "part size size"]]:
    """Cut the digits themselves, shuffled, so that no part shows an image of another; equal images stay together.

    Args:
        images: the digits.
        shares: shares of train, val and test, with sum 1.
        seed: of the shuffling.
    """
    unique = images[list({image.tobytes(): row for row, image in enumerate(images)}.values())]
    order = np.random.default_rng(seed).permutation(len(unique))
    parts = cut(len(unique), shares, where="digits", things="images")
    return parts.map(lambda rows: unique[order[rows.start : rows.stop]])
