"""ConvLSTM: its forms, its engine against single steps, its dead weights, its horizon."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from benchmarks.stpred.plain import PlainConvLSTM
from torch import Tensor, nn

from stcore.errors import UserError
from stpred.convert.reference import read, to_ours, to_theirs
from stpred.models import MODELS, FrameShape, build
from stpred.models.configs import ConvLSTMConfig
from stpred.models.convlstm import ConvLSTM, ConvLSTM_KTH, ConvLSTM_MovingMNIST, ConvLSTMCell
from stpred.patches import reshape_patch, reshape_patch_back

SMALL = ConvLSTMConfig(hidden=(5, 4), kernels=(3, 5), patch=2)
FRAME = FrameShape(2, 8, 12)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.2
    return model


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", ["reference", "full", "none"])
def test_running_through_time_equals_single_steps(form: str) -> None:
    cell = randomised(ConvLSTMCell(3, 4, (5, 6), 3, 0.3, peephole=form)).double()
    inputs, h, c = frames(4, 2, 3, 5, 6).double(), frames(2, 4, 5, 6).double(), frames(2, 4, 5, 6, seed=2).double()
    outputs, last = cell.run(inputs, (h, c), steps=4)
    for t in range(4):
        h, c = cell(inputs[t], h, c)
        torch.testing.assert_close(outputs[t], h)
    torch.testing.assert_close(last[0], h)
    torch.testing.assert_close(last[1], c)


def test_missing_input_and_missing_state_are_zeros() -> None:
    cell = randomised(ConvLSTMCell(3, 4, (5, 6)))
    zero, state = torch.zeros(2, 2, 3, 5, 6), (frames(2, 4, 5, 6), frames(2, 4, 5, 6, seed=2))
    torch.testing.assert_close(cell.run(None, state, steps=2)[0], cell.run(zero, state, steps=2)[0])
    inputs, empty = frames(2, 2, 3, 5, 6), torch.zeros(2, 4, 5, 6)
    torch.testing.assert_close(cell.run(inputs, None, steps=2)[0], cell.run(inputs, (empty, empty), steps=2)[0])


def test_forms_differ_in_the_gates_that_see_the_cell_state() -> None:
    x, h, c = frames(1, 3, 4, 4), frames(1, 2, 4, 4), frames(1, 2, 4, 4, seed=2)
    cells = {form: randomised(ConvLSTMCell(3, 2, (4, 4), peephole=form)) for form in ("reference", "full", "none")}
    states = {form: cell.state_dict() for form, cell in cells.items()}
    cells["full"].load_state_dict(states["reference"])
    cells["none"].load_state_dict({name: states["reference"][name] for name in states["none"]})
    found = {form: cell(x, h, c)[1] for form, cell in cells.items()}
    assert not torch.allclose(found["reference"], found["full"])
    with torch.no_grad():
        cells["full"].w_cf.zero_()
        torch.testing.assert_close(cells["full"](x, h, c)[1], found["reference"])
        cells["full"].w_ci.zero_()
        torch.testing.assert_close(cells["full"](x, h, c)[1], found["none"])


def test_only_the_form_without_peepholes_takes_frames_of_any_size() -> None:
    free = build(dataclasses.replace(SMALL, peephole="none"), FRAME)
    assert free(frames(1, 3, 2, 16, 4), 2).shape == (1, 2, 2, 16, 4)
    with pytest.raises(UserError, match="frames: 8 x 2 after patching; expected 4 x 6"):
        build(SMALL, FRAME)(frames(1, 3, 2, 16, 4), 2)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_checkpointing_changes_no_gradient(every: int) -> None:
    plain = randomised(build(SMALL, FRAME))
    saving = build(dataclasses.replace(SMALL, checkpoint_every=every), FRAME)
    saving.load_state_dict(plain.state_dict())
    history, future = frames(2, 5, *FRAME), frames(2, 4, *FRAME, seed=2)
    for model in (plain, saving):
        model.loss(history, future).total.backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad)


def test_engine_equals_the_plain_implementation_with_gradients() -> None:
    ours = randomised(build(dataclasses.replace(SMALL, clamp="none"), FRAME)).double()
    plain = PlainConvLSTM(8, SMALL.hidden, (4, 6), SMALL.kernels).double()
    plain.load_state_dict(to_theirs(ours.state_dict(), "convlstm"))
    history = frames(2, 3, *FRAME).double()
    one, other = ours(history, 3), reshape_patch_back(plain(reshape_patch(history, 2), 3), 2)
    torch.testing.assert_close(one, other)
    one.square().mean().backward()
    other.square().mean().backward()
    for name, parameter in plain.named_parameters():
        found = ours.get_parameter(name).grad
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(torch.zeros_like(parameter) if found is None else found, expected, msg=name)


def test_every_parameter_that_asks_for_a_gradient_gets_one() -> None:
    for form in ("reference", "full", "none"):
        model = build(dataclasses.replace(SMALL, peephole=form), FRAME)
        model.loss(frames(1, 3, *FRAME), frames(1, 2, *FRAME, seed=2)).total.backward()
        waiting = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
        assert waiting == []


def test_longer_horizons_begin_with_the_shorter_ones() -> None:
    model = randomised(build(SMALL, FRAME))
    history = frames(1, 3, *FRAME)
    torch.testing.assert_close(model(history, 7)[:, :2], model(history, 2))


@torch.no_grad()
def test_clamp_inside_and_outside_the_loss() -> None:
    history, future = frames(1, 3, *FRAME), frames(1, 2, *FRAME, seed=2)
    losses: dict[bool, float] = {}
    for inside in (True, False):
        model = randomised(build(dataclasses.replace(SMALL, clamp_in_loss=inside), FRAME))
        model.forecast.conv_last.weight *= 20.0
        raw = model.raw(history, 2)
        losses[inside] = float(model.loss(history, future).total)
        expected = ((raw.clamp(0, 1) if inside else raw) - future).square().mean()
        assert losses[inside] == pytest.approx(float(expected))
        torch.testing.assert_close(model(history, 2), raw.clamp(0, 1))
    assert losses[True] < losses[False]


def test_published_sizes_and_horizons() -> None:
    with torch.device("meta"):
        found = {cls: cls() for cls in (ConvLSTM_MovingMNIST, ConvLSTM_KTH)}
    counts = {cls: sum(value.numel() for value in model.parameters()) for cls, model in found.items()}
    assert counts == {ConvLSTM_MovingMNIST: 8_183_808, ConvLSTM_KTH: 9_363_456}
    assert (found[ConvLSTM_MovingMNIST].horizon, found[ConvLSTM_KTH].horizon) == (10, 20)


def test_a_module_of_ones_own_on_the_originals_network() -> None:
    class Mine(ConvLSTM):
        def configure_optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
            return (self(inputs, out_len=labels.shape[1]) - labels).abs().mean()

        validation_step = training_step

        def predict_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
            return self(inputs, out_len=2)

    module = Mine(1, [3], (6, 6), [3])
    assert module.training_step(frames(1, 2, 1, 6, 6), frames(1, 3, 1, 6, 6)).ndim == 0
    assert module.predict_step(frames(1, 2, 1, 6, 6), frames(1, 3, 1, 6, 6)).shape == (1, 2, 1, 6, 6)


def test_bfloat16_keeps_the_cell_state_in_float32() -> None:
    for form in ("reference", "none"):
        cell = ConvLSTMCell(3, 4, (5, 6), peephole=form)
        with torch.autocast("cpu", torch.bfloat16):
            _, (_, c) = cell.run(frames(3, 2, 3, 5, 6), None, steps=3)
        assert c.dtype == torch.float32


def test_conversion_reads_the_sizes() -> None:
    state = ConvLSTM_MovingMNIST(16, [5, 4], (3, 4), [3, 5]).state_dict()
    found = read(state)
    assert found.config == ConvLSTMConfig(hidden=(5, 4), kernels=(3, 5))
    assert (found.channels, found.size) == (1, (12, 16))
    assert MODELS["convlstm"].from_config(found.config, FrameShape(1, 12, 16)).load_state_dict(found.state)


def test_incomplete_weights_are_refused_by_name() -> None:
    state = ConvLSTM_MovingMNIST(16, [3], (3, 3), [3]).state_dict()
    del state["forecast.conv_last.weight"]
    with pytest.raises(UserError, match=r"missing: forecast.conv_last.weight \(1\), unknown: more \(1\)"):
        to_ours(state | {"more": torch.zeros(1)}, "convlstm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": (4, 5)}, "model.kernels: .*odd"),
        ({"kernels": (3,)}, "model.kernels: .*one for each of the 2 layers"),
        ({"hidden": (0, 4)}, "model.hidden: .*1 or more"),
        ({"hidden": ()}, "model.hidden: .*1 or more"),
        ({"checkpoint_every": -1}, "model.checkpoint-every: -1"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)


def test_patch_must_divide_the_frame() -> None:
    with pytest.raises(UserError, match=r"model.patch: 2; expected a divisor of the frames' height 7"):
        build(SMALL, FrameShape(1, 7, 8))
