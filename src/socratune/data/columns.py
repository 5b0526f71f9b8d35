"""Reads columns and values as people write them: any case, `nan` for nothing, lists and objects as text."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from socratune.errors import Fault, Shown

DEEPEST = 100
"""The deepest nesting of objects and lists. Deeper values could be neither shown nor written."""
_LONGEST_LITERAL = 1_000_000
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SIGNS = re.compile(r"[^a-z0-9]+")
_QUOTED = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_NUMPY_LIST = re.compile(rf"\[\s*{_QUOTED}(?:\s+{_QUOTED})*\s*\]", re.DOTALL)
_NUMPY_STRING = re.compile(_QUOTED, re.DOTALL)
_NUMPY_OBJECTS = re.compile(r"\}\s+\{")


@lru_cache(4096)
def plain_name(name: str) -> str:
    """Returns a column's name in comparable form: `Option A`, `optionA` and `option_a` are equal."""
    return _SIGNS.sub("_", _CAMEL.sub("_", name).lower()).strip("_") or name


def is_blank(value: Any) -> bool:
    """Returns True if a value is empty: null, NaN, a blank text, an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return is_null(value) or (isinstance(value, list | dict) and not value)


def is_null(value: Any) -> bool:
    """Returns True if a value is null, or NaN, which tables have instead."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def given_columns(row: dict[Any, Any]) -> dict[str, tuple[str, Any]]:
    """Returns a row's values by plain name, each with its own name. Null, NaN and duplicates are dropped.

    A name that is plain already goes before one that is not; what gives way is found among the metadata.
    """
    columns: dict[str, tuple[str, Any]] = {}
    for name, value in row.items():
        plain = plain_name(str(name))
        if is_null(value):
            continue
        if plain not in columns or (plain == name and is_blank(columns[plain][1]) >= is_blank(value)):
            columns[plain] = (name, value)
    return columns


def is_argilla(names: Iterable[Any]) -> bool:
    """Returns True if these are columns of Argilla's records, nested (`to_json`) or flat (`to_datasets`)."""
    columns = {*names}
    flat = any(isinstance(name, str) and name.endswith((".responses", ".suggestion")) for name in columns)
    return {"fields", "responses", "suggestions"} <= columns or (flat and "status" in columns)


def too_deep(value: Any) -> bool:
    """Tells whether a decoded value is nested deeper than `DEEPEST`. Recursion would fail, so it walks by level."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _members(outer)]
        if not level:
            return False
    return True


def _members(value: dict[Any, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def decoded(value: Any) -> Any:
    """Returns the list or object that a text encodes in JSON, Python or NumPy notation, and anything else unchanged.

    `DataFrame.to_csv` leaves such texts: `["a", "b"]`, `['a', 'b']`, `['a' 'b']`, `array([…], dtype=object)`.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not (text[:1] in "[{" and text[-1:] in "]}") or len(text) > _LONGEST_LITERAL or not text:
        return value
    for read in (json.loads, _python, _numpy):
        try:
            inner = read(text)
            if isinstance(inner, list | dict) and not too_deep(inner):
                json.dumps(inner, ensure_ascii=False).encode()  # no half of a surrogate pair, and nothing but JSON
                return inner
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
            continue
    return value


def _python(text: str) -> Any:
    depth = deepest = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in "]})")
        deepest = max(deepest, depth)
    if deepest > DEEPEST or _NUMPY_LIST.fullmatch(text):  # Python would join the texts of a NumPy list to one
        raise ValueError(text[:60])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a backslash in a text
        return ast.literal_eval(text)


def _numpy(text: str) -> Any:
    if _NUMPY_LIST.fullmatch(text):
        return [ast.literal_eval(quoted) for quoted in _NUMPY_STRING.findall(text)]
    arrays = text.replace("array([", "[").replace("], dtype=object)", "]")
    return _python(_NUMPY_OBJECTS.sub("}, {", arrays))


def text_faults(text: str, at: str, what: str) -> list[Fault]:
    """Returns the faults of a text that is to be asked or trained on."""
    if not text.strip():
        return [Fault(at, f"a non-empty {what} text", text)]
    if "\x00" in text:
        return [Fault(at, "a text without NUL characters", text)]
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return [Fault(at, "valid Unicode", Shown("half a surrogate pair (\\ud800 to \\udfff)"))]
    return []
