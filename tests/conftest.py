"""For all tests: one thread (results do not depend on the machine), and the book of the recordings that were used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def _unused() -> dict[str, list[str]]:
    """Return the recordings, by name, with the tensors that no test has used."""
    import recordings

    used = recordings.consumed()
    left = {name: sorted(keys - used.get(name, set())) for name, keys in recordings.required().items()}
    return {name: keys for name, keys in left.items() if keys}


def _whole_suite(config: pytest.Config) -> bool:
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run of the whole suite that left a recording, or one of its tensors, unused."""
    if exitstatus == 0 and _whole_suite(session.config) and _unused():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print how many recordings were used, and what of them was not."""
    import recordings

    root = os.environ.get("STCORE_REFERENCE")
    if not root:
        return
    used, required = recordings.consumed(), recordings.required()
    tensors = sum(len(keys) for keys in required.values())
    compared = sum(len(keys & used.get(name, set())) for name, keys in required.items())
    whole = [name for name, keys in required.items() if keys <= used.get(name, set())]
    terminalreporter.section("recordings of the originals")
    line = f"smash: {len(whole)} of {len(required)} recordings used, {compared} of {tensors} tensors"
    terminalreporter.write_line(line)
    waiting = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir() and entry.name != "smash")
    if waiting:
        terminalreporter.write_line(f"no package here yet for the recordings of {', '.join(waiting)}")
    if _whole_suite(config) and not terminalreporter.stats.keys() & {"failed", "error"}:
        for name, keys in _unused().items():
            terminalreporter.write_line(f"FAILED {name}: no test used {', '.join(keys[:6])} ({len(keys)} tensors)")
