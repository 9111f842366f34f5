"""Bad configurations: one line that names file, key, found and expected; exit 2; at once; without torch."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import time
from pathlib import Path

import pytest
from campaign import record
from faults import PACKAGES, only_line, run


@pytest.mark.parametrize("package", PACKAGES)
def test_every_bad_configuration_gives_one_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where a check costs milliseconds; the next test takes the way through a process of its own."""
    main = importlib.import_module(PACKAGES[package].module).main
    monkeypatch.chdir(tmp_path)
    started, table = time.monotonic(), PACKAGES[package].bad_configurations()
    assert len(table) >= 30
    for name, bad in table.items():
        file = tmp_path / "bad.toml"
        file.write_bytes(bad.content)
        for command in (["config", "check", "bad.toml"], ["train", "--config", "bad.toml"]):
            complaint = io.StringIO()
            with contextlib.redirect_stderr(complaint):
                code = main(command)
            text = complaint.getvalue()
            assert code == 2, (name, text)
            assert text.count("\n") == 1 and text.startswith("error: bad.toml: "), (name, text)
            assert all(fragment in text for fragment in bad.fragments), (name, text)
            assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"], name
    record(f"{package}: bad configurations refused", tried=len(table), good=len(table),
           seconds=time.monotonic() - started)  # fmt: skip


@pytest.mark.parametrize("command", ["config check", "train"])
@pytest.mark.parametrize("package", PACKAGES)
def test_a_bad_configuration_costs_half_a_second_and_no_torch(package: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[fit]\nepoch = 3\n")
    way = ["config", "check", "bad.toml"] if command == "config check" else ["train", "--config", "bad.toml"]
    result = run([PACKAGES[package].module, *way], folder=tmp_path)
    assert result.code == 2 and "did you mean 'epochs'" in only_line(result)
    assert list(result.files) == ["bad.toml"]
    # Twice the half second that a quiet machine must keep (test_help): here others may compute beside us.
    assert result.cpu_seconds < 1.0
    (tmp_path / "probing.py").write_text(
        f"import runpy, sys\nsys.argv = ['x', *{way!r}]\n"
        f"try:\n    runpy.run_module({PACKAGES[package].module!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n    print('torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    probed = run(["probing"], folder=tmp_path)
    assert probed.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("package", PACKAGES)
def test_files_that_are_none(package: str, tmp_path: Path) -> None:
    module = PACKAGES[package].module
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    cases = {"missing.toml": "No such file", "folder": "not a regular file", "pipe": "not a regular file",
             "/dev/zero": "not a regular file", "loop": "symbolic links"}  # fmt: skip
    for name, fragment in cases.items():
        result = run([module, "config", "check", name], folder=tmp_path)
        assert result.code == 2 and result.seconds < 5.0, name
        assert name in only_line(result) and fragment in only_line(result)
