"""Tables in READMEs, generated from result lines.

A README holds a pair of markers, `<!-- table:<package>-<subject> -->` and `<!-- /table -->`; what stands between them
is written by `python benchmarks/run.py tables` and checked by a test.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_MARKED = re.compile(r"(<!-- table:([a-z0-9]+)-([a-z0-9-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def results_file(root: Path, package: str, subject: str) -> Path:
    """Return where the result lines of a benchmark are kept."""
    return root / "benchmarks" / "results" / f"{package}-{subject}.jsonl"


def append_row(path: Path, row: Row) -> None:
    """Append one result line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def latest_rows(path: Path) -> list[Row]:
    """Return the newest full result of each case on each device, in the order in which they first appeared.

    Args:
        path: JSON lines; a file that does not exist holds no results. Quick runs are passed over.
    """
    if not path.exists():
        return []
    newest: dict[tuple[str, str], Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row["quick"]:
            newest[row["case"], _device(row)] = row
    return list(newest.values())


def _device(row: Row) -> str:
    """Return what a case was timed on; results of other kinds do not depend on it."""
    return row.get("device", "")


def markdown(header: Sequence[str], cells: Sequence[Sequence[object]]) -> str:
    """Return a markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in cells]
    return "\n".join(lines)


def provenance(rows: Sequence[Row]) -> str:
    """Say in one sentence where and when the rows were measured."""
    said: dict[str, None] = {}
    for row in rows:
        machine, versions, commit = row["machine"], row["versions"], row["commit"]
        where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
        state = "" if commit is None else f", commit {commit['hash']}{' with changes' if commit['dirty'] else ''}"
        said[f"{where}, torch {versions['torch']}{state}, {row['date'][:10]}"] = None
    return f"Measured on {'; '.join(said)}."


def render(text: str, table_of: Callable[[str, str], str]) -> str:
    """Return the text with every marked table replaced by `table_of(package, subject)`."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{table_of(match[2], match[3]).strip()}\n{match[4]}"

    return _MARKED.sub(fill, text)


def table_from_results(root: Path, package: str, subject: str) -> str:
    """Return the tables that a benchmark's module makes of its newest results, one for each device."""
    rows = latest_rows(results_file(root, package, subject))
    if not rows:
        return f"*Not measured yet: `python benchmarks/run.py {package} {subject}`.*"
    module = importlib.import_module(f"benchmarks.{package}.{subject.replace('-', '_')}")
    each: dict[str, list[Row]] = {}
    for row in rows:
        each.setdefault(_device(row), []).append(row)
    return "\n\n".join(module.table(mine) for mine in each.values())


def readmes(root: Path) -> list[Path]:
    """Return the READMEs that may hold tables."""
    found = [root / "README.md", root / "shared" / "README.md", *sorted((root / "packages").glob("*/README.md"))]
    return [path for path in found if path.exists()]


def stale_readmes(root: Path) -> dict[Path, str]:
    """Return the READMEs whose tables differ from the results, each with the text it should have."""
    stale: dict[Path, str] = {}
    for path in readmes(root):
        text = path.read_text(encoding="utf-8")
        wanted = render(text, lambda package, subject: table_from_results(root, package, subject))
        if wanted != text:
            stale[path] = wanted
    return stale
