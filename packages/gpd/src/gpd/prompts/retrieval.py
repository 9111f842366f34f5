"""Do prompts find nodes that are alike? Each node's nearest in other cities, and how well its model does there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray
from scipy.stats import rankdata

from gpd.prompts.table import Prompts


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How well prompts point at models that do well on a node's data."""

    regret: float
    """Rank of the nearest node's model among all of other cities on a node's data, on average: 0 is the best model
    there is, 0.5 chance."""
    chance: float
    """Deviation of that mean if models were picked at random."""
    correlation: float
    """Rank correlation between distance of prompts and error of the other node's model, averaged over nodes."""
    nearest_mae: float
    """Mean error of the nearest node's model."""
    random_mae: float
    """Mean error over all models of other cities."""
    best_mae: float
    """Mean error of the best model of another city."""


def prompt_vectors(prompts: Prompts) -> Float64[ndarray, "row number"]:
    """Return both prompts side by side, each scaled to weigh the same."""
    parts = [np.asarray(part, dtype=np.float64) for part in (prompts.spatial, prompts.temporal)]
    return np.concatenate([part / max(float(np.sqrt((part**2).sum(1).mean())), 1e-12) for part in parts], axis=1)


def distances(vectors: Float64[ndarray, "row number"]) -> Float64[ndarray, "row row"]:
    """Return the Euclidean distances between all rows."""
    size = (vectors**2).sum(1)
    return np.sqrt(np.maximum(size[:, None] + size - 2.0 * vectors @ vectors.T, 0.0))


def nearest_rows(prompts: Prompts, city: str) -> Int64[ndarray, " node"]:
    """Return for each node of `city` the row, among those of `prompts.without(city)`, of the nearest node.

    Raises:
        UserError: there is no such city.
    """
    mine = prompts.rows_of(city)
    others = np.setdiff1d(np.arange(len(prompts)), mine)
    return distances(prompt_vectors(prompts))[np.ix_(mine, others)].argmin(1)


def score_retrieval(prompts: Prompts, cross_mae: NDArray[np.float64]) -> Retrieval:
    """Compare what prompts say with what models do.

    Args:
        prompts: of the nodes.
        cross_mae: error, in the units of the row's node, of the model of each column's node on the data of each row's;
            entries within a city are not looked at.
    """
    vectors = distances(prompt_vectors(prompts))
    city = np.array(prompts.cities)
    regret: list[float] = []
    spread: list[float] = []
    correlation: list[float] = []
    errors: list[tuple[float, float, float]] = []
    for row in range(len(prompts)):
        others = np.flatnonzero(city != city[row])
        error, far = cross_mae[row, others], vectors[row, others]
        ranks, count = rankdata(error), len(others)
        pick = int(far.argmin())
        regret.append(float((ranks[pick] - 1.0) / max(count - 1, 1)))
        spread.append(float(((ranks - 1.0) / max(count - 1, 1)).var()))
        correlation.append(_correlation(rankdata(far), ranks))
        errors.append((float(error[pick]), float(error.mean()), float(error.min())))
    nearest, random, best = np.array(errors).mean(0).tolist()
    return Retrieval(
        regret=float(np.mean(regret)),
        chance=float(np.sqrt(np.sum(spread))) / len(spread),
        correlation=float(np.mean(correlation)),
        nearest_mae=nearest,
        random_mae=random,
        best_mae=best,
    )


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0.0 else 0.0
