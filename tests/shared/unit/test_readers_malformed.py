"""Every wrong file is refused in one line that names file, place, what was found and what was expected."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from malformed_events import Malformed, malformed_event_files

from stcore.errors import UserError
from stcore.readers import read_event_parts
from stcore.readers.options import EventReadOptions


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Malformed]:
    return malformed_event_files(tmp_path_factory.mktemp("malformed"))


def names() -> list[str]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return [case.name for case in malformed_event_files(Path(folder))]


NAMES = names()


def read(case: Malformed) -> None:
    read_event_parts(EventReadOptions(source=tuple(map(str, case.paths)), **case.options))


def test_there_are_enough_causes_and_each_is_named_once() -> None:
    assert len(NAMES) >= 45
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_malformed_events_are_refused_by_one_line_with_file_place_found_and_expected(
    cases: list[Malformed], number: int
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
