"""For all tests: one thread (results do not depend on the machine), and the book of the recordings that were used."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# Commands that tests start find compiled modules, as users do; compiling torch anew takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "modules"))
sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]

BOOKS = {"gpd": "gpd_recordings", "smash": "recordings", "stpred": "stpred_recordings", "svq": "svq_recordings",
         "vlm4st": "vlm4st_recordings"}  # fmt: skip
"""Module of each package's recordings; a later package adds its own."""
_ELSEWHERE: dict[str, dict[str, set[str]]] = {package: {} for package in BOOKS}
"""What tests used that ran in other processes (`pytest -n`)."""


def _unused(package: str) -> dict[str, list[str]]:
    """Return the recordings, by name, with what of them no test has used."""
    book = importlib.import_module(BOOKS[package])
    used = _consumed(package)
    left = {name: sorted(keys - used.get(name, set())) for name, keys in book.required().items()}
    return {name: keys for name, keys in left.items() if keys}


def _consumed(package: str) -> dict[str, set[str]]:
    """Return what of each recording of a package tests have used, here and in other processes."""
    here, elsewhere = importlib.import_module(BOOKS[package]).consumed(), _ELSEWHERE[package]
    return {name: here.get(name, set()) | elsewhere.get(name, set()) for name in here.keys() | elsewhere.keys()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what the tests of another process have used."""
    for package, used in getattr(node, "workeroutput", {}).get("recordings", {}).items():
        for name, keys in used.items():
            _ELSEWHERE[package].setdefault(name, set()).update(keys)


def _whole_suite(config: pytest.Config) -> bool:
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run of the whole suite that left a recording, or an output of one, unused."""
    if hasattr(session.config, "workeroutput"):  # one process of several: the first one judges
        used = {package: {name: sorted(keys) for name, keys in _consumed(package).items()} for package in BOOKS}
        session.config.workeroutput["recordings"] = used
        return
    if exitstatus == 0 and _whole_suite(session.config) and any(_unused(package) for package in BOOKS):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print how many recordings were used, and what of them was not."""
    root = os.environ.get("STCORE_REFERENCE")
    if not root:
        return
    terminalreporter.section("recordings of the originals")
    complete = _whole_suite(config) and not terminalreporter.stats.keys() & {"failed", "error"}
    for package in BOOKS:
        book = importlib.import_module(BOOKS[package])
        used, required = _consumed(package), book.required()
        outputs = sum(len(keys) for keys in required.values())
        compared = sum(len(keys & used.get(name, set())) for name, keys in required.items())
        whole = [name for name, keys in required.items() if keys <= used.get(name, set())]
        terminalreporter.write_line(
            f"{package}: {len(whole)} of {len(required)} recordings used, {compared} of {outputs} tensors and values"
        )
        for name, keys in _unused(package).items() if complete else ():
            terminalreporter.write_line(f"FAILED {package} {name}: no test used {', '.join(keys[:6])} ({len(keys)})")
    waiting = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir() and entry.name not in BOOKS)
    if waiting:
        terminalreporter.write_line(f"no package here yet for the recordings of {', '.join(waiting)}")
