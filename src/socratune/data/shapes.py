"""A user's row, in whichever usual shape, as a `QARow`. The only reader of other people's column names.

    a conversation   {"messages": [{"role": "user", "content": …}, …]}          the guide's, OpenAI's, TRL's
                     {"conversations": [{"from": "human", "value": …}, …]}      ShareGPT
    a pair           {"instruction": …, "input": …, "output": …}                Alpaca
                     {"prompt": …, "completion": …}                             TRL; texts, or lists of messages
                     {"question": …, "answer": …}                               and their synonyms, see ASKS and ANSWERS

Every row is recognised by its own columns; a column that holds null is not there. Columns that no shape needs go into
`metadata` untouched.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from socratune.errors import Fault, Shown
from socratune.judging import options_in
from socratune.rows import QARow, content_id

CHATS = ("messages", "conversations", "conversation")
"""Columns with a whole conversation."""
ASKS = ("question", "problem", "query", "instruction", "prompt")
"""Columns with the question of a pair; one row may have only one of them."""
ANSWERS = ("answer", "completion", "response", "output", "solution", "answerKey")
"""Columns with the reference answer of a pair; the first that a row has counts, so `answer` before `solution`."""
SYSTEMS = ("system", "system_prompt")
OPTIONS = ("choices", "options")
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
}  # fmt: skip
TOOL_ROLES = (
    "tool", "function", "ipython", "observation", "function_call", "function_response", "tool_call", "tool_response",
)  # fmt: skip
KNOWN = "messages, conversations, question and answer, prompt and completion, or instruction and output"

Turn = dict[str, str]


def shape_of(columns: Iterable[str]) -> tuple[str] | tuple[str, str] | None:
    """The columns that make a row's conversation: one of CHATS, or one of ASKS with one of ANSWERS. None: no shape.

    A conversation goes before a pair: many sets carry their last question a second time beside it.
    """
    names = set(columns)
    for chat in CHATS:
        if chat in names:
            return (chat,)
    asks = [name for name in ASKS if name in names]
    answers = [name for name in ANSWERS if name in names]
    return (asks[0], answers[0]) if len(asks) == 1 and answers else None


def parse_row(data: Any, where: str) -> QARow | list[Fault]:
    """The row, or every fault it has.

    Args:
        data: one decoded row.
        where: file and line, for the faults.
    """
    if not isinstance(data, dict):
        fix = "A JSON array of rows belongs in a file named .json." if isinstance(data, list) else ""
        return [Fault(where, 'an object like {"messages": [...]}', data, fix)]
    columns = {name: value for name, value in data.items() if value is not None}
    shape = shape_of(columns)
    if shape is None:
        return [unknown_shape(data, where)]
    faults: list[Fault] = []
    if len(shape) == 1:
        messages, used = _chat(columns[shape[0]], f"{where}, {shape[0]}", faults), {*shape}
    else:
        messages, used = _pair(columns, *shape, where, faults)
    if shape != ("messages",):
        messages, used = _behind_system(messages, used, columns)
    if not faults and (fault := _order_fault([turn["role"] for turn in messages], where)):
        faults.append(fault)
    own = columns.get("metadata", {})
    if not isinstance(own, dict):
        faults.append(Fault(where, '"metadata" to be an object', own))
    row_id = columns.get("id")
    if row_id is not None and (not isinstance(row_id, str | int) or isinstance(row_id, bool) or row_id == ""):
        faults.append(Fault(where, '"id" to be a text or a whole number', row_id))
    if faults:
        return faults
    metadata = {name: value for name, value in columns.items() if name not in used | {"id", "metadata"}} | own
    return QARow(content_id(messages) if row_id is None else str(row_id), messages, metadata)


def unknown_shape(data: Iterable[str], where: str) -> Fault:
    """The fault of a row (or a table with these columns) that has no known shape: what is known, what it has.

    Args:
        data: the row, column → value, or only the names of its columns.
        where: file and line.
    """
    empty = [str(name) for name, value in data.items() if value is None] if isinstance(data, dict) else []
    got, fix = _columns_and_fix(tuple(str(name) for name in data), frozenset(empty))
    return Fault(where, f"columns of a known shape ({KNOWN})", Shown(f"the columns {got}"), fix)


@lru_cache  # of a file with the wrong columns every row has the same ones
def _columns_and_fix(names: tuple[str, ...], empty: frozenset[str]) -> tuple[str, str]:
    """The columns as they are shown, and what to do about them."""
    shown = ", ".join(f"{name} (null)" if name in empty else name for name in names) or "none"
    known = (*CHATS, *ASKS, *ANSWERS)
    asks = [name for name in ASKS if name in names and name not in empty]
    near = {name: difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75) for name in names}
    if missing := [name for name in names if name in empty and name in known]:
        fix = f"It has no value in {' and '.join(missing)}."
    elif len(asks) > 1:
        fix = f"Leave one question: it has {' and '.join(asks)}."
    elif meant := {name: found[0] for name, found in near.items() if found and name != found[0]}:
        fix = " ".join(f'Is "{name}" meant as "{right}"?' for name, right in meant.items())
    elif asks:
        fix = f'"{asks[0]}" has no answer beside it: name that column "answer".'
    else:
        fix = ""
    return shown, fix


# --- conversations -------------------------------------------------------------------------------------------------


def _chat(items: Any, place: str, faults: list[Fault]) -> list[Turn]:
    """The turns of a conversation column, in `role` and `content` or in ShareGPT's `from` and `value`."""
    if not isinstance(items, list) or not items:
        where, _, column = place.rpartition(", ")
        faults.append(Fault(where, f'"{column}" to be a list with at least a user and an assistant turn', items))
        return []
    turns = []
    for number, item in enumerate(items):
        at = f"{place}[{number}]"
        if not isinstance(item, dict):
            faults.append(Fault(at, 'an object with "role" and "content"', item))
        elif item.get("tool_calls") or item.get("function_call") or _role(item) in TOOL_ROLES:
            fix = "Rows with tool calls cannot be enhanced; take them out, or --on-bad-row skip."
            faults.append(Fault(at, "a turn of system, user or assistant in plain text", Shown("a tool turn"), fix))
        else:
            turns.append(_turn(item, at, faults))
    return turns


