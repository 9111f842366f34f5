"""The quality benchmark of gpd: what it tries, what it chooses by, what its table says, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.gpd import quality, transfer
from prompt_cities import city

from gpd.presets import PRESETS
from gpd.report import FINETUNED, GENERATED, MEAN, NEAREST, RANDOM, RIDGE, SCRATCH
from stcore.configuration import differences
from stcore.errors import UserError
from stcore.graphs import GraphSeries

ABOUT: dict[str, Any] = {
    "commit": None, "date": "2026-01-02T03:04Z", "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
}  # fmt: skip


def errors(finetuned: float) -> dict[str, float]:
    return {FINETUNED: finetuned, SCRATCH: 3.0, GENERATED: 4.0, MEAN: 5.0, NEAREST: 5.5, RANDOM: 6.0, RIDGE: 2.5}


def scored(role: str, variant: str, finetuned: float, *, seed: int = 0, days: int = 3, **more: Any) -> dict[str, Any]:
    pair = {"one": FINETUNED, "other": SCRATCH, "share": finetuned / 3 - 1, "better": 0.9, "p": 2e-5,
            "verdict": "better"}  # fmt: skip
    leads = {FINETUNED: [2.0, finetuned], RIDGE: [1.0, 9.0]}
    return {"set": "subway", "role": role, "variant": variant, "words": f"words of {variant}", "target": "t",
            "days": days, "seed": seed, "unit": "cars", "mae": errors(finetuned), "best_naive": RIDGE, "pairs": [pair],
            "mae_per_horizon": leads, "memorised": 0.75, **more, **ABOUT}  # fmt: skip


def test_the_table_tells_what_was_tried_and_where_the_method_is_behind() -> None:
    rows = [scored("choice", "plain", 2.9), scored("choice", "change", 2.2),
            {"set": "subway", "role": "chosen", "chosen": "change", **ABOUT},
            scored("test", "change", 2.0), scored("test", "change", 2.4, seed=1),
            scored("test", "change", 2.1, days=1)]  # fmt: skip
    text = quality.table(rows)
    assert f"| **change: words of change** | 2.2 | 3 | 4 | 5 | 2.5 ({RIDGE}) |" in text
    assert "| plain: words of plain | 2.9 | 3 | 4 | 5 |" in text
    assert "| subway (t, cars), change, chosen: words of change | 1 d, 1 seed | 3 d, 2 seeds |" in text
    assert f"| {FINETUNED} | 2.1 | 2.2 ± 0.28 |" in text
    assert f"3 d: {FINETUNED} against {SCRATCH} -33.3 % (p 2e-05, better)." in text
    assert f"The strongest naive forecast is {RIDGE}: the method is behind at lead 1." in text
    assert "Generated rows lie 0.75 times as far from source rows as these from one another." in text


@pytest.mark.parametrize("name", transfer.VARIANTS)
def test_variants_differ_in_what_their_words_say(name: str) -> None:
    variant = transfer.VARIANTS[name]
    changed = differences(transfer.BASE, variant.config)
    assert bool(changed) == (name != "plain")
    allowed = ("model.", "finetune.", "sampling.", "spatial.kind", "temporal.kind", "pretrain.loss",
               "pretrain.average_days", "pretrain.shared_epochs")  # fmt: skip
    assert all(path.startswith(allowed) for path in changed)
    if variant.nodes_of:
        shared = transfer.VARIANTS[variant.nodes_of].config
        assert (shared.model, shared.pretrain) == (variant.config.model, variant.config.pretrain)
    if variant.later_of:
        shared = transfer.VARIANTS[variant.later_of].config
        changed = differences(shared, variant.config)
        assert changed and all(path.startswith(("finetune.", "sampling.")) for path in changed)
    small = transfer.quickened(variant.config)
    assert (small.fit.max_steps, small.finetune.epochs, small.model.residual) == (2, 1, variant.config.model.residual)


def test_what_was_chosen_is_a_preset() -> None:
    assert differences(PRESETS["few-days"], transfer.VARIANTS["shared-small-calm"].config) == []
    assert differences(PRESETS["few-days-hourly"], transfer.VARIANTS["shared-timeless-map"].config) == []


def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: str = "2 1") -> quality._Trial:
    cities = [city(name, nodes=4, days=8, seed=number) for number, name in enumerate("abct")]
    subject = transfer.Subject(lambda quick: cities, (2,), seeds=2)
    monkeypatch.setitem(transfer.SUBJECTS, "toy", subject)
    return quality._Trial("toy", False, tmp_path, days, "")


class Recorded:
    """Stands for the method: remembers what it was asked, and has the errors of a table."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, tuple[str, ...], int, int, GraphSeries]] = []
        monkeypatch.setattr(quality.Pipeline, "start", self.start)
        rates = SimpleNamespace(metadata={"training": {"learning_rate": 0.1}})
        monkeypatch.setattr(quality, "gather", lambda pipeline: SimpleNamespace(tables={SCRATCH: rates}))
        monkeypatch.setattr(quality, "score", self.score)
        monkeypatch.setattr(quality, "_figures", lambda report: {"mae": errors(report)})

    def start(self, config: Any, **more: Any) -> Any:
        more["run"].mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(config=config, sources=more["sources"])

    def score(self, pipeline: Any, rows: Any) -> float:
        config = pipeline.config
        sources = tuple(series.name for series in pipeline.sources)
        self.asked.append((config.data.target, sources, config.data.days, config.seed, pipeline.target.test))
        return 1.0 + len(config.model.residual)


