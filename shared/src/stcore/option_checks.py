"""Options that cannot be: one line that names the option, what it is and what it should be. Standard library only."""

from __future__ import annotations

from stcore.errors import UserError


def require(condition: bool, where: str, found: object, expected: str) -> None:
    """Refuse an option unless a condition holds.

    Args:
        condition: what has to hold.
        where: the option as it is written in files and flags.
        found: its value.
        expected: what it should be, in words.

    Raises:
        UserError: the condition does not hold.

    >>> require(0 > 1, "fit.epochs", 0, "at least 1")
    Traceback (most recent call last):
    ...
    stcore.errors.UserError: fit.epochs: 0; expected at least 1
    """
    if not condition:
        raise UserError(f"{where}: {found!r}; expected {expected}")


def require_option(condition: bool, section: str, name: str, found: object, expected: str) -> None:
    """Refuse an option of a section, by the name of its field."""
    require(condition, f"{section}.{name.replace('_', '-')}", found, expected)


def require_choice(config: object, section: str, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a field that is none of the words it may be: what is made in Python, no command line has checked."""
    value = getattr(config, name)
    require_option(value in choices, section, name, value, f"one of {', '.join(choices)}")
