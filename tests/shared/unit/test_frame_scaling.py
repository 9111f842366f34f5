"""Scales of frames: fitted on what is given, undone exactly enough, missing cells at 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries


def series(**options: Any) -> GridSeries:
    values = np.random.default_rng(0).normal(5.0, 3.0, (12, 2, 4, 4)).astype(np.float32)
    values[:, 1] *= 10
    return GridSeries(values=values, **options)


@pytest.mark.parametrize("kind", ["auto", "fit", "standard", "none", "range"])
def test_a_scale_is_undone_and_restored(kind: str) -> None:
    scaling = Scaling.fit(series(value_range=(-200, 200) if kind == "range" else None), kind)
    frames = torch.from_numpy(series().frames(range(12)))
    torch.testing.assert_close(scaling.inverse(scaling.transform(frames)), frames, rtol=1e-5, atol=1e-4)
    restored = Scaling.restore(scaling.constants())
    assert torch.equal(restored.low, scaling.low)
    assert torch.equal(restored.span, scaling.span)


def test_standard_scores_have_mean_0_and_deviation_1() -> None:
    scaling = Scaling.fit(series(), "standard")
    frames = series().frames(range(12)).astype(np.float64)
    np.testing.assert_allclose(scaling.low.flatten(), frames.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scaling.span.flatten(), frames.std((0, 2, 3)), rtol=1e-6)


def test_missing_cells_neither_move_the_scale_nor_stay_missing() -> None:
    mask = np.ones((4, 4), dtype=bool)
    mask[1, 2] = False
    holed = series(mask=mask)
    scaling = Scaling.fit(holed, "standard")
    known = series().frames(range(12))[:, :, mask]
    np.testing.assert_allclose(scaling.low.flatten(), known.astype(np.float64).mean((0, 2)), rtol=1e-6)
    scaled = scaling.transform(torch.from_numpy(holed.frames(range(12))))
    assert (scaled[:, :, 1, 2] == 0.0).all()


def test_what_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(UserError, match="'range' without a declared range"):
        Scaling.fit(series(), "range")
    constant = GridSeries(values=np.ones((3, 1, 2, 2), np.float32), channels=("rain",))
    with pytest.raises(UserError, match="channel rain has one value only"):
        Scaling.fit(constant, "standard")
