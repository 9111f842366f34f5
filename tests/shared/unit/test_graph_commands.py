"""The commands that every package for graphs has, through their functions, and what importing them brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph_files import write_table

from stcore import catalog, graph_commands
from stcore.cli import NameOptions
from stcore.errors import UserError
from stcore.readers.graph_options import GraphReadOptions


def options(folder: Path) -> graph_commands.GraphDataOptions:
    paths = tuple(str(write_table(folder / name, name=f"{name}.csv")) for name in ("east", "west"))
    return graph_commands.GraphDataOptions(data=GraphReadOptions(source=paths, adjacency="adj.csv", step="5 minutes"))


def test_check_and_describe_speak_of_each_city(tmp_path: Path) -> None:
    found = graph_commands.check(options(tmp_path))
    assert list(found.data) == ["east", "west"] and "east: only 0.208 days: no week can be learned" in found.text
    facts = graph_commands.describe(options(tmp_path)).data
    assert facts["west"]["steps"] == 60 and facts["west"]["nodes"] == 5 and facts["west"]["edges"] == 10
    with pytest.raises(UserError, match=r"data\.source: no source"):
        graph_commands.describe(graph_commands.GraphDataOptions())


def test_the_catalogue_is_listed_and_what_has_no_address_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(catalog.DATA_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    listed = graph_commands.catalogue(NameOptions())
    assert set(listed.data) == set(catalog.cards("graphs")) and "beijing_subway" in listed.text
    assert not any(row["here"] for row in listed.data.values())
    with pytest.raises(UserError, match=r"^hungary_chickenpox: no address to fetch it from"):
        graph_commands.fetch(NameOptions(name="hungary_chickenpox"))
    with pytest.raises(UserError, match=r"^'nowhere': no data set of this name; expected one of metr_la_week"):
        graph_commands.fetch(NameOptions(name="nowhere"))


def test_commands_and_options_bring_no_torch_nor_anything_heavy() -> None:
    code = "import sys, stcore.graph_commands, stcore.readers.graph_options, stcore.catalog; "
    code += "print(sorted({'torch', 'numpy', 'pyarrow', 'h5py', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
