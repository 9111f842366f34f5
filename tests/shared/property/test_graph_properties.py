"""Series on graphs: what holds for every one of them, and mutated files, which are read or refused, nothing else."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    NODES,
    city_toml,
    dcrnn_pickle,
    matrix,
    npy_bytes,
    npz_bytes,
    readings,
    table,
    weights,
    write_fixed_frame,
    write_table,
    write_table_frame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stcore.errors import UserError
from stcore.graphs import Adjacency, GraphSeries
from stcore.readers.graph_adjacency import read_graph_file, to_adjacency
from stcore.readers.graph_files import read_graph
from stcore.readers.graph_options import GraphReadOptions


def counted(few: int) -> list[Any]:
    return [few, pytest.param(5000, marks=pytest.mark.campaign)]


def quiet(count: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks, database=None, derandomize=True)


@st.composite
def series(draw: st.DrawFn) -> GraphSeries:
    """Draw a small series, perhaps with gaps, missing readings, times and positions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, nodes, channels = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    values = rng.normal(size=(steps, nodes, channels)).astype(np.float32)
    values[rng.uniform(size=values.shape) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    dense = rng.uniform(size=(nodes, nodes)) * (rng.uniform(size=(nodes, nodes)) < 0.5)
    kept = np.cumsum(rng.integers(1, draw(st.sampled_from([2, 4])), steps))
    times = np.datetime64("2020-01-01T00:00:00", "s") + np.timedelta64(300, "s") * kept
    timed = draw(st.booleans())
    return GraphSeries(
        values=values,
        adjacency=Adjacency.from_dense(dense),
        times=times if timed else None,
        step_seconds=300,
        coordinates=rng.normal(size=(nodes, 2)) if draw(st.booleans()) else None,
        units=("km/h",) if draw(st.booleans()) else (),
        name=draw(st.text(max_size=5, alphabet="aé 1")),
        first_step=0 if timed else draw(st.integers(0, 9)),
    )


@quiet(60)
@given(series())
def test_what_is_written_is_read_again(one: GraphSeries) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one.write(Path(folder) / "a.npz")
        again = GraphSeries.read(Path(folder) / "a.npz", GraphReadOptions(dead="keep")) if one.known.any() else one
    for name in ("values", "times", "coordinates", "valid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
    np.testing.assert_array_equal(again.adjacency.dense(), one.adjacency.dense())
    for name in ("nodes", "channels", "units", "step_seconds", "name", "first_step"):
        assert getattr(again, name) == getattr(one, name)


@quiet(60)
@given(series(), st.data())
def test_taking_nodes_twice_is_taking_them_at_once(one: GraphSeries, data: st.DataObject) -> None:
    first = data.draw(st.permutations(range(one.num_nodes)).map(lambda order: order[: max(1, len(order) - 1)]))
    second = data.draw(st.permutations(range(len(first))).map(lambda order: order[: max(1, len(order) - 1)]))
    twice, once = one.take_nodes(first).take_nodes(second), one.take_nodes([first[node] for node in second])
    np.testing.assert_array_equal(twice.values, once.values)
    np.testing.assert_array_equal(twice.adjacency.dense(), once.adjacency.dense())
    assert twice.nodes == once.nodes


@quiet(60)
@given(series(), st.data())
def test_a_slice_of_a_slice_keeps_clock_and_readings(one: GraphSeries, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, one.num_steps))
    stop = data.draw(st.integers(start, one.num_steps))
    part = one.slice(start, None).slice(0, stop - start)
    np.testing.assert_array_equal(part.values, one.values[start:stop])
    np.testing.assert_array_equal(part.step_of_day(), one.step_of_day()[start:stop])
    np.testing.assert_array_equal(part.day_of_week(), one.day_of_week()[start:stop])
    assert sum(map(len, part.runs())) == len(part) == stop - start


def file_bytes(write: Callable[[Path], Any], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


SERIES = GraphSeries(values=readings(20)[:, :, None], adjacency=Adjacency.from_dense(weights()), nodes=NODES,
                     times=np.datetime64("2020-01-01", "s") + np.timedelta64(300, "s") * np.arange(20))  # fmt: skip
MOMENTS = [f"2020-01-01T00:{minute:02d}" for minute in range(20)]
FOREIGN = npz_bytes(
    speed=readings(), adj=weights(), start=np.array("2020"), step_minutes=np.array(5), station=np.array(NODES)
)
SOURCES: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "table": (".csv", (table(readings(8)).encode(), table(readings(20), times=MOMENTS, separator=";").encode())),
    "npz": (".npz", (file_bytes(SERIES.write, "a.npz"), FOREIGN)),
    "npy": (".npy", (npy_bytes(readings()), npy_bytes(readings()[:, :, None].astype(np.float32)))),
    "frame": (".h5", (file_bytes(write_fixed_frame, "a.h5"),)),
    "frame table": (".h5", (file_bytes(write_table_frame, "a.h5"),)),
    "city": (".toml", (city_toml(source="city.csv", adjacency="adj.csv", step="5 minutes", neighbours=3).encode(),)),
}  # fmt: skip
EDGES = b"from,to,cost\na,b,100\nb,c,200.5\nc,d,300\n"
GRAPHS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "matrix": (".csv", (matrix(weights()).encode(), b"a,b,c,d,e\n" + matrix(weights()).encode())),
    "edges": (".csv", (EDGES, EDGES.replace(b"cost", b"weight"))),
    "graph npy": (".npy", (npy_bytes(weights()),)),
}
PIECES = st.sampled_from([b"", b"\x00", b"\xff" * 4, b"1e999", b"nan", b"-", b",", b"\n", b'"', b"\xe4", b"9" * 30])


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """Draw an original and change it in a few places."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        to = min(len(data), at + draw(st.integers(1, 40)))
        match draw(st.sampled_from(["set", "flip", "put", "remove", "double", "cut"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[at:at] = draw(PIECES | st.binary(max_size=8))
            case "remove":
                del data[at:to]
            case "double":
                data[at:at] = data[at:to]
            case _:
                del data[at:]
    return bytes(data)


def _survives(read: Callable[[], Any], seen: dict[str, int]) -> Any:
    start = time.process_time()
    try:
        found = read()
    except UserError as error:
        seen["refused"] += 1
        assert "\n" not in str(error) and len(str(error)) < 900
        assert "; expected" in str(error) or "TOML" in str(error) or "unknown key" in str(error)
        found = None
    else:
        seen["read"] += 1
    assert time.process_time() - start < 2.0
    return found


@pytest.mark.parametrize("count", counted(80))
@pytest.mark.parametrize("kind", SOURCES)
def test_mutated_sources_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    ending, originals = SOURCES[kind]
    write_table(tmp_path)
    path, seen = tmp_path / f"fuzz{ending}", {"read": 0, "refused": 0}
    options = GraphReadOptions(source=(str(path),), adjacency="" if kind == "npz" else "adj.csv", missing="mask")

    @quiet(count)
    @given(mutated(originals))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        found = _survives(lambda: read_graph(options), seen)
        if found is not None:
            assert found.num_steps >= 1 and not np.isinf(found.values).any() and found.check() is not None
            assert found.describe()["steps"] == found.num_steps

    run()
    assert seen["refused"] > count // 20 and sum(seen.values()) >= count // 2


@pytest.mark.parametrize("count", counted(80))
@pytest.mark.parametrize("kind", GRAPHS)
def test_mutated_graphs_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    ending, originals = GRAPHS[kind]
    path, seen, options = tmp_path / f"fuzz{ending}", {"read": 0, "refused": 0}, GraphReadOptions()

    @quiet(count)
    @given(mutated(originals))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        found = _survives(lambda: to_adjacency(read_graph_file(path, options), NODES, options), seen)
        assert found is None or ((found.weights > 0.0).all() and found.nodes == 5)

    run()
    assert seen["refused"] > count // 20 and sum(seen.values()) >= count // 2


def test_a_flipped_pickle_of_dcrnn_is_a_matrix_or_refused(tmp_path: Path) -> None:
    content, path, options = bytearray(dcrnn_pickle()), tmp_path / "adj_mx.pkl", GraphReadOptions()
    seen = {"read": 0, "refused": 0}
    for at in range(3, len(content), max(1, len(content) // 6)):
        flipped = bytearray(content)
        flipped[at] ^= 0x11
        path.write_bytes(flipped)
        _survives(lambda: to_adjacency(read_graph_file(path, options), NODES, options), seen)
    assert seen["refused"] > 0
