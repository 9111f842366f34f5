"""The benchmark of vlm4st's speed: its sides, its instruments, its table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks.vlm4st import speed

from stcore.errors import UserError

ABOUT: dict[str, Any] = {
    "commit": None, "date": "2026-01-02T03:04Z", "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
}  # fmt: skip
PLACE = speed.Place(torch.device("cpu"), 2, quick=True)


def test_sides_forecast_the_same_and_a_difference_is_noticed(monkeypatch):
    sides = speed._sides(PLACE)
    assert sides["plain"].state_dict().keys() != sides["ours"].state_dict().keys()
    monkeypatch.setattr(speed, "load_reference", lambda model, state: ())
    with pytest.raises(RuntimeError, match="nothing to compare"):
        speed._sides(PLACE)


def test_a_step_of_both_sides_changes_what_is_trained_and_nothing_else():
    for model in speed._sides(PLACE).values():
        before = {name: part.detach().clone() for name, part in model.named_parameters()}
        speed._training(model, PLACE)()
        changed = {name for name, part in model.named_parameters() if not torch.equal(part, before[name])}
        assert changed
        assert changed <= {name for name, part in model.named_parameters() if part.requires_grad}


def test_both_sides_drop_values_but_no_attention_weights():
    for model in speed._sides(PLACE).values():
        rates = {part.dropout for part in model.modules() if isinstance(part, torch.nn.MultiheadAttention)}
        assert rates == {0.0}
        assert any(isinstance(part, torch.nn.Dropout) and part.p == 0.1 for part in model.modules())


def test_patterns_cost_as_many_operations_for_many_samples_as_for_one():
    row = next(speed._prompts(PLACE))
    assert row["met"] == "yes" and "(0 waits)" in row["ours"] and "(0 waits)" not in row["plain"]


def test_the_full_size_is_the_original_s():
    config = speed.FULL
    assert (config.H, config.W, config.d_model, config.sequence_length, config.vlm.tokens) == (32, 32, 256, 302, 197)
    assert config.dix_attention.weights_dropout == 0.0 == config.vlm.bert_config.attention_probs_dropout_prob


def test_every_case_is_known_by_its_name():
    with pytest.raises(UserError, match="cases: 'colour'; expected some of forward, training, forward-merged, memory"):
        next(speed.run(quick=True, cases="colour"))


def test_table_marks_missed_goals():
    row = {"what": "w", "plain": "9", "ours": "3", "result": "0.3 times", "goal": "at most 0.2 times"}
    text = speed.table([{**row, "met": "**no**", **ABOUT}, {**row, "met": "yes", **ABOUT}])
    assert "| w | 9 | 3 | 0.3 times | at most 0.2 times | **no** |" in text
    assert "| w | 9 | 3 | 0.3 times | at most 0.2 times | yes |" in text
