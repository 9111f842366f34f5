"""Batches of windows: order by seed and epoch, masks beside frames with gaps, sums over batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stcore.errors import UserError
from stcore.frame_batches import (
    FrameBatches,
    WindowSamples,
    future_error,
    require_same_frames,
    split_valid,
    sum_over_batches,
)
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.windows import find_windows


def batches(*, size: int = 3, shuffle: bool = True, drop_last: bool = False, **options: Any) -> FrameBatches:
    values = np.arange(12 * 4, dtype=np.float32).reshape(12, 1, 2, 2)
    series = GridSeries(values=values, **options)
    samples = WindowSamples(find_windows(series, history=3, horizon=2))
    return FrameBatches(samples, Scaling.fit(series, "none"), size, seed=4, shuffle=shuffle, drop_last=drop_last)


def test_order_follows_from_seed_and_epoch() -> None:
    orders = [[ids.tolist() for ids in batches().order(epoch)] for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(i for ids in orders[2] for i in ids) == list(range(8))
    assert [ids.tolist() for ids in batches(shuffle=False).order(5)] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_last_batch_that_is_not_full_may_be_left_out() -> None:
    assert [len(ids) for ids in batches(drop_last=True).order(0)] == [3, 3]
    assert [len(ids) for ids in batches(drop_last=True, size=4).order(0)] == [4, 4]
    assert [len(ids) for ids in batches(drop_last=True, size=50).order(0)] == [8]
    assert len(batches(drop_last=True)) == 2


def test_whole_frames_are_a_pair_and_frames_with_gaps_a_triple() -> None:
    whole = batches().load(0, np.array([0, 1]))
    assert [tuple(part.shape) for part in whole] == [(2, 3, 1, 2, 2), (2, 2, 1, 2, 2)]
    mask = np.ones((12, 1, 2, 2), dtype=bool)
    mask[4, 0, 1, 1] = False
    holed = batches(mask=mask)
    history, future, valid = split_valid(holed.load(0, np.array([0, 1])))
    assert valid is not None
    assert valid.shape == (2, 5, 1, 2, 2)
    # Frame 4 is the last of the first window, and the one before the last of the second.
    assert (~valid).nonzero().tolist() == [[0, 4, 0, 1, 1], [1, 3, 0, 1, 1]]
    assert future[0, 1, 0, 1, 1] == future[1, 0, 0, 1, 1] == 0.0
    assert torch.isfinite(history).all()
    assert split_valid(holed.load(0, np.array([5])))[2] is None
    assert [len(pair) for pair in holed] == [2, 2, 2]


def test_errors_are_0_where_nothing_is_known() -> None:
    future = torch.zeros(1, 2, 1, 1, 2)
    valid = torch.tensor([True, True, True, False, True, True]).reshape(1, 3, 1, 1, 2)
    assert future_error(future + 1.0, future, valid).flatten().tolist() == [1.0, 0.0, 1.0, 1.0]
    assert future_error(future + 1.0, future, None).sum() == 4.0


def test_sums_do_not_depend_on_how_windows_are_shared() -> None:
    model = torch.nn.Linear(1, 1)

    def measure(history: torch.Tensor, future: torch.Tensor, valid: torch.Tensor | None) -> dict[str, Any]:
        return {"total": future.double().sum(), "windows": float(len(history))}

    names = ("total", "windows")
    whole = sum_over_batches(measure, batches(), model, names=names, rank=0, ranks=1)
    frames = np.arange(12 * 4).reshape(12, 4).sum(1)
    assert whole == {"total": float(sum(frames[i + 3] + frames[i + 4] for i in range(8))), "windows": 8.0}
    assert sum_over_batches(measure, batches(size=1), model, names=names, rank=0, ranks=1) == whole


def test_parts_of_other_sizes_are_refused() -> None:
    require_same_frames({"train": (1, 2, 2), "val": (1, 2, 2)}, 1)
    with pytest.raises(UserError, match="val part: frames 1 x 2 x 3; expected 1 x 2 x 2 as in train"):
        require_same_frames({"train": (1, 2, 2), "val": (1, 2, 3)}, 1)
    with pytest.raises(UserError, match="train part: 1 channels; expected 2, as in the run to start from"):
        require_same_frames({"train": (1, 2, 2)}, 2)
