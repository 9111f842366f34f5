"""Every wrong source of frames is refused in one line that names file, place, what was found and what was expected."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from malformed_grids import MalformedGrid, malformed_grid_files

from stcore.errors import UserError
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid_parts
from stcore.windows import find_windows


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[MalformedGrid]:
    return malformed_grid_files(tmp_path_factory.mktemp("malformed"))


def names() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return [case.name for case in malformed_grid_files(Path(folder))]


NAMES = names()


def read(case: MalformedGrid) -> None:
    parts = read_grid_parts(GridReadOptions(source=tuple(map(str, case.paths)), **case.options))
    for name, part in parts.named().items():
        where = f"{case.paths[0]}: {name}"
        find_windows(part, history=case.history, horizon=case.horizon, where=where)


def test_there_are_enough_causes_and_each_is_named_once() -> None:
    assert len(NAMES) >= 60
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_malformed_frames_are_refused_by_one_line_with_file_place_found_and_expected(
    cases: list[MalformedGrid], number: int
) -> None:
    case = cases[number]
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read(case)
    message = str(caught.value)
    assert time.process_time() - start < 2.0
    assert "\n" not in message and len(message) < 700
    assert "expected" in message
    for fragment in case.expected:
        assert fragment in message
