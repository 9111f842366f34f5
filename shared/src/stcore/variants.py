"""Fields of a configuration that are one of several dataclasses, which of them being told by their field `kind`.

Each of them has `kind: Literal["its name"] = "its name"` and a default for every other field. A file, or a flag such as
`--model.kind`, that names another kind than the one there is starts from the defaults of the other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from stcore.errors import UserError

ConfigType = TypeVar("ConfigType")


def dataclasses_in(hint: Any) -> list[Any]:
    """Return the dataclasses that a field of this type may hold: itself, or members of a union.

    >>> dataclasses_in(int | None)
    []
    """
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [member for member in members if dataclasses.is_dataclass(member)]


def variants_in(hint: Any) -> dict[str, Any]:
    """Return the dataclasses of a union of several, by kind; none for any other type."""
    members = dataclasses_in(hint)
    if len(members) < 2:
        return {}
    return {kind: member for member in members for kind in get_args(get_type_hints(member)["kind"])}


@functools.cache
def fields_of(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass by name; not to be changed."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def other_kinds(variants: Mapping[str, Any], kind: str, name: str) -> list[str]:
    """Return the kinds that have a field `name`, if `kind` has none."""
    having = [other for other, variant in variants.items() if name in fields_of(variant)]
    return [] if kind in having else having


def class_of_table(hint: Any, table: Mapping[str, Any], default: Any, *, path: str, where: str) -> Any:
    """Return the dataclass that a table of a file is to become; none where the field is no table.

    Args:
        hint: type of the field.
        table: what the file says.
        default: the field's own value, whose kind counts where the table names none.
        path: dotted name of the field.
        where: name of the file.

    Raises:
        UserError: the table names no kind that there is.
    """
    variants = variants_in(hint)
    if not variants:
        return next(iter(dataclasses_in(hint)), None)
    kind = table.get("kind", getattr(default, "kind", None))
    if kind is None:
        raise UserError(f"{where}: {path} without a kind; expected kind, one of {', '.join(variants)}")
    return variants[_require_kind(f"{where}: {path}.kind is", kind, variants)]


def choose_by_flags(config: ConfigType, arguments: Sequence[str], *, prefix: str = "--") -> ConfigType:
    """Return `config` with the kinds that flags name, each with its defaults; the parser then takes all flags.

    Args:
        config: the configuration before flags.
        arguments: of the command line.
        prefix: how flags of `config`'s own fields begin.

    Raises:
        UserError: there is no such kind, or a flag is a field of another kind than the one chosen.
    """
    changes: dict[str, Any] = {}
    for name, hint in fields_of(type(config)).items():
        value: Any = getattr(config, name)
        if not dataclasses.is_dataclass(value):
            continue
        flags = f"{prefix}{name.replace('_', '-')}."
        chosen = _chosen(value, variants_in(hint), dict(_flags(arguments, flags)), flags)
        chosen = choose_by_flags(chosen, arguments, prefix=flags)
        if chosen is not value:
            changes[name] = chosen
    return dataclasses.replace(cast("Any", config), **changes) if changes else config


def _chosen(value: Any, variants: Mapping[str, Any], flags: Mapping[str, str], prefix: str) -> Any:
    if not variants:
        return value
    kind = _require_kind(f"{prefix}kind:", flags.get("kind", value.kind), variants)
    for flag in flags:
        name = flag.split(".")[0].removeprefix("no-").replace("-", "_")
        if others := other_kinds(variants, kind, name):
            raise UserError(f"{prefix}{flag}: a field of kind {' and '.join(others)}; expected one of {kind}, or "
                            f"{prefix}kind {others[0]}")  # fmt: skip
    return value if type(value) is variants[kind] else variants[kind]()


def _flags(arguments: Sequence[str], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the flags that begin with `prefix`, without it and with hyphens, and the word that comes after each."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if (flag := flag.replace("_", "-")).startswith(prefix):
            yield flag.removeprefix(prefix), value if equals else following


def _require_kind(where: str, kind: Any, variants: Mapping[str, Any]) -> str:
    if not isinstance(kind, str) or kind not in variants:
        raise UserError(f"{where} {kind!r:.60}; expected one of {', '.join(variants)}")
    return kind
