"""Wrong cities are refused by one line that names file, place, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed_graphs import READ_ONLY_BY_COMMANDS, MalformedGraph, malformed_graph_files

from stcore.errors import UserError
from stcore.graph_windows import few_shot, require_windows
from stcore.readers.graph_files import read_graph
from stcore.readers.graph_options import GraphReadOptions


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MalformedGraph]:
    found = malformed_graph_files(tmp_path_factory.mktemp("malformed"))
    assert len({case.name for case in found}) == len(found) >= 80
    return {case.name: case for case in found}


def refused(case: MalformedGraph) -> str:
    with pytest.raises(UserError) as error:
        read_graph(GraphReadOptions(source=(str(case.paths[0]),), **case.options))
    return str(error.value)


def test_every_wrong_city_is_refused_by_its_reader(cases: dict[str, MalformedGraph]) -> None:
    for case in cases.values():
        if case.name in READ_ONLY_BY_COMMANDS:
            continue
        before = sorted(case.paths[0].parent.rglob("*"))
        text = refused(case)
        assert "\n" not in text and len(text) < 700, (case.name, text)
        assert "; expected" in text or case.paths[0].suffix == ".toml", (case.name, text)
        assert all(fragment in text for fragment in case.expected), (case.name, text, case.expected)
        assert sorted(case.paths[0].parent.rglob("*")) == before, case.name


def test_what_a_reader_lets_pass_is_refused_where_it_is_used(cases: dict[str, MalformedGraph]) -> None:
    case = cases["shorter than a window"]
    series = read_graph(GraphReadOptions(source=(str(case.paths[0]),), **case.options))
    with pytest.raises(UserError, match=r"city: training part of 17 steps, 17 at most .* at least 18"):
        require_windows(series, 12, 6, what="training part")
    case = cases["fewer days than asked for"]
    series = read_graph(GraphReadOptions(source=(str(case.paths[0]),), **case.options))
    with pytest.raises(UserError, match=r"city: 60 steps hold 0 days; expected at least 3"):
        few_shot(series, 3)


def test_lonely_nodes_and_a_graph_without_loops_are_no_fault(tmp_path: Path) -> None:
    from graph_files import matrix, weights, write_table

    lonely = weights()
    lonely[2], lonely[:, 2] = 0.0, 0.0
    path = write_table(tmp_path, graph=matrix(lonely))
    series = read_graph(GraphReadOptions(source=(str(path),), adjacency="adj.csv"))
    assert series.adjacency.degrees()[2] == 0 and series.adjacency.neighbours(2).size == 0
    assert series.adjacency.neighbours(0).tolist() == [0, 1, 4]
