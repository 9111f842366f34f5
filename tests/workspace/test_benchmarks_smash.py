"""The speed benchmark of smash: what it says of two laws, its table, and a miniature run of each comparison."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks.smash import speed
from benchmarks.smash.plain import (
    Draws,
    PlainBatch,
    PlainChain,
    PlainSizes,
    PlainSmash,
    flatten_targets,
    pad_batch,
    random_batches,
    train_epoch,
    training_loss,
)

from stcore.errors import UserError


def some_sequences(*lengths: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        torch.cat([torch.rand(n, 1).cumsum(0), torch.rand(n, 1), torch.randint(1, 4, (n, 1)), torch.rand(n, 2)], dim=1)
        for n in lengths
    ]


def small_model(marks: int = 3) -> PlainSmash:
    torch.manual_seed(1)
    sizes = PlainSizes(marks=marks, width=8, layers=1, feed_forward_width=16, recurrent_width=16, units=16)
    return PlainSmash(sizes).eval()


def test_equal_laws_are_called_the_same_and_shifted_ones_are_not() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(6, 200, 3), torch.randn(6, 200, 3)
    assert speed.compare_laws(first, second)["same"]
    found = speed.compare_laws(first, second + torch.tensor([0.0, 0.7, 0.0]))
    assert not found["same"]
    assert found["tests"] == 18
    assert found["share_below_05"] >= 1 / 3
    assert found["ks_x"] > 2 * found["ks_gap"]


def test_table_marks_missed_goals() -> None:
    about: dict[str, Any] = {
        "commit": None, "date": "2026-01-02T03:04Z", "versions": {"torch": "2.13.0"},
        "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
    }  # fmt: skip
    row = {"what": "w", "plain": "9", "ours": "3", "result": "3 times", "goal": "4 times"}
    text = speed.table([{**row, "met": False, **about}, {**row, "met": True, **about}])
    assert "| w | 9 | 3 | 3 times | 4 times | **no** |" in text
    assert "| w | 9 | 3 | 3 times | 4 times | yes |" in text


def test_unknown_case_is_refused() -> None:
    with pytest.raises(UserError, match=r"cases: 'colour'; expected some of"):
        next(speed.run(True, cases="colour"))


def test_plain_flattening_pairs_each_event_with_the_condition_before_it() -> None:
    batch = pad_batch(some_sequences(3, 5, 2), marked=True)
    place = torch.arange(15.0).reshape(3, 5, 1)
    targets = flatten_targets(batch, place)
    assert targets.condition.flatten().tolist() == [0, 1, 5, 6, 7, 8, 10]
    assert targets.x[:, 0, 0].tolist() == (2 * batch.gap[[0, 0, 1, 1, 1, 1, 2], [1, 2, 1, 2, 3, 4, 1]] - 1).tolist()
    assert targets.mark is not None and targets.mark.min() >= 0


def test_plain_loss_ignores_padding() -> None:
    model, sequences = small_model(), some_sequences(4, 9)
    noise = torch.randn(3, 2, 3)
    sigma = torch.tensor([0.2, 0.25, 0.25])
    alone = training_loss(model, pad_batch(sequences[:1], marked=True), noise, sigma=sigma)
    wide = pad_batch(sequences, marked=True)
    padded = PlainBatch(
        time=wide.time[:1], gap=wide.gap[:1], mark=wide.mark[:1] if wide.mark is not None else None,
        location=wide.location[:1], valid=wide.valid[:1],
    )  # fmt: skip
    torch.testing.assert_close(training_loss(model, padded, noise, sigma=sigma), alone, atol=1e-6, rtol=0.0)


def test_plain_epoch_sees_every_sequence_and_learns() -> None:
    sequences = some_sequences(5, 7, 3, 6, 4)
    seen = [batch.valid.sum(1).tolist() for batch in random_batches(sequences, 2, marked=True, seed=3)]
    assert sorted(length for batch in seen for length in batch) == [3, 4, 5, 6, 7]
    assert [len(lengths) for lengths in seen] == [2, 2, 1]
    model, sigma = small_model(), torch.tensor([0.2, 0.25, 0.25])
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses: list[float] = []
    for epoch in range(12):
        batches = random_batches(sequences, 5, marked=True, seed=epoch)
        losses += train_epoch(model, batches, optimiser, sigma=sigma, perturbations=20)
    assert len(losses) == 12
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("marks", [1, 3])
def test_plain_chain_stays_in_the_box_and_repeats_with_its_seed(marks: int) -> None:
    model = small_model(marks)
    condition = torch.randn(2, 1, model.sizes.condition_width)
    chain = PlainChain(sigma=torch.tensor([0.2, 0.25, 0.25]), step=0.01, stages=(6, 4), refine_steps=3)
    *stages, (out, probability) = chain.run_stages(model.score, condition, 5, Draws.seeded(4))
    assert len(stages) == 1 and stages[0][0].min() >= 0.0 and stages[0][0].max() <= 1.0
    again, _ = chain.sample(model.score, condition, 5, Draws.seeded(4))
    assert torch.equal(out, again)
    assert (probability is None) == (marks == 1)
    if probability is not None:
        torch.testing.assert_close(probability.sum(-1), torch.ones(2, 5))
        assert out.min() >= 0.0 and out.max() <= 1.0
