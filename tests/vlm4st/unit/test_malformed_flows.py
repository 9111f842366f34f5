"""Every wrong source, option and configuration is refused in one line that names place, what was found and expected."""

from __future__ import annotations

import atexit
import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from malformed_flows import MalformedFlow, malformed_flow_files

import vlm4st.train  # noqa: F401  starting torch is no part of a case
from vlm4st.cli import main

FOLDER = Path(tempfile.mkdtemp(prefix="malformed-flows-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
CASES = malformed_flow_files(FOLDER)
NAMES = [case.name for case in CASES]


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Undo what a command changes in its process: handlers of signals and of the log."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    logger = logging.getLogger()
    before, level = list(logger.handlers), logger.level
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logger.handlers[:] = before
    logger.setLevel(level)


def test_there_are_enough_causes_and_each_is_named_once() -> None:
    assert len(NAMES) >= 150
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_is_wrong_is_refused_by_one_line_with_place_found_and_expected(
    case: MalformedFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    code = main(["train", "--data", *map(str, case.paths), "--device", "cpu", *case.extra_flags])
    assert time.process_time() - start < 2.0
    said, message = capsys.readouterr()
    assert code == 2 and said == "", message
    assert message.startswith("error: ") and message.count("\n") == 1 and len(message) < 1000
    assert "expected" in message or "did you mean" in message
    for fragment in case.expected:
        assert fragment in message
    assert list(tmp_path.iterdir()) == []
