"""What can go wrong, and the exit code each kind ends a command with.

Everything that is not one of these is a bug: it keeps its traceback and exits with 1.
"""

from __future__ import annotations

import signal

DONE, BUG, USER_ERROR, DIVERGED = 0, 1, 2, 3


class UserError(ValueError):
    """Something the user can mend: a file, a flag, a configuration. One line, exit code 2.

    Grammar: ``<where>: <what was found>; expected <what>[; <what to do>]``.
    """


class Diverged(RuntimeError):
    """Training met a non-finite loss or gradient. Exit code 3; the last checkpoint stays good."""


class Interrupted(RuntimeError):
    """Training was asked to stop by a signal, and has saved a checkpoint.

    Args:
        number: the signal, SIGINT (exit code 130) or SIGTERM (exit code 143).
        message: what was saved and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + signal.Signals(self.number).value
