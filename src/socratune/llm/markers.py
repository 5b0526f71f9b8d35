"""Changes control tokens in texts for a server that might read them as turns.

In this process a text never becomes a control token (`inference.controls`). What a server does with `<|im_end|>` in a
question is not known here: most tokenize it as the end of the turn. A blank behind its first letter makes it a text
to any tokenizer, and to whoever reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from socratune.llm.base import Chat

Find = Callable[[str], list[str]]
"""Returns the control tokens in a text as they are written there."""

_MARKERS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|<(?:start|end)_of_(?:turn|image)>|<(?:bos|eos|pad|unk|mask)>|</?s>|"
    r"<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG)\]"
)
"""Control tokens of the families served most: ChatML, Llama, Mistral, Gemma, Phi, DeepSeek, Command, gpt-oss."""


def usual_markers(text: str) -> list[str]:
    """Returns the control tokens of common model families in a text."""
    return _MARKERS.findall(text)


def spelt_out(marker: str) -> str:
    """Returns a control token as it is sent."""
    return f"{marker[0]} {marker[1:]}"


def without_markers(messages: Chat, find: Find) -> tuple[Chat, str | None]:
    """Returns the conversation without control tokens and its first one, or the same conversation if it has none."""
    first, turns = None, []
    for turn in messages:
        text = turn["content"]
        for marker in dict.fromkeys(find(text)):
            first = first or marker
            text = text.replace(marker, spelt_out(marker))
        turns.append({**turn, "content": text})
    return (messages, None) if first is None else (turns, first)
