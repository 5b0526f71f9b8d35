"""Turns a user's row in any usual shape into a `QARow`. Only this module reads other people's column names.

    a conversation   {"messages": [{"role": "user", "content": …}, …]}          the guide's, OpenAI's, TRL's
                     {"conversations": [{"from": "human", "value": …}, …]}      ShareGPT
    a pair           {"instruction": …, "input": …, "output": …}                Alpaca
                     {"prompt": …, "completion": …}                             TRL; texts, or lists of messages
                     {"question": …, "answer": …}                               and their synonyms, see ASKS and ANSWERS
    a preference     {"prompt": …, "chosen": …, "rejected": …}                  the chosen answer is the reference

Every row is recognised by its own columns, whatever their case; a column that holds null is not there. Columns that no
shape needs go into `metadata` untouched.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from socratune.data.choices import lists_options, missing_options, with_options
from socratune.data.columns import decoded, given_columns, is_blank, is_null, plain_name, text_faults
from socratune.data.options import CHOSEN, find_options, has_options, whole_number
from socratune.data.turns import Turn, messages_in, order_fault, read_chat
from socratune.errors import Fault, Shown
from socratune.judging import options_in
from socratune.rows import QARow, content_id

CHATS = ("messages", "conversations", "conversation")
"""Columns with a whole conversation."""
ASKS = ("question", "problem", "query", "instruction", "prompt", "question_stem")
"""Columns with the question of a pair. A row may have only one of them."""
INPUTS = ("input", "inputs")
"""Columns with the question if none of ASKS exists."""
OPENINGS = ("ctx", "sentence", "goal", "startphrase")
"""Columns with a text that the options continue or fill in if there is no question."""
COUNTED_FROM = {"sentence": 1, "goal": 0}
"""The number from which an answer counts beside these columns: Winogrande's and PIQA's. For others it is unknown."""
ANSWERS = (
    "answer", "completion", "response", "output", "solution", "answer_key", "chosen", "correct_answer",
    "expected_answer", "reference_answer", "ground_truth", "target", "targets", "answers", "best_answer",
)  # fmt: skip
"""Columns with the reference answer of a pair. The first that a row has counts, so `answer` precedes `solution`."""
PASSAGES = ("passage", "article", "paragraph", "story")
"""Columns with the text that a question is about. The question is asked below it."""
PERHAPS_PASSAGES = ("context", "support", "premise")
"""Passages too if the question has options or the answer a place in the text. Otherwise they are evidence."""
_YES_OR_NO = re.compile(
    r"(?i)(?:^|[.!?,]\s+)(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may|must)\b"
)
_BOOL = {"true": "yes", "false": "no"}
"""BoolQ's answers, which need a passage. Without a passage they may be truth values, and guessing is not asked for."""
SYSTEMS = ("system", "system_prompt")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns that are part of a question and cannot be asked."""
UNWANTED = {"label": ("prompt", "completion"), "kto_tag": ()}
"""Columns beside an answer that mark it as one not to give."""
_NO_INPUT = re.compile(r"<\s*no\s?input\s*>|no\s?input", re.IGNORECASE)
KNOWN = "messages, conversations, question and answer, prompt and completion, or instruction and output"

Columns = dict[str, Any]
TakenTurns = tuple[list[Turn], set[str], Any]
"""The turns of a row, the columns they took, and the answer as it was written."""


def shape_of(columns: Iterable[str]) -> tuple[str] | tuple[str, str] | None:
    """Returns the columns, by plain name, that make a row's conversation: one of CHATS, or a question and its answer.

    A conversation goes before a pair: many sets carry their last question a second time beside it.

    Args:
        columns: the names of the columns, or the row itself, of which what is null or empty does not count.
    """
    if isinstance(columns, dict):
        return _shape_of_row({name: value for name, (_, value) in given_columns(columns).items()})
    return _shape({plain_name(str(name)) for name in columns})


def _shape_of_row(columns: Columns) -> tuple[str] | tuple[str, str] | None:
    full = _shape({name for name, value in columns.items() if not is_blank(value) and value != "[]"})
    return full or _shape({*columns})


def _shape(names: set[str]) -> tuple[str] | tuple[str, str] | None:
    for chat in CHATS:
        if chat in names:
            return (chat,)
    asks = _asks(names)
    if len(asks) == 1 and (answers := _answers(names)):
        return (asks[0], answers[0])
    return ("chosen",) if "chosen" in names and not asks else None


def may_have_shape(names: Iterable[str]) -> bool:
    """Returns True if some row with these columns may have a shape. Such a row leaves other columns null."""
    plain = {plain_name(str(name)) for name in names}
    return bool(plain & {*CHATS, "chosen"}) or bool(_asks(plain) and (_answers(plain) or "mc1_targets" in plain))


def _asks(names: set[str]) -> list[str]:
    asks = [name for name in ASKS if name in names] or [name for name in INPUTS if name in names][:1]
    return asks or ([name for name in OPENINGS if name in names][:1] if has_options(names) else [])


def _answers(names: set[str]) -> list[str]:
    answers = [name for name in ANSWERS if name in names]
    if answers == ["answers"] and (pointing := [name for name in CHOSEN if name in names]):
        return pointing  # the answers to choose from
    return answers or [name for name in CHOSEN if name in names and has_options(names)]


def parse_row(data: Any, where: str) -> QARow | list[Fault]:
    """Returns the row, or every fault it has.

    Args:
        data: one decoded row.
        where: file and line, for the faults.
    """
    if not isinstance(data, dict):
        fix = "A JSON array of rows belongs in a file named .json." if isinstance(data, list) else ""
        return [Fault(where, 'an object like {"messages": [...]}', data, fix)]
    named = _unfolded(given_columns(data))
    columns = {plain: value for plain, (_, value) in named.items()}
    shape = _shape_of_row(columns)
    if shape is None:
        return [unknown_shape(data, where)]
    faults: list[Fault] = []
    messages, used, answered = _conversation(columns, shape, where, faults)
    messages, used = _behind_system(messages, used, columns, where, faults)
    if not faults and (fault := order_fault([turn["role"] for turn in messages], where)):
        faults.append(fault)
    faults += _unfit(columns, where)
    if not faults:
        names = [plain_name(str(name)) for name in data]
        messages, used = _with_options(messages, answered, columns, (shape, used, names), where, faults)
    if not faults and len(shape) == 2:
        messages, used = _below_passage(messages, columns, shape, used)
    own, row_id = _own_metadata(data, where, faults), _own_id(data, where, faults)
    if faults:
        return faults
    kept = {plain: name for plain, (name, _) in named.items() if plain in used}
    metadata = {
        name: value
        for name, value in data.items()
        if name not in {*kept.values(), "id", "metadata"} and not is_null(value)
    }
    return QARow(content_id(messages) if row_id is None else row_id, messages, metadata | own)


def _own_metadata(data: dict[str, Any], where: str, faults: list[Fault]) -> dict[str, Any]:
    raw = data.get("metadata")
    own = decoded(raw)
    if isinstance(own, dict):
        return own
    if raw is not None and not (isinstance(raw, str | float) and is_blank(raw)):
        faults.append(Fault(where, '"metadata" to be an object', raw))
    return {}


def _own_id(data: dict[str, Any], where: str, faults: list[Fault]) -> str | None:
    row_id = data.get("id")
    if row_id is None or row_id == "":
        return None
    if isinstance(row_id, float) and row_id.is_integer():  # a column of numbers in which one was missing
        row_id = int(row_id)
    if not isinstance(row_id, str | int) or isinstance(row_id, bool):
        faults.append(Fault(where, '"id" to be a text or a whole number', row_id))
    return str(row_id)


def _unfolded(row: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Returns the columns of a row with nested columns flattened: ARC's `question` with `stem` and `choices`, and
    TruthfulQA's `mc1_targets`, the options with 1 for the right one and 0 for the others.
    """
    targets = decoded(row["mc1_targets"][1]) if "mc1_targets" in row else None
    if isinstance(targets, dict) and not {"choices", "label"} & row.keys():
        texts, right = targets.get("choices", list(targets)), targets.get("labels", list(targets.values()))
        if isinstance(right, list) and right.count(1) == 1 and all(type(label) is int for label in right):
            row = row | {"choices": ("mc1_targets", texts), "label": ("mc1_targets", right.index(1))}
    asked = decoded(row["question"][1]) if "question" in row else None
    if not isinstance(asked, dict) or not isinstance(asked.get("stem"), str):
        return row
    inner = {plain_name(name): ("question", value) for name, value in asked.items() if value is not None}
    return row | inner | {"question": ("question", asked["stem"])}


