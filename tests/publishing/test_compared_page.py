"""The page and the Markdown of a comparison: flips first, every question with its address, texts only ever as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows
from pages import browser, opened

from socratune.errors import OutsideError
from socratune.evaluation.compared import compare_logs, compared_rows
from socratune.evaluation.opening_logs import open_log
from socratune.publishing import compared_page
from socratune.publishing.compared_page import write_comparison
from socratune.publishing.compared_text import compared_markdown

HOSTILE = "</script><script>document.title='taken'</script> | `@everyone` <img src=x onerror=alert(1)> \u202e"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def compared(folder: Path, a: list[Any], b: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    logs = [open_log(str(write_rows(folder / f"{name}.jsonl", rows))) for name, rows in (("a", a), ("b", b))]
    found = compare_logs(*logs)
    return found.result, compared_rows(found)


def sides(count: int = 40) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """B loses q2 and q3, wins q5 to q9, and is slower where q0 is."""
    rows: tuple[list[dict[str, Any]], ...] = ([], [])
    for at in range(count):
        right = (not 5 <= at < 10, at not in (2, 3))
        for side in (0, 1):
            scores = {"correct": right[side], "seconds": 2.0 + (at == 0) * side}
            said = f"answer {'AB'[side]} {at}"
            rows[side].append({"id": f"q/{at}", "question": f"Question {at}?", "response": said, "scores": scores})
    return rows


def page_of(folder: Path, a: list[Any], b: list[Any]) -> str:
    write_comparison(folder / "page.html", *compared(folder, a, b))
    return (folder / "page.html").absolute().as_uri()


def test_losses_lead_the_list_and_counts_are_filters(tmp_path: Path, chromium: Any) -> None:
    with opened(chromium, page_of(tmp_path, *sides())) as page:
        assert page.locator("#kinds button").all_text_contents() == ["All 40", "Lost 2", "Won 5", "Both right 33"]
        assert page.locator("#rows b").all_text_contents()[:3] == ["Question 2?", "Question 3?", "Question 5?"]
        page.click("#kinds button[data-kind=won]")
        assert page.text_content("#count") == "5 of 40 questions."
        page.fill("#search", "answer b 7")
        assert page.locator("#rows b").all_text_contents() == ["Question 7?"]


def test_every_question_has_an_address(tmp_path: Path, chromium: Any) -> None:
    address = page_of(tmp_path, *sides())
    with opened(chromium, address) as page:
        page.locator("#rows button").first.click()
        assert page.url.endswith("#question=q%2F2")
        page.select_option("#metric", "seconds")
        page.locator("#rows button").first.click()
        named = page.url
    assert named.endswith("#question=q%2F0&metric=seconds")
    with opened(chromium, named) as page:
        page.wait_for_selector("#detail:not([hidden])")
        assert "answer B 0" in page.text_content("#detail") and "2 → 3" in page.text_content("#rows")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(tmp_path: Path, chromium: Any) -> None:
    with opened(chromium, page_of(tmp_path, *sides()), viewport={"width": 375, "height": 740}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        page.locator("#rows button").first.click()
        page.keyboard.press("Escape")
        assert page.is_hidden("#detail")


def test_texts_of_models_are_only_ever_text(tmp_path: Path, chromium: Any) -> None:
    a, b = sides()
    a[2] |= {"id": HOSTILE, "question": HOSTILE, "response": HOSTILE}
    b[2] |= {"id": HOSTILE, "question": HOSTILE}
    with opened(chromium, page_of(tmp_path, a, b)) as page:
        page.locator("#rows button").first.click()
        assert page.title().endswith("Socratune") and HOSTILE[:20] in page.text_content("#detail .question")
    html = (tmp_path / "page.html").read_text("utf-8")
    assert "connect-src 'none'" in html and html.count("</script>") == 3


def test_what_does_not_fit_is_told_and_is_never_a_flip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared_page, "PAGE_BYTES", 4000)
    page_of(tmp_path, *sides())
    html = (tmp_path / "page.html").read_text("utf-8")
    found = re.findall(r'<script type="application/json" id="(?:rows|compared)-data">(.*?)</script>', html, re.DOTALL)
    shown, told = map(json.loads, found)
    assert [row["id"] for row in shown[:7]] == [f"q/{at}" for at in (2, 3, 5, 6, 7, 8, 9)]
    assert told["left_out"] == 40 - len(shown) > 0


def test_a_page_that_cannot_be_written_is_not_our_bug(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="cannot be written"):
        write_comparison(tmp_path / "missing" / "page.html", *compared(tmp_path, *sides()))


def test_markdown_calls_nobody_and_breaks_no_table(tmp_path: Path) -> None:
    a, b = sides()
    a[2] |= {"id": HOSTILE, "question": HOSTILE, "response": HOSTILE}
    b[2] |= {"id": HOSTILE, "question": HOSTILE}
    text = compared_markdown(*compared(tmp_path, a, b))
    assert text.startswith("### Inconclusive\n")
    assert "Lost by correct: 2</summary>" in text and "Won by correct: 5</summary>" in text
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "@" not in outside and "<script" not in outside and "<img" not in outside
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {9, 5}
