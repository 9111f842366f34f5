"""Moving digits against a plain loop over sequences, digits and frames."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.generate import digits
from stcore.generate.digits import (
    MovingDigits,
    Starts,
    draw_with_python,
    paint,
    resize_digits,
    sklearn_digits,
    split_digits,
    trajectory,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (7, 6, 6), dtype=np.uint8)


def _world(**options) -> MovingDigits:
    return MovingDigits(**{"images": IMAGES, "canvas": 16, "length": 12} | options)


def _plain(world: MovingDigits, starts: Starts, row: int) -> np.ndarray:
    """Move, bounce, record and paint one digit after the other, in Python's own numbers."""
    size = world.images.shape[-1]
    frames = np.zeros((world.length, world.canvas, world.canvas), dtype=np.uint8)
    for x, y, theta, digit in zip(*(part[row] for part in vars(starts).values()), strict=True):
        if digit < 0:
            continue
        step = [np.cos(theta) * world.speed, np.sin(theta) * world.speed]
        place = [float(x), float(y)]
        for frame in frames:
            for axis in (0, 1):
                place[axis] += step[axis]
                if place[axis] <= 0.0 or place[axis] >= 1.0:
                    place[axis], step[axis] = min(max(place[axis], 0.0), 1.0), -step[axis]
            left, top = (int((world.canvas - size) * value) for value in place)
            part = frame[top : top + size, left : left + size]
            part[:] = np.maximum(part, world.images[digit])
    return frames


@pytest.mark.parametrize("rng", ["numpy", "python"])
@pytest.mark.parametrize("num_digits", [1, 3, (1, 2, 4)])
def test_sequences_equal_the_plain_loop(rng, num_digits):
    world = _world(rng=rng, num_digits=num_digits, speed=0.23, seed=5)
    starts = world.starts(range(20), epoch=2)
    frames = world.sequences(range(20), epoch=2)
    for row in range(20):
        np.testing.assert_array_equal(frames[row], _plain(world, starts, row))


@pytest.mark.parametrize("rng", ["numpy", "python"])
def test_a_sequence_depends_on_seed_epoch_and_index_alone(rng):
    world = _world(rng=rng)
    together = world.sequences([4, 0, 9], epoch=1)
    np.testing.assert_array_equal(together[2], world.sequence(9, epoch=1))
    np.testing.assert_array_equal(world.sequences(np.array([9, 4]), epoch=1), together[[2, 0]])
    others = [world.sequence(9), world.sequence(8, epoch=1), _world(rng=rng, seed=1).sequence(9, epoch=1)]
    assert all((other != together[2]).any() for other in others)


def test_python_draws_position_direction_and_digit_of_one_digit_after_the_other():
    rng, plain = random.Random(7), random.Random(7)
    drawn = draw_with_python(rng, 2, 10)
    for place in (0, 1):
        assert [drawn.x[place], drawn.y[place]] == [plain.random(), plain.random()]
        assert drawn.theta[place] == plain.random() * 2 * np.pi
        assert drawn.digit[place] == plain.randint(0, 9)


def test_draws_are_uniform():
    starts = _world(num_digits=2).starts(range(2000))
    for values, top in ((starts.x, 1.0), (starts.y, 1.0), (starts.theta, 2 * np.pi)):
        np.testing.assert_allclose(np.histogram(values, bins=4, range=(0, top))[0] / values.size, 0.25, atol=0.03)
    np.testing.assert_allclose(np.bincount(starts.digit.ravel(), minlength=7) / starts.digit.size, 1 / 7, atol=0.02)
    assert abs(np.corrcoef(starts.x.ravel(), starts.y.ravel())[0, 1]) < 0.06


def test_mixed_numbers_of_digits_all_occur():
    present = (_world(num_digits=(1, 3)).starts(range(200)).digit >= 0).sum(axis=1)
    counts = dict(zip(*np.unique(present, return_counts=True), strict=True))
    assert set(counts) == {1, 3} and min(counts.values()) > 60


def test_a_digit_bounces_at_the_wall_and_stays_inside():
    start = Starts(x=np.array([0.95]), y=np.array([0.5]), theta=np.array([0.0]), digit=np.array([0]))
    top, left = trajectory(start, length=12, room=8, speed=0.25)
    assert left[:, 0].tolist() == [8, 6, 4, 2, 0, 2, 4, 6, 8, 6, 4, 2]  # 1.2 is cut at the wall
    assert (top == 4).all()


