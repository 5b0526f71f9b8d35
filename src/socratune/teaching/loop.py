"""Runs the student-teacher loop of one row: sample first, and hint at what sampling cannot reach."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from socratune.errors import CallError
from socratune.judging import Judge, options_in
from socratune.llm import (
    WARM,
    Chat,
    ChatModel,
    Sampling,
    with_hint_turn,
    with_private_evidence,
    with_private_hint,
    with_private_reference,
)
from socratune.rows import CUT_OFF, Attempt, Gap, Given, Judgement, Outcome, Piece, QARow, Rejected, Trace
from socratune.teaching.echoes import echo
from socratune.teaching.hints import HintRequest, Teacher, leak
from socratune.teaching.picking import Pick, pick_longest


@dataclass(frozen=True, slots=True)
class Rules:
    """Holds the rules of the loop.

    Attributes:
        attempts: samples before anyone is asked for a hint.
        enough: right ones of them, behind which no more are drawn.
        max_iterations: rounds, the first included, so one less is the number of hints.
        hint_attempts: samples per hint; the first right one is enough.
        clean_attempts: samples without hint after a hinted success (`clean` only).
        unsolved: what becomes of a row that stays unsolved: `drop`, `reference` or `rewrite`.
    """

    attempts: int = 1
    enough: int = 2
    max_iterations: int = 3
    hint_attempts: int = 1
    clean_attempts: int = 4
    thinking_format: str = "direct"
    unsolved: str = "drop"


@dataclass(frozen=True, slots=True)
class Loop:
    """Holds the participants of the loop and its rules.

    Attributes:
        sampling: of the first attempts; seeds are set per (row, attempt) from its seed.
        names: `student_model`, `teacher_model`, `judge_model` → name, for the trace.
    """

    student: ChatModel
    judge: Judge
    teacher: Teacher
    sampling: Sampling
    rules: Rules
    names: dict[str, str]
    pick: Pick = pick_longest


async def enhance_row(row: QARow, loop: Loop) -> Trace:
    """Runs one row through the loop: sample first, hint at what sampling cannot reach.

    Some samples right: one of them is chosen, and nobody is asked. None right: one try with the row's evidence tells a
    gap of knowledge (it is chosen, no hint can help) from a gap of skill, and for skill the teacher hints. A right
    answer is never doubted and an undecided one never hinted; the teacher is not asked after the last round.
    """
    state = _Row(row, loop)
    try:
        return await _enhance(state)
    except CallError as error:
        return state.trace("error", error=str(error))


async def _enhance(state: _Row) -> Trace:
    rules = state.loop.rules
    right = await state.draw(rules.attempts, enough=min(rules.enough, rules.attempts))
    state.pass_rate = len(right) / len(state.attempts)
    if right:
        chosen = right[0] if len(right) == 1 else await state.loop.pick(state.row, right)
        return state.trace("solved_first_try", chosen=chosen)
    if not any(attempt.verdict == "incorrect" for attempt in state.attempts):
        return state.trace("undecided")
    if right := await _with_evidence(state):
        return state.trace("solved_with_evidence", chosen=right[0], gap="knowledge")
    if state.attempts[-1].given == "evidence" and state.attempts[-1].verdict == "undecided":
        return state.trace("undecided")
    for _ in range(rules.max_iterations - 1):
        hint = await state.ask_teacher()
        if hint is None:
            break
        retry, before = _retry(state, hint), len(state.attempts)
        samples, needed = rules.hint_attempts, 1
        if samples > 1 and options_in(state.row.question):  # one of two is right by guessing in 44 of 100 cases
            samples, needed = max(3, samples), 2
        right = await state.draw(samples, enough=needed, given="hint", messages=retry)
        if len(right) >= needed:
            clean = state.unechoed(right, hint)
            if not clean and rules.thinking_format == "direct":  # speaks of the hint: one more draw
                clean = await state.draw(1, given="hint", messages=retry)
            return await _after_hint(state, (clean or right)[-1])
        if not any(attempt.verdict == "incorrect" for attempt in state.attempts[before:]):
            return state.trace("undecided", gap="skill")
    return await _unsolved(state)


async def _with_evidence(state: _Row) -> list[Attempt]:
    """Tries once with the row's evidence in view and returns the right answers, none without evidence."""
    if state.row.evidence is None:
        return []
    return await state.draw(1, given="evidence", messages=with_private_evidence(state.row.prompt, state.row.evidence))


