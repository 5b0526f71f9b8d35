"""Reads conversations as people write them: `role` and `content`, `from` and `value`, texts in parts."""

from __future__ import annotations

from typing import Any

from socratune.data.columns import decoded, is_blank, text_faults
from socratune.errors import Fault, Shown

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
}  # fmt: skip
TOOL_ROLES = (
    "tool", "function", "ipython", "observation", "function_call", "function_response", "tool_call", "tool_response",
    "tool_calls", "tool_result",
)  # fmt: skip
TOOL_PARTS = ("tool_use", "tool_result", "tool_call", "function_call", "function_call_output")
TEXT_PARTS = (None, "text", "input_text", "output_text")
WHO, WHAT = ("role", "from"), ("content", "value", "text")
LEARNT = ("weight", "train", "training")
"""Keys of a turn by which OpenAI and axolotl exclude it from the loss."""
_TOOLS = Shown("a tool turn")
_NO_TOOLS = "Rows with tool calls cannot be enhanced; take them out, or --on-bad-row skip."

Turn = dict[str, str]


def is_message(value: Any) -> bool:
    """Returns True if a value is a turn of a conversation or is meant as one."""
    return isinstance(value, dict) and any(name in value for name in WHO) and any(name in value for name in WHAT)


def messages_in(value: Any) -> list[Any] | None:
    """Returns the turns in a value (a list, one turn, their JSON, or a table of columns), or None without turns."""
    value = decoded(value)
    if isinstance(value, dict) and is_message(value):
        lists = [column for column in value.values() if isinstance(column, list)]
        if lists and all(isinstance(value.get(name), list | None) for name in WHO):  # as `datasets` stores a Sequence
            return [
                {name: column[at] for name, column in value.items() if isinstance(column, list) and at < len(column)}
                for at in range(max(map(len, lists)))
            ]
        return [value]
    return value if isinstance(value, list) and any(is_message(item) for item in value) else None


def read_chat(items: Any, place: str, faults: list[Fault]) -> list[Turn]:
    """Returns the turns of a conversation column. An empty system turn is dropped.

    Args:
        place: file, line and column.
        faults: gets what is wrong.
    """
    found = messages_in(items) or items
    if not isinstance(found, list) or not found:
        where, _, column = place.rpartition(", ")
        faults.append(Fault(where, f'"{column}" to be a list with at least a user and an assistant turn', items))
        return []
    turns, learnt = [], True
    for number, item in enumerate(found):
        at = f"{place}[{number}]"
        if not isinstance(item, dict):
            faults.append(Fault(at, 'an object with "role" and "content"', item))
        elif _is_tool(item):
            faults.append(Fault(at, "a turn of system, user or assistant in plain text", _TOOLS, _NO_TOOLS))
        elif turn := _turn(item, at, faults):
            turns.append(turn)
            learnt = not any(item.get(name) is not None and item[name] in (0, False) for name in LEARNT)
    if turns and turns[-1]["role"] == "assistant" and not learnt:
        fix = "Take the row out, or give the turn the weight 1."
        got = Shown("one that is marked as not to be learnt (weight 0)")
        faults.append(Fault(f"{place}[{len(found) - 1}]", "an assistant turn last that may be learnt", got, fix))
    return turns


def _is_tool(item: dict[str, Any]) -> bool:
    if any(not is_blank(decoded(item.get(name))) for name in ("tool_calls", "function_call", "tool_call")):
        return True
    return any(isinstance(item.get(name), str) and item[name].strip().lower() in TOOL_ROLES for name in WHO)


def _turn(item: dict[str, Any], at: str, faults: list[Fault]) -> Turn | None:
    """Returns one turn, or None for an empty system turn or if its place holds no usable turn."""
    who, said = _given(item, WHO, at, faults)
    what, content = _given(item, WHAT, at, faults)
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        got = Shown(f"no {who}") if who not in item else said if said is not None else Shown("null")
        faults.append(Fault(at, f'"{who}" to be one of {", ".join(ROLES)}', got))
    if isinstance(content, list | dict) and content:
        content = _joined(content, at, faults)
        if content is None:
            return None
    if role == "system" and is_blank(content):
        return None
    if not isinstance(content, str):
        got = Shown(f"no {what}") if what not in item else content
        faults.append(Fault(at, f'"{what}" to be a text', got if got is not None else Shown("null")))
    else:
        faults += text_faults(content, at, role or "message")
    return {"role": str(role), "content": str(content)}


def _given(item: dict[str, Any], names: tuple[str, ...], at: str, faults: list[Fault]) -> tuple[str, Any]:
    """Returns the name of the key that a turn fills, and its value. Tables of several sources leave other keys null."""
    there = [name for name in names if name in item]
    filled = [name for name in there if not is_blank(item[name])]
    if len(filled) > 1 and names is WHO and len({ROLES.get(str(item[name]).lower(), name) for name in filled}) > 1:
        got = Shown(" and ".join(f"{name} {item[name]!r}" for name in filled))
        faults.append(Fault(at, "one role", got))
    if len(filled) > 1 and names is WHAT and any(item[name] != item[filled[0]] for name in filled[1:]):
        got = Shown(" and ".join(filled))
        faults.append(Fault(at, "one text", got, f"They differ; leave {filled[0]}."))
    if not there:  # the usual partner of the other key
        other = any(name in item for name in ("from", "value"))
        there = [("from", "value")[names is WHAT] if other else names[0]]
    name = (filled or there)[0]
    return name, item.get(name)


def _joined(parts: list[Any] | dict[str, Any], at: str, faults: list[Fault]) -> str | None:
    """Joins a content's parts, each on its own line unless there is a space between them. None stands for a fault."""
    text = ""
    for part in [parts] if isinstance(parts, dict) else parts:
        kind, piece = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, part)
        if isinstance(kind, str) and kind in TOOL_PARTS:
            faults.append(Fault(at, "a turn of system, user or assistant in plain text", _TOOLS, _NO_TOOLS))
            return None
        if kind not in TEXT_PARTS or not isinstance(piece, str):
            shown = Shown(f"a part of the type {kind}") if isinstance(kind, str) and kind not in TEXT_PARTS else part
            fix = "Only text can be asked and trained on: take rows with images, sound or files out."
            faults.append(Fault(at, "text parts alone", shown, fix))
            return None
        between = "" if not text or text[-1].isspace() or piece[:1].isspace() or not piece else "\n"
        text += between + piece
    return text


def order_fault(roles: list[str], where: str) -> Fault | None:
    """Returns what is wrong with the order of a conversation's turns, or None."""
    if not roles or roles[-1] != "assistant":
        got = Shown(f"a {roles[-1]} turn last" if roles else "no turn")
        fix = "Write its answer behind it, or take it off."
        return Fault(where, "an assistant turn last, whose text is the reference answer", got, fix)
    first = 1 if roles[0] == "system" else 0
    for number, role in enumerate(roles[first:]):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            got = Shown(f"{role} as turn {first + number + 1}: {', '.join(roles)}")
            twice = number + first > 0 and role == roles[first + number - 1]
            fix = f"Join the two {role} turns to one." if twice else "A question comes first."
            return Fault(where, "the roles [system,] user, assistant, user, assistant, …", got, fix)
    return None if len(roles) > first else Fault(where, "a user and an assistant turn", Shown("a system turn alone"))
