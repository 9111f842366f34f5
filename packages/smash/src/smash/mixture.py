"""A mixture of round Gaussians on the plane: the places of the classical processes, fitted by expectation-maximisation.

With the features f(x) = (|x|², x, y, 1) the log density of every component is linear in f, and the sums that the
maximisation needs are sums of f. One matrix product and one exponential per event and component is all there is to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

BLOCK_EVENTS = 4096
"""Events whose densities are held at once."""
ITERATIONS = 40
TOLERANCE = 1e-4
"""Gain of log density per event, in nats, below which the iteration ends."""
SAMPLE = 10_000
"""Events on which a mixture is fitted before it sees all of them."""
FINAL_ITERATIONS = 5
SHARPEST = 1e-3
"""Smallest width of a component as a share of the spread of all events."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Centres, standard deviations and shares of the components."""

    centres: Float64[ndarray, "component 2"]
    widths: Float64[ndarray, "component"]
    weights: Float64[ndarray, "component"]

    @classmethod
    def start(cls, location: Float64[ndarray, "event 2"], components: int, *, seed: int = 0) -> Mixture:
        """Begin at events drawn with distances in mind (k-means++ seeding), all equally wide."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        chosen = [location[rng.integers(len(location))]]
        nearest = ((location - chosen[0]) ** 2).sum(1)
        while len(chosen) < components and nearest.max() > 0.0:
            chosen.append(location[rng.choice(len(location), p=nearest / nearest.sum())])
            nearest = np.minimum(nearest, ((location - chosen[-1]) ** 2).sum(1))
        width = extent(location) / len(chosen) ** 0.5
        return cls(np.array(chosen), np.full(len(chosen), width), np.full(len(chosen), 1.0 / len(chosen)))

    @classmethod
    def fit(cls, location: Float64[ndarray, "event 2"], components: int, *, seed: int = 0) -> Mixture:
        """Find the most likely mixture: first on a sample of the events, then on all."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        some = location if len(location) <= SAMPLE else location[rng.choice(len(location), SAMPLE, replace=False)]
        mixture, floor = cls.start(some, components, seed=seed), sharpest(location)
        before = -np.inf
        for _ in range(ITERATIONS):
            log_density, sums = mixture.explain(some)
            mixture = mixture.improved(sums, floor=floor)
            likelihood = float(log_density.mean())
            if likelihood - before < TOLERANCE:
                break
            before = likelihood
        for _ in range(FINAL_ITERATIONS if len(some) < len(location) else 0):
            mixture = mixture.improved(mixture.explain(location)[1], floor=floor)
        return mixture

    def explain(
        self,
        location: Float64[ndarray, "event 2"],
        *,
        rate: Float64[ndarray, "event"] | float = 1.0,
        other: Float64[ndarray, "event"] | float = 0.0,
    ) -> tuple[Float64[ndarray, "event"], Float64[ndarray, "component 4"]]:
        """Compute what is expected at each event, and how much of it is owed to each component.

        Args:
            location: places of the events.
            rate: what the density is multiplied with, above 0.
            other: what is expected from elsewhere.

        Returns:
            Logarithm of `rate` times the density plus `other` (an event far from all others would underflow); for
            each component the sums of (|x|², x, y, 1) over the events, each weighted by the component's share in it,
            with x counted from the centre of the mixture.
        """
        origin = self.weights @ self.centres
        linear = self._linear(origin)
        with np.errstate(divide="ignore"):
            log_rate, log_other = (np.log(np.broadcast_to(value, len(location))) for value in (rate, other))
        expected, sums = np.empty(len(location)), np.zeros((len(self.weights), 4))
        for begin in range(0, len(location), BLOCK_EVENTS):
            part = slice(begin, begin + BLOCK_EVENTS)
            features = _features(location[part] - origin)
            density = features @ linear
            top = density.max(axis=1)
            np.exp(np.subtract(density, top[:, None], out=density), out=density)
            total = density.sum(1)
            own = log_rate[part] + top + np.log(total)
            expected[part] = np.logaddexp(own, log_other[part])
            sums += density.T @ (features * (np.exp(own - expected[part]) / total)[:, None])
        return expected, sums

    def improved(self, sums: Float64[ndarray, "component 4"], *, floor: float) -> Mixture:
        """Return the mixture that the sums of `explain` make most likely, no component sharper than `floor`."""
        mass = sums[:, 3] + 1e-12
        centres = sums[:, 1:3] / mass[:, None]
        square = np.maximum(sums[:, 0] / mass - (centres**2).sum(1), 0.0)
        origin = self.weights @ self.centres
        return Mixture(centres + origin, np.sqrt(0.5 * square + floor**2), mass / mass.sum())

    def mean_log_density(self, location: Float64[ndarray, "event 2"]) -> float:
        """Evaluate the mean log density of places, in nats."""
        return float(self.explain(location)[0].mean())

    def draw(self, count: int, rng: np.random.Generator) -> Float64[ndarray, "sample 2"]:
        """Draw places."""
        component = rng.choice(len(self.weights), size=count, p=self.weights)
        return self.centres[component] + self.widths[component, None] * rng.normal(size=(count, 2))

    def _linear(self, origin: Float64[ndarray, "2"]) -> Float64[ndarray, "4 component"]:
        centres, precision = self.centres - origin, self.widths**-2.0
        with np.errstate(divide="ignore"):
            constant = np.log(self.weights * precision / (2.0 * np.pi)) - 0.5 * precision * (centres**2).sum(1)
        return np.stack([-0.5 * precision, precision * centres[:, 0], precision * centres[:, 1], constant])


def sharpest(location: Float64[ndarray, "event 2"]) -> float:
    """Return the smallest width that a component may have."""
    return SHARPEST * extent(location)


def extent(location: Float64[ndarray, "event 2"]) -> float:
    """Return the standard deviation of places along the two axes (root of the mean square), above 0."""
    return max(float(np.sqrt(location.var(axis=0).mean())), 1e-9)


def choose_components(
    location: Float64[ndarray, "event 2"], held_back: Float64[ndarray, "late 2"], among: tuple[int, ...]
) -> int:
    """Return the number of components whose mixture, fitted on `location`, makes `held_back` most likely."""
    some = location[:: 1 + len(location) // SAMPLE]
    likelihood = [Mixture.fit(some, components).mean_log_density(held_back) for components in among]
    return among[int(np.argmax(likelihood))]


def _features(location: Float64[ndarray, "event 2"]) -> Float64[ndarray, "event 4"]:
    return np.concatenate([(location**2).sum(1, keepdims=True), location, np.ones((len(location), 1))], axis=1)
