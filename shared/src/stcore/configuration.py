"""Frozen dataclasses as the one form of configuration: to and from TOML, with errors that name file and key."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin

from stcore.errors import UserError
from stcore.variants import class_of_table, dataclasses_in, fields_of, other_kinds, variants_in

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
    tables = list(_tables(_Table(kind, values, "", {}), where=where))
    for table in tables:
        for key in table.values:
            if key not in table.fields:
                raise UserError(f"{where}: unknown key {table.prefix + key!r}; {_hint(table, key)}")
    for table in tables:
        for path, value, wanted in _misfits(table):
            raise UserError(f"{where}: {path} is {_short(value)}; expected {_in_words(wanted)}")
    return _built(kind, values, where=where)


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
    return from_plain(type(base), _merged(type(base), to_plain(base), values), where=where)


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


def _merged(kind: Any, base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged, fields = dict(base), fields_of(kind)
    for key, value in values.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            below, table = cast("dict[str, Any]", below), cast("Mapping[str, Any]", value)
            variants = variants_in(fields[key])
            if variants and table.get("kind", below["kind"]) != below["kind"]:
                merged[key] = dict(table)  # nothing is left of another kind
            elif choices := [variants[below["kind"]]] if variants else dataclasses_in(fields[key]):
                merged[key] = _merged(choices[0], below, table)
            else:
                merged[key] = below | dict(table)
        else:
            merged[key] = value
    return merged


class _Table(NamedTuple):
    """One table of a file, and what it is to become."""

    kind: Any
    values: Mapping[str, Any]
    prefix: str
    """What comes before its keys in their dotted names."""
    variants: Mapping[str, Any]
    """All that it might have become, by kind, where there are several."""

    @property
    def fields(self) -> dict[str, Any]:
        return fields_of(self.kind)


def _tables(top: _Table, *, where: str) -> Iterator[_Table]:
    """Yield a table and those in it."""
    yield top
    for key, below, values in _below(top.kind, top.values, where=where, prefix=top.prefix):
        yield from _tables(_Table(below, values, f"{top.prefix}{key}.", variants_in(top.fields[key])), where=where)


def _below(
    kind: Any, values: Mapping[str, Any], *, where: str, prefix: str = ""
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield key, dataclass and table of the fields that are tables."""
    hints = fields_of(kind)
    for field in dataclasses.fields(kind):
        value = values.get(field.name)
        if isinstance(value, Mapping):
            table = cast("Mapping[str, Any]", value)
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            below = class_of_table(hints[field.name], table, default, path=f"{prefix}{field.name}", where=where)
            if below is not None:
                yield field.name, below, table


def _hint(table: _Table, key: str) -> str:
    mine = [kind for kind, variant in table.variants.items() if variant is table.kind]
    if mine and (others := other_kinds(table.variants, mine[0], key)):
        return f"a field of kind {' and '.join(others)}; expected one of {mine[0]}"
    near = difflib.get_close_matches(key, table.fields, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(table.fields))}"


def _built(kind: type[ConfigType], values: Mapping[str, Any], *, where: str, prefix: str = "") -> ConfigType:
    """Build a dataclass whose tables are built first, so that of each the wrong value can be named."""
    import dacite

    built = cast("dict[str, Any]", _with_tuples(dict(values)))
    for key, below, table in _below(kind, values, where=where, prefix=prefix):
        built[key] = _built(below, table, where=where, prefix=f"{prefix}{key}.")
    options = dacite.Config(type_hooks={float: _to_float}, strict=True)
    try:
        return dacite.from_dict(kind, built, options)
    except dacite.WrongTypeError as error:
        found = _short(list(cast("tuple[Any]", error.value)) if isinstance(error.value, tuple) else error.value)
        path = f"{prefix}{error.field_path}"
        raise UserError(f"{where}: {path} is {found}; expected {_in_words(error.field_type)}") from error
    except dacite.DaciteError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _misfits(table: _Table) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, value and wanted type where Python would take what nobody meant: true for 1, a string for a list."""
    for key, value in table.values.items():
        wanted = table.fields[key]
        truth = isinstance(value, bool) and wanted in (int, float)
        if truth or (get_origin(wanted) is tuple and not _fits_tuple(value, get_args(wanted))):
            yield f"{table.prefix}{key}", value, wanted


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
