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


@dataclass(frozen=True, kw_only=True)
class Round:
    """A variant."""

    kind: Literal["round"] = "round"
    radius: float = 1.0
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True)
class Square:
    """Another variant."""

    kind: Literal["square"] = "square"
    side: int = 2
    corners: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UserError(f"shape.side: {self.side}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Something with a choice of dataclasses."""

    shape: Round | Square = field(default_factory=Round)
    below: Outer | None = None
    steps: int = 3


def test_the_kind_of_a_table_decides_what_it_becomes() -> None:
    square = Drawing(shape=Square(side=4, corners=(0.5, 1.0)))
    assert from_plain(Drawing, to_plain(square), where="f") == square
    assert from_plain(Drawing, {"shape": {"kind": "square", "side": 4, "corners": [0.5, 1]}}, where="f") == square
    # Without a kind it is the one that there is by default.
    assert from_plain(Drawing, {"shape": {"radius": 2}}, where="f").shape == Round(radius=2.0)
    assert from_plain(Drawing, {"below": {"steps": 7}}, where="f").below == Outer(steps=7)


def test_overlay_keeps_the_fields_of_the_same_kind_only() -> None:
    base = Drawing(shape=Square(side=4, corners=(0.5,)), steps=9)
    assert overlay(base, {"shape": {"side": 5}}, where="f").shape == Square(side=5, corners=(0.5,))
    assert overlay(base, {"shape": {"kind": "square"}}, where="f") == base
    other = overlay(base, {"shape": {"kind": "round", "inner": {"rate": 0.25}}}, where="f")
    assert other == Drawing(shape=Round(inner=Inner(rate=0.25)), steps=9)
    assert differences(base, other) == ["shape.corners", "shape.inner", "shape.kind", "shape.radius", "shape.side"]


@pytest.mark.parametrize(("table", "message"), [
    ({"kind": "squar"}, "f: shape.kind is 'squar'; expected one of round, square"),
    ({"kind": 3}, "f: shape.kind is 3; expected one of round, square"),
    ({"kind": ["square"]}, "f: shape.kind is ['square']; expected one of round, square"),
    ({"kind": "square", "radius": 1.0}, "f: unknown key 'shape.radius'; a field of kind round; expected one of square"),
    ({"side": 3}, "f: unknown key 'shape.side'; a field of kind square; expected one of round"),
    ({"kind": "square", "sides": 1}, "f: unknown key 'shape.sides'; did you mean 'side'?"),
    ({"kind": "square", "side": 0}, "f: shape.side: 0; expected at least 1"),
    ({"kind": "square", "side": "a"}, "f: shape.side is 'a'; expected a whole number"),
    ({"kind": "square", "side": True}, "f: shape.side is true; expected a whole number"),
    ({"kind": "square", "corners": "abc"}, "f: shape.corners is 'abc'; expected a list, each a number"),
    ({"kind": "square", "corners": [0.5, "a"]}, "f: shape.corners is [0.5, 'a']; expected a list, each a number"),
    ({"inner": {"rat": 1}}, "f: unknown key 'shape.inner.rat'; did you mean 'rate'?"),
    ({"inner": {"rate": "x"}}, "f: shape.inner.rate is 'x'; expected a number"),
])  # fmt: skip
def test_wrong_values_of_a_variant_are_named(table: dict[str, Any], message: str) -> None:
    for refused_by in (lambda values: from_plain(Drawing, values, where="f"),
                       lambda values: overlay(Drawing(), values, where="f")):  # fmt: skip
        with pytest.raises(UserError) as refused:
            refused_by({"shape": table})
        assert str(refused.value).replace('"', "'") == message


def test_what_is_no_table_is_none_of_the_variants() -> None:
    with pytest.raises(UserError, match=r"f: shape is 3; expected a table"):
        from_plain(Drawing, {"shape": 3}, where="f")