def _unfit(columns: Columns, where: str) -> list[Fault]:
    """Returns why the answer or question of a row made for another purpose is unsuitable, or None."""
    faults = []
    for name in MEDIA:
        if not is_blank(decoded(columns.get(name))):
            fix = f'Only text can be asked: take such rows out, or the column "{name}" where no question needs it.'
            faults.append(Fault(where, "a question in text alone", Shown(f'a column "{name}" beside it'), fix))
    for name, beside in UNWANTED.items():
        value = columns.get(name)
        if (value is False or str(value).strip().lower() == "false") and all(other in columns for other in beside):
            got = Shown(f'one that "{name}" marks as unwanted (false)')
            faults.append(Fault(where, "an answer that is right", got, "Take the row out: it says what not to answer."))
    return faults


# --- rows of no shape ----------------------------------------------------------------------------------------------


def unknown_shape(data: Iterable[str], where: str) -> Fault:
    """Returns the fault of a row (or of a table) without a known shape: the known columns, and those it has.

    Args:
        data: the row, column → value, or only the names of its columns.
        where: file and line.
    """
    empty = [str(name) for name, value in data.items() if value is None] if isinstance(data, dict) else []
    folder = str(Path(where.rpartition(", ")[0] or where).parent)
    got, fix = _columns_and_fix(tuple(str(name) for name in data), frozenset(empty))
    return Fault(
        where, f"columns of a known shape ({KNOWN})", Shown(f"the columns {got}"), fix.replace("{folder}", folder)
    )


