"""Groups rows that ask the same: by wording, by numbers and answer, by similar text. Templates are left apart.

n-grams alone take "What is 47 * 83?" and "What is 76 * 38?" for one question and "47 times 83 = ?" for another. So rows
are joined in three steps, each over what the one before has found:

1. the same wording: Unicode form and case aside; with the same short answer, punctuation and the order of options, too;
2. the same content words or numbers, in any order, with the same short answer (the answer's template);
3. nearly the same text: Jaccard index of word 3-grams of at least 0.8, estimated by MinHash (Broder 1997, one
   permutation: Li, Owen, Zhang 2012), among rows with the same numbers and the same short answer; and a conversation
   that goes on where another one ends.

What a step joins is a group of at most `MOST_WORDINGS` wordings; a larger one is a template (a long instruction before
every question), and its rows stay as the step before left them.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from socratune.judging import (
    choice_of,
    final_answer,
    final_number,
    is_numeric_answer,
    normalise,
    numbers_in,
    options_in,
    with_digits,
)
from socratune.rows import QARow

if TYPE_CHECKING:
    import numpy as np

MOST_WORDINGS = 50
"""Nobody words one question in more ways than this. In a small data set the limit is a fifth of its wordings, but 5."""
NEAR = 0.8
"""The Jaccard index from which texts are similar: in a question of 29 words, one may differ."""
SLOTS, BAND = 64, 4
"""Values of a MinHash signature, and values per band. Texts that share a band are compared."""
EMPTY, LONGEST_TEXT = 0xFFFF, 1 << 14
_FACTOR = 0xC2B2AE3D27D4EB4F
_SHORT_ANSWER, _LONGEST_ANSWER = 8, 200
"""Words and characters of an answer that is compared as a whole."""
TELLING_DIGITS = 4
"""Numbers with this many digits in total (final zeros aside) do not share a result by chance."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_TOKEN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\\W_]+|[-+/^=<>%×÷]")
_DIGITS = re.compile(r"\d+")
_ASCII = str.maketrans(
    {chr(code): " " for code in range(128) if not chr(code).isalnum()} | {c: f" {c} " for c in "-+/^=<>%"}
)
_POWER, _PRODUCT = re.compile(r"(?<=[\d)])\*\*(?=[\d(])"), re.compile(r"(?<=[\d)])\*(?=[\d(])")
_STATED = (
    "####", "\\boxed", "nswer", "esult", "ption", "hoice", "ntwort", "rgebnis", "ösung", "éponse", "espuesta", "答案",
    "结果",
)  # fmt: skip
_OTHER_OPTIONS = re.compile(r"\b(?:above|both|neither|none|all)\b")
_EMPTY_WORDS = frozenset(
    """what which who whose whom where when why how much many is are was were do does did the a an of to in on at for
    by and with from please tell me give name find compute calculate evaluate determine work out solve result answer
    value equal equals it this that there be times multiplied multiply divided divide plus minus add added subtract
    between sum product difference x - + / = × ÷ ^""".split()  # noqa: SIM905
)


def wording_id(row: QARow) -> str:
    """Returns what the row asks, normalised: all turns before the reference answer except the system's."""
    return _name(_turns(row))


