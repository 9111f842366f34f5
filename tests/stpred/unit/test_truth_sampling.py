"""Which steps are fed with the truth, and the learning rates of the published runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stcore.errors import UserError
from stpred.sampling import truth_bits, truth_probability
from stpred.schedules import cosine, one_cycle


def draw(kind: Any, **changes: int) -> torch.Tensor:
    bits = truth_bits(kind, **({"batch": 5, "history": 4, "horizon": 3, "seed": 1, "step": 0} | changes))
    assert bits is not None
    return bits


def test_bits_have_the_length_that_the_models_ask_for() -> None:
    assert draw("scheduled").shape == (5, 2)
    assert draw("reverse").shape == (5, 5)
    assert draw("coin").shape == (5, 2)
    assert draw("scheduled", horizon=1).shape == (5, 0)
    assert truth_bits("none", batch=5, history=4, horizon=3, seed=1, step=0) is None


@pytest.mark.parametrize("kind", ["scheduled", "reverse", "coin"])
def test_bits_are_a_function_of_seed_step_and_rank(kind: str) -> None:
    where = {"batch": 64, "step": 10_000, "epoch": 100}
    torch.manual_seed(0)
    first = draw(kind, **where)
    torch.manual_seed(1)
    assert torch.equal(first, draw(kind, **where))
    if kind != "coin":
        others = [draw(kind, **(where | change)) for change in ({"step": 10_001}, {"rank": 1}, {"seed": 2})]
        assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("step", "inside", "after"), [(0, 0.5, 0.5), (37_500, 0.959, 0.25), (50_000, 1.0, 0.0)])
def test_reverse_bits_come_with_their_probabilities(step: int, inside: float, after: float) -> None:
    bits = draw("reverse", batch=4_000, history=6, horizon=6, step=step)
    assert bits[:, :5].mean().item() == pytest.approx(inside, abs=0.02)
    assert bits[:, 5:].mean().item() == pytest.approx(after, abs=0.02)


def test_a_coin_is_one_for_the_whole_batch() -> None:
    flips = [draw("coin", step=step, epoch=100) for step in range(300)]
    assert all(bool((flip == flip[0, 0]).all()) for flip in flips)
    assert torch.stack([flip[0, 0] for flip in flips]).mean().item() == pytest.approx(0.7, abs=0.08)
    assert draw("coin").min() == 1.0
    assert draw("coin", epoch=400).max() == 0.0


def test_scheduled_truth_is_used_up_after_its_steps() -> None:
    assert draw("scheduled", step=50_000).max() == 0.0
    probabilities = [truth_probability("scheduled", step=step).future for step in range(0, 60_000, 1_000)]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("total", [1, 2, 3, 7, 40])
def test_one_cycle_is_that_of_torch(total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=total, final_div_factor=1e4)
    for step in range(total):
        assert one_cycle(step, max_lr=0.5, total_steps=total) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        if step < total - 1:
            scheduler.step()


def test_rates_stay_at_the_end() -> None:
    assert one_cycle(99, max_lr=1.0, total_steps=10) == one_cycle(9, max_lr=1.0, total_steps=10)
    assert cosine(99, lr=1.0, epochs=50) == cosine(50, lr=1.0, epochs=50) == 1e-6
    assert cosine(3, lr=1.0, epochs=50, warmup_epochs=0) == pytest.approx(cosine(3, lr=1.0, epochs=50, warmup_epochs=3))
    with pytest.raises(UserError, match="one-cycle: 0 steps"):
        one_cycle(0, max_lr=1.0, total_steps=0)
