"""Writes an Ollama Modelfile with the tokenizer's chat template in Go's template language.

A template is taken over only where its words around the turns, put together by our rules, give the tokenizer's own
text for whole conversations. Where they do not (a default system turn, tools), Ollama's own recognition is left to it.
"""

from __future__ import annotations

import json
from typing import Any

from socratune.inference import end_of_turn_id

_MARKS = ("Xq1sys", "Xq2ask", "Xq3say", "Xq4ask", "Xq5say")


def modelfile(tokenizer: Any, source: str, *, system: str | None, sampling: dict[str, Any]) -> str:
    """Returns the Modelfile's text.

    Args:
        source: of FROM: a GGUF file or a folder with safetensors, relative to the Modelfile.
        system: the system turn of all training rows.
        sampling: the base's generation_config.
    """
    lines = ["# The adapter is merged into these weights, so there is no ADAPTER line.", f"FROM {source}", ""]
    template = go_template(tokenizer)
    if template is None:
        lines += [
            "# No TEMPLATE: this chat template has parts that are not turns. Ollama reads it from the model and",
            "# uses its own form of templates that it knows. Check `ollama show --template` before you trust it.",
        ]
    else:
        lines.append(f'TEMPLATE """{template}"""')
    if system is not None and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    lines.append(f"PARAMETER stop {json.dumps(tokenizer.decode([end_of_turn_id(tokenizer)]))}")
    known = [name for name in ("temperature", "top_p", "top_k") if isinstance(sampling.get(name), int | float)]
    lines += [f"PARAMETER {name} {sampling[name]}" for name in known]
    return "\n".join(lines) + "\n"


def go_template(tokenizer: Any) -> str | None:
    """Returns the chat template for Ollama's `.Messages`, or None if words around turns cannot express it."""
    try:
        words = _words(tokenizer)
        if words is None or not all(_put_together(words, turns) == _own(tokenizer, turns) for turns in _probes()):
            return None
    except Exception:  # a template may refuse a conversation in any way it likes
        return None
    roles = []
    for word, role in (("if", "system"), ("else if", "user"), ("else if", "assistant")):
        before, after = (_literal(part) for part in words[role])
        roles.append(f'{{{{ {word} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}')
    return "{{ range .Messages }}" + "".join(roles) + "{{ end }}{{ end }}" + _literal(words["begin"][0])


def _literal(text: str) -> str:
    """Returns text that Go writes unchanged, line ends included: a JSON string is a valid Go string."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _own(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """Returns the conversation as the tokenizer writes it, without the first token, which Ollama adds."""
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=turns[-1]["role"] == "user")
    return text.removeprefix(tokenizer.bos_token or "")


def _turns(*roles: str) -> list[dict[str, str]]:
    marks = {"system": iter(_MARKS[:1]), "user": iter(_MARKS[1::2]), "assistant": iter(_MARKS[2::2])}
    return [{"role": role, "content": next(marks[role])} for role in roles]


def _probes() -> list[list[dict[str, str]]]:
    """Returns conversations with and without a system turn, up to the first and the second question."""
    whole = ("system", "user", "assistant", "user")
    return [_turns(*whole[start:end]) for start in (0, 1) for end in (2, 4)]


def _words(tokenizer: Any) -> dict[str, tuple[str, str]] | None:
    """Returns the text before and after a turn, by role. `begin` is the text that the assistant's answer follows."""
    whole = _own(tokenizer, _turns("system", "user", "assistant", "user", "assistant"))
    parts, rest = [], whole
    for mark in _MARKS:
        part, found, rest = rest.partition(mark)
        if not found:
            return None
        parts.append(part)
    ask_before, _, begin = _own(tokenizer, _turns("user")).partition(_MARKS[1])
    if not parts[1].endswith(ask_before) or not parts[3].endswith(ask_before):
        return None
    ask_after = max((begin[:end] for end in range(len(begin) + 1) if parts[2].startswith(begin[:end])), key=len)
    return {
        "system": (parts[0], parts[1].removesuffix(ask_before)),
        "user": (ask_before, ask_after),
        "assistant": (parts[2].removeprefix(ask_after), parts[3].removesuffix(ask_before)),
        "begin": (begin.removeprefix(ask_after), ""),
    }


def _put_together(words: dict[str, tuple[str, str]], turns: list[dict[str, str]]) -> str:
    """Returns a conversation as the Go template writes it."""
    text = "".join(words[turn["role"]][0] + turn["content"] + words[turn["role"]][1] for turn in turns)
    return text + words["begin"][0] if turns[-1]["role"] == "user" else text
