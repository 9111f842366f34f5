"""Named data sets of series on the nodes of a graph."""

from __future__ import annotations

from typing import Any

from stcore.catalog_cards import Card, CardFile

_RESEARCH = "none stated: research and testing only"
_TGCN = "github.com/lehaifeng/T-GCN, commit 219a2346f5bf68d54d91a948e7a41a08f9edc46b"
_DCRNN = "github.com/liyaguang/DCRNN, commit 602afd9d767d3aa1c9b3eac51710d6aeee12c227"
_GPD = "the data that its authors published with GPD (Yuan et al., ICLR 2024, arXiv 2402.11922)"


def _graph(name: str, *files: CardFile, folder: str = "", **facts: Any) -> Card:
    return Card(name=name, kind="graphs", folders=(folder or name,), files=files, **facts)


def _file(path: str, sha256: str, origin: str, prepared: str = "") -> CardFile:
    return CardFile(path=path, part="", origin=origin, sha256=sha256, prepared=prepared)


_SPEEDS = _file("los_speed.csv", "7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
                "data/los_speed.csv")  # fmt: skip
_POSITIONS = _file("graph_sensor_locations.csv", "eb8ea96e07358b45d0e4ba3b89c2673fa20c54af50150249e627389e749ade6f",
                   "data/sensor_graph/graph_sensor_locations.csv")  # fmt: skip
_WEEK: dict[str, Any] = {
    "folder": "metr_la_week",
    "content": "Node: a loop detector on a freeway; one channel, the mean speed.",
    "axes": "2016 steps (7 days) of 207 nodes, 1 channel",
    "units": "miles per hour; 5 minutes",
    "licence": "none stated (T-GCN), MIT (DCRNN)",
}
_WEEK_READING: dict[str, Any] = {
    "features": ("speed",), "units": ("mph",), "start": "2012-03-01T00:00", "step": "5 minutes"
}  # fmt: skip
_WEEK_NOTES = (
    "Missing readings were filled by straight lines at the source; a zero is no gap.",
    "Dates (1 to 7 March 2012) are those of the T-GCN paper; the file has none.",
)


def _city(name: str, title: str, axes: str, step: str, *folders: str, crowd: bool = False) -> Card:
    """Return the card of a city of the original, whose arrays its users have on disk."""
    return Card(
        name=name,
        kind="graphs",
        title=title,
        content="Node: a region." if crowd else "Node: a road or detector.",
        axes=axes,
        units="as published, not stated in the files",
        source=_GPD,
        licence="none stated",
        size_mb=0.0,
        folders=(name, *folders),
        by_hand="dataset.npy and matrix.npy of this city" + (" (and matrix_nonspatial.npy)" if crowd else ""),
        notes=("What the second channel holds is not documented.", "The files have no dates."),
        reading={"format": "gpd", "step": step, "dead": "keep"},
    )


