"""Clocks: callables timed in turn in one process, and what a command costs in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# The launcher is small on purpose: on Linux the peak of a child counts what its parent held when it was started.
_LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - began
unit = 1e-6 if sys.platform == "darwin" else 1.024e-3
report = {
    "code": os.waitstatus_to_exitcode(status),
    "wall_s": seconds,
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "peak_mb": usage.ru_maxrss * unit,
}
sys.stdout.flush()
os.write(1, b"\\n" + json.dumps(report).encode())
"""


@dataclass(frozen=True)
class Timings:
    """Seconds of one callable, round by round."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall_s)

    @property
    def median_cpu_s(self) -> float:
        """Median CPU seconds of the process, all threads."""
        return statistics.median(self.cpu_s)


def time_in_turn(
    candidates: Mapping[str, Callable[[], object]], *, repeats: int = 5, warm_up: int = 1
) -> dict[str, Timings]:
    """Time callables one after the other, round by round (A B A B …), so that a busy moment meets all of them.

    Args:
        candidates: what to time, by name.
        repeats: timed rounds; five or more unless one round takes minutes.
        warm_up: rounds that are run and not counted.
    """
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-warm_up, repeats):
        for name, candidate in candidates.items():
            wall_began, cpu_began = time.perf_counter(), time.process_time()
            candidate()
            cpu_s, wall_s = time.process_time() - cpu_began, time.perf_counter() - wall_began
            if turn >= 0:
                wall[name].append(wall_s)
                cpu[name].append(cpu_s)
    return {name: Timings(tuple(wall[name]), tuple(cpu[name])) for name in candidates}


def ratios(slow: Timings, fast: Timings) -> list[float]:
    """Return the wall-clock ratio slow / fast of each round."""
    return [above / below for above, below in zip(slow.wall_s, fast.wall_s, strict=True)]


def compare(slow: Timings, fast: Timings) -> dict[str, Any]:
    """Return what a result line says of a pair: medians, the ratio of each round and its median."""
    each = ratios(slow, fast)
    return {
        "plain_s": slow.median_s,
        "ours_s": fast.median_s,
        "repeats": len(each),
        "ratio_per_round": [round(ratio, 3) for ratio in each],
        "ratio": statistics.median(each),
        "cpu_ratio": slow.median_cpu_s / fast.median_cpu_s,
    }


@dataclass(frozen=True)
class Cost:
    """What a command cost: exit code, seconds, peak memory of its process in MB (10^6 bytes), and what it printed."""

    code: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def measure_command(command: list[str], *, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command in a fresh process and return its cost; its own children count only in the seconds.

    Raises:
        RuntimeError: the command could not be started at all.
    """
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        stdout=subprocess.PIPE,
        text=True,
        env=None if environment is None else dict(environment),
        check=False,
    )
    output, _, report = finished.stdout.rpartition("\n")
    if finished.returncode != 0 or not report:
        raise RuntimeError(f"{command[0]}: could not be run")
    return Cost(output=output, **json.loads(report))


def call_command(target: str, **arguments: object) -> list[str]:
    """Return the command that calls `module:function` with keyword arguments in a fresh Python process."""
    module, _, function = target.partition(":")
    program = f"import importlib, json, sys; importlib.import_module({module!r}).{function}(**json.loads(sys.argv[1]))"
    return [sys.executable, "-c", program, json.dumps(arguments)]
