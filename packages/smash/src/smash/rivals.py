"""Classical point processes fitted by maximum likelihood on the training part, as rivals in the table of scores.

Beside the homogeneous Poisson process of `stcore.baselines` there are an inhomogeneous one, whose rate depends on the
time since the start of a sequence and on the place and on nothing that happened, and the self-exciting process of
`smash.self_exciting`. All condition on the first event of each sequence, as every forecast does. A fit is kept beside
the run and used again for the same training part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from smash.mixture import Mixture, choose_components
from smash.self_exciting import fit_self_exciting
from stcore.baselines import EventForecaster, EventSamples, generator, transitions
from stcore.events import EventSequences
from stcore.files import write_atomically
from stcore.generate.events import SelfExciting, TrueForecaster

RATE_BINS = (1, 5, 20, 80, 160)
"""Numbers of bins of the time since a sequence's start that are tried; each holds as many training events."""
COMPONENTS = (8, 32, 128)
"""Numbers of Gaussians of the places that are tried."""
FILE = "rivals.json"
VERSION = 1


@dataclass(frozen=True, eq=False)
class PoissonLaw:
    """Events at a rate that is a step function of the time since the first event; places from a mixture."""

    edges: Float64[ndarray, "edge"]
    """Bin edges of the time since a sequence's first event, from 0."""
    rate: Float64[ndarray, "bin"]
    """Events per unit of time in each bin; the last holds for ever."""
    mixture: Mixture
    shares: Float64[ndarray, "mark"]
    """Share of each mark; one when unmarked."""
    marked: bool

    @classmethod
    def fit(cls, train: EventSequences) -> PoissonLaw:
        """Fit on `train`; the sizes are chosen by the likelihood of its last sequences under a fit on the others."""
        known = transitions(train)
        late = _late(train)
        bins, components = 20, COMPONENTS[0]
        if late is not None:
            early, held_back = late
            bins = max(RATE_BINS, key=lambda count: _log_likelihood(_rate(early, count), held_back))
            components = choose_components(transitions(early).location, transitions(held_back).location, COMPONENTS)
        edges, rate = _rate(train, bins)
        counts = np.ones(1) if known.mark is None else np.bincount(known.mark, minlength=known.num_marks).astype(float)
        counts[counts == 0.0] = 0.5
        return cls(edges, rate, Mixture.fit(known.location, components), counts / counts.sum(), known.mark is not None)


def _late(train: EventSequences) -> tuple[EventSequences, EventSequences] | None:
    """Return the first nine tenths of the sequences and the rest, where both have enough to choose sizes by."""
    usable = np.flatnonzero(train.lengths > 1)
    if len(usable) < 10:
        return None
    cut = len(usable) - len(usable) // 10
    return train.select(usable[:cut]), train.select(usable[cut:])


def _elapsed(events: EventSequences) -> tuple[Float64[ndarray, "event"], Float64[ndarray, "sequence"]]:
    """Return the time of each later event, and of each last one, since the first of its sequence."""
    filled = events.lengths > 0
    start = np.zeros(events.num_sequences)
    start[filled] = events.time[events.offsets[:-1][filled]]
    since = events.time - np.repeat(start, events.lengths)
    later = np.ones(events.num_events, dtype=bool)
    later[events.offsets[:-1][filled]] = False
    return since[later], since[events.offsets[1:][filled] - 1]