_CARDS = (
    _graph(
        "metr_la_week",
        _file(
            "metr_la_week.npz",
            "cdef66711604d2d58ef04c641258f099a3ebe7dd136e51cf1d553bbe99cf517c",
            "data/los_speed.csv, data/los_adj.csv",
            "as arrays speed, adj, sensor_id, latlon; positions of DCRNN",
        ),
        title="Freeway speeds of Los Angeles, one week, with the symmetric graph of T-GCN",
        source=f"{_TGCN}; {_DCRNN}",
        size_mb=0.7,
        notes=_WEEK_NOTES,
        reading=_WEEK_READING,
        **_WEEK,
    ),
    _graph(
        "metr_la_week_tgcn",
        _SPEEDS,
        _file("los_adj.csv", "7a6eb41e10677992b5af50f5ab187c6c05c5c3a92cb973950cfddbf857361e76", "data/los_adj.csv"),
        _POSITIONS,
        title="The same week from the files of T-GCN: a wide table and a square one",
        source=f"{_TGCN}; positions: {_DCRNN}",
        size_mb=3.5,
        notes=_WEEK_NOTES,
        reading={**_WEEK_READING, "adjacency": "los_adj.csv", "coordinates": "graph_sensor_locations.csv"},
        **_WEEK,
    ),
    _graph(
        "metr_la_week_dcrnn",
        _SPEEDS,
        _file(
            "adj_mx.pkl",
            "a35687c6e15aa228dc45027b0ed2a0ea0f4ec78f573deb992c595092d12f61b3",
            "data/sensor_graph/adj_mx.pkl",
        ),
        _POSITIONS,
        title="The same week with the directed graph of DCRNN",
        source=f"{_DCRNN}; speeds: {_TGCN}",
        size_mb=4.1,
        notes=_WEEK_NOTES,
        reading={**_WEEK_READING, "adjacency": "adj_mx.pkl", "coordinates": "graph_sensor_locations.csv"},
        **_WEEK,
    ),
    _graph(
        "beijing_subway",
        _file(
            "beijing_subway.npz",
            "cb0ea45e8423d573fc57cb8df24dbb22af2bffb0f7e0ead47e50aca648b4b75f",
            "data/inflowdata/in_10min.csv, data/outflowdata/out_10min.csv, adjacency.csv",
            "as arrays inflow, outflow, adj",
        ),
        title="Entries and exits of the Beijing subway, 25 weekdays",
        content="Node: a station; two channels, passengers who enter and who leave.",
        axes="2700 steps (25 days of 108) of 276 nodes, 2 channels",
        units="passengers per 10 minutes",
        source="github.com/JinleiZhangBJTU/ResNet-LSTM-GCN, commit 78b257bb362d1d0b48bce6fda6250ed67b2e8381",
        licence=_RESEARCH,
        size_mb=2.0,
        notes=(
            "Nights and weekends are cut out: 05:00 to 23:00 on weekdays; no window crosses a night.",
            "Dates are assumed: five weeks from Monday 29 February 2016 on; the files have none.",
        ),
        reading={
            "features": ("inflow", "outflow"), "units": ("passengers per 10 minutes",), "step": "10 minutes",
            "start": "2016-02-29T05:00", "steps_per_day": 108, "weekdays": True,
        },
    ),
    _graph(
        "montevideo_bus",
        _file(
            "montevideo_bus.npz",
            "0e52720cb9bc577513bcda7467ab8064cabca0de8f38d9365f0d466e3437fe51",
            "dataset/montevideo_bus.json",
            "as arrays inflow, edge_index, edge_length_m, bus_stop, utm_xy",
        ),
        title="Passengers boarding buses in Montevideo, one month",
        content="Node: a bus stop of eleven lines; one channel. Edge: the next stop of a line.",
        axes="744 steps (31 days) of 675 nodes, 1 channel",
        units="passengers per hour; positions in metres (UTM 21 S)",
        source="github.com/benedekrozemberczki/pytorch_geometric_temporal, commit "
        "adefe44265ad8faf239fd6cf3b59b95ca3ee60aa",
        licence="MIT (the repository); data: Intendencia de Montevideo, open",
        size_mb=0.1,
        notes=("80 % of the readings are 0.", "Dates (from 1 October 2020) are those of the source's documentation."),
        reading={
            "features": ("inflow",), "units": ("passengers per hour",), "start": "2020-10-01T00:00", "step": "1 hour",
            "weights": "binary", "dead": "drop",
        },
    ),
    _graph(
        "melbourne_pedestrian",
        _file(
            "melbourne_pedestrian.npz",
            "134f22d606c5c4db809e13e687c409379bac3c2af5f0da69280a9e70ca5d038d",
            "Public_Datasets/Pedestrian/60_minutes/Pedestrian_Melbourne.zip",
            "unpacked, as arrays count, latlon, station, start",
        ),
        title="Pedestrians in the centre of Melbourne, 22 months",
        content="Node: a street sensor; one channel. Edge: nearest sensors.",
        axes="16,056 steps (669 days) of 55 nodes, 1 channel",
        units="pedestrians per hour",
        source="github.com/uctb/Urban-Dataset, commit 87e33c91439dbd1543e143413baad030b558cde7",
        licence=f"{_RESEARCH}; City of Melbourne, CC BY",
        size_mb=1.3,
        notes=(
            "Negative counts are missing readings; dead hours are 0 and cannot be told from real zeros.",
            "Lock-downs of 2021: the first year and the second differ strongly.",
        ),
        reading={
            "features": ("count",), "units": ("pedestrians per hour",), "adjacency": "distance", "missing": "mask",
            "negative": "missing", "dead": "drop",
        },
    ),
    _graph(
        "nyc_taxi_od",
        _file(
            "nyc_taxi_od.npz",
            "3b443cbe9654c92118ec5ff80bb939957c8d48133a2a0e331ff5002493abf2a2",
            "datasets/NYC-data-set/tensor.mat",
            "time first, as array od (time, origin, destination)",
        ),
        title="Taxi trips between 30 zones of New York, two months",
        content="Node: a zone; two channels, trips that begin and that end there. Edge: the usual flow.",
        axes="1464 steps (61 days) of 30 nodes, 2 channels",
        units="trips per hour",
        source="github.com/xinychen/transdim, commit 99a31275f12504f59b0c3d3debd50fea92b2e973",
        licence="MIT (the repository); data: New York City TLC, public",
        size_mb=1.0,
        notes=(
            "Dates (from 1 May 2018) are those of the source's documentation.",
            "Which axis is the origin cannot be checked from the file.",
        ),
        reading={
            "format": "od", "units": ("trips per hour",), "start": "2018-05-01T00:00", "step": "1 hour",
        },
    ),
    _graph(
        "shenzhen_speed_40",
        _file(
            "shenzhen_speed_40.npz",
            "cf26dc20ed23c3043395c13b552d43cf10d20fe5375b64a453ffafd14e0b9483",
            "dataset/sz_speed.csv of Seg-TGCN, data/sz_adj.csv of T-GCN",
            "as arrays speed, adj, road_id, start",
        ),
        title="Taxi speeds on 40 roads of Shenzhen, one month",
        content="Node: a road; one channel, the mean speed of taxis. Edge: roads that touch.",
        axes="2976 steps (31 days) of 40 nodes, 1 channel",
        units="km/h; 15 minutes",
        source=f"github.com/ye11qing/Seg-TGCN, commit 092b3946a4a1843e072d64f6c216903a1b64fb49; {_TGCN}",
        licence=_RESEARCH,
        size_mb=0.4,
        notes=(
            "6 % of the readings are 0: missing or standing, nobody can tell; pass --data.missing-value 0 "
            "--data.missing mask to leave them out.",
            "Several roads have no neighbour; that these 40 roads are those of the graph is inferred.",
        ),
        reading={"features": ("speed",), "units": ("km/h",)},
    ),
    _graph(
        "shenzhen_46",
        _file(
            "shenzhen_46.npz",
            "8f738da88c35946e29280ec3b3670b72c21bcf432d91c6bc8c8256fb6933556e",
            "data/sz_speed.csv, data/sz_adj.csv, data/sz_distance.csv",
            "as arrays count, adj, distance_weight",
        ),
        title="Counts at 46 places of Shenzhen, 28 days",
        content="Node: a place; one channel, a small count of what is not documented.",
        axes="8064 steps (28 days) of 46 nodes, 1 channel",
        units="counts per step",
        source="github.com/Joker-L0912/TPP-GCN, commit 80f72d8f8d38c91851025cef9cc5960b3ac8f4ec",
        licence="MIT (the repository)",
        size_mb=0.1,
        notes=("The step of 5 minutes is inferred from the daily cycle; 66 % of the readings are 0.",),
        reading={"features": ("count",), "units": ("counts per 5 minutes",), "step": "5 minutes"},
    ),
    _graph(
        "us_wind_57",
        _file(
            "us_wind_57.npz",
            "be801e890e1c076723f526c43c2892f8a599046651286b82a74172e245042ba8",
            "MS_winds.dat",
            "as array wind_speed",
        ),
        title="Wind speed at 57 stations in the United States, 349 days",
        content="Node: a weather station; one channel. Edge: stations whose changes go along most.",
        axes="8387 steps of 57 nodes, 1 channel",
        units="metres per second; hourly",
        source="github.com/amirstar/Deep-Forecast, commit 4dcdf66f8ae3070ab706b30a6e3cf888f36e0536",
        licence=_RESEARCH,
        size_mb=0.3,
        notes=("No dates or positions; the graph is made from the series, of its stretch from 30 to 70 % only.",),
        reading={"units": ("m/s",), "adjacency": "correlation"},
    ),
    _graph(
        "beijing_air",
        _file(
            "beijing_air.npz",
            "1b18a48ef2d2ceedebe8cbd26fe188cafc399a09f2e380959d489a3a06a5c769",
            "PRSA_Data_<station>_20130301-20170228.csv",
            "the last year, as arrays value (time, station, variable), station, variable, start",
        ),
        title="Air quality and weather at 12 stations of Beijing, one year",
        content="Node: a station; eight channels, PM2.5 first. Edge: stations whose changes go along most.",
        axes="8760 steps of 12 nodes, 8 channels",
        units="µg/m³, degrees Celsius, hPa, m/s; hourly",
        source="github.com/Peiris94-dev/Beijing-Multi-Site-Air-Quality-Analysis, commit "
        "0aa46c055fcca7da49ebac9329435ffe674b74c3",
        licence="none stated; original: UCI data set 501, CC BY 4.0",
        size_mb=1.1,
        notes=("1.25 % of the readings are missing.", "Several stations share the weather of one."),
        reading={
            "missing": "mask", "adjacency": "correlation", "neighbours": 4,
            "units": ("µg/m³", "µg/m³", "µg/m³", "µg/m³", "degrees Celsius", "degrees Celsius", "hPa", "m/s"),
        },
    ),
    _graph(
        "hungary_chickenpox",
        _file(
            "hungary_chickenpox.npz",
            "321cd39243fd354d9e394c393c9911e1d75f1f5b666ee87e1f92c3648e94401f",
            "dataset/chickenpox.json",
            "as arrays cases, edge_index, county",
        ),
        title="Chickenpox cases in the counties of Hungary, ten years",
        content="Node: a county; one channel. Edge: counties that border one another, and themselves.",
        axes="521 steps of 20 nodes, 1 channel",
        units="standardised weekly cases",
        source="github.com/benedekrozemberczki/pytorch_geometric_temporal, commit "
        "adefe44265ad8faf239fd6cf3b59b95ca3ee60aa",
        licence="MIT (the repository)",
        size_mb=0.1,
        notes=("Shipped standardised; a step is a week, so there is no time of day.",),
        reading={"units": ("standard deviations",)},
    ),
    _graph(
        "nyc_bike_cells",
        _file(
            "nyc_bike_grid.npz",
            "7a27c9755a14ce7cca3b7adaeb0133eb81043ce9dcdcd256dc4ef5070304c324",
            "data/NYCBike1/val.npz, test.npz, adj_mx.npz",
            "windows put back together, as arrays flow (time, channel, row, column), cell_adjacency",
        ),
        folder="nyc_bike_grid",
        title="Bike-sharing flows of New York, the cells of the grid as nodes",
        content="Node: a cell of 16 x 8, row by row; two channels, the two flows of BikeNYC.",
        axes="1369 steps of 81 nodes (47 cells are always 0 and left out), 2 channels",
        units="bikes per hour and cell",
        source="github.com/Echo-Ji/ST-SSL, commit b3f3dfc48d12524c207cc89f4e242cb8aac081c0",
        licence=f"{_RESEARCH}; underlying data: Citi Bike, public",
        size_mb=0.2,
        notes=("Dates assume that the series ends with BikeNYC itself.",),
        reading={
            "format": "cells", "channels": ("new flow", "end flow"), "units": ("bikes per hour",), "dead": "drop",
        },
    ),
    _graph(
        "taxi_cells_40",
        _file(
            "taxi_grid_40.npz",
            "257295feaf29299912c3a1571189deed20437e57543295e0c2dd1b046d91cdcc",
            "data2/matNN.npy",
            "channels 1 and 2 of days 1 to 16, as an array flow (time, channel, row, column)",
        ),
        folder="taxi_grid_40",
        title="Taxi pick-ups and drop-offs, the cells of a 40 x 40 grid as nodes",
        content="Node: a cell, row by row; two channels, trips that begin and end there. Edge: cells side by side.",
        axes="2304 steps (16 days) of 1600 nodes (those that never change are left out), 2 channels",
        units="trips per 10 minutes and cell",
        source="github.com/liqingyang1606/business-area, commit ca6ecd53a10a3733c4f217b3318003a5aa78d472",
        licence=_RESEARCH,
        size_mb=1.6,
        notes=("City and dates are not known; 74 % of the readings are 0.",),
        reading={
            "format": "cells", "channels": ("pick-ups", "drop-offs"), "units": ("trips per 10 minutes",),
            "dead": "drop",
        },
    ),
    _city("metr-la", "METR-LA as published with GPD", "34,272 steps of 207 nodes, 2 channels", "5 minutes"),
    _city("pems-bay", "PEMS-BAY as published with GPD", "52,116 steps of 325 nodes, 2 channels", "5 minutes",
          "pemes-bay"),
    _city("chengdu_m", "Road speeds of Chengdu", "17,280 steps of 524 nodes, 2 channels", "10 minutes", "chengdu"),
    _city("shenzhen", "Road speeds of Shenzhen", "17,280 steps of 627 nodes, 2 channels", "10 minutes"),
    _city("DC", "Crowd flow of Washington, D.C.", "3624 steps of 194 nodes, 2 channels", "1 hour", "Data_DC",
          crowd=True),
    _city("BM", "Crowd flow of Baltimore", "3624 steps of 267 nodes, 2 channels", "1 hour", "Data_BM", crowd=True),
    _city("man", "Crowd flow of Manhattan", "4368 steps of 195 nodes, 2 channels", "1 hour", "Data_man", crowd=True),
    _city("bj", "Crowd flow of Beijing", "744 steps of 661 nodes, 2 channels", "1 hour", "Data_bj", crowd=True),
)  # fmt: skip
GRAPH_CARDS: dict[str, Card] = {card.name.lower(): card for card in _CARDS}
"""Every named data set of series on a graph."""
