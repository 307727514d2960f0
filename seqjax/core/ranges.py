"""What a number, a name or a flag may be: declared beside it, checked in one place.

    steps: Annotated[int, Range(1)]               at least 1
    dropout: Annotated[float, Range(0, below=1)]  from 0 to below 1

`check(value, hint, name)` raises one ValueError that names the field, the value and what would be
right; hints are those of the standard library (`Literal`, `X | None`, tuples, dataclasses, whose
fields are checked in turn). A whole number without a stated end is at most what an int32 holds.
"""

from __future__ import annotations

import types
import typing
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal

LARGEST = 2**31 - 1  # of int32, in which steps, positions and sizes are counted


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, and `above` and `below` where an end is left out.

    Infinity is one of them where `high` is it.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, x: float) -> bool:
        return (
            (self.low is None or x >= self.low)
            and (self.high is None or x <= self.high)
            and (self.above is None or x > self.above)
            and (self.below is None or x < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"from {_shown(self.low)} to {_shown(self.high)}"
        words = {"at least": self.low, "above": self.above, "at most": self.high,
                 "below": self.below}  # fmt: skip
        return " and ".join(f"{word} {_shown(end)}" for word, end in words.items()
                            if end is not None)  # fmt: skip


ANY = Range()
Count = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, below=1)]


def check(value: Any, hint: Any, name: str) -> None:
    """Raise ValueError naming `name` unless `value` is what `hint` declares."""
    if typing.get_origin(hint) is Annotated and is_dataclass(typing.get_args(hint)[0]):
        hint = typing.get_args(hint)[0]
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, hint):
            got = type(value).__name__
            raise ValueError(f"{name or 'a config'} must be a {hint.__name__}, got a {got}")
        hints = typing.get_type_hints(hint, include_extras=True)
        for field in fields(hint):
            check(getattr(value, field.name), hints[field.name], _join(name, field.name))
        return
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    kind: Any = (*typing.get_args(plain), None)[0] if typing.get_origin(plain) is tuple else None
    if isinstance(kind, type) and is_dataclass(kind) and all(isinstance(v, kind) for v in value):
        for n, one in enumerate(value):
            check(one, kind, f"{name}[{n}]")
        return
    if not fits(value, hint):
        raise ValueError(f"{name} must be {describe(hint)}, got {value!r}")


def fits(value: Any, hint: Any, within: Range = ANY) -> bool:
    """Whether `value` is what `hint` declares; other kinds of hints are not looked into."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, args[0], _range(args[1:]) or within)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one, within) for one in args)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in args)
    if hint is None or hint is types.NoneType:
        return value is None
    if isinstance(hint, type) and is_dataclass(hint):
        return isinstance(value, hint)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole:
            return False
        value = int(value)  # type: ignore[call-overload]
        return value in within and (within.high is not None or abs(value) <= LARGEST)
    if hint is float:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        try:
            value = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            return False
        return (isfinite(value) or value == within.high) and value in within
    if hint in (str, Path):
        return isinstance(value, hint)
    if origin in (tuple, Sequence, list):
        if not isinstance(value, tuple | list):
            return False
        if origin is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(
                fits(v, one, within) for v, one in zip(value, args, strict=True)
            )
        return all(fits(v, args[0], within) for v in value)
    if origin is Mapping:
        return isinstance(value, Mapping)
    return True


def describe(hint: Any, within: Range = ANY) -> str:
    """What `hint` declares, in words: "a whole number, at least 1, or None"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe(args[0], _range(args[1:]) or within)
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(describe(one, within) for one in args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if hint is None or hint is types.NoneType:
        return "None"
    if hint in (int, float):
        if hint is int and within.high is None and within.below is None:
            within = Range(within.low, LARGEST, within.above)
        what = "a whole number" if hint is int else "a number"
        return f"{what} {within}".rstrip()
    if origin in (tuple, Sequence, list):
        if origin is tuple and args and args[-1] is not Ellipsis:
            return f"({', '.join(describe(one, within) for one in args)})"
        return f"a tuple, of each {describe(args[0], within)}"
    names = {bool: "True or False", str: "a text", Path: "a path"}
    return names.get(hint) or ("options by name" if origin is Mapping else "something else")


def _shown(end: float) -> str:
    return f"{end:g}" if abs(end) < 1e6 else str(end)


def _range(metadata: Sequence[Any]) -> Range | None:
    return next((one for one in metadata if isinstance(one, Range)), None)


def _join(*names: str) -> str:
    return ".".join(filter(None, names))


def number(hint: Any) -> type | None:
    """int or float if the hint is of such numbers, one or several, or None; else None."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return number(args[0])
    if origin in (typing.Union, types.UnionType, tuple, Sequence, list):
        kinds = {number(one) for one in args if one not in (types.NoneType, Ellipsis)}
        return kinds.pop() if len(kinds) == 1 else None
    return hint if hint in (int, float) else None


def check_options(options: Mapping[str, Any], function: Callable[..., Any], name: str) -> None:
    """Raise ValueError for an option that is not what the annotation of `function` declares."""
    hints = typing.get_type_hints(function, include_extras=True)
    for option, value in options.items():
        if option in hints:
            check(value, hints[option], f"{name}{option}")


def parse_value(text: str) -> Any:
    """A Python number, tuple, True, False or None (in any case); anything else is a string."""
    words = {"true": True, "false": False, "none": None}
    try:
        value = words[text.lower()] if text.lower() in words else literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return text if isinstance(value, list) else value  # "[-1,1]" is an interval's name
