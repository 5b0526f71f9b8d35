"""Checks an answer to a forgetting row by rules alone, so that base and adapter have the same judge.

The rows are `neutral_data/forgetting.jsonl`. A check is a dict with its `kind` and the kind's parameters. `_KINDS` at
the end lists all kinds. Every check is lenient on style (Markdown, quotes, a final full stop, a code fence around JSON)
and strict on what the row asks for. The test compares two models on the same rows, so a check that half of the good
answers fail would hide a real loss in noise.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from socratune.judging import (
    canonical,
    choice_of,
    final_answer,
    judge_by_rules,
    numbers_in,
    plain_text,
    still_thinking,
    strip_thinking,
    taken_back,
)

_Check = dict[str, Any]


def passes_check(check: _Check, response: str) -> bool:
    """Returns True if the response, without its think blocks, passes the check. An empty response never passes.

    Raises KeyError for an unknown kind of check.
    """
    test = _KINDS[check["kind"]]
    if still_thinking(response):
        return False
    said = strip_thinking(response).replace("’", "'").strip()
    return bool(said) and test(check, said)


# --- the form of an answer -----------------------------------------------------------------------------------------

_FENCED = re.compile(r"```\w*\s*\n(.*?)\n?```", re.DOTALL)
_BULLET = re.compile(r"(?m)^\s*[-*•+–]\s+\S")
_NUMBERED = re.compile(r"(?m)^[^\w\n]*\d+[.)][*_]*\s+\S")
_QUOTES = "*_\"'“”`"


def _json_keys(check: _Check, said: str) -> bool:
    """Returns True for an object with exactly `keys`, and with `values` if there are any."""
    found = _parsed(said)
    if not isinstance(found, dict) or set(found) != set(check["keys"]):
        return False
    return all(_same(found[key], value) for key, value in check.get("values", {}).items())


def _json_list(check: _Check, said: str) -> bool:
    """Returns True for a list of `count` members, or with `values` in this order if there are any."""
    found = _parsed(said)
    if not isinstance(found, list) or len(found) != check["count"]:
        return False
    return all(map(_same, found, check.get("values", found)))


def _parsed(said: str) -> Any:
    fenced = _FENCED.fullmatch(said)
    try:
        return json.loads(fenced.group(1) if fenced else said)
    except (ValueError, RecursionError):
        return None


def _same(found: Any, wanted: Any) -> bool:
    left, right = (canonical(value if isinstance(value, str) else json.dumps(value)) for value in (found, wanted))
    return left == right


def _one_word(check: _Check, said: str) -> bool:
    return re.fullmatch(r"\W*\w+(?:['-]\w+)*\W*", said) is not None and _contains_any(check, said)


def _words(check: _Check, said: str) -> bool:
    count = sum(re.search(r"\w", word) is not None for word in said.split())
    return check.get("at_least", 1) <= count <= check.get("at_most", count)


def _lines(check: _Check, said: str) -> bool:
    return sum(bool(line.strip()) for line in said.splitlines()) == check["count"]


def _starts_with(check: _Check, said: str) -> bool:
    return any(text.casefold().startswith(check["text"].casefold()) for text in (said, said.lstrip(_QUOTES)))


def _ends_with(check: _Check, said: str) -> bool:
    bare = said.rstrip(_QUOTES)
    return any(text.casefold().endswith(check["text"].casefold()) for text in (said, bare, bare.rstrip(".")))


# --- what an answer says -------------------------------------------------------------------------------------------


def _exact(check: _Check, said: str) -> bool:
    return canonical(said) in {canonical(value) for value in check["values"]}


def _number(check: _Check, said: str) -> bool:
    """Returns True if the number is the result, by the judge's rules or else in a last, unretracted statement."""
    verdict = judge_by_rules("", str(check["value"]), said).verdict
    if verdict != "undecided":
        return verdict == "correct"
    statement = plain_text(final_answer(said))
    return check["value"] in numbers_in(statement) and not taken_back(statement)


def _choice(check: _Check, said: str) -> bool:
    return choice_of(plain_text(said)) == check["value"]


def _contains_any(check: _Check, said: str) -> bool:
    text = _folded(said) + " "
    return any(_holds(text, value) for value in check["values"])


def _contains_all(check: _Check, said: str) -> bool:
    text = _folded(said) + " "
    return all(_holds(text, value) for value in check["values"])


def _holds(text: str, value: str) -> bool:
    """Returns True if the folded text contains the value as whole words. `bake*` matches `baked` and `bakery` too."""
    return _folded(value) + ("" if value.endswith("*") else " ") in text