@lru_cache  # of a file with the wrong columns every row has the same ones
def _columns_and_fix(names: tuple[str, ...], empty: frozenset[str]) -> tuple[str, str]:
    """Returns the columns as text, and what to do about them."""
    shown = ", ".join(f"{name} (null)" if name in empty else name for name in names) or "none"
    known = (*CHATS, *ASKS, *ANSWERS[:6])
    asks = [name for name in names if plain_name(name) in ASKS and name not in empty]
    known = known if not asks else tuple(name for name in known if name not in ASKS)
    near = {name: difflib.get_close_matches(plain_name(name), known, n=1, cutoff=0.75) for name in names}
    if missing := [name for name in names if name in empty and plain_name(name) in known]:
        fix = f"It has no value in {' and '.join(missing)}."
    elif special := _purpose({plain_name(name) for name in names}):
        fix = special
    elif len(asks) > 1:
        fix = f"Leave one question: it has {' and '.join(sorted(asks, key=lambda n: ASKS.index(plain_name(n))))}."
    elif meant := {name: alike[0] for name, alike in near.items() if alike and plain_name(name) != alike[0]}:
        fix = " ".join(f'Is "{name}" meant as "{right}"?' for name, right in meant.items())
    elif asks:
        fix = f'"{asks[0]}" has no answer beside it: name that column "answer".'
    else:
        fix = 'Name the columns "question" and "answer".'
    return shown, fix


def _purpose(names: set[str]) -> str:
    """Returns what to do with a row made for another purpose, judged by its columns, or ""."""
    if names >= {"prompt", "pieces"}:
        return "These are the training rows of a run: look at them with socratune inspect {folder}."
    if names >= {"reason", "detail", "row"}:
        return 'These are rows that a run refused: what they were stands in "row".'
    if "input_ids" in names:
        return "Token ids are of one model only: give the texts that they were made from."
    if "completions" in names and "prompt" in names:
        return 'Several completions are no reference answer: name the right one "completion".'
    if "segments" in names:
        return 'Segments say not who speaks: write them as "messages" with "role" and "content".'
    if "text" in names and not names & {*ASKS, *ANSWERS, *CHATS}:
        return 'A text alone says not what is asked and what is answered: split it into "question" and "answer".'
    return ""


# --- conversations and pairs ---------------------------------------------------------------------------------------


def _conversation(columns: Columns, shape: tuple[str, ...], where: str, faults: list[Fault]) -> TakenTurns:
    if len(shape) == 2:
        return _pair(columns, *shape, where, faults)
    (name,) = shape
    if name == "chosen" and messages_in(columns[name]) is None:
        fix = 'Name its column "prompt"; a dialogue in one text has to be split into turns.'
        faults.append(Fault(where, "the question of a preference row", Shown("no column with it"), fix))
        return [], {name}, None
    turns, used = read_chat(columns[name], f"{where}, {name}", faults), {name}
    answers = [other for other in _answers({*columns}) if not is_blank(columns[other])]
    if faults or not turns or turns[-1]["role"] != "user" or not answers:
        return turns, used, turns[-1]["content"] if turns else None
    place = f"{where}, {answers[0]}"
    answered = _one_answer(columns[answers[0]], place, faults)
    turns += _side(answered, "assistant", place, faults)
    return turns, {name, answers[0]}, answered


