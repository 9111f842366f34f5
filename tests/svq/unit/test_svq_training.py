"""Losses, learning rates, protocols, codes and LPIPS of svq."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from svq_worlds import weather
from torch import Tensor

from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.readers.weatherbench import SETS
from stcore.splits import Parts
from stcore.training.starting import make_adam
from stcore.weather_paper import paper_parts
from svq.codebook import examine
from svq.config import DataConfig, LossConfig, TrainConfig
from svq.data import batches_of, leads_of, read_parts, windows_of
from svq.evaluate import evaluate, verdict
from svq.lpips import Lpips
from svq.models import FrameShape, QuantizerConfig
from svq.models.sparse import SVQ
from svq.paper import as_published
from svq.predict import Forecaster
from svq.presets import DEMO
from svq.train import Objective, Rates, Validation, error_sum, make_model, train

TINY = replace(
    DEMO, data=replace(DEMO.data, history=2, horizon=2, batch=3),
    model=replace(DEMO.model, hid_spatial=4, hid_temporal=8, depth_temporal=2),
    quantizer=QuantizerConfig(codebook_size=12, middle=5),
)  # fmt: skip
SHAPE = FrameShape(1, 8, 16)


@pytest.mark.parametrize(("loss", "expected"), [
    (LossConfig(kind="mae"), 0.5 + 0.5 + 2.5),
    (LossConfig(kind="mse"), 0.25 + 0.25 + 6.25),
    (LossConfig(kind="huber", delta=1.0), 0.125 + 0.125 + 2.0),
])  # fmt: skip
def test_errors_are_summed_over_cells_that_are_known(loss: LossConfig, expected: float) -> None:
    future = torch.zeros(1, 2, 1, 1, 2)
    forecast = torch.tensor([0.5, 0.5, 100.0, 2.5]).reshape(future.shape)
    valid = torch.tensor([[True, True], [True, True], [False, True]]).reshape(1, 3, 1, 1, 2)
    total, cells = error_sum(forecast, future, valid, loss)
    assert cells == 3
    assert float(total) == pytest.approx(expected)


def test_missing_cells_have_no_gradient() -> None:
    objective = Objective(make_model(TINY, SHAPE), LossConfig(kind="mse", divergence=0.5))
    history, future = torch.randn(1, 2, 1, 8, 16), torch.randn(1, 3, 1, 8, 16)
    valid = torch.ones(1, 5, 1, 8, 16, dtype=torch.bool)
    valid[:, 2:, :, 2:4] = False
    found: list[Tensor] = []
    for filling in (0.0, 7.0):
        objective.zero_grad()
        error, auxiliary, _ = objective(history, future.where(valid[:, 2:], filling), 0, valid)
        (error + auxiliary).backward()
        found.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    # The divergence compares whole frames, so what fills a gap must not matter there either.
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_channels_last_changes_rounding_only(tmp_path: Path) -> None:
    series = weather(12)
    parts = Parts(series, series, series)
    short = replace(
        TINY, fit=replace(TINY.fit, epochs=1, max_steps=2), schedule=replace(TINY.schedule, kind="constant")
    )
    found = [
        train(replace(short, channels_last=last), parts=parts, run=tmp_path / str(last), device="cpu", quiet=True).best
        for last in (False, True)
    ]
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_the_second_loss_of_tau_is_added() -> None:
    model = make_model(TINY, SHAPE).eval()
    history, future = torch.randn(2, 2, 1, 8, 16), torch.randn(2, 4, 1, 8, 16)
    with torch.no_grad():
        plain = Objective(model, LossConfig(kind="mse"))(history, future, 0)
        both = Objective(model, LossConfig(kind="mse", divergence=2.0))(history, future, 0)
    assert plain[1] == 0.0
    assert both[0] == plain[0]
    assert both[1] > 0.0


def test_rates_are_those_of_the_schedules() -> None:
    one_cycle = replace(TINY, fit=replace(TINY.fit, epochs=4), optimiser=replace(TINY.optimiser, learning_rate=0.5))
    optimiser = make_adam(torch.nn.Linear(1, 1), one_cycle.optimiser)
    rates = Rates(optimiser, one_cycle, 5)
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(plain, max_lr=0.5, total_steps=20, final_div_factor=1e4)
    for step in range(1, 20):
        assert optimiser.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"], rel=1e-12)
        assert optimiser.param_groups[0]["betas"][0] == pytest.approx(plain.param_groups[0]["betas"][0], rel=1e-12)
        rates.step_end(step)
        plain.step()
        theirs.step()
    cosine = replace(one_cycle, schedule=replace(one_cycle.schedule, kind="cosine", warmup_epochs=2))
    rates = Rates(optimiser, cosine, 5)
    found: list[float] = []
    for epoch in range(4):
        rates.epoch_start(epoch)
        found.append(optimiser.param_groups[0]["lr"])
    assert found == pytest.approx([1e-5, (1e-5 + 0.5) / 2, 0.25 + 5e-7, 1e-6 + (0.5 - 1e-6) * (1 - 0.5**0.5) / 2])


def test_frozen_parts_are_not_trained() -> None:
    frozen = replace(TINY, quantizer=replace(TINY.quantizer, freeze_codebook=True, freeze_projection=True))
    counts = [sum(len(group["params"]) for group in make_adam(make_model(config, SHAPE), config.optimiser).param_groups)
              for config in (TINY, frozen)]  # fmt: skip
    assert counts[0] - counts[1] == 5  # the codebook, and weight and bias of two layers


def test_validation_does_not_depend_on_batches() -> None:
    series = weather(12)
    scaling = Scaling.fit(series, "standard")
    objective = Objective(make_model(TINY, SHAPE), TINY.loss).eval()
    parts = Parts(series, series, series)
    found = [
        Validation(replace(batches_of(parts, "val", scaling, TINY), size=size), TINY.loss, rank=0, ranks=1)(objective)
        for size in (1, 4, 9)
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
    assert found[0]["val/loss"] == found[0]["val/mae"]


def paper(variable: str) -> TrainConfig:
    options = DataConfig(format="weatherbench", variable=(variable,), protocol="paper", history=SETS[variable].history,
                         horizon=SETS[variable].horizon, batch=4)  # fmt: skip
    return replace(TINY, data=options)


@pytest.mark.parametrize(("variable", "frames"), [("t2m", 40), ("mv", 60)])
def test_the_paper_s_protocol_is_that_of_the_core(variable: str, frames: int) -> None:
    config = paper(variable)
    one, other = weather(frames, seed=1), weather(frames, seed=2)
    parts = Parts(one, other, other)
    published = paper_parts(parts, SETS[variable])
    scaling = Scaling.fit(one, "standard")
    windows = windows_of(other, config.data)
    np.testing.assert_array_equal(windows.starts, published.val.windows.starts)
    batches = batches_of(parts, "val", scaling, config)
    ids = np.array([0, 2])
    history, future, *_ = batches.load(0, ids)
    expected = published.val.load(ids)
    np.testing.assert_allclose(history.numpy(), expected[0], atol=1e-4)
    np.testing.assert_allclose(future.numpy(), expected[1], atol=1e-4)
    # What a forecast of the scaled future would be reported as.
    model = make_model(config, SHAPE)
    forecaster = Forecaster(model, scaling, config, SHAPE, {})
    seen, series = as_published(forecaster, other)
    truth = torch.from_numpy(windows_of(series, config.data).load(ids)[1])
    np.testing.assert_allclose(truth.numpy(), published.val.to_units(expected[1]), rtol=1e-5)
    np.testing.assert_allclose(seen.scaling.transform(truth).numpy(), expected[1], atol=1e-4)
    assert leads_of(config.data, 4) == ((1, 2, 3, 4) if variable == "t2m" else (1, 7, 13, 19))
    assert model.simvp.legacy_drop_path


def test_rows_of_any_order_give_the_same_forecast() -> None:
    config = replace(TINY, data=replace(TINY.data, order="common"))
    series = weather(6)
    assert series.y is not None
    forecaster = Forecaster(make_model(config, SHAPE), Scaling.fit(series, "standard"), config, SHAPE, {})
    upside_down = replace(series, values=series.values[:, :, ::-1], y=series.y[::-1])
    expected = forecaster.predict(series, 3)
    np.testing.assert_array_equal(forecaster.predict(upside_down, 3)[:, :, ::-1], expected)
    np.testing.assert_array_equal(forecaster.predict(series.frames([4, 5]), 3), expected)
    with pytest.raises(UserError, match="frames: 1 of them; expected at least 2"):
        forecaster.predict(series.select([0, 1, 2, 5]))


def test_strict_windows_follow_one_another() -> None:
    strict = replace(paper("mv").data, protocol="strict")
    assert windows_of(weather(20), strict).offsets is None
    assert len(windows_of(weather(20), strict)) == 20 - 8 + 1
    with pytest.raises(UserError, match="the longest stretch without a gap has 5; expected at least 8 frames"):
        windows_of(weather(5), strict, name="test")


def test_the_demo_s_parts_are_one_world_in_order() -> None:
    parts = read_parts(DEMO)
    assert [part.num_frames for part in parts.named().values()] == [1000, 150, 250]
    assert parts.val.times is not None
    assert parts.train.times is not None
    assert parts.val.times[0] - parts.train.times[-1] == np.timedelta64(1, "h")


def test_the_paper_s_protocol_has_no_cut_of_its_own(tmp_path: Path) -> None:
    weather(20).write(tmp_path / "a.npz")
    config = replace(TINY, data=replace(TINY.data, source=(str(tmp_path / "a.npz"),), protocol="paper"))
    with pytest.raises(UserError, match="parts all; expected train and test"):
        read_parts(config)


def test_code_weights_are_reported_as_whole_arrays_have_them() -> None:
    model = make_model(TINY, SHAPE)
    series = weather(9)
    forecaster = Forecaster(model, Scaling.fit(series, "standard"), TINY, SHAPE, {})
    report = examine(forecaster, series, limit=0, threshold=1.5, chunk=11)
    svq = model.quantizer
    assert isinstance(svq, SVQ)
    with torch.no_grad():
        history = torch.from_numpy(np.stack([series.frames(range(i, i + 2)) for i in range(8)]))
        latent = model.encode(forecaster.scaling.transform(history))
        weights = torch.cat(list(svq.code_weights(latent))).double()
    assert (report.tokens, report.codes) == weights.shape
    off = weights - weights.mean()
    assert report.mean == pytest.approx(float(weights.mean()), rel=1e-5, abs=1e-8)
    assert report.deviation == pytest.approx(float(weights.std(correction=0)), rel=1e-6)
    assert report.kurtosis == pytest.approx(float((off**4).mean() / (off**2).mean() ** 2), rel=1e-6)
    active = off.abs() > 1.5 * off.square().mean().sqrt()
    assert report.active == pytest.approx(float(active.double().sum(1).mean()))
    assert report.dead == int((~active.any(0)).sum())
    share = active.double().sum(0) / active.sum()
    entropy = -(share * (share + 1e-10).log()).sum()
    assert report.perplexity == [pytest.approx(float(entropy.exp()), rel=1e-6)]
    unit = torch.nn.functional.normalize(svq.codebook.detach())
    cosine = (unit @ unit.T - 3.0 * torch.eye(12)).max(1).values
    assert report.nearest[1] == pytest.approx(float(cosine.median()), abs=0.2)
    assert report.nearest == sorted(report.nearest)
    assert "codes active for no token" in report.text()


def test_models_without_codes_are_refused() -> None:
    config = replace(TINY, quantizer=QuantizerConfig(kind="none"))
    forecaster = Forecaster(make_model(config, SHAPE), Scaling.fit(weather(9), "standard"), config, SHAPE, {})
    with pytest.raises(UserError, match=r"quantizer.kind: none; expected a model with codes"):
        examine(forecaster, weather(9))


def test_the_verdict_names_lead_times_that_are_lost() -> None:
    leads = {"svq": {"rmse": [1.0, 3.0]}, "persistence": {"rmse": [2.0, 4.0]}, "climatology": {"rmse": [5.0, 2.5]}}
    assert verdict(leads) == "does not beat the best naive forecast at lead times 2 of 2 (rmse)"
    assert verdict({**leads, "svq": {"rmse": [1.0, 2.0]}}) == "beats every naive forecast at all 2 lead times (rmse)"


def lpips_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
    names = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
    state: dict[str, Tensor] = {}
    for at, (name, (out, inside, side)) in enumerate(zip(names, sizes, strict=True)):
        state[f"net.{name}.weight"] = torch.randn(out, inside, side, side, generator=generator) / (inside**0.5 * side)
        state[f"net.{name}.bias"] = torch.zeros(out)
        state[f"lin{at}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    return state


def test_lpips_is_a_column_where_weights_are_there() -> None:
    rng = np.random.default_rng(0)
    series = GridSeries(values=rng.integers(0, 255, (8, 1, 32, 32)).astype(np.uint8), value_range=(0, 255))
    forecaster = Forecaster(make_model(TINY, FrameShape(1, 32, 32)), Scaling.fit(series, "auto"), TINY,
                            FrameShape(1, 32, 32), {})  # fmt: skip
    report = evaluate(forecaster, series, series, limit=2, lpips=Lpips(lpips_state()))
    assert list(report.more) == ["svq", "persistence", "damped persistence", "climatology"]
    assert all(found["lpips"] > 0.0 for found in report.more.values())
    assert not any("lpips" in remark for remark in report.remarks)
    assert "lpips" in report.text()


def test_sets_of_several_variables_are_scored_by_group() -> None:
    config = replace(paper("mv"), data=replace(paper("mv").data, protocol="strict"))
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 12, 8, 16)).astype(np.float32) * np.arange(1, 13)[:, None, None]
    times = np.datetime64("2000-01-01", "us") + np.arange(40) * np.timedelta64(6, "h")
    series = GridSeries(values=values, times=times)
    shape = FrameShape(12, 8, 16)
    forecaster = Forecaster(make_model(config, shape), Scaling.fit(series, "standard"), config, shape, {})
    report = evaluate(forecaster, series, series, limit=3)
    found = report.more["persistence"]
    groups = [found[f"rmse_{name}"] for name in ("r", "t", "u", "v")]
    assert groups == sorted(groups)
    assert found["rmse, mean of groups"] == pytest.approx(np.mean(groups))
    assert report.facts["protocol"].startswith("protocol strict: trained on 1979 to 2015")
    assert len(report.by_lead["svq"]["acc"]) == 4
    assert all(-1.0 <= value <= 1.0 for value in report.by_lead["svq"]["acc"])


def test_lpips_tells_pictures_apart(tmp_path: Path) -> None:
    torch.save(lpips_state(), tmp_path / "alex.pth")
    distance = Lpips.load(tmp_path / "alex.pth").distance
    pictures = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    assert distance(pictures, pictures).tolist() == [0.0, 0.0]
    near, far = distance(pictures, (pictures + 0.01).clamp(0, 1)), distance(pictures, 1.0 - pictures)
    assert (near > 0).all()
    assert (far > 4 * near).all()
    torch.testing.assert_close(distance(pictures, 1.0 - pictures), distance(1.0 - pictures, pictures))
    # Grey pictures are three equal channels.
    torch.testing.assert_close(distance(pictures.expand(-1, 3, -1, -1), 1.0 - pictures.expand(-1, 3, -1, -1)), far)
    with pytest.raises(UserError, match="sides of at least 31"):
        distance(pictures[..., :16, :16], pictures[..., :16, :16])
