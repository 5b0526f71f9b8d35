"""Every prompt Socratune sends, beside the parser of its reply where it has one.

The embedded base model is pre-trained on these very wordings (`scripts/pretrain_demo_base.py` imports
them), so a change here means a new demo base.
"""

from __future__ import annotations

HINT_NOTE = "Hint, for you alone: {hint}"
"""The private note of a fresh retry. It stands in the system turn, so that the answer need not mention it."""

HINT_TURN = "Hint: {hint}"
"""The user turn that follows a wrong attempt in the `iterative` dialogue."""

Chat = list[dict[str, str]]


def with_private_hint(messages: Chat, hint: str) -> Chat:
    """The question asked afresh, with the hint as a private note in the system turn.

    Args:
        messages: the conversation up to and including the question.
        hint: one hint, without any lead-in.
    """
    note = HINT_NOTE.format(hint=hint)
    if messages and messages[0]["role"] == "system":
        system = {"role": "system", "content": f"{messages[0]['content']}\n\n{note}"}
        return [system, *messages[1:]]
    return [{"role": "system", "content": note}, *messages]


def with_hint_turn(messages: Chat, attempt: str, hint: str) -> Chat:
    """The question, the wrong attempt, and the hint as the next user turn (the guide's dialogue)."""
    return [
        *messages,
        {"role": "assistant", "content": attempt},
        {"role": "user", "content": HINT_TURN.format(hint=hint)},
    ]
