"""Fine-tuning in closed form: the regression itself, how strongly it shrinks, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from node_worlds import SHORT, SIZES, city
from torch import Tensor

from gpd.averages import day_averages
from gpd.closed_form import CITY, NODE, Choice, Known, Strengths, choose, fit
from gpd.evaluate import Rows, _remarks
from gpd.finetune import finetune
from gpd.models.configs import NodeLoss, NodeModelConfig
from gpd.models.spec import from_rows, to_rows
from gpd.node_data import few_shot_windows, forecast, make_part, table_for
from gpd.pretrain import pretrain
from gpd.report import FINETUNED
from gpd.rows import RowTable
from stcore.baselines_graphs import targets
from stcore.errors import UserError
from stcore.graph_windows import few_shot
from stcore.graphs import GraphSeries

MODEL = replace(NodeModelConfig(kind="mlp", linear=True, residual="average", **SIZES), dropout=0.0)
CLOSED = replace(SHORT, select_on="tail", closed_form=True, loss="mae")
WEIGHT = "linear.weight"


def law(
    nodes: int = 6, windows: int = 80, *, own: float = 0.0, noise: float = 0.1, seed: int = 0
) -> tuple[Known, Tensor]:
    """Return windows of nodes whose future is a map of what is read, and the maps, which differ by `own`."""
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, 4, 3, generator=draw).double()
    maps = maps + own * torch.randn(nodes, 4, 3, generator=draw).double()
    x = torch.randn(nodes, windows, 4, generator=draw).double()
    left = x @ maps + noise * torch.randn(nodes, windows, 3, generator=draw).double()
    blocks = torch.arange(windows) * 4 // windows
    return Known(x, left, torch.ones(nodes, windows).double(), torch.ones(nodes).double(), torch.arange(windows),
                 blocks), maps  # fmt: skip


def lasting(seed: int) -> GraphSeries:
    """Return a city where what has just been, lasts."""
    town = city(days=14, seed=seed)
    drift = np.cumsum(np.random.default_rng(seed).normal(size=town.values.shape), axis=0)
    return replace(town, values=town.values + 0.5 * drift)


def said_of(table: RowTable) -> tuple[str, ...]:
    """Return what a report remarks on fine-tuned rows."""
    return _remarks(Rows(tables={FINETUNED: table}, sources=None, memorised=None))


def test_one_change_for_all_is_the_ridge_regression_of_all_windows() -> None:
    known, _ = law()
    x, y = known.x.flatten(0, 1).numpy(), known.left.flatten(0, 1).numpy()
    strength = 0.3 * np.mean(np.diag(x.T @ x))
    expected = np.linalg.solve(x.T @ x + strength * np.eye(4), x.T @ y)
    assert np.allclose(fit(known, Strengths(0.3, math.inf), "mse")[2].numpy(), expected, atol=1e-6)


def test_the_change_of_a_node_is_the_ridge_regression_of_what_is_left() -> None:
    known, _ = law(own=0.5)
    alike = fit(known, Strengths(0.1, math.inf), "mse")[0].numpy()
    x, y = known.x[3].numpy(), known.left[3].numpy()
    strength = 1.0 * np.mean(np.diag(x.T @ x))
    expected = np.linalg.solve(x.T @ x + strength * np.eye(4), x.T @ (y - x @ alike))
    assert np.allclose(fit(known, Strengths(0.1, 1.0), "mse")[3].numpy() - alike, expected, atol=1e-6)


def test_what_is_not_known_does_not_count() -> None:
    known, _ = law()
    counts = known.counts.clone()
    counts[:, ::3] = 0.0
    wild = known.left.clone()
    wild[:, ::3] = 1e3
    kept = torch.arange(80) % 3 != 0
    for loss in ("mse", "mae", "huber"):
        found = fit(known._replace(left=wild, counts=counts), Strengths(0.01, 1.0), loss)
        clean = fit(known.at(kept), Strengths(0.01, 1.0), loss)
        assert torch.allclose(found, clean, atol=1e-9), loss


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_losses_that_bear_outliers_find_the_law_among_them(loss: NodeLoss) -> None:
    known, maps = law(noise=0.01)
    wild = known.left.clone()
    wild[:, ::10] += 100.0 * known.x[:, ::10, :1]
    found = known._replace(left=wild)
    none = Strengths(0.0, math.inf)
    off = {name: float((fit(found, none, name) - maps).abs().max()) for name in ("mse", loss)}
    assert off[loss] < 0.1 * off["mse"]


def test_strengths_are_those_that_help_on_blocks_that_are_left_out() -> None:
    alike, _ = law(windows=40)
    assert choose(alike, "mse").strengths.node >= 3.0  # nodes have nothing of their own
    unlike, _ = law(windows=40, own=1.0)
    assert choose(unlike, "mse").strengths.node < 1.0
    nothing = alike._replace(left=torch.zeros_like(alike.left))
    assert choose(nothing, "mae").strengths == Strengths(math.inf, math.inf)
    assert choose(nothing, "mae").error == 0.0
    noise = alike._replace(left=torch.randn(alike.left.shape, generator=torch.Generator().manual_seed(1)).double())
    chosen = choose(noise, "mse").strengths
    assert chosen.city >= 1.0 and chosen.node >= 3.0


def test_a_choice_surpasses_another_by_more_than_the_standard_error_of_the_gain() -> None:
    before = Choice(Strengths(1.0, 1.0), torch.tensor([2.0, 2.0, 2.0]).double())
    assert before.error == 6.0
    for errors, better in (([1.9, 1.9, 1.8], True), ([2.1, 2.1, 1.0], False), ([2.0, 2.0, 2.0], False)):
        assert Choice(Strengths(1.0, 1.0), torch.tensor(errors).double()).surpasses(before) == better
    for few in (before._replace(errors=before.errors[:count]) for count in (0, 1)):
        assert not few._replace(errors=0.5 * few.errors).surpasses(few)


def test_without_anything_to_leave_out_nothing_changes() -> None:
    known, _ = law()
    assert choose(known._replace(block=torch.zeros_like(known.block)), "mse").strengths == Strengths(math.inf, math.inf)


def test_only_the_linear_map_changes_and_forecasts_get_better(tmp_path: Path) -> None:
    town, few = lasting(0), few_shot(lasting(0), 4)
    elsewhere = finetune(few_shot(lasting(3), 9), None, MODEL, CLOSED, device="cpu", quiet=True)
    params = from_rows(elsewhere.rows, elsewhere.spec)
    params[WEIGHT] = 0.5 * params[WEIGHT]  # half the truth
    params["embed.weight"] = torch.ones_like(params["embed.weight"])  # of a network whose last layer is 0
    start = to_rows(params, elsewhere.spec)
    before = table_for(few, start, MODEL)
    found = finetune(few, start, MODEL, CLOSED, device="cpu", quiet=True)
    old, new = (from_rows(rows, found.spec) for rows in (start, found.rows))
    assert [name for name in new if not torch.equal(old[name], new[name])] == [WEIGHT]
    windows = np.arange(town.num_steps - 15)
    truth = targets(town, windows, 12, 3).transpose(0, 2, 1)
    errors = [np.abs(np.asarray(forecast(table, town, starts=windows, device="cpu")) - truth).mean()
              for table in (before, found)]  # fmt: skip
    assert errors[1] < 0.95 * errors[0]
    assert found.metadata["strengths"].keys() == {"city", "node"} and not found.metadata["rows_given_up"]
    assert found.metadata["training"]["closed_form"] and found.metadata["best_epoch"] == [0] * 5
    found.write(tmp_path / "rows.safetensors")
    assert torch.equal(RowTable.read(tmp_path / "rows.safetensors").rows, found.rows)


def test_rows_that_do_harm_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    few = few_shot(city(days=12), 4)
    start = pretrain(city(seed=3), MODEL, SHORT, device="cpu", quiet=True).rows
    wild = start + torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    with caplog.at_level("INFO"):
        found = finetune(few, wild, MODEL, CLOSED, device="cpu", quiet=True)
    assert found.metadata["rows_given_up"] and "maps from nothing" in caplog.text
    assert "hold nothing of them" in " ".join(said_of(found))
    scratch = finetune(few, None, MODEL, CLOSED, device="cpu", quiet=True)
    assert torch.equal(found.rows, scratch.rows) and not scratch.metadata["rows_given_up"]


def test_from_scratch_everything_is_the_map() -> None:
    few = few_shot(city(days=12), 4)
    found = finetune(few, None, MODEL, replace(CLOSED, select_on="last"), device="cpu", quiet=True)
    params = from_rows(found.rows, found.spec)
    assert {name for name, value in params.items() if value.abs().max() > 0} <= {WEIGHT}
    assert found.metadata["best_loss"] == [None] * 5


@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_the_loss_noted_is_that_of_the_end_of_the_days_by_what_was_fitted_before(loss: NodeLoss) -> None:
    few = few_shot(city(days=12, missing=0.1), 4)
    training = replace(CLOSED, loss=loss)
    found = finetune(few, None, MODEL, training, device="cpu", quiet=True)
    start = table_for(few, torch.zeros_like(found.rows), MODEL)
    part = make_part(few, MODEL, start.averages.double(), leave_out=True)  # type: ignore[union-attr]
    early, late = few_shot_windows(few, MODEL, training.tail)
    chosen = Strengths(**{name: math.inf if value is None else value
                          for name, value in found.metadata["strengths"].items()})  # fmt: skip
    assert chosen.city in CITY and chosen.node in NODE
    known = part.known
    assert known is not None
    scaled = (part.values[..., 0] - start.mean[:, 0]) / start.std[:, 0]  # type: ignore[index]
    scaled = scaled.where(known[..., 0], 0.0).double()
    assert found.metadata["course"] == 1.0

    def windows(starts: np.ndarray) -> Known:
        first = torch.from_numpy(starts)
        ahead = first[:, None] + torch.arange(12, 15)
        return Known(scaled[first[:, None] + torch.arange(12)].permute(2, 0, 1), scaled[ahead].permute(2, 0, 1),
                     known[..., 0][ahead].all(1).T.double(), start.std[:, 0].double(), first + 12, first)  # type: ignore[index]  # fmt: skip

    before, after = windows(early), windows(late)
    error = (after.x @ fit(before, chosen, loss) - after.left) * after.unit[:, None, None]
    error = (error.abs() if loss == "mae" else error.square()).mean(2)
    expected = (error * after.counts).sum(1) / after.counts.sum(1)
    assert found.metadata["best_loss"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_no_more_of_the_daily_course_is_believed_than_there_is() -> None:
    """Of readings that know no time of day, averages by time of day are chance; and chance is as good at no hour."""
    town = lasting(0)
    walk = np.cumsum(np.random.default_rng(5).normal(size=town.values.shape), axis=0)
    few = few_shot(replace(town, values=walk), 3)
    found = finetune(few, None, MODEL, CLOSED, device="cpu", quiet=True)
    assert found.metadata["course"] < 0.5 and found.averages is not None
    whole = day_averages(few).float()
    spread = (found.averages - found.averages.mean(1, keepdim=True)).abs().max()
    assert float(spread) < 0.5 * float((whole - whole.mean(1, keepdim=True)).abs().max())
    torch.testing.assert_close(found.averages.mean(1), whole.mean(1))
    rhythm = finetune(few_shot(city(days=12), 4), None, MODEL, CLOSED, device="cpu", quiet=True)
    assert rhythm.metadata["course"] == 1.0 and said_of(rhythm) == ()
    assert f"believe {found.metadata['course']:.0%} of the daily course" in " ".join(said_of(found))
    change = replace(MODEL, residual="persistence")
    assert finetune(few, None, change, CLOSED, device="cpu", quiet=True).metadata["course"] == 1.0


def test_of_a_single_day_quarters_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    day = city(days=8).slice(0, 24 * 4)
    day = replace(day, step_seconds=900)  # 96 quarters of an hour
    model = replace(MODEL, residual="persistence")
    with caplog.at_level("INFO"):
        found = finetune(day, None, model, CLOSED, device="cpu", quiet=True)
    assert "ridge of" in caplog.text
    assert float(from_rows(found.rows, found.spec)[WEIGHT].abs().max()) > 0.0


def test_a_large_city_is_fitted_on_every_second_window(monkeypatch: pytest.MonkeyPatch) -> None:
    few = few_shot(city(days=12), 4)
    whole = finetune(few, None, MODEL, CLOSED, device="cpu", quiet=True)
    monkeypatch.setattr("gpd.closed_form.MOST", 5 * 41)
    some = finetune(few, None, MODEL, CLOSED, device="cpu", quiet=True)
    assert not torch.equal(whole.rows, some.rows)


def test_what_has_no_closed_form_is_refused() -> None:
    few = few_shot(city(days=12), 4)
    with pytest.raises(UserError, match=r"finetune\.closed-form: true without model\.linear; expected a linear map"):
        finetune(few, None, replace(MODEL, linear=False), CLOSED, device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"pretrain\.closed-form: true; expected false: it is for the few days"):
        pretrain(city(), MODEL, replace(SHORT, closed_form=True), device="cpu", quiet=True)
