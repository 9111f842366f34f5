"""The gradient written out by hand against the one that autograd takes of the network as it is written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smash.config import LossConfig, NoiseConfig
from smash.gradient import can_be_by_hand, mean_loss_by_hand, with_gradient
from smash.loss import MeanLoss, mean_loss, score_matching
from smash.score import ScoreNetwork

WIDTH, UNITS, TARGETS = 6, 12, 11
NOISE = NoiseConfig(sigma_time=0.3, sigma_location=0.15)


class Case:
    """A random network with visible variation, and targets."""

    def __init__(self, num_marks: int, *, perturbations: int = 5, targets: int = TARGETS) -> None:
        torch.manual_seed(3)
        self.network = ScoreNetwork(WIDTH, UNITS, num_marks).double()
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                if name.endswith("weight"):
                    value.mul_(1.8)
        parts = 4 if num_marks > 1 else 3
        self.condition = torch.randn(targets, WIDTH * parts, dtype=torch.float64, requires_grad=True)
        self.target = torch.rand(targets, 3, dtype=torch.float64)
        self.mark = torch.randint(num_marks, (targets,)) if num_marks > 1 else None
        self.draws = torch.randn(targets, perturbations, 3, dtype=torch.float64)

    def by_hand(self, loss: LossConfig) -> MeanLoss:
        return mean_loss_by_hand(
            self.network, self.condition, self.target, self.mark, self.draws, noise=NOISE, loss=loss
        )

    def by_autograd(self, loss: LossConfig) -> MeanLoss:
        prepared = self.network.prepare(self.condition)
        terms = score_matching(self.network, prepared, self.target, self.mark, self.draws, noise=NOISE, loss=loss)
        return mean_loss(terms, loss)

    def gradient(self, total: Tensor) -> dict[str, Tensor]:
        inputs = {"condition": self.condition, **dict(self.network.named_parameters())}
        return dict(zip(inputs, torch.autograd.grad(total, list(inputs.values())), strict=True))

    def check(self, loss: LossConfig) -> None:
        found, expected = self.by_hand(loss), self.by_autograd(loss)
        for name, value in expected._asdict().items():
            mean = getattr(found, name)
            assert (mean is None) == (value is None), name
            if value is not None:
                torch.testing.assert_close(mean.detach(), value.detach(), rtol=1e-10, atol=0.0, msg=name)
        gradient = self.gradient(3.0 * found.total)
        for name, value in self.gradient(3.0 * expected.total).items():
            assert value.abs().max() > 1e-6, name
            torch.testing.assert_close(gradient[name], value, rtol=1e-8, atol=1e-12, msg=name)


LOSSES = {
    "plain": LossConfig(),
    "smoothed": LossConfig(smoothing=0.2),
    "smoothed, weights sum to one": LossConfig(smoothing=0.2, normalised_smoothing=True),
    "weighted": LossConfig(mark_weight=1.7, location_weight=0.4, smoothing=0.1),
    "no mark loss": LossConfig(mark_weight=0.0),
}


@pytest.mark.parametrize("num_marks", [1, 2, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_means_and_gradients_are_those_of_autograd(num_marks: int, name: str) -> None:
    Case(num_marks).check(LOSSES[name])


@pytest.mark.parametrize("num_marks", [1, 3])
@pytest.mark.parametrize("events", [1, 2, 4, 10, 11])
def test_chunks_change_nothing(num_marks: int, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smash.gradient.CHUNK_ROWS", 20 * events)
    Case(num_marks, perturbations=20).check(LOSSES["weighted"])


@pytest.mark.parametrize(("perturbations", "targets"), [(1, 40), (3, 1), (1, 1), (64, 70)])
def test_any_count_of_perturbations_and_targets(perturbations: int, targets: int) -> None:
    Case(3, perturbations=perturbations, targets=targets).check(LOSSES["weighted"])


def test_inactive_units_and_certain_marks_give_finite_gradients() -> None:
    case = Case(3)
    with torch.no_grad():
        case.network.intensity_head.layers[1].bias.copy_(torch.tensor([-60.0, 0.0, 60.0]))
        case.network.location_head.layers[0].bias.fill_(-100.0)
    gradient = case.gradient(case.by_hand(LOSSES["smoothed"]).total)
    expected = case.gradient(case.by_autograd(LOSSES["smoothed"]).total)
    for name, value in expected.items():
        assert value.isfinite().all(), name
        torch.testing.assert_close(gradient[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_single_precision_agrees_to_rounding() -> None:
    case = Case(3, perturbations=50)
    expected = case.gradient(case.by_autograd(LOSSES["weighted"]).total)
    case.network.float()
    case.condition = case.condition.detach().float().requires_grad_()
    case.target, case.draws = case.target.float(), case.draws.float()
    gradient = case.gradient(case.by_hand(LOSSES["weighted"]).total)
    for name, value in expected.items():
        error = (gradient[name].double() - value).norm() / value.norm()
        assert error < 1e-4, name


def test_weights_that_want_no_gradient_get_none() -> None:
    case = Case(3)
    case.network.temporal_trunk.requires_grad_(False)
    case.by_hand(LossConfig()).total.backward()
    assert all(parameter.grad is None for parameter in case.network.temporal_trunk.parameters())
    assert all(parameter.grad is not None for parameter in case.network.spatial_trunk.parameters())


def test_nothing_to_predict_gives_no_gradient() -> None:
    case = Case(3, targets=0)
    gradient = case.gradient(case.by_hand(LossConfig()).total)
    assert all((value == 0.0).all() for value in gradient.values())


def test_a_known_gradient_is_scaled_like_any_other() -> None:
    inputs = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    value = with_gradient(torch.tensor(7.0), [torch.tensor([4.0, 5.0]), torch.tensor(6.0)], inputs)
    assert value.item() == 7.0
    first, second = torch.autograd.grad(value.square(), inputs)
    assert first.tolist() == [56.0, 70.0]
    assert second.item() == 84.0


def test_autograd_serves_where_the_hand_does_not() -> None:
    condition = torch.zeros(2, 3)
    assert can_be_by_hand(condition)
    assert not can_be_by_hand(condition.to("meta"))
    with torch.no_grad():
        assert not can_be_by_hand(condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can_be_by_hand(condition)
