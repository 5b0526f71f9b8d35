"""Encodes JSON several times faster than the standard library, which takes over where orjson is too strict."""

from __future__ import annotations

import json
from typing import Any

import orjson


def json_encode(value: Any) -> bytes:
    """Returns `value` as compact JSON.

    Raises:
        TypeError: it holds something JSON has no word for.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def json_decode(data: bytes | str) -> Any:
    """Returns the value behind JSON text. A whole number beyond 64 bits becomes a float.

    Raises:
        ValueError: it is not JSON, or not UTF-8, or nested a thousand deep.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError("nested too deep") from None
