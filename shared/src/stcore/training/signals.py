"""SIGTERM and Ctrl-C as a wish to stop: finish the step, save, leave. A second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class StopNow(Exception):
    """Raised inside `StopSignals.interruptible` when a signal arrives: that work is dropped and done again later."""


class StopSignals:
    """Remember the first SIGTERM or SIGINT while the context is open; `number` is None until then."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._raise = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Handlers belong to the main thread; a training started in another one is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """Let a signal raise `StopNow` inside this block, for long work that changes nothing."""
        if self.number is not None:
            raise StopNow
        self._raise = True
        try:
            yield
        finally:
            self._raise = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if self._raise:
            raise StopNow
