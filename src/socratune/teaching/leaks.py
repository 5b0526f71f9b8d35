"""Measures by the student's own probabilities whether a hint gives the answer away. It asks no other model.

1. Forced answer: how far the hint makes the answer probable with no reasoning before it. A good hint changes the way
   to the answer, not what the student would blurt out.
2. Hint alone: the same without the question. Only a hint that holds the answer can do that.
3. Reliance: r_t = log p(y_t | question, hint) - log p(y_t | question) over a right answer y given under the hint. HiLL
   (arXiv:2604.00698) sums it over y and calls little reliance good. A strategy hint has much of it, too, but on the
   first tokens (the decision how to begin), and a spoiler on the tokens of the answer: so what counts here is the
   answer's share.

Each is a share between 0 and 1; their mean is the score of the hint.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Event
from typing import Any

from socratune.inference import prompt_ids
from socratune.judging import choice_of, final_answer, loose_numbers_in, options_in
from socratune.llm import Chat, with_private_hint
from socratune.rows import QARow, Trace
from socratune.teaching.hints import result_in, secret_words

SPOILS_FROM = 0.4
"""A hint with this score gives the answer away. With 100 hints of a class on the embedded base (`benchmarks/leaks.py`)
and on a text base of 5.6 M parameters, strategy hints scored at most 0.32 and stated answers at least 0.48.
"""
HEAD_TOKENS = 8
"""The number of first tokens of an answer, where a strategy hint works."""

_LONGEST_ANSWER = 2048  # tokens; the reliance over a longer one is not measured, as its logits take too much memory
LONGEST_STATEMENT = 12  # words; a longer reference may hold its reasoning, which must not be forced with the answer
ANSWER_LEAD = "The answer is "
NO_QUESTION = "What is the answer?"
"""The text instead of the question if the hint is shown alone."""


@dataclass(frozen=True, slots=True)
class HintUse:
    """Holds a hint on a row. `response` is a right answer given under the hint, or None."""

    row: QARow
    hint: str
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Reliance:
    """Measures in nats where a right answer depends on the hint.

    Attributes:
        head: on its first `HEAD_TOKENS` tokens, the answer's own not counted.
        answer: on the tokens that bear the answer.
        total: on all tokens (HiLL's measure).
        answer_share: of what the hint makes more probable, how much is the answer; 0 to 1.
    """

    head: float
    answer: float
    total: float
    answer_share: float


@dataclass(frozen=True, slots=True)
class HintMeasure:
    """Holds what the student's probabilities show about one hint.

    Attributes:
        forced_gain: nats by which the hint raises log p(answer) with no reasoning before it.
        forced_share: how much of the answer's surprise that takes away; 0 to 1.
        probe_gain, probe_share: the same without the question.
        reliance: None where no right answer was given under the hint.
    """

    row_id: str
    hint: str
    forced_gain: float
    forced_share: float
    probe_gain: float
    probe_share: float
    reliance: Reliance | None

    @property
    def score(self) -> float:
        """The mean of the shares, from 0 to 1."""
        shares = [self.forced_share, self.probe_share] + ([self.reliance.answer_share] if self.reliance else [])
        return sum(shares) / len(shares)

    @property
    def spoils(self) -> bool:
        """True if the hint gives the answer away."""
        return self.score >= SPOILS_FROM


class MeasuringStopped(Exception):
    """Ends the measuring because nobody waits for it any more."""


def measure_hints(
    model: Any, tokenizer: Any, uses: Sequence[HintUse], *, stopped: Event | None = None
) -> list[HintMeasure]:
    """Returns the measures of each hint in order. A hint costs four forward passes, or six with a right answer.

    Args:
        model: the student, a transformers causal language model in eval mode.
        tokenizer: a fast one, whose offsets tell which tokens bear the answer.
        stopped: set from another thread, it ends the work before the next batch.

    Raises:
        MeasuringStopped: it was set.
    """
    texts = [list(_texts(use, tokenizer)) for use in uses]
    rows = [(prompt, text.ids) for some in texts for text in some for prompt in (text.prompt, text.hinted_prompt)]
    scores = iter(log_probabilities(model, rows, stopped))
    measures = []
    for use, some in zip(uses, texts, strict=True):
        forced, probe, *answers = [_Scored(next(scores), next(scores), text.bears) for text in some]
        measures.append(
            HintMeasure(
                row_id=use.row.id,
                hint=use.hint,
                forced_gain=forced.gain,
                forced_share=forced.share_of_surprise,
                probe_gain=probe.gain,
                probe_share=probe.share_of_surprise,
                reliance=answers[0].reliance if answers else None,
            )
        )
    return measures


def leak_rate(measures: Sequence[HintMeasure]) -> float | None:
    """Returns the share of hints that give the answer away, or None if nothing was measured."""
    return sum(measure.spoils for measure in measures) / len(measures) if measures else None


def hint_uses(traces: Iterable[Trace], *, most: int = 200, seed: int = 0) -> list[HintUse]:
    """Returns at most `most` hints of finished traces, chosen by a seeded hash. Traces may be streamed."""

    def order(use: HintUse) -> str:
        return sha256(f"{seed}/{use.row.id}/{use.hint}".encode()).hexdigest()

    return heapq.nsmallest(most, (use for trace in traces for use in _uses(trace)), key=order)


def _uses(trace: Trace) -> list[HintUse]:
    uses: list[HintUse] = []
    for attempt in trace.attempts:
        if uses and attempt.given == "hint" and attempt.verdict == "correct":
            uses[-1] = HintUse(trace.row, uses[-1].hint, attempt.response)
        if attempt.hint is not None:
            uses.append(HintUse(trace.row, attempt.hint))
    return uses


# --- what is scored ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    """Holds a text, the prompts without and with the hint, and the tokens that bear the answer."""

    prompt: list[int]
    hinted_prompt: list[int]
    ids: list[int]
    bears: list[bool]


def _texts(use: HintUse, tokenizer: Any) -> Iterator[_Text]:
    """Returns the forced answer behind the question and alone, and the answer given under the hint, if any."""
    row = use.row
    alone = [*(turn for turn in row.prompt[:1] if turn["role"] == "system"), {"role": "user", "content": NO_QUESTION}]
    yield _text(row.prompt, forced_answer(row), use, tokenizer)
    yield _text(alone, _stated(_bare_answer(row)), use, tokenizer)
    if use.response and len((answered := _text(row.prompt, use.response, use, tokenizer)).ids) <= _LONGEST_ANSWER:
        yield answered


def _text(chat: Chat, text: str, use: HintUse, tokenizer: Any) -> _Text:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = answer_spans(text, use.row)
    bears = [any(begin < end and start < stop for start, end in spans) for begin, stop in encoded["offset_mapping"]]
    hinted = with_private_hint(chat, use.hint)
    return _Text(prompt_ids(tokenizer, chat), prompt_ids(tokenizer, hinted), encoded["input_ids"], bears)


def forced_answer(row: QARow) -> str:
    """Returns the answer without reasoning: the reference if it is one short statement, otherwise the bare answer."""
    reference, bare = row.reference.strip(), _bare_answer(row)
    short = len(reference.split()) <= LONGEST_STATEMENT and reference.count("=") <= 1 and "\n" not in reference
    return reference if short and len(bare) < len(reference.rstrip(".")) else _stated(bare)


def _stated(bare: str) -> str:
    """Turns a few words into a sentence. Longer texts already are sentences."""
    return ANSWER_LEAD + bare if len(bare.split()) <= 3 else bare


def _bare_answer(row: QARow) -> str:
    return result_in(final_answer(row.reference)).strip().rstrip(".")


def answer_spans(text: str, row: QARow) -> list[tuple[int, int]]:
    """Returns the spans of a text that bear the row's answer: its numbers and words that are new, or its letter.

    A text with none of them bears it in its final statement.
    """
    answer = _bare_answer(row)
    letter = choice_of(answer) if options_in(row.question) else None
    numbers = loose_numbers_in(answer) - loose_numbers_in(row.question)
    words = {word.casefold() for word in secret_words(answer, row.question)}
    spans = []
    for match in re.finditer(r"\d+(?:[.,]\d+)*|\w+", text):
        word = match.group()
        if loose_numbers_in(word) & numbers or word.casefold() in words or word == letter:
            spans.append(match.span())
    if spans:
        return spans
    statement = final_answer(text)
    start = text.rfind(statement)
    return [(start, start + len(statement))]


# --- shares --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scored:
    """Holds the log p of a text's tokens without and with the hint, and which tokens bear the answer."""

    plain: list[float]
    hinted: list[float]
    bears: list[bool]

    @property
    def gains(self) -> list[float]:
        return [hinted - plain for hinted, plain in zip(self.hinted, self.plain, strict=True)]

    @property
    def gain(self) -> float:
        """Nats by which the hint raises the tokens that bear the answer."""
        return self._on_answer(self.gains)

    @property
    def share_of_surprise(self) -> float:
        surprise = -self._on_answer(self.plain)
        return min(max(self.gain, 0.0) / max(surprise, 1.0), 1.0)

    @property
    def reliance(self) -> Reliance:
        raised = [max(gain, 0.0) for gain in self.gains]
        head = list(zip(self.gains, self.bears, strict=True))[:HEAD_TOKENS]
        return Reliance(
            head=sum(gain for gain, bears in head if not bears),
            answer=self.gain,
            total=sum(self.gains),
            answer_share=self._on_answer(raised) / max(sum(raised), 1.0),
        )

    def _on_answer(self, values: list[float]) -> float:
        return sum(value for value, bears in zip(values, self.bears, strict=True) if bears)


# --- log-probabilities ---------------------------------------------------------------------------------------------

MAX_BATCH_TOKENS = 4096
"""Positions of a batch, padding included. This bounds the memory of the logits."""

Ids = Sequence[int]


def log_probabilities(model: Any, rows: Sequence[tuple[Ids, Ids]], stopped: Event | None = None) -> list[list[float]]:
    """Returns for every row the log p of each token of its continuation, in nats.

    Args:
        model: a transformers causal language model in eval mode; may be a PEFT model.
        rows: (ids of the prompt, ids of the continuation); neither is empty.
        stopped: as for `measure_hints`.
    """
    import torch

    with torch.inference_mode():
        scores: list[list[float]] = [[] for _ in rows]
        for batch in _batches(rows):
            if stopped is not None and stopped.is_set():
                raise MeasuringStopped
            lines = [torch.tensor([*rows[at][0], *rows[at][1]], device=model.device) for at in batch]
            ids = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True)  # (B, T)
            lengths = torch.tensor([len(line) for line in lines], device=model.device)
            mask = (torch.arange(ids.shape[1], device=model.device) < lengths[:, None]).long()
            first = min(len(rows[at][0]) for at in batch) - 1  # no logits are needed before it
            out = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first)
            for line, at in enumerate(batch):
                prompt, continuation = rows[at]
                logits = out.logits[line, len(prompt) - 1 - first :][: len(continuation)].float()  # (T, V)
                targets = torch.tensor(continuation, device=logits.device)
                scores[at] = (-torch.nn.functional.cross_entropy(logits, targets, reduction="none")).tolist()
    return scores


def _batches(rows: Sequence[tuple[Ids, Ids]]) -> list[list[int]]:
    """Returns batches of row numbers. Rows of similar length share a batch."""
    batches: list[list[int]] = []
    for length, at in sorted((len(prompt) + len(continuation), at) for at, (prompt, continuation) in enumerate(rows)):
        if batches and (len(batches[-1]) + 1) * length <= MAX_BATCH_TOKENS:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches
