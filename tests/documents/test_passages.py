"""Documents cut into passages: all of the text, verbatim, no larger than asked for, along its structure."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from socratune.config import DEMO_DATA
from socratune.documents.document import Document
from socratune.documents.passages import estimated_tokens, passages, sentences, token_counter

WORDS = "the lamp burns oil in winter and storm light shines Calder 31 metres".split()  # noqa: SIM905


def invented(seed: int) -> str:
    """Headings, paragraphs, lists and lines without an end, at random."""
    chance = random.Random(seed)
    parts = []
    for _ in range(chance.randint(1, 12)):
        kind = chance.random()
        words = " ".join(chance.choices(WORDS, k=chance.randint(1, 90)))
        if kind < 0.2:
            parts.append("#" * chance.randint(1, 3) + " " + words[:30].strip())
        elif kind < 0.4:
            parts.append("\n".join(f"{at}. {words[:40]}." for at in range(1, chance.randint(2, 6))))
        elif kind < 0.5:
            parts.append("x" * chance.randint(1, 900))
        else:
            parts.append(". ".join(words.split(" storm ")) + ".")
    return chance.choice(["\n\n", "\n\n\n"]).join(parts)


@pytest.mark.parametrize("seed", range(40))
def test_no_letter_is_lost_and_no_passage_too_large(seed: int) -> None:
    document = Document("d", "D", invented(seed))
    found = list(passages(document, size=64, overlap=16, count=estimated_tokens))
    covered = bytearray(len(document.text))
    for one in found:
        assert one.text == document.text[one.begin : one.end]
        assert one.id == f"d#{one.begin}-{one.end}"
        assert estimated_tokens(one.text) <= 64 * 1.25
        covered[one.begin : one.end] = b"\1" * (one.end - one.begin)
    left = "".join(letter for letter, taken in zip(document.text, covered, strict=True) if not taken)
    assert not left.strip()
    assert len({one.id for one in found}) == len(found)


def test_headings_part_passages_and_name_them() -> None:
    text = "# Boats\n\n" + "The Petrel is fast. " * 30 + "\n\n## Oars\n\n" + "Oars are of ash. " * 30
    found = list(passages(Document("d", "D", text), size=400, overlap=40, count=estimated_tokens))
    assert [one.place for one in found] == ["Boats", "Boats › Oars"]
    assert found[1].text.startswith("## Oars")


def test_headings_of_restructuredtext_are_known_and_comments_in_code_are_none() -> None:
    fill = "The Petrel is fast. " * 30
    code = "    # indented\n\n```\n\n# fenced\n\n```"
    text = f"Boats\n=====\n\n{fill}\n\nOars\n----\n\n{fill}\n\n{code}\n\nMasts\n-----\n\n{fill}"
    found = list(passages(Document("d", "D", text), size=400, overlap=0, count=estimated_tokens))
    assert [one.place for one in found] == ["Boats", "Boats › Oars", "Boats › Masts"]


def test_a_long_section_repeats_its_last_sentences() -> None:
    text = " ".join(f"Sentence number {at} is here." for at in range(60))
    found = list(passages(Document("d", "D", text), size=100, overlap=30, count=estimated_tokens))
    assert len(found) > 3
    for one, following in pairwise(found):
        assert one.begin < following.begin < one.end < following.end
        assert following.text.startswith("Sentence number")
        assert 0 < estimated_tokens(text[following.begin : one.end]) <= 30


def test_pages_are_named() -> None:
    text = "First page.\n\nSecond page."
    pages = {"pages": [0, 13]}
    (whole,) = passages(Document("d", "D", text, pages), size=100, overlap=0, count=estimated_tokens)
    assert whole.place == "pages 1–2"
    parts = list(passages(Document("d", "D", text, pages), size=3, overlap=0, count=estimated_tokens))
    assert [one.place for one in parts] == ["page 1", "page 2"]


def test_the_model_counts_where_it_is_at_hand() -> None:
    count = token_counter("demo")
    assert count is not estimated_tokens
    assert count("12 + 30 = 42") >= 5
    assert token_counter(None) is estimated_tokens
    assert (DEMO_DATA / "base" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One is here. Two is there! Is it? Yes.", 4),
        ("Dr. Holm met Mr. Vik at 6.30 p.m. in St. Anne. They left.", 2),
        ("It costs 3.50 euros. See e.g. the list.", 2),
        ("- first item\n- second item\n- third", 3),
        ("一个句子。两个句子。", 2),
        ("no end at all", 1),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(list(sentences(text))) == count
