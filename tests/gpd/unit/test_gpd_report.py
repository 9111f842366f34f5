"""Errors and paired tests of an evaluation, on numbers that can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import wilcoxon

from gpd.report import (
    AVERAGE,
    FINETUNED,
    GENERATED,
    MEAN,
    PERSISTENCE,
    SCRATCH,
    TUNED,
    Report,
    compare,
    duration,
    ordered,
    signed_ranks,
)
from stcore.metrics.horizons import HorizonErrors


def errors_of(per_node: np.ndarray) -> HorizonErrors:
    """Return errors whose mean at each horizon and node is `per_node` (horizon, node)."""
    found = HorizonErrors()
    truth = np.full((4, *per_node.shape), 10.0)
    found.add(truth + per_node[None], truth)
    return found


def report(**per_node: np.ndarray) -> Report:
    names = {"tuned": FINETUNED, "generated": GENERATED, "scratch": SCRATCH, "mean": MEAN + TUNED,
             "persistence": PERSISTENCE, "average": AVERAGE}  # fmt: skip
    found = ordered({names[key]: errors_of(value) for key, value in per_node.items()})
    return Report(found, tuple(map(str, range(12))), "km/h", 5.0, {"protocol": "a protocol"})


def test_a_pair_is_compared_over_nodes_and_at_each_horizon():
    random = np.random.default_rng(0)
    one, other = random.random((2, 12)), random.random((2, 12)) + 0.3
    pair = compare(("a", one), ("b", other))
    apart = one.mean(0) - other.mean(0)
    assert pair.difference == pytest.approx(apart.mean())
    assert pair.share == pytest.approx(apart.sum() / other.mean(0).sum())
    assert pair.better == (apart < 0).mean()
    assert pair.p == pytest.approx(wilcoxon(apart).pvalue)
    assert pair.p_per_horizon[1] == pytest.approx(wilcoxon(one[1] - other[1]).pvalue)


def test_nodes_without_a_target_are_left_out():
    one, other = np.full((1, 12), 1.0), 2.0 + np.arange(12.0)[None]
    one[0, 3] = np.nan
    pair = compare(("a", one), ("b", other))
    assert pair.difference == pytest.approx(-(12 + 66 - 4) / 11)
    assert pair.better == 1.0
    assert pair.p == pytest.approx(2 * 0.5**11)


def test_equal_forecasters_do_not_differ():
    same = np.random.default_rng(1).random((3, 9))
    assert compare(("a", same), ("b", same)).verdict == "no difference"
    assert signed_ranks(np.zeros(5)) == 1.0


def test_differences_of_one_size_are_tested_too():
    """Ranks are then shared, and the law of their sum is taken for normal."""
    assert signed_ranks(np.ones(40)) == pytest.approx(wilcoxon(np.ones(40), method="asymptotic").pvalue)
    assert signed_ranks(np.ones(40)) < 1e-6


def test_the_report_says_who_wins_and_who_loses():
    level = np.linspace(1.0, 2.0, 12)[None].repeat(2, 0)
    found = report(persistence=0.5 * level, scratch=2.0 * level, tuned=level, generated=1.5 * level, mean=3.0 * level)
    assert list(found.errors) == [FINETUNED, GENERATED, SCRATCH, MEAN + TUNED, PERSISTENCE]
    assert found.model == FINETUNED
    assert found.mae() == pytest.approx(1.5)
    assert found.best_naive() == PERSISTENCE
    scratch, mean, naive = found.verdicts()
    assert scratch == "fine-tuned against from scratch: -50.0 % error, better at 100% of nodes, p 4.9e-04: better"
    assert mean.startswith("fine-tuned against mean row, fine-tuned: -66.7 % error")
    assert naive.startswith("fine-tuned against persistence, the strongest naive forecast: +100.0 % error")
    assert naive.endswith("worse")
    assert {(pair.one, pair.other) for pair in found.pairs()} == {
        (FINETUNED, GENERATED), (FINETUNED, SCRATCH), (FINETUNED, MEAN + TUNED), (FINETUNED, PERSISTENCE),
        (GENERATED, PERSISTENCE),
    }  # fmt: skip


def test_the_text_has_a_column_for_each_horizon_and_a_row_for_each_forecaster():
    level = np.ones((2, 12))
    text = report(tuned=level, average=2.0 * level).text()
    blocks = text.split("\n\n")
    assert blocks[0] == "a protocol"
    head, first, second = blocks[1].splitlines()
    assert head.split("  ")[0] == "MAE (km/h) at"
    assert [cell.strip() for cell in head.split("  ") if cell.strip()][1:4] == ["5 min", "10 min", "all"]
    assert first.split()[:4] == ["fine-tuned", "1", "1", "1"]
    assert second.split()[:5] == ["historical", "average", "2", "2", "2"]
    assert blocks[2].startswith("RMSE (km/h) at")
    assert "paired over nodes" in blocks[3]


def test_the_report_is_json(tmp_path):
    path = tmp_path / "evaluation.json"
    report(tuned=np.ones((2, 12)), average=np.full((2, 12), 2.0)).write(path)
    found = json.loads(path.read_text())
    assert found["tables"]["fine-tuned"]["mae_per_horizon"] == [1.0, 1.0]
    assert found["mae_per_node"]["historical average"] == [2.0] * 12
    assert found["pairs"][0]["p_per_horizon"][0] == found["pairs"][0]["p"] < 0.01
    assert found["pairs"][0]["verdict"] == "better"


@pytest.mark.parametrize(("minutes", "words"), [(5.0, "5 min"), (60.0, "1 h"), (90.0, "90 min"), (1440.0, "24 h")])
def test_durations(minutes, words):
    assert duration(minutes) == words
