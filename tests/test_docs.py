"""Every link of the docs leads to a file and a heading that exist, and the site shows every page."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import socratune

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
ON_GITHUB = "https://github.com/socratune/socratune/blob/main/"


@cache
def parsed(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def links(page: Path) -> Iterator[str]:
    for block in parsed(page):
        for token in block.children or ():
            target = token.attrGet("href" if token.type == "link_open" else "src")
            if token.type in ("link_open", "image") and isinstance(target, str):
                yield unquote(target)


@cache
def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site both make them."""
    found: set[str] = set()
    for opening, inline in zip(parsed(page), parsed(page)[1:], strict=False):
        if opening.type == "heading_open":
            text = "".join(token.content for token in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        inside = link.removeprefix(ON_GITHUB)
        path, _, anchor = inside.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (ROOT if inside != link else page.parent) / path if path else page
        leaves_site = DOCS in page.parents and inside == link and DOCS not in target.resolve().parents
        no_heading = anchor and target.suffix == ".md" and target.is_file() and anchor not in anchors(target.resolve())
        if not target.exists() or leaves_site or no_heading:
            broken.append(link)
    assert not broken, f"{page}: no such file, no such heading, or a path that leads out of docs/"


def pages_of(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(inner)


def test_the_navigation_has_every_page_once() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    assert sorted(pages_of(site["nav"])) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: socratune\.(\w+)$", (DOCS / "reference" / "python.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(socratune.__all__)