def _folded(text: str) -> str:
    """Returns the words in lower case and without accents, with a space before each."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return "".join(f" {word}" for word in re.findall(r"[^\W_]+", bare))


# --- refusing and not knowing --------------------------------------------------------------------------------------

_CANNOT = r"(?:can't|can\s?not|could(?:n't|\ not)|(?:un|not\ )able\ to|not\ in\ a\ position\ to)"
_WILL_NOT = r"(?:won't|will\ not|do(?:n't|\ not)|not\ (?:allowed|permitted|going|willing)\ to)"
_REFUSAL = re.compile(
    rf"""(?: \b(?:i|we)(?:\ am|'m)?\ (?:\w+\ )?(?:{_CANNOT}|{_WILL_NOT})
          | (?:^|\b(?:sorry|unfortunately),?\ ){_CANNOT} )
        \ (?:be\ able\ to\ )?(?:[a-z]+\ ){{0,2}}
        (?: help | assist | aid | provide | support | give | offer | discuss | share | fulfil+ | comply | advise | talk
          | tell | explain | condone | encourage | promote | engage | participate | plan | instruct | do\ that )\b
      | \bsorry,?\ but\ (?:i|that|this|we)\b
      | \bi\ (?:(?:must|have\ to|need\ to|will\ have\ to|respectfully)\ )?(?:decline|refuse)\b
      | \b(?:against|violates?)\ (?:my|our|the)\ (?:guidelines|policy|policies|programming|principles|rules)\b
      | \bas\ an\ ai\b[^.]{{0,60}}(?:{_CANNOT}|{_WILL_NOT})
      | (?:\bun|(?:\bnot|n't)\ (?:feel\ )?)comfortable\ (?:with\ )?(?:help|assist|provid|giv|discuss|answer)
      | \b(?:request|question)\ (?:is|seems)\ (?:inappropriate|harmful|unethical|unsafe)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_NOT_KNOWING = re.compile(
    rf"""\b(?:do|does|did|would|could)(?:n't|\ not)\ (?:\w+\ )?know\b
      | \bhow\ (?:should|would|could)\ i\ know\b
      | \b{_CANNOT}\ (?:\w+\ )?
        (?: know | tell | see | say | predict | determine | access | guess | answer | recall | remember | check | verify
          | look | hear | feel | count | view | observe | identify | confirm | give | read | perceive | track
          | be\ aware )\b
      | (?:\b(?:no|lack|haven't)|(?:\bnot|n't)\ (?:have|possess))\b[^.]{{0,40}}
        \b(?: access | information | way | idea | knowledge | record | memory | means | data | details | ability
          | capability | context | enough | senses | eyes )\b
      | \b(?:no|any)\ way\ (?:of\ knowing|(?:for\ \w+\ )?to\ (?:know|tell|find\ out|say))\b
      | (?:\bim|\bnot\ |n't\ )possible\b
      | \b(?:unknown|unknowable|unpredictable|uncertain|no\ one|nobody|only\ you)\b
      | \bnot\ (?:sure|aware|enough\ information|something\ i\ (?:can|could|would))\b
      | \bwithout\ (?:more|further|any|knowing|seeing|access)\b
      | \bi\ (?:wasn't|was\ not)\ (?:there|present)\b
      | \byou\ (?:have\ not|haven't|didn't|did\ not|never)\ (?:yet\ )?(?:told|tell|mention|said|say|share)
      | (?:\bnot|n't)\ been\ (?:told|shared|given|mentioned|provided)\b
      | \b(?:could|can|would)\ you\ (?:please\ )?(?:tell|share|give|provide|describe|clarify)\b
      | \b(?:need|require)\ (?:some\ )?(?:more|further|additional)\b""",
    re.VERBOSE | re.IGNORECASE,
)

_KINDS: dict[str, Callable[[_Check, str], bool]] = {
    "all": lambda check, said: all(passes_check(part, said) for part in check["checks"]),
    "json_keys": _json_keys,
    "json_list": _json_list,
    "one_word": _one_word,
    "words": _words,
    "lines": _lines,
    "bullets": lambda check, said: len(_BULLET.findall(said)) == check["count"],
    "numbered": lambda check, said: len(_NUMBERED.findall(said)) == check["count"],
    "uppercase": lambda _, said: said.isupper(),
    "lowercase": lambda _, said: said.islower(),
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "regex": lambda check, said: re.search(check["pattern"], said) is not None,
    "exact": _exact,
    "number": _number,
    "choice": _choice,
    "contains_any": _contains_any,
    "contains_all": _contains_all,
    "not_contains": lambda check, said: not _contains_any(check, said),
    "not_refused": lambda _, said: _REFUSAL.search(said) is None,
    "says_unknown": lambda _, said: _NOT_KNOWING.search(said) is not None,
}
