"""`stpred moving-mnist`: a file of generated sequences in the layout of Moving MNIST's test file."""

from __future__ import annotations

import io

import numpy as np

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.generate.digits import MovingDigits, resize_digits
from stpred.data import DIGIT_SHARE, digit_images
from stpred.options import MovingMNISTOptions

MAX_BYTES = 8 * 2**30


def command(options: MovingMNISTOptions) -> Outcome:
    """Do `stpred moving-mnist`; not the published file, which cannot be made again, but one of its kind."""
    if options.out.suffix not in (".npy", ".npz"):
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected .npy or .npz")
    if not options.out.parent.is_dir():
        raise UserError(f"{options.out}: folder {options.out.parent} does not exist; expected an existing one")
    for name, value in (("sequences", options.sequences), ("length", options.length)):
        if value < 1:
            raise UserError(f"--{name}: {value}; expected at least 1")
    if options.canvas < 8:
        raise UserError(f"--canvas: {options.canvas}; expected at least 8")
    needed = options.sequences * options.length * options.canvas**2
    if needed > MAX_BYTES:
        raise UserError(f"--sequences: {options.sequences:,} need {needed:,} bytes; expected at most {MAX_BYTES:,}")
    images = resize_digits(digit_images(options.source), max(4, round(options.canvas * DIGIT_SHARE)))
    count = options.digits[0] if len(options.digits) == 1 else options.digits
    digits = MovingDigits(images=images, num_digits=count, length=options.length, canvas=options.canvas,
                          speed=options.speed, seed=options.seed, rng=options.rng)  # fmt: skip
    series = digits.series(options.sequences)
    if options.out.suffix == ".npz":
        series.write(options.out)
    else:
        frames = series.raw(range(series.num_frames)).reshape(options.sequences, options.length, *series.shape[2:])
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(frames.swapaxes(0, 1)), allow_pickle=False)
        write_atomically(options.out, [file.getbuffer()])
    data = {"file": str(options.out), "sequences": options.sequences, "length": options.length, "digits": len(images)}
    text = f"{options.sequences:,} sequences of {options.length} frames, of {len(images):,} digits, generated"
    return Outcome(f"{text}: {options.out}", data)
