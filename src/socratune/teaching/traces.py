"""What of a trace is trained on: the pieces of the assistant's message, or the reason why there are none."""

from __future__ import annotations

from socratune.rows import Piece, Rejected, Trace
from socratune.teaching.echoes import echo

AHA = "\nAha! {hint}\n"
"""How the `iterative` format turns the teacher's hint into a thought of the model's own."""


def answer_pieces(trace: Trace, *, mask_wrong_attempts: bool = False) -> tuple[Piece, ...] | None:
    """The assistant's message to train on, or None for a row that was not solved.

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
    """What the student said last that was judged wrong; a cut-off or undecided answer is no wrong one."""
    wrong = [attempt for attempt in trace.attempts if attempt.verdict == "incorrect"]
    return Piece(wrong[-1].response, token_ids=wrong[-1].token_ids) if wrong else None


def rejection(trace: Trace, answer: str | None = None) -> Rejected | None:
    """Why a trace is not trained on, or None.

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
    if found := echo(text, row.question, hint=hint, passage=row.evidence, told=True):
        detail = f"speaks of what only the student was shown, or of an earlier attempt: {found!r}"
        return Rejected("hint_echo", detail, id=row.id)
    return None


def training_text(trace: Trace) -> str | None:
    """The assistant's message to train on as text, or None for a row that was not solved."""
    pieces = answer_pieces(trace)
    return None if pieces is None else "".join(piece.text for piece in pieces)
