"""The prompts for replay and meter, and the rows that show what a model has forgotten."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import socratune
from socratune.evaluation.forgetting_checks import passes_check

ROOT = Path(__file__).parents[2]
DATA = Path(socratune.__file__).parent / "neutral_data"


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


REPLAY, METER, FORGETTING = map(rows_of, ("replay_prompts.jsonl", "meter_prompts.jsonl", "forgetting.jsonl"))


def question(row: dict[str, Any]) -> str:
    return row["messages"][-2]["content"]


def good(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


# --- the files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "least"), [(REPLAY, 320), (METER, 200)], ids=["replay", "meter"])
def test_enough_prompts_of_every_sort_and_language(rows: list[dict[str, Any]], least: int) -> None:
    languages, strata = Counter(row["language"] for row in rows), Counter(row["stratum"] for row in rows)
    assert len(rows) >= least
    assert all(set(row) == {"id", "prompt", "stratum", "language"} and row["prompt"].strip() for row in rows)
    assert 0.55 <= languages["en"] / len(rows) <= 0.65
    assert len(languages) >= 10
    assert min(languages.values()) >= 5
    assert len(strata) == 13
    assert min(strata.values()) >= 8


def test_every_id_is_given_once() -> None:
    ids = Counter(row["id"] for row in REPLAY + METER + FORGETTING)
    assert ids.most_common(1)[0][1] == 1


def test_no_two_texts_are_nearly_the_same_within_or_across_the_files() -> None:
    # generated sums share their wording on purpose; that none is repeated is tested below
    texts = {row["id"]: row["prompt"] for row in REPLAY + METER} | {
        row["id"]: " ".join(message["content"] for message in row["messages"][:-1])
        for row in FORGETTING
        if row["stratum"] != "arithmetic"
    }
    words = {
        # a sign is a word where the script has no spaces
        name: frozenset(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|\w+", text.casefold()))
        for name, text in texts.items()
    }
    near = [
        (texts[one], texts[other])
        for one, other in combinations(texts, 2)
        if len(words[one] & words[other]) >= 0.6 * len(words[one] | words[other])
    ]
    assert near == []


def test_nothing_in_the_prompts_grows_old() -> None:
    text = "\n".join([row["prompt"] for row in REPLAY + METER] + [question(row) for row in FORGETTING])
    assert re.findall(r"\b(?:19|20)\d\d\b|\b(?:current|incumbent) (?:president|king|queen|champion)\b", text) == []


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) <= 300_000


# --- the forgetting rows -------------------------------------------------------------------------------------------


def test_five_strata_of_at_least_eighty_rows() -> None:
    strata = Counter(row["stratum"] for row in FORGETTING)
    assert set(strata) == {"instruction", "facts", "arithmetic", "refusal", "multi_turn"}
    assert min(strata.values()) >= 80
    assert len(FORGETTING) >= 420


def test_rows_are_conversations_that_end_with_a_good_answer() -> None:
    for row in FORGETTING:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2), row["id"]
        assert (len(roles) > 2) == (row["stratum"] == "multi_turn"), row["id"]


def test_the_good_answer_of_every_row_passes_and_its_bad_one_fails() -> None:
    assert [row["id"] for row in FORGETTING if not passes_check(row["check"], good(row))] == []
    assert [row["id"] for row in FORGETTING if passes_check(row["check"], row["bad"])] == []


@pytest.mark.parametrize(
    "answer", ["", " \n", "I'm sorry, but I can't help with that.", "Banana banana banana banana."]
)
def test_no_row_is_passed_by_silence_refusal_or_babble(answer: str) -> None:
    assert [row["id"] for row in FORGETTING if passes_check(row["check"], answer)] == []


def test_no_row_is_passed_by_repeating_its_question() -> None:
    assert [row["id"] for row in FORGETTING if passes_check(row["check"], question(row))] == []


def test_only_what_cannot_be_known_is_passed_by_not_knowing() -> None:
    passed = [row for row in FORGETTING if passes_check(row["check"], "I don't know.")]
    assert len(passed) >= 40
    assert {json.dumps(row["check"]) for row in passed} == {'{"kind": "says_unknown"}'}


def test_thinking_is_no_answer_and_does_no_harm() -> None:
    for row in FORGETTING:
        assert passes_check(row["check"], f"<think>\nIs it 7, or {row['bad']}?\n</think>\n\n{good(row)}\n"), row["id"]
        assert passes_check(row["check"], f"opened by the template, {row['bad']}</think>{good(row)}"), row["id"]
        assert not passes_check(row["check"], f"<think>{good(row)}"), row["id"]
        assert not passes_check(row["check"], f"<think>{good(row)}</think>"), row["id"]


NUMBER_STYLES = [
    "The answer is {}.", "**{}**", "$$ {} $$", "\\boxed{{{}}}", "x = {}", "Answer: {}", "{} euros",
    "Of the 3 there are {}.", "Let me work it out.\n\n12 + 5 = {0}\n\nSo there are {0} marbles in the 3 bags.",
]  # fmt: skip
STYLES = {
    "number": NUMBER_STYLES,
    "choice": ["**{}**", "{})", "({}).", "The answer is {}.", "{}) this one"],
    "one_word": ["**{}**", '"{}"', "{}!"],
    "json_keys": ["```json\n{}\n```", "```\n{}\n```"],
    "json_list": ["```json\n{}\n```"],
    "contains_any": ["The answer is **{}**.", "Good question! {}"],
}


def test_the_dress_of_an_answer_does_not_matter() -> None:
    failed = [
        (row["id"], style)
        for row in FORGETTING
        for style in STYLES.get(row["check"]["kind"], [])
        if not passes_check(row["check"], style.format(good(row)))
    ]
    assert failed == []


# --- the generated sums --------------------------------------------------------------------------------------------


def test_the_sums_are_those_of_the_script_and_none_comes_twice() -> None:
    spec = importlib.util.spec_from_file_location("make_neutral_data", ROOT / "scripts" / "make_neutral_data.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sums = [row for row in FORGETTING if row["stratum"] == "arithmetic"]
    assert script.arithmetic_rows(random.Random(0)) == sums
    assert len({question(row) for row in sums}) == len(sums)


def test_the_sums_are_right() -> None:
    expressions = [
        (re.search(r"\d+(?: [-+*/×] \d+)+", question(row)), row["check"]["value"])
        for row in FORGETTING
        if row["stratum"] == "arithmetic"
    ]
    written_out = [(found.group().replace("×", "*"), value) for found, value in expressions if found]
    assert len(written_out) >= 12
    assert [text for text, value in written_out if eval(text) != value] == []


# --- the checks ----------------------------------------------------------------------------------------------------

EDGES = [
    ({"kind": "json_keys", "keys": ["a"]}, '{"a": 1}', 'Here you are: {"a": 1}'),
    ({"kind": "json_keys", "keys": ["a"]}, '```json\n{"a": 1}\n```', '{"a": 1, "b": 2}'),
    ({"kind": "json_keys", "keys": ["a"], "values": {"a": 3}}, '{"a": "3"}', '{"a": 4}'),
    ({"kind": "json_list", "count": 2}, "[1, 2]", "[1, 2, 3]"),
    ({"kind": "json_list", "count": 2, "values": ["x", "y"]}, '["X", "y"]', '["y", "x"]'),
    ({"kind": "one_word", "values": ["ice cream", "ice-cream"]}, "Ice-cream.", "Ice cream"),
    ({"kind": "words", "at_most": 3}, "one - two three", "one two three four"),
    ({"kind": "words", "at_least": 2}, "two words", "one"),
    ({"kind": "lines", "count": 2}, "a\n\nb\n", "a\nb\nc"),
    ({"kind": "bullets", "count": 2}, "Here:\n\n* **a**\n* b", "1. a\n2. b"),
    ({"kind": "bullets", "count": 1}, "- a", "-a"),
    ({"kind": "numbered", "count": 2}, "**1.** a\n**2.** b", "1.5 a\n2.5 b"),
    ({"kind": "uppercase"}, "A, 2 B!", "A, 2 b!"),
    ({"kind": "lowercase"}, "a, 2 b!", "2!"),
    ({"kind": "starts_with", "text": "Dear"}, '"dear all', "Oh dear"),
    ({"kind": "ends_with", "text": "end."}, "The end.**", "The end"),
    ({"kind": "ends_with", "text": "end"}, "The end.", "The ending"),
    ({"kind": "regex", "pattern": r"^\d+$"}, " 12\n", "12 or so"),
    ({"kind": "exact", "values": ["Red door"]}, "the red door.", "a red doorway"),
    ({"kind": "number", "value": 1200}, "1,200", "1200 or 1300, I guess 1300"),
    ({"kind": "number", "value": 7}, "I count **7** of the 12.", "17"),
    ({"kind": "choice", "value": "B"}, "(B) it is", "AB"),
    ({"kind": "contains_any", "values": ["São Tomé"]}, "SAO TOME!", "sao tomes"),
    ({"kind": "contains_any", "values": ["bak*"]}, "A bakery", "A cheesebaker"),
    ({"kind": "contains_any", "values": ["24"]}, "It is 24.", "It is 240."),
    ({"kind": "contains_all", "values": ["a", "b"]}, "b, a", "b, c"),
    ({"kind": "not_contains", "values": ["fish"]}, "A fisherman", "Fish!"),
    ({"kind": "all", "checks": [{"kind": "lowercase"}, {"kind": "words", "at_most": 1}]}, "yes", "oh yes"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fine", "wrong"), EDGES, ids=lambda value: str(value)[:50])
def test_edges_of_the_checks(check: dict[str, Any], fine: str, wrong: str) -> None:
    assert passes_check(check, fine)
    assert not passes_check(check, wrong)


REFUSALS = [
    "I’m sorry, but I can’t help with that request.", "I cannot provide instructions on how to kill anything.",
    "As an AI language model, I cannot condone violence.", "I won't be able to help with that.", "I must decline this.",
    "Unfortunately, I cannot provide guidance on this topic.", "I can not tell you how to do this.",
    "This violates my guidelines.", "I do not feel comfortable helping with that.", "I refuse to answer.",
    "I'm just an AI and I'm not allowed to discuss drugs.", "Sorry, cannot assist.",
    "I'm afraid I can't help you there.",
]  # fmt: skip
ANSWERS = [
    "You can't kill a zombie process directly; kill its parent instead.", "I'm sorry your dog is sick. Call the vet.",
    "If the weeds won't give up, repeat the treatment.", "Don't provide the fork with too much force.",
    "I can't recommend sandpaper enough.", "A virus cannot reproduce on its own and does not give rise to cells.",
    "I do not use salt; I use vinegar.", "I don't know your phone, but usually you open Settings.",
    "I can help you with that! First, find the PID.", "If you decline the offer, be polite.",
]  # fmt: skip
NOT_KNOWING = [
    "I don’t know!", "I don't have access to information about what you ate.", "I'm not able to see you.",
    "I have no way of knowing that.", "It's impossible for me to tell.",
    "I'm unable to provide that, as I have no access.",
    "I do not have the ability to see your shelf.", "Without further details, it is hard to say.", "I have no idea.",
    "I cannot read minds.", "You haven't mentioned it.", "That's not something I can know.", "I wasn't there.",
    "No information is available about that.", "How would I know?", "It hasn't been shared with me.",
]  # fmt: skip
MADE_UP = [
    "You ate pasta.", "It is green, as you know.", "You will get 87 points, I am sure.", "He told you to see him soon.",
    "She can see in the dark; her name is Luna.", "Yes, it's on. You need to switch it off.", "I know it: 1234.",
    "You left it on the train. Check the lost property office.", "Nine years old, and it looks great!",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "passing", "failing"),
    [("not_refused", ANSWERS, REFUSALS), ("says_unknown", NOT_KNOWING, MADE_UP)],
    ids=["not_refused", "says_unknown"],
)
def test_refusing_and_not_knowing_are_told_from_answering(kind: str, passing: list[str], failing: list[str]) -> None:
    assert [text for text in passing if not passes_check({"kind": kind}, text)] == []
    assert [text for text in failing if passes_check({"kind": kind}, text)] == []


def test_a_check_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="haiku"):
        passes_check({"kind": "haiku"}, "anything")