def mark(*parts: str) -> int:
    """Returns 64 bits, never 0, that identify the parts."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") or 1


def wording_of(question: str) -> int:
    """Returns the mark of a question that is all a row asks, for a search among `Marks.wording`."""
    return mark(_name([_plain(question)]))


def _turns(row: QARow) -> list[str]:
    return [_plain(turn["content"]) for turn in row.prompt if turn["role"] != "system"]


def _name(turns: list[str]) -> str:
    return "q:" + " / ".join(turns)


class Marks:
    """Holds marks that rows share if they ask the same. Rows count from 0 in the order of `add`."""

    def __init__(self) -> None:
        self._wording, self._stem = array("Q"), array("Q")  # 0: none
        self._content, self._numbers, self._fits = array("Q"), array("Q"), array("Q")
        self._signatures = bytearray()
        self._waiting: list[bytes] = []  # for their signature
        self._letters = 0  # that wait
        self._earlier: list[tuple[int, int]] = []  # a conversation's row, the wording of a part of it

    def __len__(self) -> int:
        return len(self._wording)

    def add(self, row: QARow, name: str) -> None:
        """Adds the marks of a row.

        Args:
            name: of the row, by `name_of`.
        """
        turns = _turns(row) if len(row.prompt) > 2 else [name]
        question = row.question
        listed = "A)" in question or "A." in question or "A:" in question
        options = options_in(question) if listed and len(turns) == 1 else {}
        answer = _answer(row.reference, options)
        tokens = _tokens(name[2:])
        words = _tokens(_stem(question, options)) if options else tokens
        others = sorted(map(normalise, options.values())) if options else []
        self._wording.append(mark(name))
        self._stem.append(mark("stem", *words, *others, "→", answer or "") if words else 0)
        self._content.append(_content_mark(words, answer, others) if answer else 0)
        self._numbers.append(_numbers_mark(row, answer) if answer else 0)
        self._fits.append(mark("fits", *sorted(_DIGITS.findall(name)), "→", answer or ""))
        self._add_text(tokens if len(tokens) > 4 else [])
        for end in range(1, len(turns), 2):  # a part that ends in a user's turn
            part = _name(turns[:end])
            if len(_tokens(part)) > 5:
                self._earlier.append((len(self) - 1, mark(part)))

    def _add_text(self, words: list[str]) -> None:
        text = f"{' '.join(words)} ".encode() if words else b""
        if len(text) > LONGEST_TEXT:
            text = text[: text.rfind(b" ", 0, LONGEST_TEXT) + 1]
        self._waiting.append(text)
        self._letters += len(text)
        if self._letters >= LONGEST_TEXT:
            self._sign()

    def _sign(self) -> None:
        self._signatures += _signatures(self._waiting).tobytes()
        self._waiting, self._letters = [], 0

    def groups(self) -> tuple[array[int], array[int]]:
        """Returns for every row the first row of the same wording, and the first row of the same group."""
        wordings = joined(array("q", range(len(self))), self._equal(self._wording, self._stem))
        most = min(MOST_WORDINGS, max(5, len(set(wordings)) // 5))
        groups = wordings
        for pairs in (self._equal(self._content, self._numbers), self._near()):
            wider = joined(array("q", groups), pairs)
            sizes: dict[int, int] = {}
            for at, wording in enumerate(wordings):
                if at == wording:
                    sizes[wider[at]] = sizes.get(wider[at], 0) + 1
            kept = (wide if sizes[wide] <= most else group for wide, group in zip(wider, groups, strict=True))
            groups = array("q", kept)
        return wordings, groups

    def wording(self, row: int) -> int:
        """Returns the mark of what the row asks."""
        return self._wording[row]

    def how(self, left: int, right: int) -> str:
        """Describes what two rows of a group have in common."""
        if self._wording[left] == self._wording[right] or self._stem[left] == self._stem[right] != 0:
            return "the same question"
        for marks, what in (
            (self._numbers, "the same numbers and answer"),
            (self._content, "the same words and answer"),
        ):
            if marks[left] == marks[right] != 0:
                return what
        return "nearly the same text"

    def _equal(self, *kinds: array[int]) -> Iterator[tuple[int, int]]:
        for kind in kinds:
            yield from _runs(_numpy(kind))

    def _near(self) -> Iterator[tuple[int, int]]:
        """Yields pairs of similar texts, and of conversations of which one continues the other."""
        import numpy as np

        self._sign()
        signatures = np.frombuffer(self._signatures, dtype=np.uint16).reshape(-1, SLOTS)
        fits = _numpy(self._fits)
        for band in signatures.view(np.uint64).T:  # BAND values of 16 bits are one of 64
            keys = np.where(band == np.uint64(2**64 - 1), np.uint64(0), _mixed(band ^ fits))
            pairs = np.array(list(_runs(keys, first=True)), dtype=np.int64).reshape(-1, 2)
            for some in np.array_split(pairs, len(pairs) // 4096 + 1):
                left, right = signatures[some[:, 0]], signatures[some[:, 1]]
                either = ((left != EMPTY) | (right != EMPTY)).sum(axis=1)
                both = ((left == right) & (left != EMPTY)).sum(axis=1)
                alike = (both >= NEAR * either) & (fits[some[:, 0]] == fits[some[:, 1]])
                yield from zip(*some[alike].T.tolist(), strict=True)
        if self._earlier:
            rows, marks = zip(*self._earlier, strict=True)
            every = np.concatenate([_numpy(self._wording), np.array(marks, dtype=np.uint64)])
            owner = [*range(len(self)), *rows]
            yield from ((owner[left], owner[right]) for left, right in _runs(every))


def _tokens(text: str) -> list[str]:
    """Returns words, numbers and arithmetic signs; for a script without spaces, single characters."""
    return text.translate(_ASCII).split() if text.isascii() else _TOKEN.findall(text)


def _plain(text: str) -> str:
    """Returns the text normalised and without invisible characters. A product's sign between digits is no markup."""
    if "*" in text:
        text = _POWER.sub("^", text)
        text = _PRODUCT.sub("×", text)
    return normalise(text if text.isascii() else _INVISIBLE.sub("", text))


def _answer(reference: str, options: dict[str, str]) -> str | None:
    """Returns the reference's statement if it is a number, an option's text or a few words, otherwise None."""
    last = reference.rstrip().rpartition("\n")[2]
    if len(last) > _LONGEST_ANSWER and not any(sign in reference for sign in _STATED):  # as most long texts
        return None
    statement = final_answer(reference)
    if len(statement) > _LONGEST_ANSWER:
        return None
    if options and (letter := choice_of(statement)):
        statement = options.get(letter, statement)
    if is_numeric_answer(statement) and (number := final_number(statement)) is not None:
        return str(number)
    words = _tokens(normalise(statement))
    return " ".join(words) if 0 < len(words) <= _SHORT_ANSWER else None


