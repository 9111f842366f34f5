"""What every forecaster of the registry has to do, on miniatures; a new model is covered once it is registered."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from stcore.errors import UserError
from stpred.models import MODELS, FrameShape, build
from stpred.models import configs as c
from stpred.models.interface import FrameModel
from stpred.sampling import truth_bits

FRAME = FrameShape(2, 8, 16)
HISTORY, HORIZON = 3, 3

MINIATURES = {
    "convlstm": c.ConvLSTMConfig(hidden=(4, 4), kernels=(3, 3), patch=2),
    "trajgru": c.TrajGRUConfig(stem=4, hidden=(4, 4, 4), links=(3, 3, 2), forecast_links=(2, 3, 3)),
    "openstl-convlstm": c.OpenSTLConvLSTMConfig(hidden=(4, 4), kernel=3, patch=2),
    "predrnn": c.PredRNNConfig(hidden=(4, 4), kernel=3, patch=2),
    "predrnnpp": c.PredRNNppConfig(hidden=(4, 4), kernel=3, patch=2),
    "predrnnv2": c.PredRNNv2Config(hidden=(4, 4), kernel=3, patch=2),
    "mim": c.MIMConfig(hidden=(4, 4), kernel=3, patch=2),
    "e3dlstm": c.E3DLSTMConfig(hidden=(4, 4), kernel=3, patch=2),
    "phydnet": c.PhyDNetConfig(encoder_width=16, width=16, hidden=(8, 16), kernel=3),
    "mau": c.MAUConfig(hidden=(4, 4), kernel=3, window=2, downsample=2, mode="recall"),
}

pytestmark = pytest.mark.parametrize("name", list(MODELS))


def _model(name: str) -> FrameModel:
    torch.manual_seed(0)
    model = build(MINIATURES[name], FRAME, history=HISTORY)
    # Some weights start at zero, or so small that nothing would be seen of the paths behind them.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def _clip(batch: int = 2, *, history: int = HISTORY, horizon: int = HORIZON):
    frames = torch.rand(batch, history + horizon, *FRAME, generator=torch.Generator().manual_seed(1))
    return frames[:, :history], frames[:, history:]


def _truth(model: FrameModel, batch: int = 2):
    return truth_bits(model.sampling, batch=batch, history=HISTORY, horizon=HORIZON, seed=0, step=10_000, epoch=100)


def test_it_is_built_from_its_configuration(name):
    config = MINIATURES[name]
    assert config.kind == name
    assert type(build(config, FRAME, history=HISTORY)) is MODELS[name]
    assert issubclass(MODELS[name], FrameModel)
    assert all(field.kw_only for field in fields(config))
    assert type(config)().kind == name


@pytest.mark.parametrize("horizon", [1, 4])
def test_forecasts_have_the_asked_for_shape(name, horizon):
    history, _ = _clip()
    with torch.no_grad():
        forecast = _model(name)(history, horizon)
    assert forecast.shape == (2, horizon, *FRAME)
    assert forecast.isfinite().all()
    assert forecast.std() > 0


def test_a_longer_forecast_begins_with_the_shorter_one(name):
    model, (history, _) = _model(name), _clip()
    with torch.no_grad():
        torch.testing.assert_close(model(history, 4)[:, :2], model(history, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_reaches_every_parameter(name, training):
    model, clip = _model(name).train(training), _clip()
    loss = model.loss(*clip, truth=_truth(model))
    loss.total.backward()
    assert loss.total.ndim == 0 and math.isfinite(loss.total.item())
    torch.testing.assert_close(sum(loss.parts.values()), loss.total)
    # A model declares parameters that are only there to be loaded by freezing them.
    gradients = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert [key for key, found in gradients.items() if found is None or not found.any()] == []
    assert all(found.isfinite().all() for found in gradients.values())


def test_missing_cells_of_the_future_do_not_count(name):
    model, (history, future) = _model(name), _clip()
    valid = torch.ones(2, HISTORY + HORIZON, *FRAME, dtype=torch.bool)
    whole = model.loss(history, future).total
    torch.testing.assert_close(model.loss(history, future, valid=valid).total, whole, rtol=1e-6, atol=0)
    valid[:, HISTORY:, :, 2:5] = False
    outcomes: list[tuple[torch.Tensor, ...]] = []
    for value in (0.0, 9.0):  # what stands in for a missing value
        model.zero_grad()
        total = model.loss(history, future.masked_fill(~valid[:, HISTORY:], value), valid=valid).total
        total.backward()
        outcomes.append((total.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)))
    for first, second in zip(*outcomes, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
    assert outcomes[0][0] < whole
    with torch.no_grad():
        other = model.loss(history, future.masked_fill(valid[:, HISTORY:], 0.0), valid=valid).total
    assert (other - outcomes[0][0]).abs() > 1e-4


def test_missing_cells_of_the_history_are_no_targets(name):
    model, (history, future) = _model(name), _clip()
    valid = torch.ones(2, HISTORY + HORIZON, *FRAME, dtype=torch.bool)
    valid[:, HISTORY - 1, 0] = False
    with torch.no_grad():
        whole, some = (model.loss(history, future, valid=here).total for here in (None, valid))
    # The encoder-forecasters do not guess the history; the others have a target less.
    assert abs(some - whole) < 1e-6 if name in ("convlstm", "trajgru") else some < whole - 1e-4


def test_every_frame_of_the_history_counts(name):
    model, (history, _) = _model(name), _clip()
    history.requires_grad_(True)
    model(history, 2).sum().backward()
    assert history.grad.abs().amax((0, 2, 3, 4)).min() > 0


def test_the_future_is_only_seen_where_it_is_fed(name):
    model, (history, future) = _model(name), _clip()
    with torch.no_grad():
        before = model(history, HORIZON)
        model.loss(history, future, truth=_truth(model))
        assert torch.equal(model(history, HORIZON), before)


def test_the_same_input_gives_the_same_result(name):
    model, clip = _model(name), _clip()
    with torch.no_grad():
        first, loss = model(clip[0], 2), model.loss(*clip, truth=_truth(model)).total
        model(torch.rand(3, 2, *FRAME), 1)
        assert torch.equal(model(clip[0], 2), first)
        assert torch.equal(model.loss(*clip, truth=_truth(model)).total, loss)


def test_samples_of_a_batch_do_not_see_one_another(name):
    model, (history, _) = _model(name), _clip()
    with torch.no_grad():
        together = model(history, 2)
        apart = torch.cat([model(history[:1], 2), model(history[1:], 2)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_weights_go_through_a_file(name):
    model, (history, _) = _model(name), _clip()
    restored = build(MINIATURES[name], FRAME, history=HISTORY)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    restored.load_state_dict(load(save(state)), strict=True)
    with torch.no_grad():
        assert torch.equal(restored(history, 2), model(history, 2))


def test_half_precision_stays_near(name):
    model, clip = _model(name), _clip()
    loss = model.loss(*clip, truth=_truth(model)).total
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(*clip, truth=_truth(model)).total
        forecast = model(clip[0], 2)
    rough.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(rough.float(), loss, rtol=0.05, atol=0.02)
    torch.testing.assert_close(forecast.float(), model(clip[0], 2), rtol=0.1, atol=0.1)


def test_double_precision_runs_in_double(name):
    model, clip = _model(name).double(), [part.double() for part in _clip()]
    assert model(clip[0], 2).dtype == torch.float64
    assert model.loss(*clip, truth=_truth(model)).total.dtype == torch.float64


class _Fixed(nn.Module):
    """A forecaster with a fixed horizon, which is what an exported program has."""

    def __init__(self, model: FrameModel, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return self.model(history, self.horizon)


def test_an_exported_program_agrees(name):
    fixed, (history, _) = _Fixed(_model(name), 2).eval(), _clip(history=2)
    program = torch.export.export(fixed, (history,))
    other = torch.rand_like(history)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), fixed(other), rtol=1e-5, atol=1e-6)


def test_checkpointing_changes_no_gradient(name):
    config = MINIATURES[name]
    kept, again = _model(name), build(type(config)(**(vars(config) | {"checkpoint_every": 2})), FRAME, history=HISTORY)
    again.load_state_dict(kept.state_dict())
    for model in (kept, again):
        model.train().loss(*_clip(), truth=_truth(model)).total.backward()
    for (key, first), second in zip(kept.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(
            second.grad, first.grad, rtol=1e-5, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_a_horizon_of_nothing_is_refused(name):
    with pytest.raises(UserError, match=r"horizon: 0; expected 1 or more"):
        _model(name)(_clip()[0], 0)
