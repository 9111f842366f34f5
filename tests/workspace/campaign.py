"""Counts of fault campaigns: a tenth in every run of the tests, all of them under `-m campaign`, and their record.

With STCORE_CAMPAIGN_SUMMARY=<folder>/CAMPAIGN.md each campaign appends a line to CAMPAIGN.jsonl beside it and writes
the table anew.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

SHARES = pytest.mark.parametrize(
    "share", [pytest.param(0.1, id="tenth"), pytest.param(1.0, id="full", marks=pytest.mark.campaign)]
)
"""Gives a test the argument `share`: which part of its full count to do."""

_HEAD = """# Fault campaigns

Written by `pytest -m campaign` with STCORE_CAMPAIGN_SUMMARY set; not edited by hand. The tests run everywhere at a
tenth of these counts.

| campaign | tried | as it should be | otherwise | seconds | notes |
|---|---|---|---|---|---|
"""


def count(full: int, share: float) -> int:
    """Return how many of `full` trials to do, one at least."""
    return max(1, round(full * share))


def record(name: str, *, tried: int, good: int, seconds: float, notes: str = "") -> None:
    """Keep the result of a campaign, where the environment asks for it."""
    target = os.environ.get("STCORE_CAMPAIGN_SUMMARY")
    if not target:
        return
    summary = Path(target)
    lines = summary.with_suffix(".jsonl")
    entry = {"name": name, "tried": tried, "good": good, "seconds": round(seconds, 1), "notes": notes}
    with lines.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    summary.write_text(table([json.loads(line) for line in lines.read_text().splitlines()]))


def table(entries: list[dict[str, Any]]) -> str:
    """Return the table of `entries`; of a campaign that was repeated, the last result, and its largest count."""
    latest: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["tried"] >= latest.get(entry["name"], entry)["tried"]:
            latest[entry["name"]] = entry
    rows = [
        f"| {name} | {entry['tried']:,} | {entry['good']:,} | {entry['tried'] - entry['good']:,} | "
        f"{entry['seconds']:.0f} | {entry['notes']} |"
        for name, entry in sorted(latest.items())
    ]
    foot = f"\nPython {platform.python_version()}, {platform.system()} {platform.machine()}, CPU only.\n"
    return _HEAD + "\n".join(rows) + "\n" + foot