def _stem(question: str, options: dict[str, str]) -> str:
    """Returns a multiple-choice question without its options, normalised."""
    first = re.search(rf"\(?A[).:]\**\s+{re.escape(options['A'])}", question)
    return normalise(question[: first.start()] if first else question)


def _content_mark(words: list[str], answer: str, options: list[str]) -> int:
    """Returns a mark of a question's meaningful words in any order, or 0 if there are fewer than two."""
    content = sorted(word for word in words if word not in _EMPTY_WORDS)
    if options and _OTHER_OPTIONS.search(answer):  # such an answer says nothing without them
        content += options
    return mark("content", *content, "→", answer) if len(content) > 1 else 0


def _numbers_mark(row: QARow, answer: str) -> int:
    """Returns a mark of a question's numbers if there are several and the answer is a number, otherwise 0."""
    if not answer[-1].isdigit() or not is_numeric_answer(answer):
        return 0
    asked = " ".join(turn["content"] for turn in row.prompt if turn["role"] == "user")
    stated = numbers_in(with_digits(asked))
    sizes = (abs(number.numerator if number.denominator == 1 else number) for number in stated)  # ints sort faster
    numbers = sorted(size for size in sizes if size != 1)
    digits = sum(len(str(number).replace("/", "").rstrip("0")) for number in numbers)
    if len(numbers) < 2 or digits < TELLING_DIGITS:
        return 0
    return mark("numbers", *map(str, numbers), "→", answer)


def _signatures(texts: list[bytes]) -> np.ndarray:
    """Returns the least hash of the word 3-grams in each slot, or `EMPTY`, as an array (len(texts), SLOTS).

    Args:
        texts: words in UTF-8, each with one space behind it; together they fit into `_powers`.
    """
    import numpy as np

    values = np.full((len(texts), SLOTS), EMPTY, dtype=np.uint16)
    letters = np.frombuffer(b"".join(texts), dtype=np.uint8)
    if not len(letters):
        return values
    powers, inverses = _powers()
    sums = np.cumsum(letters * powers[: len(letters)], dtype=np.uint64)
    ends = np.flatnonzero(letters == 32)
    begins = np.concatenate(([0], ends[:-1] + 1))
    words = np.diff(sums[ends], prepend=np.uint64(0)) * inverses[begins]  # wherever a word stands
    owner = np.repeat(np.arange(len(texts)), [text.count(b" ") for text in texts])
    grams = _mixed(words[:-2] + words[1:-1] * np.uint64(0x9E3779B97F4A7C15) + words[2:] * np.uint64(_FACTOR))
    within = owner[:-2] == owner[2:]
    grams, rows = grams[within], owner[:-2][within]
    slots = rows * SLOTS + (grams >> np.uint64(58)).astype(np.int64)
    np.minimum.at(values.reshape(-1), slots, (grams >> np.uint64(16)).astype(np.uint16))
    return values


@lru_cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Returns the powers of an odd number modulo 2**64, and their inverses."""
    import numpy as np

    def all_of(factor: int) -> np.ndarray:
        return np.cumprod(np.full(2 * LONGEST_TEXT, factor, dtype=np.uint64), dtype=np.uint64)

    return all_of(_FACTOR), all_of(pow(_FACTOR, -1, 2**64))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Applies the finaliser of MurmurHash3, in which every bit of 64 depends on all."""
    import numpy as np

    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


def _numpy(values: array[int]) -> np.ndarray:
    import numpy as np

    return np.frombuffer(values, dtype=np.uint64) if values else np.empty(0, dtype=np.uint64)


def _runs(marks: np.ndarray, *, first: bool = False) -> Iterator[tuple[int, int]]:
    """Yields neighbours among the rows with the same mark (0: no mark); with `first`, also each row with the first."""
    import numpy as np

    order = np.argsort(marks, kind="stable")
    ordered = marks[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    yield from zip(order[same].tolist(), order[same + 1].tolist(), strict=True)
    if first and len(same):
        starts = np.searchsorted(ordered, ordered[same])
        yield from zip(order[starts].tolist(), order[same + 1].tolist(), strict=True)


def joined(parent: array[int], pairs: Iterable[tuple[int, int]]) -> array[int]:
    """Joins the pairs in `parent` and returns the first row of every row's group."""

    def root(row: int) -> int:
        while (above := parent[row]) != row:
            parent[row] = parent[above]
            row = parent[row]
        return row

    for pair in pairs:
        first, second = sorted(map(root, pair))
        parent[second] = first
    return array("q", map(root, range(len(parent))))