async def _after_hint(state: _Row, chosen: Attempt) -> Trace:
    """Returns the trace of a hinted success. The format `clean` prefers an unaided answer if a sample finds one."""
    if state.loop.rules.thinking_format == "clean":
        unaided = await state.draw(state.loop.rules.clean_attempts, enough=1)
        chosen = unaided[0] if unaided else chosen
    return state.trace("solved_with_hint", chosen=chosen, gap="skill")


async def _unsolved(state: _Row) -> Trace:
    """Returns the trace of a row that no hint solved. For `rewrite`, the student rewords the reference answer first."""
    if state.loop.rules.unsolved == "reference":
        return state.trace("trained_on_reference", gap="skill")
    if state.loop.rules.unsolved == "rewrite":
        messages = with_private_reference(state.row.prompt, state.row.reference)
        right = await state.draw(state.loop.rules.hint_attempts, given="reference", messages=messages)
        if clean := state.unechoed(right):
            return state.trace("rewritten", chosen=clean[0], gap="skill")
    return state.trace("unsolved", gap="skill")


class _Row:
    """Holds a row on its way through the loop, with its attempts so far."""

    def __init__(self, row: QARow, loop: Loop) -> None:
        self.row = row
        self.loop = loop
        self.attempts: list[Attempt] = []
        self.hints_rejected = 0
        self.pass_rate: float | None = None

    async def draw(
        self, samples: int, *, enough: int = 1, given: Given = "question", messages: Chat | None = None
    ) -> list[Attempt]:
        """Draws up to `samples` judged answers and returns the right ones. Stops when `enough` is certain or
        impossible.
        """
        right: list[Attempt] = []
        for left in range(samples, 0, -1):
            number = len(self.attempts) + 1
            completion = await self.loop.student.generate(messages or self.row.prompt, self._sampling(number, given))
            if completion.stop != "end":
                judgement = Judgement("undecided", CUT_OFF[completion.stop])
            else:
                judgement = await self.loop.judge(self.row, completion.text)
            attempt = Attempt(
                number,
                completion.text,
                judgement.verdict,
                judgement.judged_by,
                given=given,
                token_ids=completion.token_ids,
                reason=judgement.kept_reason,
            )
            self.attempts.append(attempt)
            if judgement.verdict == "correct":
                right.append(attempt)
            if len(right) >= enough or (given == "hint" and len(right) + left - 1 < enough):
                break
        return right

    def unechoed(self, attempts: list[Attempt], hint: str | None = None) -> list[Attempt]:
        """Returns the attempts that mention neither a hint nor an earlier attempt."""
        row = self.row
        return [a for a in attempts if not echo(a.response, row.question, hint=hint, passage=row.evidence, told=True)]

    def last_wrong(self) -> int:
        """Returns the position of the newest wrong attempt made without the passage in view, which a hint is for."""
        wrong = (a.verdict == "incorrect" and a.given != "evidence" for a in self.attempts)
        return max(at for at, is_wrong in enumerate(wrong) if is_wrong)

    async def ask_teacher(self) -> str | None:
        """Returns a hint that keeps the answer secret and stores it with the attempt it is for, or returns None."""
        failed = tuple(attempt for attempt in self.attempts if attempt.verdict != "correct")
        for seed in range(2):
            hint = await self.loop.teacher(HintRequest(self.row, failed, seed))
            if hint is None:
                return None
            if not leak(hint, self.row):
                at = self.last_wrong()
                self.attempts[at] = replace(self.attempts[at], hint=hint)
                return hint
            self.hints_rejected += 1
        return None

    def trace(
        self, outcome: Outcome, *, chosen: Attempt | None = None, gap: Gap | None = None, error: str | None = None
    ) -> Trace:
        """Returns the record of the row."""
        return Trace(
            row=self.row,
            outcome=outcome,
            attempts=tuple(self.attempts),
            format=self.loop.rules.thinking_format,
            models=self.loop.names,
            hints_rejected=self.hints_rejected,
            chosen=None if chosen is None else chosen.attempt,
            pass_rate=self.pass_rate,
            gap=gap,
            error=error,
        )

    def _sampling(self, number: int, given: Given) -> Sampling:
        base = self.loop.sampling
        digest = hashlib.sha256(f"{base.seed}/{self.row.id}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:7], "big")
        if number == 1 or given in ("evidence", "reference"):
            return base.drawn(seed)
        return base.drawn(seed, max(base.temperature, WARM))


def _retry(state: _Row, hint: str) -> Chat:
    """Returns the question with the hint as a private note; for `iterative`, the guide's dialogue."""
    if state.loop.rules.thinking_format == "iterative":
        return with_hint_turn(state.row.prompt, state.attempts[state.last_wrong()].response, hint)
    return with_private_hint(state.row.prompt, hint)


# --- what of a trace is trained on ---------------------------------------------------------------------------------

AHA = "\nAha! {hint}\n"
"""The words with which the `iterative` format turns the teacher's hint into the model's own thought."""


def answer_pieces(trace: Trace, *, mask_wrong_attempts: bool = False) -> tuple[Piece, ...] | None:
    """Returns the assistant's message to train on, or None for an unsolved row.

    `direct` and `clean`: the chosen right attempt alone (STaR's rationalisation, Zelikman et al. 2022,
    arXiv:2203.14465). `iterative`: each attempt that was hinted at, the hint as the model's own "Aha!", and the right
    one.
    """
    if trace.outcome == "trained_on_reference":
        return (Piece(trace.row.reference),)
    if trace.chosen is None:
        return None
    chosen = trace.attempts[trace.chosen - 1]
    final = Piece(chosen.response, token_ids=chosen.token_ids)
    if trace.format != "iterative" or chosen.given != "hint":
        return (final,)
    pieces = []
    for attempt in trace.attempts[: trace.chosen - 1]:
        if attempt.hint is not None:
            pieces.append(Piece(attempt.response, trained=not mask_wrong_attempts))
            pieces.append(Piece(AHA.format(hint=attempt.hint)))
    return (*pieces, final)


def last_wrong_answer(trace: Trace) -> Piece | None:
    """Returns the student's last answer that was judged wrong. Cut-off and undecided answers do not count."""
    wrong = [attempt for attempt in trace.attempts if attempt.verdict == "incorrect"]
    return Piece(wrong[-1].response, token_ids=wrong[-1].token_ids) if wrong else None


def rejection(trace: Trace, answer: str | None = None) -> Rejected | None:
    """Returns why a trace is not trained on, or None.

    Args:
        answer: the words to train on where a person has edited them, also those of a row nobody solved; None takes
            those of the chosen attempt.
    """
    if trace.outcome == "trained_on_reference":
        return None
    if trace.chosen is None:
        return Rejected(trace.outcome, trace.error or "", id=trace.row.id) if answer is None else None
    chosen = trace.attempts[trace.chosen - 1]
    if chosen.given == "question" or (trace.format == "iterative" and chosen.given == "hint"):
        return None
    if chosen.given == "hint" and trace.format == "clean":
        detail = "right with the hint, but in no sample without it"
        return Rejected("not_found_unaided", detail, id=trace.row.id)
    hints = [attempt.hint for attempt in trace.attempts[: trace.chosen - 1] if attempt.hint]
    hint = hints[-1] if hints and chosen.given == "hint" else None
    text, row = chosen.response if answer is None else answer, trace.row
    if phrase := echo(text, row.question, hint=hint, passage=row.evidence, told=True):
        detail = f"speaks of what only the student was shown, or of an earlier attempt: {phrase!r}"
        return Rejected("hint_echo", detail, id=row.id)
    return None


def training_text(trace: Trace) -> str | None:
    """Returns the assistant's message to train on as text, or None for an unsolved row."""
    pieces = answer_pieces(trace)
    return None if pieces is None else "".join(piece.text for piece in pieces)
