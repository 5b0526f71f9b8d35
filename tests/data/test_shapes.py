from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from socratune.data.shapes import parse_row, shape_of
from socratune.judging.rules import judge_by_rules
from socratune.judging.text import final_answer
from socratune.rows import QARow

GOOD = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]


def row(**columns: Any) -> QARow:
    parsed = parse_row(columns, "f.jsonl, line 1")
    assert isinstance(parsed, QARow), parsed
    return parsed


def faults(data: Any) -> str:
    found = parse_row(data, "f.jsonl, line 3")
    assert isinstance(found, list)
    assert all(str(fault).startswith("f.jsonl, line 3") for fault in found)
    return "\n".join(map(str, found))


def chat(parsed: QARow) -> list[str]:
    return [f"{turn['role']}: {turn['content']}" for turn in parsed.messages]


def test_id_is_the_hash_of_the_messages() -> None:
    text = json.dumps(GOOD, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    parsed = row(messages=GOOD, metadata={"source": "s"})
    assert parsed.id == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (parsed.question, parsed.reference, parsed.source) == ("What is 2 + 2?", "4", "s")


@pytest.mark.parametrize(
    "columns",
    [
        {"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]},
        {"conversations": [{"from": "user", "value": "What is 2 + 2?"}, {"from": "assistant", "value": "4"}]},
        {"conversation": GOOD},
        {"conversations": [{"role": "user", "content": "What is 2 + 2?", "weight": None}, GOOD[1]]},
        {"instruction": "What is 2 + 2?", "input": "", "output": "4", "history": []},
        {"instruction": "What is 2 + 2?", "input": None, "output": "4", "history": None},
        {"prompt": "What is 2 + 2?", "completion": "4"},
        {"prompt": GOOD[:1], "completion": GOOD[1:]},
        {"question": "What is 2 + 2?", "answer": "4"},
        {"question": "What is 2 + 2?", "answer": 4},
        {"problem": "What is 2 + 2?", "solution": "4"},
        {"query": "What is 2 + 2?", "response": "4"},
        {"messages": None, "question": "What is 2 + 2?", "answer": "4"},
    ],
)
def test_the_same_row_in_every_shape_is_the_same_row(columns: dict[str, Any]) -> None:
    assert row(**columns) == row(messages=GOOD)


def test_columns_no_shape_needs_go_into_metadata_untouched() -> None:
    parsed = row(question="q", answer="a", source="doc", context="c", level=3, tags=["x"], nothing=None, id="own")
    assert (parsed.id, parsed.metadata) == ("own", {"source": "doc", "context": "c", "level": 3, "tags": ["x"]})
    assert (parsed.source, parsed.evidence) == ("doc", "c")
    assert row(messages=GOOD, source="outer", metadata={"source": "own", "k": 1}).metadata == {"source": "own", "k": 1}


def test_several_turns_and_system_texts() -> None:
    told = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
    ]
    parsed = row(conversations=[*told, {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], system="x")
    assert chat(parsed) == ["system: Be kind.", "user: Hi", "assistant: Hello", "user: 2+2?", "assistant: 4"]
    assert (parsed.question, parsed.reference, parsed.metadata) == ("2+2?", "4", {"system": "x"})
    assert chat(row(conversations=told[1:], system="Be brief."))[0] == "system: Be brief."
    assert chat(row(system_prompt="Be brief.", question="q", response="a"))[0] == "system: Be brief."


def test_alpaca_with_input_and_history() -> None:
    parsed = row(instruction="Add.", input="2 and 2", output="4", system="S", history=[["Hi", "Hello"]], text="whole")
    assert chat(parsed) == ["system: S", "user: Hi", "assistant: Hello", "user: Add.\n2 and 2", "assistant: 4"]
    assert parsed.metadata == {"text": "whole"}


def test_the_answer_goes_before_the_solution_and_a_conversation_before_a_pair() -> None:
    parsed = row(problem="q", solution="Long, so $\\boxed{4}$.", answer="4")
    assert (parsed.reference, parsed.metadata) == ("4", {"solution": "Long, so $\\boxed{4}$."})
    assert shape_of({"prompt": "p", "messages": GOOD, "completion": "c"}) == ("messages",)


@pytest.mark.parametrize("reference", ["48 / 2 = <<48/2=24>>24\n#### 1,024", "So it is\n#### 1024", "#### $1,024"])
def test_the_result_behind_a_worked_solution_is_what_is_judged(reference: str) -> None:
    parsed = row(question="How many?", answer=reference)
    assert final_answer(parsed.reference).lstrip("$") in ("1,024", "1024")
    assert judge_by_rules(parsed.question, parsed.reference, "24 + 1000 makes 1024.").verdict == "correct"
    assert judge_by_rules(parsed.question, parsed.reference, "I get 24.").verdict == "incorrect"


@pytest.mark.parametrize(
    "columns",
    [
        {"choices": ["Rome", "Paris", "Oslo"], "answer": 1},
        {"choices": ["Rome", "Paris", "Oslo"], "answer": "B"},
        {"options": ["Rome", "Paris", "Oslo"], "answer": "Paris"},
        {"options": {"A": "Rome", "B": "Paris", "C": "Oslo"}, "answer": "B"},
        {"choices": {"label": ["1", "2", "3"], "text": ["Rome", "Paris", "Oslo"]}, "answerKey": "2"},
    ],
)
def test_multiple_choice_columns_become_part_of_the_question(columns: dict[str, Any]) -> None:
    parsed = row(question="The capital of France?", **columns)
    assert parsed.question == "The capital of France?\nA) Rome\nB) Paris\nC) Oslo"
    assert (parsed.reference, parsed.metadata) == ("B) Paris", {})
    assert judge_by_rules(parsed.question, parsed.reference, "The answer is B.").verdict == "correct"
    assert judge_by_rules(parsed.question, parsed.reference, "Rome").verdict == "incorrect"


def test_a_question_that_lists_its_options_keeps_its_words() -> None:
    parsed = row(question="Which?\nA) x\nB) y", choices=["x", "y"], answer="B")
    assert (parsed.question, parsed.reference) == ("Which?\nA) x\nB) y", "B) y")


HUMAN = {"from": "human", "value": "q"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "an object"),
        ([], "named .json"),
        ({}, "columns none"),
        ({"text": "t", "label": 1}, "columns text, label"),
        ({"mesages": GOOD}, 'Is "mesages" meant as "messages"?'),
        ({"question": "q", "label": 1}, 'name that column "answer"'),
        ({"question": "q", "answer": None}, "question, answer (null). It has no value in answer."),
        ({"prompt": "p", "question": "q", "answer": "a"}, "Leave one question: it has question and prompt"),
        ({"messages": []}, "at least a user and an assistant turn"),
        ({"messages": "hi"}, "got 'hi'"),
        ({"messages": 0}, "got 0"),
        ({"messages": [{"role": "user", "content": "q"}]}, "an assistant turn last, whose text is the reference"),
        ({"messages": list(reversed(GOOD))}, "got a user turn last"),
        ({"messages": [*GOOD, GOOD[0]]}, "got a user turn last"),
        ({"messages": [GOOD[1], GOOD[0], GOOD[1]]}, "got assistant as turn 1"),
        ({"messages": [GOOD[0], GOOD[1], GOOD[1]]}, "got assistant as turn 3"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": "  "}]}, "non-empty assistant text"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": 0}]}, '"content" to be a text, got 0'),
        ({"messages": [GOOD[0], {"role": "assistant", "content": None}]}, "got null"),
        ({"messages": [GOOD[0], {"role": "assistant"}]}, "got no content"),
        ({"messages": [GOOD[0], {"role": "bot", "content": "4"}]}, "got 'bot'"),
        ({"messages": [GOOD[0], {"content": "4"}]}, "got no role"),
        ({"messages": [GOOD[0], "4"]}, "messages[1]"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": "a\x00b"}]}, "NUL"),
        ({"messages": GOOD, "metadata": []}, '"metadata" to be an object'),
        ({"messages": GOOD, "id": 1.5}, '"id"'),
        ({"messages": GOOD, "id": True}, '"id"'),
        ({"conversations": [HUMAN, {"from": "gpt", "value": "a"}, HUMAN]}, "got a user turn last"),
        ({"conversations": [HUMAN, {"from": "robot", "value": "a"}]}, 'conversations[1]: expected "from" to be one of'),
        ({"conversations": [HUMAN, {"from": "gpt"}]}, "got no value"),
        ({"conversations": [HUMAN, {"from": "function_call", "value": "{}"}]}, "got a tool turn. Rows with tool calls"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "got a tool turn"),
        ({"messages": [GOOD[0], {"role": "tool", "content": "x"}, GOOD[1]]}, "messages[1]: expected a turn of system"),
        ({"question": "q", "answer": " "}, "answer: expected a non-empty assistant text"),
        ({"question": ["q"], "answer": "a"}, "question: expected a text, got ['q']"),
        ({"question": "q", "answer": True}, "answer: expected a text, got True"),
        ({"prompt": GOOD[:1], "completion": GOOD[:1]}, "got a user turn last"),
        ({"instruction": "i", "input": 3, "output": "o"}, "input: expected a text"),
        ({"instruction": "i", "output": "o", "history": [["q"]]}, "history: expected a list of [question, answer]"),
        ({"question": "q", "choices": ["x", "y"], "answer": "z"}, "one of the options A, B"),
        ({"question": "q", "choices": ["x", "y"], "answer": 2}, "one of the options A, B"),
    ],
)
def test_faults_say_what_was_expected_and_what_came(data: object, said: str) -> None:
    assert said in faults(data)


def test_every_fault_of_a_row_is_found() -> None:
    found = parse_row({"messages": [{"role": "x", "content": ""}, 3], "metadata": 1}, "l")
    assert isinstance(found, list)
    assert len(found) == 4


def test_the_examples_of_the_guide_are_taken() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text("utf-8")
    examples = re.findall(r"^\| .* \| `(\{.*?\})`(?: \||,|:)", guide.split("## Which file")[0], re.MULTILINE)
    assert len(examples) == 9
    assert {row(**json.loads(example)).reference for example in examples} == {"4", "B) 4"}
