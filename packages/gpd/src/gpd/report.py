"""What an evaluation found: errors per horizon of every forecaster, and paired tests over nodes between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from stcore.files import to_json, write_atomically
from stcore.metrics.horizons import HorizonErrors

FINETUNED, GENERATED = "fine-tuned", "zero-shot generated"
SCRATCH, NEAREST, MEAN, RANDOM = "from scratch", "nearest source", "mean row", "random row"
TUNED = ", fine-tuned"
SCRATCH_CLOSED = "from scratch, closed form"
PERSISTENCE, AVERAGE, RIDGE = "persistence", "historical average", "ridge on average"
NAIVE = (PERSISTENCE, AVERAGE, RIDGE)
SHOWN = (
    FINETUNED, GENERATED, SCRATCH, SCRATCH_CLOSED, NEAREST + TUNED, MEAN + TUNED, NEAREST, MEAN, RANDOM, *NAIVE,
)  # fmt: skip
"""Forecasters in the order of the table."""
LEVEL = 0.01
"""Below this probability a difference over nodes is called one."""
EXACT = 50
"""Nodes up to which the law of the ranks is computed exactly."""


@dataclass(frozen=True)
class Pair:
    """One forecaster against another on the same windows, paired over nodes, by mean absolute error."""

    one: str
    other: str
    difference: float
    """Mean over nodes of the error of `one` minus that of `other`, in units; below 0 `one` is better."""
    share: float
    """That difference over the mean error of `other`."""
    better: float
    """Share of nodes where `one` has the smaller error."""
    p: float
    """Probability of signed ranks as unequal as these if neither were better (Wilcoxon, two-sided)."""
    p_per_horizon: tuple[float, ...]
    """The same at each horizon alone."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference` where chance explains what was seen."""
        if not self.p < LEVEL:
            return "no difference"
        return "better" if self.difference < 0.0 else "worse"


def compare(
    one: tuple[str, Float64[ndarray, "horizon node"]], other: tuple[str, Float64[ndarray, "horizon node"]]
) -> Pair:
    """Compare two forecasters by the mean absolute errors of each node; nodes without a target are left out.

    >>> pair = compare(("a", np.full((1, 8), 1.0)), ("b", 1.0 + np.arange(1, 9)[None]))
    >>> pair.better, round(pair.p, 4), pair.verdict
    (1.0, 0.0078, 'better')
    """
    mine, theirs = one[1], other[1]
    apart = mine.mean(axis=0) - theirs.mean(axis=0)
    known = np.isfinite(apart)
    return Pair(
        one[0], other[0], float(apart[known].mean()), float(apart[known].sum() / theirs.mean(axis=0)[known].sum()),
        float((apart[known] < 0.0).mean()), signed_ranks(apart[known]),
        tuple(signed_ranks(row[np.isfinite(row)]) for row in mine - theirs),
    )  # fmt: skip


