"""Every wrong source of fields is refused in one line that names file, place, what was found and what was expected."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from malformed_fields import MalformedField, malformed_field_files

from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid_parts
from stcore.windows import find_windows

FOLDER = Path(tempfile.mkdtemp(prefix="malformed-fields-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
CASES = malformed_field_files(FOLDER)
NAMES = [case.name for case in CASES]


def read(case: MalformedField) -> None:
    """Do what training does before it starts."""
    parts = read_grid_parts(GridReadOptions(source=tuple(map(str, case.paths)), **case.options))
    for name, part in parts.named().items():
        find_windows(part, history=case.history, horizon=case.horizon, where=f"{case.paths[0]}: {name}")
    Scaling.fit(parts.train, "standard")


def test_there_are_enough_causes_and_each_is_named_once() -> None:
    assert len(NAMES) >= 150
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_malformed_fields_are_refused_by_one_line_with_file_place_found_and_expected(case: MalformedField) -> None:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read(case)
    message = str(caught.value)
    assert time.process_time() - start < 2.0
    assert "\n" not in message and len(message) < 900
    assert "expected" in message
    for fragment in case.expected:
        assert fragment in message
