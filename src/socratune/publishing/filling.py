"""Assembles a page: markup, style, scripts and data in one file that loads nothing.

Texts of models are data: they stand in the page as JSON that no HTML parser can read as markup, and the scripts only
ever set them as text.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from socratune.runs import json_encode

_PAGE = Path(__file__).parent / "page"
SHARE_OF_ONE_ROW = 1 / 10
"""Of the bytes that are left; the texts of a larger row are cut."""
CUT_TEXT = 2_000
"""Characters that stay of a text that is cut."""


def shortened(value: Any, most: int) -> Any:
    """Returns the value with every longer text replaced by `{"cut": its beginning, "length": in characters}`."""
    if isinstance(value, str):
        return value if len(value) <= most else {"cut": value[:most], "length": len(value)}
    if isinstance(value, dict):
        return {name: shortened(part, most) for name, part in value.items()}
    return [shortened(part, most) for part in value] if isinstance(value, list | tuple) else value


def script_json(value: Any) -> str:
    """Returns JSON that is safe in a script element: without `<`, `>`, `&` and the line ends of JavaScript."""
    text = json_encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class Embedded:
    """Yields rows as parts of a JSON list until `most_bytes` are used. Afterwards `shown` is their number."""

    def __init__(self, rows: Iterable[dict[str, Any]], most_bytes: int) -> None:
        self._rows, self._left = rows, most_bytes
        self.shown = 0

    def __iter__(self) -> Iterator[str]:
        yield "["
        for row in self._rows:
            data = script_json(row)
            if len(data.encode()) > self._left * SHARE_OF_ONE_ROW:
                data = script_json(shortened(row, CUT_TEXT))
            self._left -= len(data.encode())
            if self._left < 0:
                break
            yield f",\n{data}" if self.shown else data
            self.shown += 1
        yield "]"


def filled_page(
    name: str, scripts: Iterable[str], data: Mapping[str, Iterable[str]], *, live: bool = False
) -> Iterator[str]:
    """Yields a page of the folder `page` in parts, with its scripts in order.

    Args:
        data: JSON for its `{{…}}`, in parts, each taken when its place is reached.
        live: it may fetch from where it came.
    """
    style = (_PAGE / "style.css").read_text("utf-8")
    script = "".join((_PAGE / one).read_text("utf-8") for one in scripts)
    policy = (
        f"default-src 'none'; script-src {_hashed(script)}; style-src {_hashed(style)}; img-src data:; "
        f"connect-src {'self' if live else 'none'!r}; base-uri 'none'; form-action 'none'"
    )
    fill = {"policy": [policy], "style": [style], "script": [script], **data}
    for at, part in enumerate(re.split(r"\{\{(\w+)\}\}", (_PAGE / name).read_text("utf-8"))):
        if at % 2 == 0:
            yield part
        else:
            yield from fill[part]


def _hashed(text: str) -> str:
    """Returns the source expression of a Content Security Policy that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
