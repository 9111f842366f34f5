"""Run a module as `python -m` does, with faults laid into its process: `fault_launcher.py FAULTS MODULE ARGUMENT…`.

FAULTS is a JSON object, see `faults.Inside`. Product code knows nothing of this.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "truncate")
DISK = ("only", "slow_write_s", "piece_bytes", "fail_call", "fail_nth", "fail_errno", "fail_signal")
"""Those fields of `faults.Inside` that `install_disk_faults` takes."""


def install_disk_faults(
    *, only: str, slow_write_s: float = 0.0, piece_bytes: int = 1 << 14, fail_call: str = "any", fail_nth: int = 0,
    fail_errno: int = 28, fail_signal: int = 0,
) -> None:  # fmt: skip
    """Let calls on paths that contain `only` be slow, and the `fail_nth` of `fail_call` (or of any) fail once.

    With `fail_signal` this process gets that signal there instead.
    """
    real = {name: getattr(os, name) for name in CALLS}
    concerned: set[int] = set()
    seen: Counter[str] = Counter()

    def count(name: str, where: object) -> None:
        seen[name] += 1
        seen["any"] += 1
        if fail_nth and seen[fail_call] == fail_nth and fail_call in (name, "any"):
            seen[fail_call] += 1
            if fail_signal:
                os.kill(os.getpid(), fail_signal)
                return
            raise OSError(fail_errno, os.strerror(fail_errno), str(where))

    def open_(path: Any, *args: Any, **kwargs: Any) -> int:
        mine = only in str(path)
        if mine:
            count("open", path)
        descriptor: int = real["open"](path, *args, **kwargs)
        (concerned.add if mine else concerned.discard)(descriptor)
        return descriptor

    def write(descriptor: int, data: Any) -> int:
        if descriptor not in concerned:
            return int(real["write"](descriptor, data))
        count("write", descriptor)
        if slow_write_s:
            # In pieces, so that a kill meets a file that is written in part.
            data = memoryview(data)[: max(1, min(len(data), piece_bytes))]
            time.sleep(slow_write_s * len(data) / piece_bytes)
        return int(real["write"](descriptor, data))

    def fsync(descriptor: int) -> None:
        if descriptor in concerned:
            count("fsync", descriptor)
        real["fsync"](descriptor)

    def replace(source: Any, target: Any, **kwargs: Any) -> None:
        if only in str(source) or only in str(target):
            count("replace", target)
        real["replace"](source, target, **kwargs)

    def truncate(path: Any, length: int) -> None:
        if only in str(path):
            count("truncate", path)
        real["truncate"](path, length)

    os.open, os.write, os.fsync, os.replace, os.truncate = open_, write, fsync, replace, truncate  # type: ignore[assignment]


def install_poison(*, target: str, call: int, kind: str) -> None:
    """Let the `call`-th result of the function `module:name`, a scalar tensor, be not finite (or its gradient)."""
    module_name, _, name = target.partition(":")
    module = importlib.import_module(module_name)
    real, calls = getattr(module, name), Counter[str]()

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls["all"] += 1
        if calls["all"] != call:
            return result
        return result * float("nan") if kind == "loss" else result + (result * 0.0).sqrt()

    setattr(module, name, poisoned)


def install(inside: dict[str, Any]) -> None:
    """Lay the faults of a `faults.Inside`, as a dict, into this process."""
    if inside["file_limit_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (inside["file_limit_bytes"],) * 2)
    disk = {name: inside[name] for name in DISK}
    if disk["slow_write_s"] or disk["fail_nth"]:
        install_disk_faults(**disk)
    if inside["poison"]:
        install_poison(target=inside["poison"], call=inside["poison_call"], kind=inside["poison_kind"])


def main() -> None:
    """Be `python -m MODULE ARGUMENT…` with faults."""
    faults, module, *arguments = sys.argv[1:]
    install(json.loads(faults))
    sys.path[0] = str(Path.cwd())  # as `python -m` does
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main_of_warm(module: str, arguments: list[str], folder: str, output: str, environment: dict[str, str],
                 inside: dict[str, Any]) -> None:  # fmt: skip
    """Be the same in a process that has its imports behind it: call `main` of `module`."""
    os.chdir(folder)
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    install(inside)
    code = importlib.import_module(module).main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
