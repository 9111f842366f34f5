"""Named data sets of events."""

from __future__ import annotations

from stcore.catalog_cards import Card, CardFile


def _smash(name: str, title: str, content: str, axes: str, units: str, size_mb: float, unit: str, coordinates: str,
           sums: tuple[str, str, str], notes: tuple[str, ...], origin: str) -> Card:  # fmt: skip
    return Card(
        name=name,
        title=title,
        content=content,
        axes=axes,
        units=units,
        source="github.com/zichongli5/SMASH, commit f2f238c5af2b92427d8fc77aa068f14bd53f4b8d",
        licence="none stated: research and testing only",
        size_mb=size_mb,
        folders=(f"smash_{name}", name, origin),
        files=tuple(
            CardFile(path=f"data_{part}.pkl", part=part, origin=f"datasets/{origin}/data_{part}.pkl", sha256=digest)
            for part, digest in zip(("train", "val", "test"), sums, strict=True)
        ),
        notes=(*notes, "What the mark classes stand for is not documented at the source."),
        reading={"time_unit": unit, "coordinates": coordinates},
    )


_CARDS = (
    _smash(
        "earthquake",
        "Earthquakes around Japan",
        "Sequence: a window of 30 days; event: an earthquake; mark: magnitude class 0, 1 or 2.",
        "1200 / 150 / 150 sequences (train / val / test), 114,410 events, 3 marks",
        "time in days since the start of the window; longitude, latitude in degrees",
        4.6,
        "days",
        "degrees",
        (
            "8fe0a54c7bc64904de3a6d86e0e5a52766f90b70a0c15efb2addd952d9370683",
            "91165ad175d7ff815a0770408d02a2dcb85dbd12c01e9ffb2c2ec845c8fdab65",
            "1c99f9ea495d5bbdaa08df4a793dfe3317ab53ee7a80b9ea23295c3e38d94315",
        ),
        ("Windows of the training part overlap: each earthquake occurs in about four of them.",),
        "Earthquake",
    ),
    _smash(
        "crime",
        "Crime reports in Atlanta",
        "Sequence: a window of one week; event: a police report; mark: class 0 to 3.",
        "250 / 31 / 32 sequences (train / val / test), 42,024 events, 4 marks",
        "time in hours since the start of the window; longitude, latitude in degrees",
        1.7,
        "hours",
        "degrees",
        (
            "6037e278198ac15050ef5048f24f75c5e2a18865afbe6f44cf4575fb79b741cd",
            "3ef076f9bbea58cf21b4857b4ee2609e3207193d8a3aa1d1245c2de2acf22bde",
            "5d8ff5018d9585a967e6a0ed87950072b83f8d9a79829cc637e94b6c289c5526",
        ),
        ("Times are whole minutes, so that 8 to 9 % of the gaps are zero.",),
        "crime",
    ),
    _smash(
        "football",
        "On-ball events of football matches",
        "Sequence: one half of a match; event: an action with the ball; mark: class 0 to 6.",
        "98 / 12 / 13 sequences (train / val / test), 84,245 events, 7 marks",
        "time in seconds since kick-off of the half; x, y in percent of the pitch",
        3.4,
        "seconds",
        "planar",
        (
            "3f7d23676ad671e2f8da463dd1d133ab3fbcf9bc113d91267253b23814c21e8a",
            "0bdfe58e725603de44af6cf06c969b63b1c38012f7953f46d0c839450651341f",
            "d3f7803163a71150b648059410d474c2da156f508e685ef8cf258cdb0d1e115b",
        ),
        ("Class 3 occurs once, in the training part.", "Coordinates are whole percent; 19 % of the gaps are zero."),
        "football",
    ),
    Card(
        name="citibike",
        title="Citi Bike rental starts in New York",
        content="Sequence: a day; event: a rental starts; no marks; thinned by the source.",
        axes="300 / 320 sequences (val / test of the source), 93,743 events",
        units="time in hours since the start of the day; longitude, latitude in degrees",
        source="github.com/tsinghua-fib-lab/Spatio-temporal-Diffusion-Point-Processes, "
        "commit 6609e0e2235e15ce691299397d1a84183c7cce9b",
        licence="none stated: research and testing only",
        size_mb=3.3,
        folders=("dstpp_citibike", "citibike", "Citibike"),
        files=(
            CardFile(
                path="data_val.pkl",
                part="train",
                origin="dataset/Citibike/data_val.pkl",
                sha256="c6ee9f90a0d4e39692fa2b707b653bf6cb7fdd87f0bed359240e4701e6a47b22",
            ),
            CardFile(
                path="data_test.pkl",
                part="test",
                origin="dataset/Citibike/data_test.pkl",
                sha256="d5d01a464f5f374cdb44c3296c052453b674080c3da1a3a804a936a6faed3833",
            ),
        ),
        notes=(
            "The training part of the source is too large to be had: its val part serves as train, the last tenth "
            "of that as val, its test part as test.",
        ),
        reading={"time_unit": "hours", "coordinates": "degrees"},
    ),
    Card(
        name="world_quakes",
        title="Significant earthquakes of the world, 1965 to 2016",
        content="One long catalogue of earthquakes of magnitude 5.5 and above, cut into windows of 60 days.",
        axes="23,412 events, no marks (the magnitude is not a class)",
        units="time in days since the first event; longitude, latitude in degrees",
        source="github.com/plotly/datasets, commit 0c447c47b757ad74edecab31f0d72f849d2e67c2",
        licence="MIT (the repository); US Geological Survey, public domain",
        size_mb=0.8,
        folders=("world_quakes",),
        files=(
            CardFile(
                path="earthquakes-23k.csv",
                part="",
                origin="earthquakes-23k.csv",
                sha256="e03a6ef53617c7614272def82dcaa2e5a463426c4abbb2b3a26936de1c88a622",
            ),
        ),
        notes=(
            "Dates without a time of day: nearly half of the gaps are zero.",
            "Three rows carry an ISO timestamp in place of month/day/year.",
            "The sphere wraps at 180 degrees, in the middle of the Pacific ring of fire.",
        ),
        reading={
            "time_column": "Date",
            "x_column": "Longitude",
            "y_column": "Latitude",
            "time_unit": "days",
            "coordinates": "degrees",
            "window": 60.0,
        },
    ),
)
EVENT_CARDS: dict[str, Card] = {card.name: card for card in _CARDS}
"""Every named data set of events."""
