"""What Hypothesis draws for each target: mostly what people and servers send, with something wrong in it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from socratune.config import RunConfig, settings_of
from socratune.data.options import OPTIONS
from socratune.data.shapes import ANSWERS, ASKS, CHATS, SYSTEMS

anything = st.text(max_size=40)
halves = st.text(st.characters(codec=None), max_size=12)
"""With halves of surrogate pairs, which JSON can escape."""
WORDS = [
    "the",
    "answer",
    "is",
    "not",
    "yes",
    "no",
    "true",
    "false",
    "3",
    "-3",
    "3.10",
    "3,10",
    "(2,5)",
    "[0,1]",
    "{1;2}",
    "1/2",
    "50%",
    "$5",
    "2-",
    "1e9",
    "1e999",
    "0x1f",
    "½",
    "²",
    "×",
    "÷",
    "√",
    "π",
    "∞",
    "A",
    "B)",
    "(C)",
    "D.",
    "option",
    "because",
    "or",
    "and",
    "12:30",
    "0:1",
    "1.000,5",
    "1'000",
    "two",
    "twelve",
    "dozen",
    "million",
    "km",
    "°C",
    "m/s",
    "\\frac{1}{2}",
    "\\boxed{3}",
    "$x=2$",
    "**",
    "`a`",
    "<think>",
    "</think>",
    "<|im_end|>",
    "x=2",
    "x^2",
    "x",
    "=",
    "=",
    "±",
    "<",
    ">",
    '{"correct":',
    "true}",
    "是",
    "否",
    "三",
    "١٢",
    "İ",
    "ﬁ",
    "́",
    "\u200b",
    "\n",
    "\t",
    "...",
    ";",
    ":",
    ",",
    ".",
    "?",
    "!",
]
words = st.lists(st.sampled_from(WORDS), max_size=8).flatmap(
    lambda chosen: st.sampled_from([" ", "", ", ", "\n"]).map(lambda between: between.join(chosen))
)
text = st.one_of(words, anything, st.tuples(words, anything).map("".join))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, halves)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | st.sampled_from(WORDS), inner, max_size=4),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(way for key, one in inner for way in places(one, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    key, *rest = path
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    changed = [(name, replaced(one, tuple(rest), new) if name == key else one) for name, one in pairs]
    return dict(changed) if isinstance(value, dict) else [one for _, one in changed]


def spoiled(*good: Any, by: Any) -> Any:
    """One of the good values with something else at one of its places."""
    found = st.sampled_from([(value, place) for value in good for place in places(value)])
    return st.tuples(found, by).map(lambda drawn: replaced(*drawn[0], drawn[1]))


# --- rows ----------------------------------------------------------------------------------------------------------

ROLES = ("system", "user", "assistant", "human", "gpt", "tool", "developer", "")
contents = st.one_of(text, values, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=2))
turns = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": contents}),
    st.fixed_dictionaries({"from": st.sampled_from(ROLES), "value": contents}),
    st.dictionaries(st.sampled_from(("role", "content", "from", "value", "tool_calls", "name")), values, max_size=4),
)
said = text.filter(str.strip)
proper = st.lists(st.tuples(said, said), min_size=1, max_size=2).map(
    lambda pairs: [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
)
chats = st.one_of(proper, st.lists(turns, max_size=4), values)
labelled = st.fixed_dictionaries({"label": st.sampled_from("ABCD123"), "text": text})
options = st.one_of(
    st.lists(text, max_size=5),
    st.lists(labelled, max_size=4),
    st.dictionaries(st.sampled_from("ABCDabcd1234"), text, max_size=4),
    st.fixed_dictionaries({"text": st.lists(text, max_size=4), "label": st.lists(st.sampled_from("ABCD"), max_size=4)}),
    values,
)
MORE = {
    **dict.fromkeys(CHATS, chats),
    **dict.fromkeys(ASKS, text | chats | values),
    **dict.fromkeys(ANSWERS, text | st.sampled_from("ABCD0123") | values),
    **dict.fromkeys(OPTIONS, options),
    **dict.fromkeys(SYSTEMS, text | values),
    "input": text | values,
    "history": st.lists(st.lists(text, max_size=2), max_size=2) | values,
    "id": values,
    "metadata": st.dictionaries(st.sampled_from(("source", "evidence", "thinking", "enhancement")), values) | values,
}
pairs = st.fixed_dictionaries(
    {"question": text, "answer": text | st.sampled_from("ABCD0123")}, optional={"choices": options, "options": options}
)
GOOD_ROWS = (
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
        ]
    },
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "id": 1},
    {"question": "q", "choices": ["red", "blue"], "answer": "A", "metadata": {"source": "s"}},
    {"question": "q", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
    {"instruction": "i", "input": "x", "output": "o", "history": [["q", "a"]], "system": "s"},
    {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
    {
        "id": "i",
        "fields": {"text": "q"},
        "metadata": {"source": "s"},
        "suggestions": {"say": {"value": "a", "score": 0.5, "agent": "m"}},
        "responses": {"say": [{"value": "b", "user_id": "u", "status": "submitted"}]},
        "status": "completed",
    },
    {"id": "i", "status": "completed", "text": "q", "say.responses": ["b"], "say.responses.status": ["draft"]},
    {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"role": "user", "parts": [{"text": "q"}]}]},
)
records = st.one_of(
    spoiled(*GOOD_ROWS, by=values | options | chats),
    st.fixed_dictionaries({"messages": chats}, optional={"id": values, "metadata": MORE["metadata"]}),
    pairs,
    st.sampled_from(sorted(MORE)).flatmap(lambda name: st.fixed_dictionaries({name: MORE[name]}, optional=MORE)),
    st.fixed_dictionaries({}, optional=MORE),
    values,
)
NAMES = ("rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.jsonl.gz", "rows.json.gz", "rows.parquet", "rows")
raw = st.binary(max_size=80)
pieces = st.lists(
    st.sampled_from(
        [
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b",",
            b":",
            b"\\",
            b"\\ud800",
            b"null",
            b"NaN",
            b"1e999",
            b"\n",
            b"\r",
            b"\t",
            b";",
            b"\x00",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\x1f\x8b\x08",
            b"PAR1",
            b'"question"',
            b'"answer"',
            b"question,answer\n",
            b"a,b\n",
            b'{"messages":',
            b'{"question":"a","answer":"b"}',
            b"[" * 5000,
            b"9" * 5000,
        ]
    ),
    max_size=12,
).map(b"".join)
rows = st.one_of(
    st.fixed_dictionaries({"name": st.sampled_from(NAMES[:6]), "records": st.lists(records, min_size=1, max_size=3)}),
    st.fixed_dictionaries(
        {"name": st.sampled_from(NAMES), "data": (raw | pieces).map(lambda data: data.decode("latin-1"))}
    ),
)

# --- settings ------------------------------------------------------------------------------------------------------

KEYS = sorted(setting.key for setting in settings_of(RunConfig) if setting.key != "output")
LEAVES = sorted({part for key in KEYS for part in key.split(".")})
names = st.one_of(
    st.sampled_from(KEYS), st.lists(st.sampled_from(LEAVES) | text, min_size=1, max_size=3).map(".".join), text
)
plain = st.one_of(
    scalars.map(str),
    st.sampled_from(
        [
            "demo",
            "null",
            "~",
            "true",
            "0",
            "-1",
            "1e999",
            ".inf",
            ".nan",
            "[]",
            "{}",
            "[1, a]",
            "{a: 1}",
            "{a: {b: 1}}",
            "a: b: c",
            "!!python/none",
            "!!python/object:os.system {}",
            "!!binary x",
            "2024-01-01",
            "12:30",
            "0x1f",
            "'",
            '"',
            "&a [*a]",
            "*a",
            "<<: 1",
            "unlimited",
            "auto",
            "local",
            "/",
            "/dev/null",
            ".",
            "../..",
            "org/name",
            "python:a.py:f",
            "openai/m",
            "1_000",
            "0o17",
            "? a",
            "- a",
            "|",
            ">",
            "%",
            "@",
            "`",
            "\ud800",
        ]
    ),
    values.map(str),
)
layers = st.recursive(plain, lambda inner: st.dictionaries(st.sampled_from(LEAVES), inner, max_size=3), max_leaves=6)


def as_yaml(value: Any, depth: int = 0) -> str:
    """Mappings in YAML's block form; everything else stands there as it was drawn, right or wrong."""
    if not isinstance(value, dict):
        return f" {value}\n"
    lines = "".join(f"{'  ' * depth}{key}:{as_yaml(inner, depth + 1)}" for key, inner in value.items())
    return f"\n{lines}" if depth else lines


