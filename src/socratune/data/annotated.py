"""Reads rows that people have rated, repaired or answered in another tool: Kiln's task runs and Argilla's records.

    Kiln      the folder of a project or of a task, whose runs are runs/ID/task_run.kiln
    Argilla   records.json of `to_json` and `to_disk` (nested), or what `to_datasets` saved (flat)

What a person said decides: a repaired or submitted answer is the reference; what was rated down or discarded is left
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from socratune.data.columns import decoded, is_argilla, is_blank, plain_name
from socratune.data.records import SHOWN, Record, Unreadable, json_value
from socratune.data.shapes import ANSWERS, shape_of
from socratune.data.turns import messages_in
from socratune.errors import Fault, Shown, UserError


class LeftOut(NamedTuple):
    """Holds a readable record that is not used because of people's ratings or answers, or for want of them.

    Attributes:
        reason: `rated_down`, `discarded`, `unanswered`, `of_an_eval` or `of_a_conversation`.
    """

    reason: str
    detail: str
    record: dict[str, Any]


def annotated_records(path: Path, read: Callable[[Path], Iterator[Record]]) -> Iterator[Record]:
    """Yields the records behind a path. Those of other tools come as plain rows or as `LeftOut`.

    Args:
        read: the records of what no tool of these wrote a folder of its own for.

    Raises:
        UserError: a Kiln project has not exactly one task, or cannot be read.
    """
    if folder := kiln_folder(path):
        return kiln_records(folder)
    records = read(argilla_folder(path) or path)
    return ((place, plain_row(value, f"{path}, {place}")) for place, value in records)


def _as_written(tool: str, made_plain: Callable[[dict[str, Any]], Any], value: dict[str, Any], where: str) -> Any:
    """Returns a record made plain, or `Unreadable` if it is not in its tool's own form."""
    try:
        return made_plain(value)
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        got = Shown(f"another shape ({type(error).__name__}: {error})")
        fix = "Write them with dataset.records.to_json(FILE)." if tool == "Argilla" else ""
        return Unreadable(Fault(where, f"a record as {tool} writes it", got, fix), str(value)[:SHOWN])


# --- Kiln ----------------------------------------------------------------------------------------------------------

_LEAST = {"five_star": 3, "pass_fail": 1, "pass_fail_critical": 1}
"""The lowest rating that does not reject an answer. Three stars are neither good nor bad."""


def kiln_folder(path: Path) -> Path | None:
    """Returns the folder of a Kiln project or task if the path is one or its `.kiln` file, otherwise None."""
    folder = path.parent if path.name in ("project.kiln", "task.kiln") else path
    return folder if any((folder / name).is_file() for name in ("project.kiln", "task.kiln")) else None


def kiln_records(folder: Path) -> Iterator[Record]:
    """Yields the runs of a Kiln task as conversations: the task's instruction, the input, the output judged good.

    Raises:
        UserError: the project has not exactly one task, or the task cannot be read.
    """
    tasks = [folder / "task.kiln"] if (folder / "task.kiln").is_file() else sorted(folder.glob("tasks/*/task.kiln"))
    if len(tasks) != 1:
        got = Shown(", ".join(repr(task.parent.name) for task in tasks) or "none")
        fix = f"Name one: --dataset '{tasks[0].parent}'." if tasks else ""
        raise UserError(Fault(str(folder), "a Kiln project with one task", got, fix))
    task = _kiln_value(tasks[0])
    if isinstance(task, Unreadable):
        raise UserError(task.fault)
    instruction = _instruction(task)
    for file in sorted(tasks[0].parent.glob("runs/*/task_run.kiln")):
        value = _kiln_value(file)
        if isinstance(value, dict):
            value = _as_written("Kiln", partial(_kiln_row, instruction=instruction), value, str(file))
        yield f"run {file.parent.name}", value


