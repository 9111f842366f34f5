"""Turns facts about nodes into vectors of one space: statistics come from the nodes of source cities alone."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray

from stcore.sampling import random_stream

LIMIT = 4.0
"""Deviations beyond which a fact says no more: a few days of a new city may lie far outside."""


def standardise(facts: Float64[ndarray, "row fact"], source_rows: int) -> Float64[ndarray, "row fact"]:
    """Centre and scale by the source rows. What is not known (NaN) becomes 0, the sources' mean.

    >>> standardise(np.array([[0.0, 5.0], [2.0, np.nan], [3.0, 9.0]]), 2).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
    """
    known = np.isfinite(facts)
    sources = known[:source_rows]
    count = np.maximum(sources.sum(0), 1)
    filled = np.where(known, facts, 0.0)
    mean = filled[:source_rows].sum(0) / count
    variance = (np.where(sources, filled[:source_rows] - mean, 0.0) ** 2).sum(0) / count
    deviation = np.sqrt(variance)
    # What is the same for all sources tells nothing apart, whatever it is for the target.
    usable = deviation > 1e-9 * np.maximum(np.abs(mean), 1.0)
    scaled = np.where(known, (filled - mean) / np.where(usable, deviation, 1.0), 0.0)
    return np.clip(np.where(usable, scaled, 0.0), -LIMIT, LIMIT)


def principal(values: Float64[ndarray, "row fact"], source_rows: int, dim: int) -> Float64[ndarray, "row component"]:
    """Project on the principal components of the source rows, at most `dim` of them, the largest first."""
    centre = values[:source_rows].mean(0)
    _, sizes, directions = np.linalg.svd(values[:source_rows] - centre, full_matrices=False)
    directions = directions[sizes > 1e-9 * max(float(sizes[0]), 1e-300)][:dim]
    # The sign of a component is arbitrary: let its largest entry be positive.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return (values - centre) @ (directions * np.sign(largest)).T


def fitted(values: Float64[ndarray, "row fact"], dim: int) -> Float64[ndarray, "row dim"]:
    """Bring vectors to `dim` numbers: zeros behind, or one fixed random projection, the same for all data."""
    facts = values.shape[1]
    if facts <= dim:
        return np.pad(values, ((0, 0), (0, dim - facts)))
    square = random_stream(0, "prompts", "projection", facts).normal(size=(facts, facts))
    return values @ np.linalg.qr(square)[0][:, :dim] * math.sqrt(facts / dim)


def balanced(values: Float64[ndarray, "row dim"], source_rows: int) -> Float32[ndarray, "row dim"]:
    """Scale by one number, so that a coordinate of a source row is 1 in root mean square."""
    size = math.sqrt(float((values[:source_rows] ** 2).mean()))
    return (values / size if size > 0.0 else values).astype(np.float32)