def test_choices_are_made_on_a_source_city_and_the_target_is_scored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, one = Recorded(monkeypatch), trial(tmp_path, monkeypatch)
    rows = [one.stand_in(name) for name in ("plain", "change", "deviation", "no-prompts")]
    assert {(row["target"], row["days"], row["role"]) for row in rows} == {("a", 2, "choice")}
    assert all(asked[:2] == ("a", ("b", "c")) for asked in method.asked)
    # Eight days: the stand-in is scored on 70 to 80 % of them, the target on the rest.
    assert method.asked[0][4].num_steps == pytest.approx(0.1 * 192, abs=1)
    assert one.choose(rows)["chosen"] == "plain"
    method.asked.clear()
    tested = list(one.target("plain"))
    assert [(row["days"], row["seed"]) for row in tested] == [(2, 0), (1, 0), (2, 1)]
    assert all(asked[:2] == ("t", ("a", "b", "c")) for asked in method.asked)
    assert method.asked[0][4].num_steps == pytest.approx(0.2 * 192, abs=1)
    assert tested[0]["config"]["data.target"] == "t"
    assert tested[0]["scratch_rate"] == 0.1


def test_controls_are_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"variant": "plain", "mae": {FINETUNED: 2.0}}, {"variant": "no-prompts", "mae": {FINETUNED: 1.0}}]
    assert trial(tmp_path, monkeypatch).choose(rows)["chosen"] == "plain"


def test_what_is_scored_is_not_scored_again_and_other_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, one = Recorded(monkeypatch), trial(tmp_path, monkeypatch, days="2")
    first = list(one.target("plain"))
    asked = len(method.asked)
    assert list(one.target("plain")) == first
    assert len(method.asked) == asked
    kept = tmp_path / "test-plain-0" / "result-plain-2.json"
    row = json.loads(kept.read_text())
    kept.write_text(json.dumps({**row, "config": {**row["config"], "model.channels": 99}}))
    with pytest.raises(UserError, match=r"result-plain-2\.json: made with other options"):
        list(one.target("plain"))


def test_pieces_of_a_graph_and_hourly_cities_are_disjoint_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = city("whole", nodes=24, days=3)
    monkeypatch.setattr(transfer, "read_graph", lambda options: whole)
    found = transfer.pieces("whole", 4)(False)
    assert [part.name for part in found] == ["whole-1", "whole-2", "whole-3", "whole-4"]
    assert sorted(node for part in found for node in part.nodes) == sorted(whole.nodes)
    assert len(transfer.pieces("whole", 4)(True)) == 4
    hourly = transfer.hourly("taxi")(True)
    assert [each.name for each in hourly] == ["melbourne", "montevideo", "wind", "taxi"]
    assert {each.num_nodes for each in hourly} == {8}
    volume = whole.values[: round(0.7 * 72), :, 0].sum(0)
    busiest = {whole.nodes[node] for node in np.argsort(-volume)[:8]}
    assert set(hourly[0].nodes) == busiest