def _kiln_value(file: Path) -> dict[str, Any] | Unreadable:
    data = file.read_bytes()
    value = json_value(data, str(file))
    if isinstance(value, Unreadable | dict):
        return value
    return Unreadable(Fault(str(file), "an object, as Kiln writes it", value), data[:200].decode("utf-8", "replace"))


def _instruction(task: dict[str, Any]) -> str:
    """Returns the text with which Kiln's own simple prompt begins."""
    requirements = task.get("requirements")
    requirements = requirements if isinstance(requirements, list) else []
    demands = [demand.get("instruction") for demand in requirements if isinstance(demand, dict)]
    lines = "".join(f"{number}) {text}\n" for number, text in enumerate(demands, start=1))
    heading = "\n\nYour response should respect the following requirements:\n" if lines else ""
    return f"{task.get('instruction') or ''}{heading}{lines}".strip()


def _kiln_row(run: dict[str, Any], instruction: str) -> dict[str, Any] | LeftOut:
    if run.get("eval_source") or run.get("parent_task_run_id"):
        reason = "of_an_eval" if run.get("eval_source") else "of_a_conversation"
        return LeftOut(reason, "a part of something longer, no row of its own", run)
    output, repaired = run.get("output"), run.get("repaired_output")
    rating = (output.get("rating") if isinstance(output, dict) else None) or {}
    value, least = rating.get("value"), _LEAST.get(rating.get("type", "five_star"))
    if not repaired and isinstance(value, int | float) and least is not None and value < least:
        return LeftOut("rated_down", f"{rating.get('type')}: {value:g}, and nobody repaired it", run)
    best = repaired or output
    thinking = run.get("intermediate_outputs") or {}
    metadata = {
        "tags": run.get("tags"),
        "rating": value,
        "repaired": True if repaired else None,
        "thinking": thinking.get("reasoning") or thinking.get("chain_of_thought"),
    }
    turns = [
        {"role": "system", "content": instruction},
        {"role": "user", "content": run.get("input")},
        {"role": "assistant", "content": best.get("output") if isinstance(best, dict) else best},
    ]
    return {"id": run.get("id"), "messages": turns, "metadata": {k: v for k, v in metadata.items() if not is_blank(v)}}


# --- Argilla -------------------------------------------------------------------------------------------------------

_FLAT = (".responses", ".responses.status", ".responses.users", ".suggestion", ".suggestion.agent", ".suggestion.score")
_SUBMITTED = "submitted"
_SAY_OTHERWISE = ("source", "evidence", "thinking", "sibling_of")
"""Metadata with a meaning of their own. In a flat record they stand beside the fields."""


def argilla_folder(path: Path) -> Path | None:
    """Returns the records file of a folder that Argilla's `to_disk` wrote, or None for any other path."""
    return path / "records.json" if (path / ".argilla").is_dir() and (path / "records.json").is_file() else None


def plain_row(value: Any, where: str) -> Any:
    """Returns a record of Argilla or in Gemini's form as a plain row or as `LeftOut`, and anything else unchanged."""
    if not isinstance(value, dict):
        return value
    if "contents" in value and shape_of(value) is None:
        return _gemini(value)
    if not is_argilla(value):
        return value
    return _as_written("Argilla", _argilla_row, value, where)


def _argilla_row(value: dict[str, Any]) -> dict[str, Any] | LeftOut:
    record = value if "fields" in value else _nested(value)
    fields, responses, suggestions = (record.get(name) for name in ("fields", "responses", "suggestions"))
    if not (isinstance(fields, dict) and isinstance(responses, dict) and isinstance(suggestions, dict)):
        raise TypeError("fields, responses or suggestions are no objects")  # as `to_dict` writes whole columns
    answers = {name: values for name, listed in responses.items() if (values := _answers_of(listed))}
    asked = _text_question({*responses, *suggestions}, answers, suggestions)
    answer, by = _chosen(answers.get(asked, []), record.get("status")), "response"
    if answer is None and answers:
        known = {status for values in answers.values() for _, status in values if status}
        reason = "discarded" if known == {"discarded"} else "unanswered"
        reply = f"its responses are {', '.join(sorted(known))}" if known else f"its record is {record.get('status')}"
        return LeftOut(reason, f"nobody has submitted an answer: {reply}", value)
    if answer is None and isinstance(proposed := suggestions.get(asked), dict):
        answer, by = proposed.get("value"), "suggestion"
    if not isinstance(answer, str) or not answer.strip():
        return LeftOut("unanswered", "it has neither a submitted text nor a suggested one", value)
    metadata = {**(record.get("metadata") or {}), "answered_by": by}
    return {"id": value.get("id") or value.get("_server_id"), **_asked(fields), "answer": answer, "metadata": metadata}


