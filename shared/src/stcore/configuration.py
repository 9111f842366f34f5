"""Frozen dataclasses as the one form of configuration: to and from TOML, with errors that name file and key."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from stcore.errors import UserError

ConfigType = TypeVar("ConfigType")


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
    options = dacite.Config(cast=[tuple], type_hooks={float: _to_float}, strict=True)
    try:
        return dacite.from_dict(kind, dict(values), options)
    except dacite.WrongTypeError as error:
        wanted = getattr(error.field_type, "__name__", str(error.field_type))
        raise UserError(f"{where}: {error.field_path} is {error.value!r}; expected a value of type {wanted}") from error
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


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
