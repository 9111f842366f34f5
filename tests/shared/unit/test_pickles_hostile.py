"""No pickle ever runs anything: hostile ones are refused in one line, fast, with little memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_pickles import hostile_pickles, memory_bombs

from stcore.errors import UserError
from stcore.readers.pickles import read_plain_pickle

NAMES = sorted(hostile_pickles(Path("canary")))


def test_there_are_enough_hostile_pickles() -> None:
    assert len(NAMES) >= 30


def test_the_hostile_pickles_do_act_when_they_are_loaded_carelessly(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(hostile_pickles(canary)["os.system, protocol 4"])
    assert canary.exists()


def _cpu_seconds() -> float:
    """Return the processor time of this process and its finished children, which other load does not change."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_are_refused_without_acting(name: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "hostile.pkl"
    path.write_bytes(hostile_pickles(canary)[name])
    before, start = sorted(tmp_path.iterdir()), _cpu_seconds()
    with pytest.raises(UserError) as caught:
        read_plain_pickle(path)
    message = str(caught.value)
    allowed_s = 10.0 if "storage" in name else 2.0  # a storage makes the child import torch
    assert _cpu_seconds() - start < allowed_s
    assert sorted(tmp_path.iterdir()) == before
    assert message.startswith(str(path)) and "expected" in message and "\n" not in message and len(message) < 600


def test_refusing_takes_little_memory(tmp_path: Path) -> None:
    program = (
        "import sys, resource\n"
        "from stcore.errors import UserError\n"
        "from stcore.readers.pickles import read_plain_pickle\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_plain_pickle(path)\n"
        "    except UserError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    paths: list[str] = []
    for number, data in enumerate((*memory_bombs().values(), *harmless_indices())):
        paths.append(str(tmp_path / f"{number}.pkl"))
        Path(paths[-1]).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 200 * 2**20


def harmless_indices() -> tuple[bytes, bytes]:
    """Return pickles that make CPython's unpickler reserve a table of two thousand million entries."""
    return b"\x80\x02K\x01r\xff\xff\xff\x7f.", b"K\x01p99999999999999999999999\n."


def test_a_huge_memo_index_costs_nothing(tmp_path: Path) -> None:
    for data in harmless_indices():
        (tmp_path / "memo.pkl").write_bytes(data)
        assert read_plain_pickle(tmp_path / "memo.pkl") == 1