def signed_ranks(differences: Float64[ndarray, "node"]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, exact for few nodes; 1 where nothing differs."""
    from scipy.stats import wilcoxon

    apart = differences[differences != 0.0]
    if not len(apart):
        return 1.0
    # Ranks that are shared leave the exact law to be enumerated, which takes seconds for what nobody would notice.
    shared = len(np.unique(np.abs(apart))) < len(apart)
    found: Any = wilcoxon(apart, method="asymptotic" if shared or len(apart) > EXACT else "exact")
    return float(found.pvalue)


@dataclass(frozen=True)
class Report:
    """Errors on the test part of the target city; everything by the name of the forecaster."""

    errors: Mapping[str, HorizonErrors]
    nodes: tuple[str, ...]
    unit: str = ""
    step_minutes: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """City, days, protocol, windows, run."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know."""

    @property
    def model(self) -> str:
        """Name of the forecaster that the report is about: fine-tuned rows, else generated ones, else the first."""
        return next((name for name in (FINETUNED, GENERATED) if name in self.errors), next(iter(self.errors)))

    def mae(self, name: str = "") -> float:
        """Return the mean absolute error of one forecaster (by default the model's) over everything."""
        return float(self.errors[name or self.model].summary()["mae"])

    def pair(self, one: str, other: str) -> Pair:
        """Compare two forecasters over nodes."""
        found = {name: self.errors[name].mae_per_horizon_and_node() for name in (one, other)}
        return compare((one, found[one]), (other, found[other]))

    def pairs(self) -> list[Pair]:
        """Compare fine-tuned rows with everything else, then generated ones with everything that is not trained."""
        found = [self.pair(FINETUNED, name) for name in self.errors if FINETUNED in self.errors and name != FINETUNED]
        untrained = [name for name in (NEAREST, MEAN, RANDOM, *NAIVE) if name in self.errors]
        return found + [self.pair(GENERATED, name) for name in untrained if GENERATED in self.errors]

    def best_naive(self) -> str:
        """Return the naive forecaster with the smallest error."""
        return min((name for name in NAIVE if name in self.errors), key=self.mae)

    def verdicts(self) -> tuple[str, ...]:
        """Return in a sentence each what the table says of the model: where it wins, and where it loses."""
        found: list[str] = []
        for name in (SCRATCH, SCRATCH_CLOSED, MEAN + TUNED, NEAREST + TUNED, self.best_naive()):
            if name in self.errors and name != self.model:
                pair = self.pair(self.model, name)
                strongest = ", the strongest naive forecast" if name in NAIVE else ""
                found.append(f"{self.model} against {name}{strongest}: {_percent(pair.share)} error, better at "
                             f"{pair.better:.0%} of nodes, p {_p(pair.p)}: {pair.verdict}")  # fmt: skip
        return tuple(found)

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "facts": dict(self.facts), "unit": self.unit, "nodes": list(self.nodes), "model": self.model,
            "tables": {name: errors.summary() for name, errors in self.errors.items()},
            "mae_per_node": {name: errors.mae_per_node().tolist() for name, errors in self.errors.items()},
            "pairs": [{**vars(pair), "p_per_horizon": list(pair.p_per_horizon), "verdict": pair.verdict}
                      for pair in self.pairs()],
            "remarks": [*self.verdicts(), *self.remarks],
        }  # fmt: skip

    def text(self) -> str:
        """Return the tables for a terminal."""
        blocks = [str(self.facts.get("protocol", "")), "\n".join(_aligned(list(self._table("mae")))),
                  "\n".join(_aligned(list(self._table("rmse"))))]  # fmt: skip
        if pairs := self.pairs():
            blocks.append("\n".join(_aligned(list(_pair_table(pairs, self.unit)))))
        return "\n\n".join([*filter(None, blocks), "\n".join([*self.verdicts(), *self.remarks])])

    def write(self, path: Path) -> str:
        """Write as JSON and return where."""
        write_atomically(path, [to_json(self.data()).encode()])
        return str(path)

    def _table(self, metric: str) -> Iterator[list[str]]:
        first = next(iter(self.errors.values())).summary()[f"{metric}_per_horizon"]
        unit = f" ({self.unit})" if self.unit else ""
        share = ["mape, targets other than 0"] if metric == "mae" else []
        yield [f"{metric.upper()}{unit} at", *self._leads(len(first)), "all", *share]
        for name, errors in self.errors.items():
            found = errors.summary()
            numbers = [*found[f"{metric}_per_horizon"], found[metric]]
            more = [f"{100 * found['mape_nonzero']:.1f} %"] if share else []
            yield [name, *(f"{number:.4g}" for number in numbers), *more]

    def _leads(self, count: int) -> list[str]:
        if self.step_minutes is None:
            return [f"step {step}" for step in range(1, count + 1)]
        return [duration(step * self.step_minutes) for step in range(1, count + 1)]


def duration(minutes: float) -> str:
    """Say a time in words.

    >>> duration(15.0), duration(180.0)
    ('15 min', '3 h')
    """
    return f"{minutes / 60:g} h" if minutes >= 60 and minutes % 60 == 0 else f"{minutes:g} min"


def ordered(errors: Mapping[str, HorizonErrors]) -> dict[str, HorizonErrors]:
    """Return forecasters in the order of the table, further ones at the end."""
    known = [name for name in SHOWN if name in errors]
    return {name: errors[name] for name in [*known, *(name for name in errors if name not in SHOWN)]}


def _pair_table(pairs: Sequence[Pair], unit: str) -> Iterator[list[str]]:
    horizons = len(pairs[0].p_per_horizon)
    yield ["paired over nodes", "against", f"difference{f' ({unit})' if unit else ''}", "", "better at", "p",
           *(f"p, step {step}" for step in range(1, horizons + 1))]  # fmt: skip
    for pair in pairs:
        yield [pair.one, pair.other, f"{pair.difference:+.3g}", _percent(pair.share), f"{pair.better:.0%}", _p(pair.p),
               *map(_p, pair.p_per_horizon)]  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _p(value: float) -> str:
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table)
    return ["  ".join(line).rstrip() for line in cells]
