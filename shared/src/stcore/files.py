"""Write files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from stcore.errors import UserError

_TEMPORARY = re.compile(r"^\..+\.tmp-(\d+)$")
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path`: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        UserError: the disk is full or refuses the write; the previous file is untouched and no temporary stays.
    """

    def fill(descriptor: int) -> None:
        for chunk in chunks:
            write_all(descriptor, chunk)

    replace_durably(path, fill)


def replace_durably(path: Path, fill: Callable[[int], None]) -> None:
    """Let `fill` write a temporary file beside `path` by its descriptor, then put it in the place of `path`.

    Raises:
        UserError: as for `write_atomically`.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            fill(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise write_refused(path, error) from error
    except BaseException:
        _remove(temporary)
        raise


def to_json(data: object) -> str:
    """Encode `data` as JSON; numbers that JSON lacks (infinite, not a number) become null."""

    def known(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: known(entry) for key, entry in cast("Mapping[str, Any]", value).items()}
        if isinstance(value, (list, tuple)):
            return [known(entry) for entry in cast("Sequence[Any]", value)]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(known(data), indent=1, allow_nan=False)


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write every byte of `chunk`; a single `os.write` may write fewer."""
    view = memoryview(chunk).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_refused(path: Path, error: OSError, needed: int | None = None) -> UserError:
    """Say in one line which file could not be written, why, and what to do."""
    need = "" if needed is None else f" ({needed:,} bytes needed)"
    advice = "free some space" if error.errno in _FULL else "check the folder and its permissions"
    return UserError(f"{path}: cannot be written{need}: {error.strerror or error}; {advice}, nothing old was lost")


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left behind in `folder`; a writer that lives keeps its file."""
    for entry in folder.iterdir():
        match = _TEMPORARY.match(entry.name)
        if match and not _is_another_process(int(match[1])):
            _remove(entry)


def _is_another_process(number: int) -> bool:
    if number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    # A disk that refuses the removal too must not hide why the write failed; the next start removes the file.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
