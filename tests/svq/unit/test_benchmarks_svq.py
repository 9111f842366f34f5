"""The benchmarks of svq: their instruments, their tables, and that a store made by links is what it says."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.svq import quality, speed
from benchmarks.svq.plain import PlainSVQ
from benchmarks.svq.store import CHUNK, SHAPE, write_store

from stcore.errors import UserError
from stcore.grids import GridSeries

ABOUT: dict[str, Any] = {
    "commit": None, "date": "2026-01-02T03:04Z", "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
}  # fmt: skip


def largest_of(module: torch.nn.Module, x: torch.Tensor) -> speed.LargestTensor:
    with speed.LargestTensor({tuple(each.shape) for each in module.parameters()}) as seen:
        module(x)[0].square().sum().backward()
    return seen


def test_the_largest_tensor_of_the_unfolded_form_is_positions_by_codes() -> None:
    """Otherwise the same instrument would prove nothing of the folded form."""
    module, x = PlainSVQ(4, 50, middim=8), torch.randn(2, 4, 6, 6)
    assert largest_of(module, x).beside_weights in ((2, 36, 50), (72, 50))


def test_the_largest_tensor_of_the_backward_pass_is_seen() -> None:
    class Wide(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return (gradients[0][:, None] * torch.ones(1000)).sum(1)

    x = torch.randn(3, requires_grad=True)
    with speed.LargestTensor(set()) as seen:
        Wide.apply(x).sum().backward()
    assert prod(seen.largest) == 3000


def test_shapes_of_weights_are_told_apart() -> None:
    weight = torch.nn.Parameter(torch.randn(30, 20))
    with speed.LargestTensor({(30, 20)}) as seen:
        (torch.randn(5, 20) @ weight.t()).sum().backward()
    assert (seen.largest, seen.beside_weights) == ((20, 30), (5, 30))


def test_every_case_is_known_by_its_name() -> None:
    with pytest.raises(UserError, match="cases: 'colour'; expected some of training, forward, memory"):
        next(speed.run(quick=True, cases="colour"))


def test_speed_table_marks_missed_goals() -> None:
    row = {"what": "w", "plain": "9", "ours": "3", "result": "3 times", "goal": "4 times"}
    text = speed.table([{**row, "met": "**no**", **ABOUT}, {**row, "met": "yes", **ABOUT}])
    assert "| w | 9 | 3 | 3 times | 4 times | **no** |" in text
    assert "| w | 9 | 3 | 3 times | 4 times | yes |" in text


def scored(forecaster: str, by_lead: list[float], seed: int = 0) -> dict[str, Any]:
    mean = sum(by_lead) / len(by_lead)
    return {"set": "era5", "units": ["K"], "forecaster": forecaster, "seed": seed, "parameters": 1_500_000,
            "train_seconds": 80.0 + 20.0 * seed,
            "figures": {"mae": mean, "rmse": 2 * mean}, "by_lead": {"mae": by_lead, "rmse": by_lead},
            **ABOUT}  # fmt: skip


def test_quality_table_says_where_svq_is_behind() -> None:
    rows = [scored("svq", [0.2, 0.6], 0), scored("svq", [0.4, 0.8], 1), scored("none", [0.3, 0.6], 0),
            scored("none", [0.5, 0.6], 1), scored("persistence", [0.4, 0.9]),
            scored("climatology", [0.8, 0.65])]  # fmt: skip
    text = quality.table(rows)
    assert "| era5 (K) | parameters | seeds | s a run | MAE | RMSE | 1 | 2 |" in text
    assert "| SVQ | 1.50 M | 2 | 90 | 0.5 ± 0.14 | 1 ± 0.28 | 0.3 | 0.7 |" in text
    assert "| *climatology* |  |  |  | 0.725 | 1.45 | 0.8 | 0.65 |" in text
    assert "SVQ beats persistence: at every lead time; climatology: not at lead 2." in text
    assert "MAE of SVQ against that of plain SimVP: +0.0%, beside 28.3% and 14.1% between seeds (SVQ, plain)." in text


def test_one_seed_has_no_spread() -> None:
    text = quality.table([scored("svq", [0.2, 0.4]), scored("none", [0.4, 0.8])])
    assert "plain SimVP: -50.0% (one seed)." in text and "±" not in text.partition("\n\n")[0]


@pytest.mark.parametrize("dataset", quality.SETS)
def test_models_of_a_set_differ_in_what_latent_frames_pass_through_alone(dataset: str) -> None:
    from stcore.configuration import differences

    first, *others = (quality.configuration(dataset, model, 0) for model in quality.MODELS)
    assert all(path.startswith("quantizer.") for other in others for path in differences(first, other))


def test_a_store_of_links_is_as_large_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "fields.zarr"
    count = write_store(path, gigabytes=0.03)
    series = GridSeries.read(path)
    assert (series.num_frames, series.shape[1:], count % CHUNK) == (count, SHAPE, 0)
    assert count * prod(SHAPE) * 4 == pytest.approx(0.03e9, rel=0.2)
    assert series.step == np.timedelta64(1, "h")
    frames = series.frames([3, 3 + CHUNK, count - 1])
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])
