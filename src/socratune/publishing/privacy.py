"""Removes what must not leave this machine: the user's data from numbers, and paths from texts about a run."""

from __future__ import annotations

import re
from typing import Any

_PATH = re.compile(r"(?<![\w/.~-])(local/|file://)?(?:~|\.{1,2})?((?:/[^\s/:'\"`|<>]+){2,})")
_WHOLE = re.compile(r"(?:/|~/|\.{1,2}/|[A-Za-z]:\\)(?!.*\. )[^:;\n]*")
"""A path may hold spaces where the value is nothing but a path."""

_FILE = re.compile(r"(eval_file )?(?:[^/\s]+/)+([^/\s]+\.(?:jsonl?|csv|tsv|parquet|txt))")
"""A file named from the folder where the command ran; its folders may name a client."""

_DATA = ("prompt", "question", "response", "messages", "trace", "reference", "thinking", "context", "evidence")
"""Keys whose values are the user's data: never changed in a row, never shown among figures."""


_ROWS = ("prompt_responses", "examples", "majority")
"""Keys of figures that quote the user's data."""


def without_data(value: Any) -> Any:
    """Returns the numbers without the questions and answers behind them."""
    if isinstance(value, dict):
        return {key: without_data(inner) for key, inner in value.items() if key not in _ROWS}
    if isinstance(value, list):
        return [without_data(inner) for inner in value if not (isinstance(inner, dict) and inner.keys() & set(_DATA))]
    return value


def without_paths(value: Any) -> Any:
    """Returns a JSON value in which each path of a machine (`/home/me/models/tiny`) is only its last name (`tiny`)."""
    if isinstance(value, dict):
        return {without_paths(key): inner if key in _DATA else without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if _WHOLE.fullmatch(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    if file := _FILE.fullmatch(value):
        return (file[1] or "") + file[2]
    return _PATH.sub(lambda found: ("local/" if found[1] == "local/" else "") + found[2].rsplit("/", 1)[1], value)
