"""Writes what a run answered for tools in which people judge and correct answers: Argilla and Kiln.

argilla  records.json, .argilla/   what `rg.Dataset.from_disk` reads: two questions a record, our verdict suggested
kiln     project.kiln, tasks/…     a project of one task, each answer a run of it with its rating

Both come back as `--dataset`: a repaired or submitted answer is then the reference.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from socratune.errors import Fault, Shown, UserError
from socratune.rows import Trace
from socratune.runs import Results, RunDir, export_place, iter_rows, whole_folder, write_json

ANNOTATORS = {"argilla": "records.json", "kiln": "project.kiln"}
"""By the name that `--for` takes: the file by which an earlier export is known."""
_WHAT_TO_DO = (
    "Is the response right according to the reference? If not, correct the answer. Then submit. "
    "The suggestions are what the run itself found."
)


_WRITTEN = ".written"
"""An empty file that is as old as the export: Kiln works in the folder itself."""


class _Answer(NamedTuple):
    id: str
    system: str
    question: str
    reference: str
    response: str
    verdict: str
    judged_by: str
    about: dict[str, str]
    """`set` (`train` or `held_out`) and `outcome`, by which people filter."""


def export_answers(run: RunDir, to: str, *, out: str | None = None) -> str:
    """Writes a run's answers for people to judge and returns how many, where they are, and how to read them there.

    Args:
        to: one of `ANNOTATORS`.
        out: the folder, which is written anew; without it, `RUN/export/TO`.

    Raises:
        UserError: the run has no answer yet or damaged ones, something else is at `out`, or people have worked there.
    """
    place = export_place(run, to, out, ANNOTATORS[to])
    if touched := _worked_on(place):
        got = Shown(f"{len(touched)} changed files, such as {touched[0].relative_to(place)}")
        fix = f"Read what people decided there with --dataset {place}, or export to another folder: --out DIR."
        raise UserError(Fault(f"--out {place}", "an export in which nobody has worked", got, fix))
    answers = list(_answers(run))
    if not answers:
        fix = f"First: socratune run … --output {run.root} --until enhance"
        raise UserError(Fault(str(run.root), "a run with answers", Shown("none"), fix))
    with whole_folder(place) as folder:
        (_argilla if to == "argilla" else _kiln)(folder, run, answers)
        (folder / _WRITTEN).touch()
        shutil.rmtree(place, ignore_errors=True)
    right = sum(answer.verdict == "correct" for answer in answers)
    used = f'rg.Dataset.from_disk("{place}")' if to == "argilla" else f"Import Project: {place / 'project.kiln'}"
    return f"{len(answers)} answers, {right} of them right: {place}\nRead them there: {used}"


def _worked_on(place: Path) -> list[Path]:
    """Returns Kiln's files that changed after an earlier export was written."""
    mark = place / _WRITTEN
    since = mark.stat().st_mtime_ns if mark.is_file() else 0
    return sorted(file for file in place.rglob("*.kiln") if file.stat().st_mtime_ns > since)


def _answers(run: RunDir) -> Iterator[_Answer]:
    """Yields the answer of every trace, the trained one if there is one, then the adapter's held-out answers."""
    held_out = run.rows("held_out_answers")
    if run.enhanced.is_file():
        yield from (found for found in iter_rows(run.enhanced, _of_trace) if found)
    if held_out.is_file():
        yield from iter_rows(held_out, _of_held_out)


def _of_trace(data: dict[str, Any]) -> _Answer | None:
    trace = Trace.from_json(data)
    if not trace.attempts:
        return None
    one = trace.attempts[(trace.chosen or len(trace.attempts)) - 1]
    about = {"set": "train", "outcome": trace.outcome}
    asked = _asked(trace.row.prompt)
    return _Answer(trace.row.id, *asked, trace.row.reference, one.response, one.verdict, one.judged_by, about)


def _of_held_out(row: dict[str, Any]) -> _Answer:
    told, base = row["adapter"], row["base"]["verdict"]
    about = {"set": "held_out", "outcome": f"base {base}, adapter {told['verdict']}"}
    return _Answer(
        f"held-out-{row['id']}", "", row["question"], row["reference"], told["response"], told["verdict"],
        told.get("judged_by", "the judge"), about,
    )  # fmt: skip


def _asked(prompt: list[dict[str, str]]) -> tuple[str, str]:
    """Returns the system turn and the question. A conversation becomes one text that names who speaks."""
    system = "".join(turn["content"] for turn in prompt if turn["role"] == "system")
    turns = [turn for turn in prompt if turn["role"] != "system"]
    single = len(turns) == 1
    return system, "\n\n".join(turn["content"] if single else f"{turn['role']}: {turn['content']}" for turn in turns)


# --- Argilla -------------------------------------------------------------------------------------------------------