def _behind_system(
    messages: list[Turn], used: set[str], columns: Columns, where: str, faults: list[Fault]
) -> tuple[list[Turn], set[str]]:
    """Returns the conversation behind the row's system column if it has one and no system turn of its own."""
    for name in SYSTEMS:
        text = columns.get(name)
        if is_blank(text) or not messages or messages[0]["role"] == "system":
            continue
        if not isinstance(text, str):
            faults.append(Fault(f"{where}, {name}", "a text", text))
            return messages, used
        faults += text_faults(text, f"{where}, {name}", "system")
        return [{"role": "system", "content": text}, *messages], used | {name}
    return messages, used


def _pair(columns: Columns, ask: str, answer: str, where: str, faults: list[Fault]) -> TakenTurns:
    """Returns the conversation of a question column and an answer column."""
    used, asked, before = {ask, answer}, columns[ask], []
    if ask in ("instruction", *INPUTS):
        asked, before = _alpaca(columns, ask, where, used, faults)
    answered = _one_answer(columns[answer], f"{where}, {answer}", faults)
    if answer == "answers" and isinstance(columns[answer], dict | list) and len(_texts_in(columns[answer])) > 1:
        used.discard(answer)  # the other ways to say it stay among the metadata
    stated = str(answered).strip().lower()
    if stated in _BOOL and isinstance(asked, str) and _YES_OR_NO.search(asked) and columns.keys() & PASSAGES:
        answered = _BOOL[stated]
    turns = [*before, *_side(asked, "user", f"{where}, {ask}", faults)]
    behind = [] if answered is None else _side(answered, "assistant", f"{where}, {answer}", faults)
    if len(behind) > 1 and behind[0]["role"] != "assistant":  # it repeats the question
        stated = [turn["content"].strip() for turn in behind if turn["role"] == "user"]
        if all(turn["content"].strip() in stated for turn in turns if turn["role"] == "user"):
            return behind, used, behind[-1]["content"]
        got = Shown("a conversation that begins with another question")
        faults.append(Fault(f"{where}, {answer}", f'the answer to "{ask}"', got, f'Leave one: it, or "{ask}".'))
    if isinstance(answered, list | dict | str) and messages_in(answered) is not None:
        answered = behind[-1]["content"] if behind else None
    return [*turns, *behind], used, answered


def _side(value: Any, role: str, place: str, faults: list[Fault]) -> list[Turn]:
    """Returns one half of a pair: a text, a number, or turns."""
    if messages_in(value) is not None:
        return read_chat(value, place, faults)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (float("inf"), float("-inf")):
        fix = (
            'Write it as the question asks for it: "yes" or "no", "true" or "false".' if isinstance(value, bool) else ""
        )
        faults.append(Fault(place, "a text", value, fix))
        return []
    faults += text_faults(str(value), place, role)
    return [{"role": role, "content": str(value)}]


def _texts_in(value: Any) -> list[Any]:
    """Returns the distinct texts or numbers of SQuAD's `{"text": […]}`, of TriviaQA's `{"value": …}`, or of a list."""
    value = decoded(value)
    if isinstance(value, dict):
        value = value.get("text", value.get("value", []))
    texts: dict[str, Any] = {}
    for item in value if isinstance(value, list) else [value]:
        text = item.get("text", item.get("value")) if isinstance(item, dict) else item
        if isinstance(text, str | int | float) and not is_blank(text):
            texts.setdefault(str(text).strip(), text)
    return list(texts.values())


def _one_answer(value: Any, place: str, faults: list[Fault]) -> Any:
    """Returns the reference answer of a column that may hold several, or None and a fault if the choice is unclear.

    Of SQuAD's and TriviaQA's, which are different ways to say one thing, the first counts. A plain list may as well
    hold the parts of one answer.
    """
    inner = decoded(value)
    if messages_in(inner) is not None or not isinstance(inner, dict | list):
        return value
    if isinstance(value, str) and not (isinstance(inner, dict) and {"text", "value"} & inner.keys()):
        return value  # a list or an object that was asked for
    ways = isinstance(inner, dict) or all(isinstance(item, dict) for item in inner)
    texts = _texts_in(inner)
    if len(texts) == 1 or (ways and texts):
        return texts[0]
    fix = "Keep the one that counts; where all are needed, write them as one text." if texts else ""
    faults.append(Fault(place, "a text" if not texts else "one reference answer", value, fix))
    return None