def _role(item: dict[str, Any]) -> Any:
    return item.get("from") if "from" in item else item.get("role")


def _turn(item: dict[str, Any], at: str, faults: list[Fault]) -> Turn:
    sharegpt = "from" in item
    who, what = ("from", "value") if sharegpt else ("role", "content")
    said, content = item.get(who), item.get(what)
    role = SHAREGPT_ROLES.get(said) if sharegpt and isinstance(said, str) else said
    if role not in ROLES:
        known = SHAREGPT_ROLES if sharegpt else ROLES
        faults.append(
            Fault(at, f'"{who}" to be one of {", ".join(known)}', said if who in item else Shown(f"no {who}"))
        )
    if not isinstance(content, str):
        got = Shown(f"no {what}") if what not in item else content
        faults.append(Fault(at, f'"{what}" to be a text', got if got is not None else Shown("null")))
    else:
        faults += _text_faults(content, at, str(role or "message"))
    return {"role": str(role), "content": str(content)}


def _text_faults(text: str, at: str, what: str) -> list[Fault]:
    if not text.strip():
        return [Fault(at, f"a non-empty {what} text", text)]
    return [Fault(at, "a text without NUL characters", text)] if "\x00" in text else []


def _order_fault(roles: list[str], where: str) -> Fault | None:
    if roles[-1] != "assistant":
        got = Shown(f"a {roles[-1]} turn last")
        return Fault(where, "an assistant turn last, whose text is the reference answer", got)
    first = 1 if roles[0] == "system" else 0
    for number, role in enumerate(roles[first:]):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            got = Shown(f"{role} as turn {first + number + 1}: {', '.join(roles)}")
            return Fault(where, "the roles [system,] user, assistant, user, assistant, …", got)
    return None if len(roles) > first else Fault(where, "a user and an assistant turn", Shown("a system turn alone"))


def _behind_system(messages: list[Turn], used: set[str], columns: dict[str, Any]) -> tuple[list[Turn], set[str]]:
    """The conversation with the row's system column before it, where it has one and no system turn of its own."""
    for name in SYSTEMS:
        text = columns.get(name)
        if isinstance(text, str) and text.strip() and messages and messages[0]["role"] != "system":
            return [{"role": "system", "content": text}, *messages], used | {name}
    return messages, used


