"""The encoder and the assembled model: who sees whom, and what is predicted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smash.attention import attend_causally
from smash.config import LossConfig, ModelConfig, NoiseConfig
from smash.loss import total_loss
from smash.model import Batch, Smash, num_targets

SMALL = ModelConfig(width=8, layers=2, heads=2, key_width=4, value_width=6, units=16)


def model(num_marks: int = 3, *, config: ModelConfig = SMALL) -> Smash:
    torch.manual_seed(0)
    return Smash(config, num_marks=num_marks).eval()


def events(lengths: list[int], *, num_marks: int = 3, pad: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    count = max(lengths) + pad
    present = torch.arange(count) < torch.tensor(lengths)[:, None]
    shape = (len(lengths), count)
    mark = torch.randint(num_marks, shape, generator=generator) * present if num_marks > 1 else None
    return Batch(
        torch.rand(shape, generator=generator).cumsum(1) * present,
        torch.rand(shape, generator=generator) * present,
        torch.rand((*shape, 2), generator=generator) * present[..., None],
        mark,
        torch.tensor(lengths),
    )


def encode(network: Smash, batch: Batch) -> Tensor:
    with torch.no_grad():
        return network.encode(batch.time, batch.location, batch.mark, batch.lengths)


@pytest.mark.parametrize("num_marks", [1, 3])
def test_conditions_ignore_later_events(num_marks: int) -> None:
    network, batch = model(num_marks), events([9], num_marks=num_marks)
    before = encode(network, batch)
    mark = None if batch.mark is None else batch.mark.clone()
    changed = batch._replace(time=batch.time.clone(), location=batch.location.clone(), mark=mark)
    changed.time[0, 5:] += 1.0
    changed.location[0, 5:] = 0.3
    if mark is not None:
        mark[0, 5:] = (mark[0, 5:] + 1) % num_marks
    after = encode(network, changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0.0, atol=1e-6)
    assert (after[:, 5:] - before[:, 5:]).abs().amax(-1).min() > 1e-3


def test_conditions_do_not_depend_on_padding_or_on_other_sequences() -> None:
    network, batch = model(), events([4, 9, 7], pad=5)
    together = encode(network, batch)
    for row, length in enumerate([4, 9, 7]):
        alone = Batch(*(None if part is None else part[row : row + 1] for part in batch))
        cut = alone._replace(
            time=alone.time[:, :length], location=alone.location[:, :length], mark=alone.mark[:, :length]
        )
        torch.testing.assert_close(encode(network, cut)[0], together[row, :length], rtol=0.0, atol=1e-6)


def test_events_at_time_zero_and_at_the_coordinate_minimum_are_seen() -> None:
    network, batch = model(), events([6])
    batch.time[0, 0] = 0.0
    batch.location[0, 2, 0] = 0.0
    before = encode(network, batch)
    moved = batch._replace(location=batch.location.clone())
    moved.location[0, 0, 1] += 0.5
    assert (encode(network, moved)[0, 1:] - before[0, 1:]).abs().amax(-1).min() > 1e-4
    moved = batch._replace(location=batch.location.clone())
    moved.location[0, 2, 1] += 0.5
    assert (encode(network, moved)[0, 3:] - before[0, 3:]).abs().amax(-1).min() > 1e-4
    with torch.no_grad():
        targets = network.targets(batch)
    assert len(targets.condition) == 5
    torch.testing.assert_close(targets.value[1, 1:], batch.location[0, 2])


def test_legacy_masks_lose_an_event_at_time_zero() -> None:
    batch = events([6, 4])
    batch.time[0, 0] = 0.0
    network = model(config=ModelConfig(width=8, layers=1, heads=2, key_width=4, value_width=6, legacy_masks=True))
    assert network.lengths(batch).tolist() == [5, 4]
    with torch.no_grad():
        assert len(network.targets(batch).condition) == 4 + 3
    assert model().lengths(batch).tolist() == [6, 4]


def test_targets_follow_the_sequences_in_order() -> None:
    batch = events([3, 1, 4])
    with torch.no_grad():
        targets = model().targets(batch)
    assert num_targets(batch.lengths) == 5 == len(targets.condition)
    assert targets.mark is not None and batch.mark is not None
    assert targets.mark.tolist() == [*batch.mark[0, 1:3].tolist(), *batch.mark[2, 1:4].tolist()]
    torch.testing.assert_close(targets.value[:2, 0], batch.gap[0, 1:3])
    torch.testing.assert_close(targets.value[2:, 1:], batch.location[2, 1:4])


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("num_marks", [1, 3])
def test_every_parameter_gets_a_gradient_and_chunks_change_nothing(
    num_marks: int, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = model(num_marks), events([5, 8], num_marks=num_marks)
    draws = torch.randn(11, 4, 3, generator=torch.Generator().manual_seed(2))
    loss = LossConfig(perturbations=4, smoothing=0.1)
    monkeypatch.setattr("smash.model.can_be_by_hand", lambda _: by_hand)
    found: list[list[Tensor]] = []
    for rows in (8192, 8):
        monkeypatch.setattr("smash.model.CHUNK_ROWS", rows)
        monkeypatch.setattr("smash.gradient.CHUNK_ROWS", 4 * rows)
        network.zero_grad()
        network(batch, draws, noise=NoiseConfig(), loss=loss).total.backward()
        found.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert len(found[0]) == len(list(network.parameters()))
    for name, whole, cut in zip(dict(network.named_parameters()), *found, strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("by_hand", [True, False])
def test_gradients_taken_chunk_by_chunk_are_those_of_the_whole(by_hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = model(), events([5, 8])
    draws = torch.randn(11, 4, 3, generator=torch.Generator().manual_seed(2))
    loss, noise = LossConfig(perturbations=4, smoothing=0.1, location_weight=0.7), NoiseConfig()
    terms = network.loss_terms(network.targets(batch), draws, noise=noise, loss=loss)
    expected = torch.autograd.grad(3.0 * total_loss(terms, loss), list(network.parameters()))
    monkeypatch.setattr("smash.model.can_be_by_hand", lambda _: by_hand)
    monkeypatch.setattr("smash.model.CHUNK_ROWS", 8)
    monkeypatch.setattr("smash.gradient.CHUNK_ROWS", 32)
    means = network(batch, draws, noise=noise, loss=loss)
    found = torch.autograd.grad(3.0 * means.total, list(network.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(means.location_score, terms.denoise[..., 1:].mean())
    with torch.no_grad():
        torch.testing.assert_close(network(batch, draws, noise=noise, loss=loss).total, means.total.detach())


def test_batches_without_targets_give_empty_terms() -> None:
    network = model()
    terms = network.loss_terms(
        network.targets(events([1, 1])), torch.empty(0, 4, 3), noise=NoiseConfig(), loss=LossConfig()
    )
    assert terms.denoise.shape == (0, 4, 3)
    assert terms.mark is not None and terms.mark.shape == (0, 4)


@pytest.mark.parametrize("count", [5, 64, 150])
def test_attention_with_dropout_averages_to_attention_without(count: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, count, 4) for _ in range(3))
    expected = attend_causally(query, key, value)
    draws = torch.stack([attend_causally(query, key, value, dropout=0.2) for _ in range(200)])
    error = (draws.mean(0) - expected).abs() / (draws.std(0) / 200**0.5 + 1e-6)
    assert error.mean() < 1.0
    assert (draws[0] - expected).abs().max() > 0.1


def test_attention_with_dropout_recomputed_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Tensor] = []
    for kept in (2**22, 0):
        monkeypatch.setattr("smash.attention.KEPT_ELEMENTS", kept)
        torch.manual_seed(3)
        query = torch.randn(3, 2, 70, 4, requires_grad=True)
        attend_causally(query, query, query, dropout=0.3).square().sum().backward()
        assert query.grad is not None
        found.append(query.grad)
    torch.testing.assert_close(*found, rtol=0.0, atol=1e-6)


def test_time_code_alternates_sine_and_cosine() -> None:
    code = model().encoder.time_code(torch.tensor([[2.0]]))[0, 0]
    expected = [f(torch.tensor(2.0 / 10000 ** (2 * i / 8))) for i in range(4) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(code, torch.stack(expected))
