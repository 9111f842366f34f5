"""Configurations from TOML: every wrong value is named, none is bent into shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w

from stcore.configuration import differences, from_plain, overlay, read_toml, to_plain
from stcore.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    rate: float = 0.5
    kind: Literal["one", "two"] = "one"
    shares: tuple[float, float] = (0.5, 0.5)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise UserError(f"inner.rate: {self.rate}; expected a number in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A whole."""

    inner: Inner = field(default_factory=Inner)
    steps: int = 3
    ready: bool = False
    title: str = "x"
    folder: Path | None = None
    limit: float | None = None


def test_toml_and_back() -> None:
    config = Outer(
        inner=Inner(rate=0.25, kind="two", shares=(0.1, 0.9), names=("a", "β")), steps=7, ready=True, limit=2.0
    )
    assert from_plain(Outer, to_plain(config), where="here") == config
    assert "folder" not in to_plain(config) and to_plain(config)["inner"]["names"] == ["a", "β"]
    assert tomli_w.dumps(to_plain(config)).count("\n") >= 8


def test_whole_numbers_serve_as_numbers() -> None:
    rate = from_plain(Outer, {"limit": 2, "inner": {"shares": [1, 0]}}, where="f")
    assert rate.limit == 2.0 and isinstance(rate.limit, float) and rate.inner.shares == (1.0, 0.0)


@pytest.mark.parametrize(("values", "message"), [
    ({"stepz": 1}, "f: unknown key 'stepz'; did you mean 'steps'?"),
    ({"inner": {"sort": "one"}}, "f: unknown key 'inner.sort'; expected one of kind, names, rate, shares"),
    ({"steps": 1.0}, "f: steps is 1.0; expected a whole number"),
    ({"steps": True}, "f: steps is true; expected a whole number"),
    ({"steps": "3"}, "f: steps is '3'; expected a whole number"),
    ({"ready": 1}, "f: ready is 1; expected true or false"),
    ({"title": 3}, "f: title is 3; expected a string"),
    ({"limit": "much"}, "f: limit is 'much'; expected a number"),
    ({"inner": 3}, "f: inner is 3; expected a table"),
    ({"inner": [{"rate": 0.1}]}, "f: inner is [{'rate': 0.1}]; expected a table"),
    ({"inner": {"kind": "three"}}, "f: inner.kind is 'three'; expected one of 'one', 'two'"),
    ({"inner": {"names": "abc"}}, "f: inner.names is 'abc'; expected a list, each a string"),
    ({"inner": {"names": [1]}}, "f: inner.names is [1]; expected a list, each a string"),
    ({"inner": {"shares": [0.5]}}, "f: inner.shares is [0.5]; expected a list of 2, each a number"),
    ({"inner": {"shares": [0.5, "x"]}}, "f: inner.shares is [0.5, 'x']; expected a list of 2, each a number"),
    ({"inner": {"rate": 1.5}}, "f: inner.rate: 1.5; expected a number in (0, 1)"),
    ({"inner": {"rate": math.nan}}, "f: inner.rate: nan; expected a number in (0, 1)"),
    ({"title": ["x" * 99]}, f"f: title is ['{'x' * 55}...; expected a string"),
])  # fmt: skip
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        from_plain(Outer, values, where="f")
    assert str(refused.value).replace('"', "'") == message


def test_overlay_replaces_what_is_named_and_nothing_else() -> None:
    base = Outer(inner=Inner(rate=0.25, kind="two"), steps=7, limit=1.0)
    changed = overlay(base, {"inner": {"rate": 0.75}}, where="f")
    assert changed == Outer(inner=Inner(rate=0.75, kind="two"), steps=7, limit=1.0)
    assert differences(base, changed) == ["inner.rate"] and differences(base, base) == []
    assert differences(base, Outer(inner=base.inner, steps=7)) == ["limit"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: No such file or directory; expected a TOML file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(UserError, match="not a regular file"):
        read_toml(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"x = 1\n\xff")
    with pytest.raises(UserError, match=r"a\.toml: byte 6 is not UTF-8"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("x = \n")
    with pytest.raises(UserError, match=r"a\.toml: no valid TOML: .*line 1"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("\ufeffx = 1\n")
    with pytest.raises(UserError, match=r"a\.toml: no valid TOML"):
        read_toml(tmp_path / "a.toml")
