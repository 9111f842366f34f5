"""What a result line says about where it was measured: machine, versions, commit. Never a host name or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def describe_machine(threads: int) -> dict[str, object]:
    """Return CPU model, cores this process may use, threads, memory, and the GPU if torch sees one."""
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def describe_versions(package: str) -> dict[str, str]:
    """Return the versions of Python, torch, numpy and the package measured."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", package):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def describe_commit() -> dict[str, object] | None:
    """Return the short hash and whether tracked files differ from it; None outside a git checkout.

    Result files are left out of the comparison, since writing one result would spoil the next.
    """
    head = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return None if head is None else {"hash": head, "dirty": bool(changes)}


def now() -> str:
    """Return the date in UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
