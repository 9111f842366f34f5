"""Wrong data through the commands: one line, exit 2, nothing written; the readers' own tests use the same table."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from campaign import record
from faults import PACKAGES, digests, only_line, run


@pytest.fixture
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


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("package", PACKAGES)
def test_every_malformed_file_gives_one_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where starting torch is paid once."""
    tested = PACKAGES[package]
    main = [importlib.import_module(name) for name in (*tested.warm, tested.module)][-1].main
    files, work = tmp_path / "files", tmp_path / "work"
    files.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    cases, started, slowest = tested.malformed(files), time.monotonic(), 0.0
    assert len(cases) >= 40 and len({case.name for case in cases}) == len(cases)
    for case in cases:
        begun, complaint, said = time.process_time(), io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(said):
            code = main(["train", "--data", *map(str, case.paths), "--device", "cpu", *case.extra_flags])
        text = complaint.getvalue()
        assert code == 2, (case.name, code, text)
        assert text.startswith("error: ") and text.count("\n") == 1 and said.getvalue() == "", (case.name, text)
        assert all(fragment in text for fragment in case.expected), (case.name, text, case.expected)
        assert list(work.iterdir()) == [], case.name
        slowest = max(slowest, time.process_time() - begun)
    assert slowest < 2.0
    record(f"{package}: malformed data through `train`", tried=len(cases), good=len(cases),
           seconds=time.monotonic() - started, notes=f"slowest {slowest:.2f} s of CPU beside torch")  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wrong_file_is_refused_at_once_in_a_process_of_its_own(package: str, tmp_path: Path) -> None:
    tested = PACKAGES[package]
    data = tmp_path / f"data{tested.data_suffix}"
    tested.write_data(data)
    tested.spoil(data)
    before = digests(tmp_path)
    checked = run([tested.module, "data", "check", "--data", data.name], folder=tmp_path)
    assert checked.code == 2 and data.name in only_line(checked)
    assert checked.cpu_seconds < 2.0
    trained = run(tested.train(tmp_path), folder=tmp_path)
    assert trained.code == 2 and trained.stderr == checked.stderr
    # Above that is the start of torch.
    assert trained.cpu_seconds < 6.0
    assert trained.files == before


@pytest.mark.parametrize("package", PACKAGES)
def test_numbers_that_are_none_are_named_with_their_place(package: str, tmp_path: Path) -> None:
    tested = PACKAGES[package]
    data = tmp_path / f"data{tested.data_suffix}"
    tested.write_data(data)
    wanted = tested.put_nan(data)
    refused = run(tested.train(tmp_path), folder=tmp_path, warm=True)
    assert refused.code == 2
    line = only_line(refused)
    assert data.name in line and all(fragment in line for fragment in wanted), line
    assert list(refused.files) == [data.name]


@pytest.mark.parametrize("package", PACKAGES)
def test_prediction_writes_only_what_it_was_told(package: str, tmp_path: Path) -> None:
    """Chunks of one, of seven and of everything give the same forecasts."""
    tested = PACKAGES[package]
    assert run(tested.train(tmp_path), folder=tmp_path, warm=True).code == 0
    before, data = digests(tmp_path), f"data{tested.data_suffix}"
    tables = []
    for chunk in ("1", "7", "0") if tested.chunk_flag else ("",):
        out = f"forecasts-{chunk}{tested.forecast_suffix}"
        flags = [*tested.predict_flags, *([tested.chunk_flag, chunk] if chunk else [])]
        done = run([tested.module, "predict", "run", "--data", data, "--out", out, "--device", "cpu", "--quiet",
                    *flags], folder=tmp_path, warm=True)  # fmt: skip
        assert done.code == 0, done.stderr
        assert {name: digest for name, digest in done.files.items() if not name.startswith("forecasts-")} == before
        tables.append(_rows(tmp_path / out))
    first = tables[0]
    assert len(first) >= 2
    for other in tables[1:]:
        assert len(other) == len(first) and other[0] == first[0]
        for row, same in zip(other[1:], first[1:], strict=True):
            for cell, wanted in zip(row, same, strict=True):
                assert cell == wanted or float(cell) == pytest.approx(float(wanted), rel=1e-6, abs=1e-6)


def _rows(path: Path) -> list[list[str]]:
    """Return the cells of a table, or the frames of an archive, one row each."""
    if path.suffix == ".csv":
        return [line.split(",") for line in path.read_text().splitlines()]
    frames = np.load(path)["values"]
    assert np.isfinite(frames).all()
    return [list(map(str, frame.ravel())) for frame in frames]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_that_is_there_already_and_a_folder_that_is_not(package: str, tmp_path: Path) -> None:
    """An output that cannot be written is a user error, and found before anything is computed."""
    tested = PACKAGES[package]
    assert run(tested.train(tmp_path, "--fit.max-steps", "1"), folder=tmp_path, warm=True).code == 0
    data = f"data{tested.data_suffix}"
    out = f"nowhere/forecasts{tested.forecast_suffix}"
    command = [tested.module, "predict", "run", "--data", data, "--out", out, "--device", "cpu"]
    done = run([*command, *tested.predict_flags], folder=tmp_path, warm=True)
    assert done.code == 2 and "nowhere" in only_line(done)