def test_a_start_at_rest_stays():
    world = _world(speed=0.0)
    assert (world.sequence(3) == world.sequence(3)[:1]).all()


def test_overlapping_digits_show_the_brighter_cell():
    images = np.stack([np.full((2, 2), 200, np.uint8), np.full((2, 2), 90, np.uint8)])
    places = np.array([[[1, 1]]])
    frame = paint(images, np.array([[0, 1]]), places, places, canvas=4)[0, 0]
    assert frame[1:3, 1:3].tolist() == [[200, 200], [200, 200]] and frame.sum() == 800


def test_a_digit_as_wide_as_the_canvas_cannot_move():
    np.testing.assert_array_equal(_world(canvas=6, num_digits=1).sequence(0)[0] > 0, np.ones((6, 6), bool))


def test_series_has_a_clip_for_each_sequence_and_keeps_eight_bits():
    world = _world()
    series = world.series(3, epoch=1)
    assert series.shape == (36, 1, 16, 16) and series.values.dtype == np.uint8
    assert series.clip_numbers.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert series.value_range == (0.0, 255.0)
    np.testing.assert_array_equal(series.frames(range(12, 24))[:, 0], world.sequence(1, epoch=1))


def test_parts_share_no_image_and_lose_only_repeats():
    images = np.concatenate([RNG.integers(0, 256, (40, 4, 4), dtype=np.uint8)] * 2)
    parts = split_digits(images, shares=(0.5, 0.25, 0.25), seed=3)
    seen = [{image.tobytes() for image in part} for part in parts.named().values()]
    assert [len(part) for part in seen] == [20, 10, 10]
    assert len(set.union(*seen)) == 40 and set.union(*seen) == {image.tobytes() for image in images}
    again = split_digits(images, shares=(0.5, 0.25, 0.25), seed=3)
    np.testing.assert_array_equal(parts.test, again.test)
    assert (split_digits(images, shares=(0.5, 0.25, 0.25), seed=4).test != parts.test).any()


@pytest.mark.parametrize("size", [28, 14, 5, 8])
def test_resizing_equals_pillow(size):
    from PIL import Image

    images = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    ours = resize_digits(images, size).astype(int)
    for image, resized in zip(images, ours, strict=True):
        theirs = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(resized - theirs).max() <= 1  # pillow rounds between its two passes


def test_digits_of_scikit_learn_are_bright_on_black():
    images = sklearn_digits(28)
    assert images.shape == (1797, 28, 28) and images.dtype == np.uint8
    assert images.min() == 0 and images.max() > 240 and 0.2 < (images > 127).mean() < 0.4
    zero = images[0]
    assert zero[12:16, 12:16].mean() < 40 < zero[12:16, 6:9].mean()  # a zero is hollow


def test_digits_come_from_the_library_where_its_file_lies_elsewhere(monkeypatch):
    library = ModuleType("sklearn.datasets")
    vars(library)["load_digits"] = lambda return_X_y: (np.full((2, 64), 8.0), None)
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", library)
    monkeypatch.setattr(digits, "find_spec", lambda _: SimpleNamespace(origin="/nowhere/sklearn/__init__.py"))
    np.testing.assert_array_equal(sklearn_digits(8), np.full((2, 8, 8), 128))
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="scikit-learn is not installed; expected it or MNIST files"):
        sklearn_digits()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"canvas": 5}, "6 cells wide on a canvas of 5; expected a canvas at least as wide"),
        ({"images": IMAGES[:, :5]}, r"images of shape \(7, 5, 6\)"),
        ({"images": IMAGES[:0]}, r"images of shape \(0, 6, 6\)"),
        ({"num_digits": 0}, "0 in a sequence; expected at least 1"),
        ({"num_digits": ()}, r"\(\) in a sequence"),
        ({"length": 0}, "length 0, speed 0.1, seed 0"),
        ({"speed": 1.5}, "speed 1.5"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_worlds_that_cannot_be_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        MovingDigits(**{"images": IMAGES, "canvas": 16} | options)
