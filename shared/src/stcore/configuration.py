"""Frozen dataclasses as the one form of configuration: to and from TOML, with errors that name file and key."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from stcore.errors import UserError

ConfigType = TypeVar("ConfigType")
MAX_TOML_BYTES = 1 << 20
"""No configuration is larger; what is, is some other file."""


def to_plain(config: Any) -> dict[str, Any]:
    """Turn a configuration into nested dicts of TOML values; fields that are None are left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            items = cast("Mapping[str, Any]", value).items()
            return {key: plain(entry) for key, entry in items if entry is not None}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in cast("list[Any]", value)]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_plain(kind: type[ConfigType], values: Mapping[str, Any], *, where: str) -> ConfigType:
    """Build a configuration of type `kind` from nested dicts; `where` names their origin in errors.

    Raises:
        UserError: an unknown key (with the nearest known one), a wrong type, a value out of range.
    """
    import dacite

    for path, known in _unknown_keys(kind, values):
        near = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise UserError(f"{where}: unknown key {path!r}; {hint}")
    for path, value, wanted in _misfits(kind, values):
        raise UserError(f"{where}: {path} is {_short(value)}; expected {_in_words(wanted)}")
    options = dacite.Config(type_hooks={float: _to_float}, strict=True)
    try:
        return dacite.from_dict(kind, cast("dict[str, Any]", _with_tuples(dict(values))), options)
    except dacite.WrongTypeError as error:
        found = _short(list(cast("tuple[Any]", error.value)) if isinstance(error.value, tuple) else error.value)
        raise UserError(f"{where}: {error.field_path} is {found}; expected {_in_words(error.field_type)}") from error
    except dacite.DaciteError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: no such file, not UTF-8, or no TOML; names the line.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a regular file; expected a TOML file")
        if path.stat().st_size > MAX_TOML_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size:,} bytes; expected a TOML file of at most {MAX_TOML_BYTES:,}"
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a TOML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; expected a TOML file in UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path}: no valid TOML: {error}") from error


def overlay(base: ConfigType, values: Mapping[str, Any], *, where: str) -> ConfigType:
    """Return `base` with the fields of `values` in place of its own."""
    return from_plain(type(base), _merged(to_plain(base), values), where=where)


def differences(one: Any, other: Any) -> list[str]:
    """Return the dotted names of the fields in which two configurations of one type differ."""
    return sorted(_differing(to_plain(one), to_plain(other), ""))


def _differing(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        for key in left.keys() | right.keys():
            yield from _differing(left.get(key), right.get(key), f"{path}.{key}" if path else key)
    elif one != other:
        yield path


def _merged(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, Mapping)
        merged[key] = _merged(cast("dict[str, Any]", below), cast("Mapping[str, Any]", value)) if both else value
    return merged


def _unknown_keys(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key, value in values.items():
        if key not in known:
            yield f"{prefix}{key}", known
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            yield from _unknown_keys(hints[key], cast("Mapping[str, Any]", value), f"{prefix}{key}.")


def _misfits(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, value and wanted type where Python would take what nobody meant: true for 1, a string for a list."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        wanted = hints[key]
        truth = isinstance(value, bool) and wanted in (int, float)
        if truth or (get_origin(wanted) is tuple and not _fits_tuple(value, get_args(wanted))):
            yield f"{prefix}{key}", value, wanted
        elif dataclasses.is_dataclass(wanted) and isinstance(value, Mapping):
            yield from _misfits(wanted, cast("Mapping[str, Any]", value), f"{prefix}{key}.")


def _fits_tuple(value: Any, wanted: tuple[Any, ...]) -> bool:
    listed = isinstance(value, (list, tuple))
    return listed and (wanted[-1] is Ellipsis or len(cast("list[Any]", value)) == len(wanted))


def _with_tuples(value: Any) -> Any:
    """Make the lists of a file tuples; a string stays one, though Python could make a tuple of its letters."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(entry) for key, entry in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return tuple(_with_tuples(entry) for entry in cast("list[Any]", value))
    return value


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _in_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_in_words(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_in_words(arguments[0])}"
    if origin is not None:
        return " or ".join(_in_words(argument) for argument in arguments if argument is not type(None))
    return "a table" if dataclasses.is_dataclass(kind) else _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