settings = st.one_of(
    st.fixed_dictionaries({"set": st.lists(st.tuples(names, plain).map("=".join) | text, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"yaml": st.dictionaries(st.sampled_from(LEAVES) | text, layers, max_size=4).map(as_yaml)}),
    st.fixed_dictionaries({"yaml": text | plain | halves}),
)

# --- judge ---------------------------------------------------------------------------------------------------------

questions = st.one_of(
    text,
    st.sampled_from(
        [
            "How much is it?",
            "Which one?\nA) red\nB) blue\nC) 3",
            "Is it prime?",
            "True or false: 3 < 2",
            "Give the coordinates.",
            "Sort 1, 2, 3",
            "Factor x^2 - 1",
            "Round to two decimals: 3.14159",
            "What is the price in $?",
        ]
    ),
)
judge = st.one_of(
    st.fixed_dictionaries({"question": questions, "reference": text, "response": text}),
    st.fixed_dictionaries(
        {
            "question": questions,
            "reference": st.sampled_from(["195", "Yes", "A", "{1,2}", "3/4", "blue", "x=2", "12:30", ""]) | text,
            "unit": st.one_of(
                st.sampled_from(WORDS),
                st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
                anything,
                st.sampled_from(" 0123456789.,-(){}[]=*`\n\t"),
            ),
            "times": st.sampled_from([1, 100, 2000, 20000]),
            "end": text,
        }
    ),
)

# --- replies -------------------------------------------------------------------------------------------------------

verdicts = st.fixed_dictionaries(
    {},
    optional={
        "correct": st.booleans() | values,
        "reason": text | values,
        "best": st.integers(-1, 5) | values,
        "grounded": values,
        "questions": values,
        "question": values,
    },
)
json_text = (verdicts | values).map(json.dumps)
HINTS = [
    "Hint: ",
    "hint",
    "HINT. ",
    "Aha! ",
    "aha",
    "Hintergrund",
    "Hinterland ",
    "hinting at ",
    "<think>",
    "</think>",
    "```json\n",
    "```",
    '"',
    "{",
    "}",
    '{"correct": true}',
    '"correct": false',
    "[" * 3000,
]
mixed = st.lists(st.one_of(json_text, text, st.sampled_from(HINTS)), max_size=4).map("".join)
letters = st.text("abcdefghijklmnopqrstuvwxyzäößABCDEFGH", min_size=1, max_size=8)
leading = st.one_of(letters, st.tuples(st.sampled_from(["Hint", "hint", "Aha", "aha"]), letters).map("".join))
replies = st.one_of(
    st.fixed_dictionaries({"reply": mixed}, optional={"response": mixed}),
    st.fixed_dictionaries({"reply": st.lists(leading, min_size=1, max_size=4).map(" ".join), "words": st.just(True)}),
)

# --- hints ---------------------------------------------------------------------------------------------------------

secrets = st.one_of(st.integers(13, 99999).map(str), st.sampled_from(["Paris", "mitochondria", "Zugspitze", "oxygen"]))
hints = st.one_of(
    st.fixed_dictionaries(
        {"question": questions, "reference": text, "hint": text, "response": text}, optional={"passage": text}
    ),
    st.fixed_dictionaries(
        {
            "question": st.just("What is it?"),
            "reference": secrets,
            "hint": text,
            "response": text,
            "secret": st.just(True),
        }
    ),
)

# --- chat templates ------------------------------------------------------------------------------------------------

BLOCKS = [
    "{{ bos_token }}",
    "{{ eos_token }}",
    "{% for message in messages %}",
    "{% endfor %}",
    "{% for m in messages %}",
    "{{ message.role }}",
    "{{ message['content'] }}",
    "{{ message.content | trim }}",
    "{{ m['content'] }}",
    "<|im_start|>",
    "<|im_end|>",
    "\n",
    " ",
    "{% if add_generation_prompt %}",
    "{% if message.role == 'system' %}",
    "{% else %}",
    "{% endif %}",
    "{{ raise_exception('no') }}",
    "{{ messages[0].content }}",
    "{{ messages[7].content }}",
    "{{ nothing.there.at_all }}",
    "{{ 1 / 0 }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% set x = namespace(a=1) %}",
    "{{ x.a }}",
    "{{ messages | tojson }}",
    "{{ 'a' * 100000 }}",
    "{% for i in range(99999) %}",
    "{{ range(999999999) | list }}",
    "{{ '' .__class__ }}",
    "{{ messages.pop() }}",
    "{{ strftime_now('%d') }}",
    "{{ tools[0] }}",
    "<think>\n",
    "</think>",
    "assistant\n",
    "{% include 'x' %}",
    "{% macro f() %}",
    "{% endmacro %}",
    "{{ f() }}",
    "{# ",
    " #}",
    "{{",
    "}}",
    "{%",
    "%}",
    "{{ message.content[:3] }}",
    "{{ message.content | upper }}",
    "{{ messages | length // 0 }}",
    "{{ messages[-1]['content'] }}",
]
TURN = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
templates = st.one_of(
    st.lists(st.sampled_from(BLOCKS), max_size=10).map("".join),
    st.lists(st.sampled_from(BLOCKS), max_size=3).map(lambda found: TURN + "".join(found)),
    st.lists(st.sampled_from(BLOCKS), max_size=3).map(lambda found: "".join(found) + TURN),
    st.lists(st.sampled_from(BLOCKS), max_size=2).map(
        lambda found: TURN.replace("{{ message.content }}", "".join(found))
    ),
    st.lists(st.sampled_from(BLOCKS), max_size=2).map(lambda found: [{"name": "default", "template": "".join(found)}]),
    st.sampled_from(
        [[], {}, "", 3, None, [{"name": "tool_use", "template": TURN}], {"default": TURN}, [{"name": "default"}], [3]]
    ),
)
chat = st.fixed_dictionaries({"template": templates, "messages": proper})

# --- wire ----------------------------------------------------------------------------------------------------------

usages = (
    st.dictionaries(
        st.sampled_from(("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")),
        st.integers(-5, 50) | st.integers() | values,
        max_size=3,
    )
    | values
)
openai_messages = st.fixed_dictionaries(
    {},
    optional={
        "content": text
        | values
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text | values}), max_size=2),
        "refusal": values,
        "reasoning_content": text | values,
        "reasoning": values,
        "tool_calls": values,
    },
)
reasons = (
    st.sampled_from(
        ["stop", "length", "content_filter", "error", "abort", "tool_calls", None, "end_turn", "max_tokens", "refusal"]
    )
    | values
)
choices = st.fixed_dictionaries(
    {"message": openai_messages | values},
    optional={"finish_reason": reasons, "token_ids": st.lists(st.integers(0, 600), max_size=4) | values},
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking"]) | values},
    optional={"text": text | values, "thinking": text | values},
)
GOOD_BODIES = (
    {
        "choices": [{"message": {"role": "assistant", "content": "42"}, "finish_reason": "stop", "token_ids": [1, 2]}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    },
    {
        "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "42"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    {"error": {"message": "max_tokens is not supported", "type": "x", "code": "y"}},
)
numbers = st.integers(-(2**70), 2**70) | st.floats()
bodies = st.one_of(
    spoiled(*GOOD_BODIES, by=values | numbers | text),
    st.fixed_dictionaries(
        {"choices": st.lists(choices, max_size=2) | values}, optional={"usage": usages, "error": values}
    ),
    st.fixed_dictionaries(
        {"content": st.lists(blocks, max_size=3) | values}, optional={"stop_reason": reasons, "usage": usages}
    ),
    st.fixed_dictionaries({"error": values | st.fixed_dictionaries({"message": text | values})}),
    values,
    anything,
)
headers = st.lists(
    st.sampled_from(
        [
            "Retry-After: 99999999",
            "Retry-After: x",
            "Retry-After: -1",
            "Retry-After: 1e999",
            "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT",
            "Location: x",
            "Connection: close",
            "x-ratelimit-reset-requests: 6m0s",
            "anthropic-ratelimit-requests-reset: 2099-01-01T00:00:00Z",
            "Content-Encoding: gzip",
            "Content-Type: text/html",
            "Content-Length: 3",
            "Transfer-Encoding: chunked",
        ]
    )
    | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20),
    max_size=2,
)
heads = st.lists(
    st.sampled_from(
        [
            "HTTP/1.1 200 OK",
            "HTTP/1.0 200",
            "HTTP/1.1 999",
            "HTTP/1.1 abc",
            "HTTP/2 200",
            "\r\n",
            "\n",
            "\x00",
            "Content-Length: 5",
            "Content-Length: -5",
            "Content-Length: 99999999999999999999",
            "Content-Length: a",
            "Transfer-Encoding: chunked",
            "5\r\nabcde\r\n",
            "0\r\n\r\n",
            "-1\r\n",
            "ffffffffffffffff\r\n",
            "g\r\n",
            ": x",
            "a" * 70000,
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 204 No Content",
        ]
    ),
    max_size=6,
).flatmap(lambda parts: st.sampled_from(["\r\n", ""]).map(lambda end: end.join(parts) + end * 2))
kinds = st.sampled_from(["openai", "anthropic"])
wire = st.one_of(
    st.fixed_dictionaries({"kind": kinds, "status": st.just(200), "body": bodies}),
    st.fixed_dictionaries(
        {
            "kind": kinds,
            "status": st.sampled_from([200, 201, 204, 301, 400, 401, 402, 404, 422, 429, 500, 503, 529]),
            "body": bodies,
            "headers": headers,
        }
    ),
    st.fixed_dictionaries({"kind": kinds, "head": heads, "body": anything}),
)

# --- logs of other tools -------------------------------------------------------------------------------------------

odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), anything, halves, st.lists(st.integers(0, 2), max_size=3)
)
marks = st.booleans() | st.floats(-3, 3) | st.sampled_from(["C", "I", "N"]) | odd
named = st.integers(0, 7) | st.sampled_from([f"q{at}" for at in range(8)]) | odd
asked = st.sampled_from([f"Question {at}?" for at in range(8)]) | odd
own_row = {"question": asked, "cluster": odd, "sample": odd}
lm_row = {
    "doc_id": named,
    "doc": st.fixed_dictionaries({"question": asked}) | odd,
    "acc": marks,
    "filtered_resps": st.lists(odd, max_size=3) | odd,
}
lm_more = {
    "filter": st.sampled_from(["none", "strict"]),
    "metrics": st.just(["acc"]) | odd,
    "arguments": odd,
    "resps": odd,
}
event = {
    "run_id": odd,
    "event_id": odd,
    "sample_id": named,
    "type": st.sampled_from(["match", "metrics", "sampling"]),
    "data": st.fixed_dictionaries({"correct": marks}, optional={"sampled": odd, "prompt": odd}) | odd,
}
output_item = {
    "object": st.just("eval.run.output_item"),
    "datasource_item_id": named,
    "datasource_item": odd,
    "sample": odd,
    "results": st.lists(st.fixed_dictionaries({"name": anything, "score": marks}), max_size=2) | odd,
}
log_rows = (
    st.fixed_dictionaries({"id": named, "correct": marks}, optional=own_row),
    st.fixed_dictionaries({"question": asked, "scores": st.dictionaries(anything, marks, max_size=3)}),
    st.fixed_dictionaries(lm_row, optional=lm_more),
    st.fixed_dictionaries(event),
    st.fixed_dictionaries(output_item),
    st.fixed_dictionaries({"id": named, "question": asked, "reference": odd, "base": odd, "adapter": odd}),
)
values = st.fixed_dictionaries({"value": marks | st.dictionaries(anything, marks, max_size=2)})
inspect_row = {
    "id": named,
    "epoch": st.integers(1, 2) | odd,
    "input": asked,
    "target": odd,
    "scores": st.dictionaries(st.sampled_from(["match", "form"]), values, max_size=2) | odd,
}
inspect_more = {"output": odd, "metadata": odd, "attachments": odd, "error": odd}
inspect_files = st.builds(
    lambda rows, about: {"name": "log.json", "records": {"version": 2, "status": "?", "eval": about, "samples": rows}},
    st.lists(st.fixed_dictionaries(inspect_row, optional=inspect_more), max_size=10) | odd,
    st.just({"task": "t", "model": "m"}) | odd,
)
log_files = st.one_of(
    st.builds(lambda rows: {"name": "log.jsonl", "records": rows}, st.lists(st.one_of(*log_rows, odd), max_size=12)),
    st.builds(lambda name, rows: {"name": name, "records": rows}, st.sampled_from(["log.jsonl", "log.json"]),
              st.integers(0, 5).flatmap(lambda at: st.lists(log_rows[at], max_size=12))),
    inspect_files,
    st.builds(lambda name, data: {"name": name, "data": data}, st.sampled_from(["log.eval", "log.json", "log.jsonl"]),
              st.text(st.characters(max_codepoint=255), max_size=60)),
)  # fmt: skip
logs = st.fixed_dictionaries({"a": log_files, "b": log_files}) | st.builds(lambda one: {"a": one, "b": one}, log_files)

STRATEGIES: dict[str, Any] = {
    "rows": rows,
    "settings": settings,
    "judge": judge,
    "replies": replies,
    "hints": hints,
    "chat": chat,
    "wire": wire,
    "logs": logs,
}