def _no_input(value: Any) -> bool:
    return is_blank(value) or (isinstance(value, str) and _NO_INPUT.fullmatch(value.strip()) is not None)


def _alpaca(columns: Columns, ask: str, where: str, used: set[str], faults: list[Fault]) -> tuple[Any, list[Turn]]:
    """Returns Alpaca's question, with `input` on its own line below `instruction`, and the turns of its `history`."""
    asked, more, history = columns[ask], columns.get("input"), decoded(columns.get("history"))
    if ask == "instruction" and not _no_input(more):
        if isinstance(asked, str) and isinstance(more, str):
            asked = f"{asked}\n{more}"
        else:
            faults.append(Fault(f"{where}, input", "a text", more))
    used |= {"input", "history"} if ask == "instruction" else {"history"}
    before: list[Turn] = []
    if is_blank(history):
        return asked, before
    place = f"{where}, history"
    if messages_in(history) is not None:
        return asked, read_chat(history, place, faults)
    pairs = [pair for pair in history if isinstance(pair, list) and len(pair) == 2] if isinstance(history, list) else []
    if not isinstance(history, list) or len(pairs) < len(history):
        faults.append(Fault(place, "a list of [question, answer] pairs", history))
    for number, (question, answer) in enumerate(pairs):
        before += _side(question, "user", f"{place}[{number}]", faults)
        before += _side(answer, "assistant", f"{place}[{number}]", faults)
    return asked, before


# --- multiple choice -----------------------------------------------------------------------------------------------


def _with_options(
    messages: list[Turn], answered: Any, columns: Columns, taken: tuple[tuple[str, ...], set[str], list[str]],
    where: str, faults: list[Fault],
) -> tuple[list[Turn], set[str]]:  # fmt: skip
    """Returns the conversation with the row's options in its last question, and the columns taken.

    Args:
        answered: the answer as it was written, which may be an option's number.
        taken: the row's shape, the columns that it took, and all that it has.
    """
    shape, used, names = taken
    others = {name: value for name, value in columns.items() if name not in {*used, *shape} and not is_blank(value)}
    asked, reference = messages[-2]["content"], messages[-1]["content"]
    place = f"{where}, {shape[-1]}"
    points = shape[-1] in (*CHOSEN, "correct_answer")
    options = find_options(others, answered, where, faults, points=points)
    if options is None:
        if not faults and shape[-1] in CHOSEN:
            fix = 'Name the answer "answer", if it is one.'
            faults.append(Fault(place, "options that it chooses from", Shown("none in a known form"), fix))
        prompt = "\n".join(turn["content"] for turn in messages[:-1])
        if not faults and (fault := missing_options(prompt, reference, others, names, where)):
            faults.append(fault)
        return messages, used
    if options.kind == "columns" and shape[0] in COUNTED_FROM and whole_number(answered) is not None:
        labels = [str(at + COUNTED_FROM[shape[0]]) for at in range(len(options.texts))]
        options = options._replace(labels=labels, kind="labelled")
    there = all(text in asked for text in options.texts)
    if len(shape) == 1 and there and (lists_options(asked) or options.names(answered) is None):
        return messages, used  # a conversation asks in its own words
    asked, reference = with_options(asked, answered, options, place, faults)
    faults += text_faults(asked, place, "user")
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": reference}]
    return [*messages[:-2], *turns], used | options.columns


def _below_passage(
    messages: list[Turn], columns: Columns, shape: tuple[str, ...], used: set[str]
) -> tuple[list[Turn], set[str]]:
    """Returns the conversation with the question below the text it is about, and the columns taken."""
    asked, answer = messages[-2]["content"], decoded(columns[shape[-1]])
    of_reading = bool(options_in(asked)) or (isinstance(answer, dict) and "answer_start" in answer)
    for name in (*PASSAGES, *(PERHAPS_PASSAGES if of_reading else ())):
        text = columns.get(name)
        if isinstance(text, str) and text.strip() and name not in used:
            if text.strip() not in asked:
                question: Turn = {"role": "user", "content": f"{text.strip()}\n\n{asked}"}
                messages = [*messages[:-2], question, messages[-1]]
            return messages, used | {name}
    return messages, used
