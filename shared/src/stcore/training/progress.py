"""What a person sees of a running training: one bar on a terminal, at most one line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """Show steps done, rate and time left on standard error; a context manager.

    Args:
        total: steps of the whole run, as far as known.
        done: steps done already.
        visible: False prints nothing at all.
    """

    def __init__(self, total: int, *, done: int = 0, visible: bool = True) -> None:
        self._total, self._first, self._visible = total, done, visible
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._visible and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("training", total=self._total, completed=self._first, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, text: str) -> None:
        """Show that `step` steps are done; `text` says what they brought."""
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=_plain(text), rate=f"{rate:.2f} steps/s")
        elif self._visible and now - self._last_line >= 60.0:
            self._last_line = now
            left = (self._total - step) / max(rate, 1e-9)
            line = f"step {step} of {self._total}, {rate:.2f} steps/s, {left / 60.0:.0f} min left, {text}"
            print(line, file=sys.stderr)  # noqa: T201  a line a minute where there is no terminal


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
