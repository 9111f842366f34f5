"""Every layout that users have for series on a graph, in miniature, and every published set that is at hand."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    NODES,
    STEPS,
    city_toml,
    dcrnn_pickle,
    matrix,
    npy_bytes,
    npz_bytes,
    readings,
    table,
    weights,
    write_fixed_frame,
    write_original,
    write_table,
    write_table_frame,
)  # fmt: skip

from stcore import catalog
from stcore.errors import UserError
from stcore.graphs import GraphSeries
from stcore.readers.graph_adjacency import correlations, distances
from stcore.readers.graph_files import read_graph, read_graphs
from stcore.readers.graph_options import GraphReadOptions


def read(path: Path | str, **options: Any) -> GraphSeries:
    return read_graph(GraphReadOptions(source=(str(path),), **options))


def minutes(count: int, step: int = 5) -> list[str]:
    start = np.datetime64("2012-03-01T00:00:00")
    return [str(start + np.timedelta64(step * number, "m")) for number in range(count)]


def test_the_folder_of_the_original_with_either_graph(tmp_path: Path) -> None:
    folder = write_original(tmp_path / "Data_DC")
    series = read(folder, step="1 hour")
    np.testing.assert_array_equal(series.values[:, :, 0], readings())
    np.testing.assert_array_equal(series.adjacency.dense(), weights())
    assert series.shape == (STEPS, 5, 2) and series.name == "DC" and series.steps_per_day == 24
    other = read(folder, adjacency="matrix_nonspatial.npy")
    np.testing.assert_array_equal(other.adjacency.dense(), np.ones((5, 5)))
    assert read(folder, features=("1",)).values[30, 0, 0] == 0.5
    single = write_original(tmp_path / "flat", readings())
    assert (
        read(single).shape == (STEPS, 5, 1) and read(single / "dataset.npy", adjacency="matrix.npy").name == "dataset"
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_wide_table_with_a_square_one(separator: str, tmp_path: Path) -> None:
    path = write_table(tmp_path, table(readings(), separator=separator), matrix(weights(), separator))
    series = read(path, adjacency="adj.csv", step="5 minutes", units=("mph",), features=("speed",))
    np.testing.assert_array_equal(series.values[:, :, 0], readings())
    np.testing.assert_array_equal(series.adjacency.dense(), weights())
    assert series.nodes == NODES and series.channels == ("speed",) and series.units == ("mph",)
    assert series.times is None and series.step_seconds == 300 and series.name == "city"


def test_moments_counts_of_rows_marks_of_order_and_packed_text(tmp_path: Path) -> None:
    text = "\ufeff" + table(readings(), times=minutes(STEPS)).replace("\n", "\r\n")
    dated = read(write_table(tmp_path, text), adjacency="adj.csv")
    assert dated.times is not None and dated.step_seconds == 300 and str(dated.times[1]) == "2012-03-01T00:05:00"
    counted = table(readings(), times=[str(number) for number in range(STEPS)]).replace("time,", ",", 1)
    series = read(write_table(tmp_path, counted, name="counted.csv"), adjacency="adj.csv")
    assert series.times is None and series.nodes == NODES
    (tmp_path / "city.csv.gz").write_bytes(gzip.compress(table(readings()).encode()))
    np.testing.assert_array_equal(read(tmp_path / "city.csv.gz", adjacency="adj.csv").values, series.values)
    quoted = table(readings()).replace("\n0.5,", '\n"0.5",')
    np.testing.assert_array_equal(
        read(write_table(tmp_path, quoted, name="quoted.csv"), adjacency="adj.csv").values, series.values
    )


def test_named_rows_of_a_matrix_are_put_into_the_order_of_the_series(tmp_path: Path) -> None:
    order = [3, 1, 4, 0, 2]
    turned = matrix(weights()[np.ix_(order, order)])
    names = [NODES[node] for node in order]
    indexed = "node," + ",".join(names) + "\n"
    indexed += "".join(f"{name},{line}\n" for name, line in zip(names, turned.splitlines(), strict=True))
    for text in (",".join(names) + "\n" + turned, indexed):
        series = read(write_table(tmp_path, graph=text), adjacency="adj.csv")
        np.testing.assert_array_equal(series.adjacency.dense(), weights())
    numbered = table(readings(), ("11", "12", "13", "14", "15"))
    header = ",".join(("11", "12", "13", "14", "15")[node] for node in order)
    series = read(write_table(tmp_path, numbered, f"{header}\n{turned}"), adjacency="adj.csv")
    np.testing.assert_array_equal(series.adjacency.dense(), weights())


def test_a_list_of_edges_by_name_or_number_with_weights_or_lengths(tmp_path: Path) -> None:
    path = write_table(tmp_path, graph="from,to,weight\na,b,0.5\nb,c,2\nb,c,2\n")
    series = read(path, adjacency="adj.csv")
    assert series.adjacency.edges.tolist() == [[0, 1], [1, 2]] and series.adjacency.weights.tolist() == [0.5, 2.0]
    (tmp_path / "adj.csv").write_text("source,target\n0,1\n4,0\n")
    assert read(path, adjacency="adj.csv").adjacency.edges.tolist() == [[0, 4], [1, 0]]
    (tmp_path / "adj.csv").write_text("from,to,cost\na,b,100\nb,c,200\nc,d,300\nd,e,900\n")
    lengths = np.array([100.0, 200.0, 300.0, 900.0])
    expected = np.exp(-((lengths / lengths.std()) ** 2))
    kernel = read(path, adjacency="adj.csv").adjacency
    np.testing.assert_allclose(kernel.weights, expected[expected >= 0.1])
    assert kernel.edges.tolist() == [[0, 1, 2], [1, 2, 3]]  # the longest is below the cutoff
    assert read(path, adjacency="adj.csv", cutoff=0.0).adjacency.edges.shape == (2, 4)
    assert read(path, adjacency="adj.csv", weights="given").adjacency.weights.tolist() == lengths.tolist()
    assert read(path, adjacency="adj.csv", weights="binary").adjacency.weights.tolist() == [1.0] * 4


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_pickle_of_dcrnn_is_read_without_running_it(protocol: int, tmp_path: Path) -> None:
    path = write_table(tmp_path)
    order = (3, 1, 4, 0, 2)
    content = dcrnn_pickle(tuple(NODES[node] for node in order), weights()[np.ix_(order, order)], protocol)
    (tmp_path / "adj_mx.pkl").write_bytes(content)
    np.testing.assert_array_equal(read(path, adjacency="adj_mx.pkl").adjacency.dense(), weights())
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(weights(), protocol=protocol))
    np.testing.assert_array_equal(read(path, adjacency="plain.pkl").adjacency.dense(), weights())


@pytest.mark.parametrize("unit", ["ns", "us", "s"])
def test_a_data_frame_in_the_fixed_layout_of_pandas(unit: str, tmp_path: Path) -> None:
    write_table(tmp_path)
    path = write_fixed_frame(tmp_path / "metr-la.h5", unit=unit)
    series = read(path, adjacency="adj.csv", features=("speed",))
    np.testing.assert_array_equal(series.values[:, :, 0], readings())
    assert series.nodes == NODES and series.times is not None and series.step_seconds == 300
    assert str(series.times[0]) == "2012-03-01T00:00:00" and series.name == "metr-la"
    numbered = write_fixed_frame(tmp_path / "pems.h5", columns=np.arange(400001, 400006), key="speed")
    assert read(numbered, adjacency="adj.csv").nodes == tuple(map(str, range(400001, 400006)))


def test_a_data_frame_in_the_table_layout_of_pandas_and_plain_hdf5(tmp_path: Path) -> None:
    import h5py

    write_table(tmp_path)
    series = read(write_table_frame(tmp_path / "table.h5"), adjacency="adj.csv")
    np.testing.assert_array_equal(series.values[:, :, 0], readings())
    assert series.nodes == NODES and series.times is not None
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["speed"], file["adj"], file["step_minutes"] = readings(), weights(), 15
    plain = read(tmp_path / "plain.h5")
    assert plain.channels == ("speed",) and plain.step_seconds == 900
    np.testing.assert_array_equal(plain.adjacency.dense(), weights())


def test_arrays_with_what_lies_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "town.npz"
    latlon = np.stack([np.linspace(34.0, 34.2, 5), np.linspace(-118.4, -118.0, 5)], axis=1)
    path.write_bytes(npz_bytes(inflow=readings(), outflow=readings() + 1.0, adj=weights(), station=np.array(NODES),
                               latlon=latlon, start=np.array("2016-03-01"), step_minutes=np.int32(60)))  # fmt: skip
    series = read(path)
    assert series.channels == ("inflow", "outflow") and series.nodes == NODES and series.degrees
    assert series.times is not None and str(series.times[24]) == "2016-03-02T00:00:00"
    assert series.coordinates is not None and series.coordinates[0].tolist() == [-118.4, 34.0]
    assert read(path, features=("outflow",)).values[0, 0, 0] == 1.0
    deep = tmp_path / "deep.npz"
    deep.write_bytes(npz_bytes(data=np.stack([readings(), -readings()], 2), variable=np.array(["a", "b"]),
                               edge_index=np.array([[0, 1], [1, 0]])))  # fmt: skip
    series = read(deep, features=("b",))
    assert series.values[4, 1, 0] == -102.0 and series.adjacency.edges.tolist() == [[0, 1], [1, 0]]
    (tmp_path / "a.npy").write_bytes(npy_bytes(readings()))
    assert read(tmp_path / "a.npy", adjacency="none").adjacency.edges.size == 0


def test_cells_of_a_grid_and_zones_of_flows_become_nodes(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).integers(0, 9, (50, 2, 3, 4))
    (tmp_path / "grid.npz").write_bytes(npz_bytes(flow=flow, step_minutes=np.int32(60)))
    series = read(tmp_path / "grid.npz", channels=("in", "out"))
    assert series.shape == (50, 12, 2) and series.channels == ("in", "out")
    np.testing.assert_array_equal(series.values[:, 4 * 1 + 2], flow[:, :, 1, 2])
    assert series.adjacency.neighbours(5).tolist() == [1, 4, 6, 9] and series.adjacency.symmetric
    flows = np.random.default_rng(0).integers(0, 20, (40, 4, 4)).astype(float)
    (tmp_path / "od.npz").write_bytes(npz_bytes(od=flows))
    zones = read(tmp_path / "od.npz", cutoff=0.0)
    np.testing.assert_array_equal(zones.values[:, :, 0], flows.sum(axis=2))
    np.testing.assert_array_equal(zones.values[:, :, 1], flows.sum(axis=1))
    usual = flows[12:28].mean(axis=0) * (1.0 - np.eye(4))  # nothing outside the middle of the series is looked at
    np.testing.assert_allclose(zones.adjacency.dense(), usual / usual.max())


def test_graphs_built_from_positions_and_from_the_series(tmp_path: Path) -> None:
    path = write_table(tmp_path)
    rows = "".join(f"{number},{name},0.0,{number**2}\n" for number, name in enumerate(NODES))
    (tmp_path / "places.csv").write_text(f"index,sensor_id,latitude,longitude\n{rows}")
    series = read(path, adjacency="distance", coordinates="places.csv", neighbours=1, cutoff=0.0)
    assert series.degrees and series.coordinates is not None and series.coordinates[:, 0].tolist() == [0, 1, 4, 9, 16]
    chain = [[0, 1], [1, 2], [2, 3], [3, 4]]
    np.testing.assert_array_equal(np.argwhere(np.triu(series.adjacency.dense(), 1)), chain)
    np.testing.assert_allclose(distances(np.array([[0.0, 0.0], [90.0, 0.0]]), degrees=True)[0, 1], 10007557, rtol=1e-6)

    rng = np.random.default_rng(1)
    common = np.cumsum(rng.normal(size=(400, 2)), axis=0)
    pairs = np.concatenate([common + 0.1 * rng.normal(size=(400, 2)), common + 0.1 * rng.normal(size=(400, 2))], axis=1)
    pairs[:100] = rng.normal(size=(100, 4))  # outside the stretch that is looked at
    (tmp_path / "alike.npy").write_bytes(npy_bytes(pairs))
    graph = read(tmp_path / "alike.npy", adjacency="correlation", neighbours=1).adjacency
    assert {(0, 2), (1, 3), (2, 0), (3, 1)} <= set(map(tuple, graph.edges.T.tolist()))
    holed = pairs.copy()
    holed[rng.uniform(size=pairs.shape) < 0.2] = np.nan
    masked = np.ma.corrcoef(np.ma.masked_invalid(holed[:, :2]).T).data
    np.testing.assert_allclose(correlations(holed[:, :2])[0, 1], masked[0, 1], atol=0.02)


def test_missing_readings_by_policy(tmp_path: Path) -> None:
    values = readings()
    values[7, 2], values[9, 0] = np.nan, -1.0
    path = write_table(tmp_path, table(values))
    with pytest.raises(UserError, match=r"city.csv: row 9, node c is nan \(one of 1 readings that are missing\)"):
        read(path, adjacency="adj.csv")
    masked = read(path, adjacency="adj.csv", missing="mask", missing_value=-1.0)
    assert masked.valid is not None and np.argwhere(~masked.valid)[:, :2].tolist() == [[7, 2], [9, 0]]
    assert read(path, adjacency="adj.csv", missing="mask", negative="missing").valid is not None
    filled = read(path, adjacency="adj.csv", missing="fill", fill=3.0)
    assert filled.valid is None and filled.values[7, 2, 0] == 3.0 and filled.values[9, 0, 0] == -1.0


def test_nodes_that_never_change_are_refused_dropped_or_kept(tmp_path: Path) -> None:
    values = readings()
    values[:, 3] = 7.0
    path = write_table(tmp_path, table(values))
    with pytest.raises(UserError, match=r"node d is 7 throughout \(one of 1 such\).*--data.dead drop"):
        read(path, adjacency="adj.csv")
    dropped = read(path, adjacency="adj.csv", dead="drop")
    assert dropped.nodes == ("a", "b", "c", "e") and dropped.adjacency.nodes == 4
    assert read(path, adjacency="adj.csv", dead="keep").num_nodes == 5


def test_clocks_without_nights_and_weekends(tmp_path: Path) -> None:
    path = write_table(tmp_path)
    series = read(path, adjacency="adj.csv", step="1 hour", start="2016-03-03T05:00", steps_per_day=18, weekdays=True)
    assert series.times is not None  # from a Thursday on: Friday, then Monday
    assert str(series.times[17]) == "2016-03-03T22:00:00" and str(series.times[18]) == "2016-03-04T05:00:00"
    assert str(series.times[36]) == "2016-03-07T05:00:00" and series.steps_per_day == 24
    assert series.gaps().tolist() == [18, 36, 54] and series.day_of_week()[[0, 18, 36]].tolist() == [3, 4, 0]
    whole = read(path, adjacency="adj.csv", step="12 hours", start="2016-03-04", weekdays=True)
    assert whole.times is not None and str(whole.times[2]) == "2016-03-07T00:00:00"
    with pytest.raises(UserError, match="no weekday"):
        read(path, adjacency="adj.csv", step="1 hour", start="2016-03-05T05:00", weekdays=True)


def test_a_city_described_in_toml(tmp_path: Path) -> None:
    write_table(tmp_path)
    city = tmp_path / "town.toml"
    city.write_text(city_toml(name="My town", source="city.csv", adjacency="adj.csv", step="5 minutes"))
    series = read(city)
    assert series.name == "My town" and series.steps_per_day == 288 and series.nodes == NODES
    for text, words in (
        (city_toml(source="city.csv", adjacensy="adj.csv"), "unknown key 'adjacensy'"),
        (city_toml(name="x"), "expected one file of readings"),
        (city_toml(source="town.toml"), "expected one file of readings"),
        (city_toml(source="city.csv", name=3), "name is 3; expected words"),
    ):
        city.write_text(text)
        with pytest.raises(UserError, match=f"town.toml: .*{words}"):
            read(city)


def test_several_sources_are_cities_of_different_names(tmp_path: Path) -> None:
    paths = [write_table(tmp_path / folder) for folder in ("one", "two")]
    cities = read_graphs(GraphReadOptions(source=tuple(map(str, paths)), adjacency="adj.csv"))
    assert [city.name for city in cities] == ["city-1", "city-2"]
    for source, words in (((), "0 sources"), (tuple(map(str, paths)), "2 sources")):
        with pytest.raises(UserError, match=rf"data\.source: {words}; expected one"):
            read_graph(GraphReadOptions(source=source))
    with pytest.raises(UserError, match=r"data\.source: no source"):
        read_graphs(GraphReadOptions())


@pytest.mark.parametrize(
    "options",
    [
        {"cutoff": 1.0}, {"neighbours": 0}, {"graph_share": (0.5, 0.5)}, {"fill": float("nan")},
        {"missing_value": float("inf")}, {"steps_per_day": -1}, {"steps_per_day": 108}, {"weekdays": True},
        {"features": ("a", "a")}, {"max_bytes": -1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_of_graphs_are_refused_before_any_file_is_opened(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.\S+: .*; expected"):
        GraphReadOptions(**options)


def test_cards_of_graphs_are_complete() -> None:
    for name, card in catalog.cards("graphs").items():
        assert card.name.lower() == name and card.content and card.axes and card.units and len(card.licence) > 2
        assert "commit" in card.source or card.by_hand
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in card.files)
        catalog.reading_options(card, GraphReadOptions())
    for alias, name in (
        ("pemes-bay", "pems-bay"),
        ("data_dc", "DC"),
        ("BM", "BM"),
        ("nyc_bike_grid", "nyc_bike_cells"),
    ):
        found = catalog.known(alias, "graphs")
        assert found is not None and found.name == name


def test_cities_of_the_original_are_read_from_what_was_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(catalog.DATA_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^DC: not found under STCORE_DATA=.*expected dataset.npy and matrix.npy"):
        read("DC")
    write_original(tmp_path / "DC")
    series = read("dc")
    assert series.name == "DC" and series.steps_per_day == 24 and series.shape == (STEPS, 5, 2)
    with pytest.raises(UserError, match=r"^mnist_t10k: a data set of digits; expected one of metr_la_week"):
        read("mnist_t10k")


# Means are those of the READMEs beside the files; of Melbourne, without the negative counts.
PUBLISHED = {
    "metr_la_week": ((2016, 207, 1), 2833, 58.89, 0),
    "metr_la_week_tgcn": ((2016, 207, 1), 2833, 58.89, 0),
    "metr_la_week_dcrnn": ((2016, 207, 1), 1722, 58.89, 0),
    "beijing_subway": ((2700, 276, 2), 630, 173.3, 24),
    "montevideo_bus": ((744, 675, 1), 690, 0.7459, 0),
    "melbourne_pedestrian": ((16056, 55, 1), 383, 275.68, 0),
    "nyc_taxi_od": ((1464, 30, 2), 456, 245.97, 0),
    "shenzhen_speed_40": ((2976, 40, 1), 95, 17.17, 0),
    "shenzhen_46": ((8064, 46, 1), 70, 1.651, 0),
    "us_wind_57": ((8387, 57, 1), 657, 3.529, 0),
    "beijing_air": ((8760, 12, 8), 74, 0.0, 0),
    "hungary_chickenpox": ((521, 20, 1), 102, 0.0, 0),
    "nyc_bike_cells": ((1369, 81, 2), 478, 0.0, 0),
}


@pytest.mark.skipif(not os.environ.get(catalog.DATA_VARIABLE), reason="STCORE_DATA is not set: no published data here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_graphs_are_read_by_name(name: str) -> None:
    card = catalog.find(name, "graphs")
    folder = catalog.locate(card)
    assert all(catalog.checksum(folder / file.path) == file.sha256 for file in card.files)
    shape, edges, mean, gaps = PUBLISHED[name]
    series = read(name)
    assert series.shape == shape and series.adjacency.edges.shape[1] == edges and len(series.gaps()) == gaps
    assert series.name == name and len(series.units) == shape[2]
    if mean:
        assert np.nanmean(series.values[:, :, 0], dtype=np.float64) == pytest.approx(mean, rel=5e-4)
    if name == "beijing_subway":
        assert series.times is not None and str(series.times[-1]) == "2016-04-01T22:50:00"