def _rate(train: EventSequences, bins: int) -> tuple[Float64[ndarray, "edge"], Float64[ndarray, "bin"]]:
    since, ends = _elapsed(train)
    inner = np.unique(np.quantile(since, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    edges = np.array([0.0, *inner[inner > 0.0]])
    exposure = (np.clip(ends[:, None], edges, np.append(edges[1:], np.inf)) - edges).sum(0)
    counts = np.histogram(since, np.append(edges, np.inf))[0]
    return edges, np.maximum(counts, 0.5) / np.maximum(exposure, 1e-12)


def _log_likelihood(law: tuple[Float64[ndarray, "edge"], Float64[ndarray, "bin"]], events: EventSequences) -> float:
    edges, rate = law
    since, ends = _elapsed(events)
    exposure = (np.clip(ends[:, None], edges, np.append(edges[1:], np.inf)) - edges).sum(0)
    counts = np.histogram(since, np.append(edges, np.inf))[0]
    return float(counts @ np.log(rate) - exposure @ rate)


class InhomogeneousPoisson:
    """A `PoissonLaw` as a forecaster of every event but the first of each sequence, in the order of the sequences."""

    def __init__(self, law: PoissonLaw, events: EventSequences) -> None:
        self.law = law
        since = events.time - np.repeat(
            events.time[events.offsets[:-1].clip(max=events.num_events - 1)], events.lengths
        )
        sequence = events.sequence_of_event()
        self._now = since[np.flatnonzero(sequence[1:] == sequence[:-1])]
        """Time since the first event at which each forecast starts."""
        # The integrated rate is piecewise linear: a gap is where it has grown by an Exp(1) number.
        self._grown = np.append(0.0, np.cumsum(np.diff(law.edges) * law.rate[:-1]))

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples:
        """Draw the next event for the predicted events with these indices."""
        drawn = [self._draw(index, samples, generator(seed, index)) for index in indices.tolist()]
        gap, location, mark = (torch.from_numpy(np.stack([one[column] for one in drawn])) for column in range(3))
        shares = torch.from_numpy(self.law.shares).expand(len(indices), -1)
        marked = self.law.marked
        return EventSamples(gap=gap, location=location, mark=mark if marked else None,
                            mark_probability=shares if marked else None)  # fmt: skip

    def _draw(self, index: int, samples: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
        law, now = self.law, float(self._now[index])
        begin = int(np.searchsorted(law.edges, now, side="right")) - 1
        target = self._grown[begin] + (now - law.edges[begin]) * law.rate[begin] + rng.exponential(1.0, samples)
        bin_ = np.searchsorted(self._grown, target, side="right") - 1
        gap = law.edges[bin_] + (target - self._grown[bin_]) / law.rate[bin_] - now
        location = law.mixture.draw(samples, rng)
        return np.maximum(gap, 0.0), location, rng.choice(len(law.shares), size=samples, p=law.shares)


@dataclass(frozen=True, eq=False)
class Rivals:
    """The classical processes of one training part."""

    poisson: PoissonLaw
    self_exciting: SelfExciting

    @classmethod
    def fit(cls, train: EventSequences) -> Rivals:
        """Fit both on `train`.

        Raises:
            UserError: no sequence has two events.
        """
        return cls(PoissonLaw.fit(train), fit_self_exciting(train))

    @classmethod
    def of_run(cls, folder: Path, train: EventSequences) -> Rivals:
        """Return the fit that is kept in `folder`, or fit and keep it there; a fit of other data is replaced."""
        path, digest = folder / FILE, _digest(train)
        if path.is_file():
            try:
                kept: Any = json.loads(path.read_text(encoding="utf-8"))
                if kept["version"] == VERSION and kept["train"] == digest:
                    return cls.from_plain(kept, train)
            except (ValueError, KeyError, TypeError):
                pass  # whatever it is, a fresh fit takes its place
        fitted = cls.fit(train)
        content = {"version": VERSION, "train": digest, **fitted.plain()}
        write_atomically(path, [json.dumps(content).encode()])
        return fitted

    def forecasters(self, events: EventSequences) -> dict[str, EventForecaster]:
        """Return forecasters of every later event of `events`, whose marks are numbered as in training, by name."""
        return {
            "inhomogeneous Poisson": InhomogeneousPoisson(self.poisson, events),
            "self-exciting": TrueForecaster(self.self_exciting, events),
        }

    def plain(self) -> dict[str, Any]:
        """Return all parameters as JSON values."""
        return {"poisson": _plain(asdict(self.poisson)), "self_exciting": _plain(asdict(self.self_exciting))}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], train: EventSequences) -> Rivals:
        """Rebuild what `plain` returned."""
        poisson, process = values["poisson"], values["self_exciting"]
        mixture = Mixture(**{name: np.array(value) for name, value in poisson["mixture"].items()})
        law = PoissonLaw(np.array(poisson["edges"]), np.array(poisson["rate"]), mixture, np.array(poisson["shares"]),
                         bool(poisson["marked"]))  # fmt: skip
        names = ("background_rate", "offspring", "centres", "widths", "weights")
        given: dict[str, Any] = {name: np.array(process[name]) for name in names}
        given |= {name: process[name] for name in ("decay", "spread", "time_unit")}
        return cls(law, SelfExciting(**given, mark_names=train.mark_names or ("event",)))


def fit_rivals(train: EventSequences, test: EventSequences) -> dict[str, EventForecaster]:
    """Fit the classical processes on `train` and return them as forecasters of every later event of `test`.

    Args:
        train: the training part.
        test: sequences to forecast, marks numbered as in `train`.
    """
    return Rivals.fit(train).forecasters(test)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, ndarray | np.generic) else value


def _digest(train: EventSequences) -> str:
    """Return a checksum of everything that a fit depends on."""
    found = hashlib.sha256(json.dumps([train.mark_names, train.time_unit]).encode())
    for column in (train.time, train.location, train.offsets, train.mark):
        found.update(b"" if column is None else column.tobytes())
    return found.hexdigest()
