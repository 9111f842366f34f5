"""The published data sets, read through the catalogue, have the counts and constants that the originals' runs had."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from stcore import catalog
from stcore.event_checks import overlaps
from stcore.events import EventSequences
from stcore.readers import read_event_parts, read_events
from stcore.readers.options import EventReadOptions
from stcore.readers.pickles import read_plain_pickle
from stcore.splits import Parts

ROOT = os.environ.get("STCORE_DATA", "")
pytestmark = pytest.mark.skipif(not ROOT, reason="STCORE_DATA is not set: no published data here")

COUNTS = {
    "earthquake": ((1200, 88_064), (150, 15_094), (150, 11_252)),
    "crime": ((250, 35_381), (31, 2_963), (32, 3_680)),
    "football": ((98, 67_408), (12, 8_121), (13, 8_716)),
    "citibike": ((270, 41_786), (30, 4_681), (320, 47_276)),
}
FACTS = {
    "earthquake": (3, 19, 545, "days", "degrees"),
    "crime": (4, 77, 212, "hours", "degrees"),
    "football": (7, 277, 864, "seconds", "planar"),
}
LARGEST = {  # of the training part: log gap, first and second coordinate
    "earthquake": (1.916671457279105, 149.861, 45.939),
    "crime": (2.816406225739864, -84.29005, 33.88514),
    "football": (6.334512482427269, 100.0, 100.0),
}
SMALLEST = {"earthquake": (122.291, 22.0), "crime": (-84.54888, 33.371), "football": (0.0, 0.0)}


@cache
def parts(name: str) -> Parts[EventSequences]:
    return read_event_parts(EventReadOptions(source=(name,)))


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    assert tuple((part.num_sequences, part.num_events) for part in parts(name).named().values()) == COUNTS[name]


@pytest.mark.parametrize("name", FACTS)
def test_marks_lengths_and_units(name: str) -> None:
    marks, shortest, longest, unit, coordinates = FACTS[name]
    train = parts(name).train
    assert train.mark_names == tuple(map(str, range(marks)))
    assert (train.lengths.min(), train.lengths.max()) == (shortest, longest)
    assert (train.time_unit, train.coordinates) == (unit, coordinates)


@pytest.mark.parametrize("name", LARGEST)
def test_constants_of_the_training_part(name: str) -> None:
    train = parts(name).train
    feature = np.log(np.maximum(train.gaps(), 1e-4))
    np.testing.assert_allclose([feature.max(), *train.location.max(axis=0)], LARGEST[name], rtol=1e-9)
    np.testing.assert_allclose(train.location.min(axis=0), SMALLEST[name], rtol=1e-12)
    assert feature.min() == np.log(1e-4)


def test_known_faults_are_named() -> None:
    earthquake, crime, football = (parts(name) for name in ("earthquake", "crime", "football"))
    assert any("only 20,684 of 86,864 transitions" in found for found in earthquake.train.check())
    assert [found.split(":")[0] for found in overlaps(earthquake)] == [
        "145 of 14,944 transitions of val also occur in train",
        "108 of 11,102 transitions of test also occur in val",
    ]
    assert any("3,156 of 35,131 (9 %) gaps are zero" in found for found in crime.train.check())
    assert any("61 of 250 (24 %) sequences have an event at time 0" in found for found in crime.train.check())
    assert any("marks are rare: 3 (1 events)" in found for found in football.train.check())
    assert any("1 of 7 marks never occur: 3" in found for found in football.test.check())


@pytest.mark.parametrize("name", FACTS)
def test_the_npz_of_a_set_holds_the_same_events_in_single_precision(name: str) -> None:
    folder = Path(ROOT) / f"smash_{name}"
    whole = read_events(str(folder / f"smash_{name}.npz"), EventReadOptions())
    exact = read_events(str(folder), EventReadOptions())
    assert np.array_equal(whole.time, exact.time) and np.array_equal(whole.offsets, exact.offsets)
    assert whole.mark is not None and exact.mark is not None and np.array_equal(whole.mark, exact.mark)
    np.testing.assert_allclose(whole.location, exact.location, rtol=1e-6)


def test_the_long_catalogue_is_read_by_column_options_and_cut_into_windows() -> None:
    path = Path(ROOT) / "world_quakes" / "earthquakes-23k.csv"
    whole = read_events(str(path), EventReadOptions(time_column="Date", mark_column="none"))
    days = np.load(path.with_name("world_quakes.npz"))["day"]
    assert whole.num_sequences == 1 and whole.coordinates == "degrees"
    assert np.array_equal(whole.time, days - days[0])
    windows = parts("world_quakes")
    assert sum(part.num_events for part in windows.named().values()) == 23_412
    assert max(part.time.max() for part in windows.named().values()) < 60.0


@pytest.mark.parametrize("name", catalog.CARDS)
def test_files_are_those_of_the_cards(name: str) -> None:
    card = catalog.CARDS[name]
    folder = catalog.locate(card)
    assert [catalog.checksum(folder / file.path) for file in card.files] == [file.sha256 for file in card.files]
    size = sum((folder / file.path).stat().st_size for file in card.files)
    assert size / 1e6 == pytest.approx(card.size_mb, abs=0.06)


def test_the_largest_pickle_is_read_whole() -> None:
    assert len(read_plain_pickle(Path(ROOT) / "smash_earthquake" / "data_train.pkl")) == 1200


def test_a_pickle_of_python_2_with_arrays() -> None:
    path = Path(ROOT) / "metr_la_week" / "adj_mx.pkl"
    if not path.is_file():
        pytest.skip("no metr_la_week in STCORE_DATA")
    names, numbers, adjacency = read_plain_pickle(path)
    assert len(names) == len(numbers) == 207 and numbers[names[5]] == 5
    assert adjacency.shape == (207, 207) and adjacency.dtype == np.float32 and adjacency[0, 0] == 1.0