# --- pairs ---------------------------------------------------------------------------------------------------------


def _pair(
    columns: dict[str, Any], ask: str, answer: str, where: str, faults: list[Fault]
) -> tuple[list[Turn], set[str]]:
    """The conversation of a question and an answer column, and the columns it took."""
    used = {ask, answer}
    asked, answered = columns[ask], columns[answer]
    if options := _options(columns):
        name, labels = options
        used.add(name)
        asked, answered = _multiple_choice(asked, answered, labels, f"{where}, {answer}", faults)
    before: list[Turn] = []
    if ask == "instruction":
        asked, before = _alpaca(columns, where, used, faults)
    turns = _side(asked, "user", f"{where}, {ask}", faults)
    return [*before, *turns, *_side(answered, "assistant", f"{where}, {answer}", faults)], used


def _side(value: Any, role: str, place: str, faults: list[Fault]) -> list[Turn]:
    """One half of a pair: a text, a number, or a list of messages."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _chat(value, place, faults)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        faults.append(Fault(place, "a text", value))
        return []
    faults += _text_faults(str(value), place, role)
    return [{"role": role, "content": str(value)}]


def _alpaca(columns: dict[str, Any], where: str, used: set[str], faults: list[Fault]) -> tuple[Any, list[Turn]]:
    """Alpaca's question, `input` on a line of its own below `instruction`, and the turns of its `history`."""
    asked, more, history = columns["instruction"], columns.get("input"), columns.get("history", [])
    used |= {"input", "history"}
    if isinstance(asked, str) and isinstance(more, str) and more.strip():
        asked = f"{asked}\n{more}"
    elif more is not None and not isinstance(more, str):
        faults.append(Fault(f"{where}, input", "a text", more))
    before: list[Turn] = []
    pairs = [pair for pair in history if isinstance(pair, list) and len(pair) == 2] if isinstance(history, list) else []
    if not isinstance(history, list) or len(pairs) < len(history):
        faults.append(Fault(f"{where}, history", "a list of [question, answer] pairs", history))
    for number, (question, answer) in enumerate(pairs):
        before += _side(question, "user", f"{where}, history[{number}]", faults)
        before += _side(answer, "assistant", f"{where}, history[{number}]", faults)
    return asked, before


# --- multiple choice -----------------------------------------------------------------------------------------------


def _options(columns: dict[str, Any]) -> tuple[str, dict[str, str]] | None:
    """The column with a question's options, and they themselves by label: a list, ARC's two lists, or letter → text."""
    for name in OPTIONS:
        value = columns.get(name)
        if isinstance(value, dict) and isinstance(value.get("text"), list) and isinstance(value.get("label"), list):
            value = dict(zip(map(str, value["label"]), value["text"], strict=False))
        elif isinstance(value, list):
            value = {chr(ord("A") + number): text for number, text in enumerate(value)}
        if isinstance(value, dict) and len(value) > 1 and not any(isinstance(t, dict | list) for t in value.values()):
            return name, {str(label): str(text) for label, text in value.items()}
    return None


def _multiple_choice(
    asked: Any, answered: Any, labels: dict[str, str], place: str, faults: list[Fault]
) -> tuple[Any, Any]:
    """The question with its options below it (unless it lists them itself), and the right one as `B) text`.

    Args:
        answered: the right option's number from 0, its label, or its text.
        labels: the options by label.
    """
    texts = list(labels.values())
    letters = [chr(ord("A") + number) for number in range(len(texts))]
    if isinstance(answered, int) and not isinstance(answered, bool) and 0 <= answered < len(texts):
        right = answered
    elif str(answered) in labels:
        right = list(labels).index(str(answered))
    elif answered in texts:
        right = texts.index(answered)
    else:
        faults.append(Fault(place, f"one of the options {', '.join(labels)}, its text or its number from 0", answered))
        return asked, answered
    if isinstance(asked, str) and not options_in(asked):
        lines = [f"{letter}) {text}" for letter, text in zip(letters, texts, strict=True)]
        asked = "\n".join([asked, *lines])
    return asked, f"{letters[right]}) {texts[right]}"