def _gemini(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a row from Kiln's export for Gemini's fine-tuning: `contents` of turns in parts."""
    turns, system = value["contents"], value.get("systemInstruction")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "parts" in turn for turn in turns):
        return value
    before = [{"role": "system", "content": system.get("parts")}] if isinstance(system, dict) else []
    messages = [*before, *({"role": turn.get("role"), "content": turn["parts"]} for turn in turns)]
    kept = {name: part for name, part in value.items() if name not in ("contents", "systemInstruction")}
    return kept | {"messages": messages}


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a flat record as the nested record it was. It keeps no metadata apart, so all become fields."""
    responses: dict[str, list[dict[str, Any]]] = {}
    suggestions: dict[str, dict[str, Any]] = {}
    for name, value in row.items():
        question = name.removesuffix(".responses")
        if question != name and isinstance(values := decoded(value), list):
            states = decoded(row.get(f"{name}.status")) or [None] * len(values)
            pairs = zip(values, states, strict=False)
            responses[question] = [{"value": value, "status": state} for value, state in pairs]
        elif (question := name.removesuffix(".suggestion")) != name and value is not None:
            suggestions[question] = {"value": value}
    own = ("id", "status", "_server_id")
    fields = {n: v for n, v in row.items() if n not in own and v is not None and not n.endswith(_FLAT)}
    return {"fields": fields, "responses": responses, "suggestions": suggestions, "status": row.get("status")}


def _answers_of(responses: Any) -> list[tuple[Any, Any]]:
    """Returns (value, status) of every response to a question. `to_json` writes no status."""
    replies = responses if isinstance(responses, list) else []
    return [(reply.get("value"), reply.get("status")) for reply in replies if isinstance(reply, dict)]


def _text_question(names: set[str], answers: dict[str, Any], suggestions: dict[str, Any]) -> str:
    """Returns the question that holds the reference: one named like an answer, otherwise the only text question."""
    for known in ANSWERS:
        for name in names:
            if plain_name(name) == known:
                return name
    texts = [name for name in sorted(names)
             if any(isinstance(value, str) for value, _ in answers.get(name, []))
             or isinstance((suggestions.get(name) or {}).get("value"), str)]  # fmt: skip
    return texts[0] if len(texts) == 1 else ""


def _chosen(answers: list[tuple[Any, Any]], record_status: Any) -> str | None:
    """Returns the submitted text that most people gave, the first among equals, or None."""
    texts = [
        value for value, status in answers
        if isinstance(value, str) and value.strip()
        and (status == _SUBMITTED or (status is None and record_status in ("completed", _SUBMITTED)))
    ]  # fmt: skip
    return Counter(texts).most_common(1)[0][0] if texts else None


def _asked(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields under names that mark a question: a chat, or the only text."""
    if shape_of([*fields, "answer"]):
        return fields
    chats = [name for name, value in fields.items() if messages_in(value)]
    if len(chats) == 1:
        return {"messages" if name == chats[0] else name: value for name, value in fields.items()}
    texts = [name for name, value in fields.items() if isinstance(value, str) and name not in _SAY_OTHERWISE]
    asked = "text" if "text" in texts else texts[0] if len(texts) == 1 else ""
    return {"question" if name == asked else name: value for name, value in fields.items()}