def _argilla(folder: Path, run: RunDir, answers: Sequence[_Answer]) -> None:
    def field(name: str, *, required: bool = True) -> dict[str, Any]:
        return {"name": name, "title": name, "required": required, "type": "text",
                "settings": {"type": "text", "use_markdown": False}}  # fmt: skip

    def question(name: str, settings: dict[str, Any], *, required: bool) -> dict[str, Any]:
        return {"name": name, "title": name, "required": required, "type": settings["type"], "settings": settings}

    verdicts = [{"text": one, "value": one} for one in ("correct", "incorrect", "undecided")]
    labels = {"type": "label_selection", "options": verdicts, "visible_options": 3}
    terms = {"type": "terms", "visible_for_annotators": True, "values": None}
    settings = {
        "guidelines": _WHAT_TO_DO,
        "fields": [field("question"), field("system", required=False), field("reference", required=False),
                   field("response", required=False)],
        "questions": [
            question("verdict", labels, required=True),
            question("answer", {"type": "text", "use_markdown": False}, required=False),
        ],
        "vectors": [],
        "metadata": [{"name": name, "title": name, "visible_for_annotators": True, "settings": terms}
                     for name in ("set", "outcome")],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }  # fmt: skip
    (folder / ".argilla").mkdir()
    write_json(folder / ".argilla" / "settings.json", settings)
    write_json(folder / ".argilla" / "dataset.json", {"name": run.root.resolve().name, "guidelines": _WHAT_TO_DO})
    with (folder / "records.json").open("w", encoding="utf-8", errors="backslashreplace") as stream:
        json.dump([_argilla_record(answer, _student(run)) for answer in answers], stream, ensure_ascii=False)


def _argilla_record(answer: _Answer, student: str) -> dict[str, Any]:
    fields = {"question": answer.question, "reference": answer.reference, "response": answer.response}
    verdict = {"value": answer.verdict, "score": None, "agent": answer.judged_by}
    right = answer.response if answer.verdict == "correct" else answer.reference
    text = {"value": right, "score": None, "agent": student if answer.verdict == "correct" else "reference"}
    return {
        "id": answer.id,
        "fields": fields | ({"system": answer.system} if answer.system else {}),
        "metadata": answer.about,
        "suggestions": {"verdict": verdict, "answer": text},
        "responses": {},
        "vectors": {},
        "status": "pending",
    }


def _student(run: RunDir) -> str:
    return str(Results(run).data.get("model") or "the student").rstrip("/").rsplit("/", 1)[-1]


# --- Kiln ----------------------------------------------------------------------------------------------------------


def _kiln(folder: Path, run: RunDir, answers: Sequence[_Answer]) -> None:
    name, student = run.root.resolve().name, _student(run)
    common = {"v": 1, "created_at": Results(run).data.get("updated", "2026-01-01T00:00:00Z"), "created_by": "socratune"}
    systems = {answer.system for answer in answers if answer.system}
    instruction = systems.pop() if len(systems) == 1 else "Answer the question."
    project = {"id": _digits(f"project {name}"), "name": _kiln_name(name), "model_type": "project"}
    task = {"id": _digits(name), "name": "Answer", "instruction": instruction, "requirements": [], "model_type": "task"}
    place = folder / "tasks" / task["id"]
    place.mkdir(parents=True)
    write_json(folder / "project.kiln", common | project)
    write_json(place / "task.kiln", common | task)
    for number, answer in enumerate(answers, start=1):
        one = common | {"id": f"{number:012}"} | _kiln_run(answer, student)
        file = place / "runs" / one["id"] / "task_run.kiln"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(one, ensure_ascii=False), "utf-8", errors="backslashreplace")


def _kiln_run(answer: _Answer, student: str) -> dict[str, Any]:
    """Returns a run of the task: the answer, its rating, and the reference as the repair of a wrong answer."""
    made_by = {"model_name": student, "model_provider": "socratune", "adapter_name": "socratune"}
    source = {"type": "synthetic", "properties": made_by}
    passed = float(answer.verdict == "correct")
    rating = {"v": 1, "type": "pass_fail", "value": passed, "model_type": "task_output_rating"}
    output = {"v": 1, "output": answer.response, "source": source, "model_type": "task_output"}
    wrong, decided = answer.verdict == "incorrect", answer.verdict in ("correct", "incorrect")
    human = {"type": "human", "properties": {"created_by": "the data set"}}
    repaired = {"v": 1, "output": answer.reference, "source": human, "model_type": "task_output"}
    outcome = re.sub(r"\W+", "_", answer.about["outcome"])
    return {
        "input": answer.question,
        "output": output | {"rating": rating if decided else None},
        "repair_instructions": "This is the reference answer of the data set." if wrong else None,
        "repaired_output": repaired if wrong else None,
        "tags": [answer.about["set"], outcome],
        "model_type": "task_run",
    }


def _kiln_name(name: str) -> str:
    """Returns a name that Kiln accepts, without the characters that it bars from file names."""
    return re.sub(r"[^A-Za-z0-9-]+", " ", name).strip()[:100].strip() or "Socratune"


def _digits(text: str) -> str:
    """Returns twelve digits, as Kiln's ids have, that depend on the text alone."""
    return str(int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), 16))[:12]
