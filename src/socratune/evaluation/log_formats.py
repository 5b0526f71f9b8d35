"""Reads other tools' logs: one small function per format, each from a file to samples.

- lm-eval `--log_samples`: `samples_TASK_DATE.jsonl`, a line per question and filter.
- inspect_ai: `.eval`, a zip archive with a JSON file per sample, or the same as one `.json`.
- OpenAI evals: the events of `oaieval` as JSONL, or the output items of the platform.
- JSONL with `id` (or `question`) and `correct`, `score` or `scores`.
- the held-out answers of a run folder, base or adapter.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.logs import LoggedSample, Score, as_score, lines_of, parsed, text_of

_QUESTION = ("question", "query", "problem", "prompt", "input", "goal", "ctx", "sentence", "text", "instruction")
_REFERENCE = ("reference", "target", "expected", "ideal", "gold")
_ANSWER = ("response", "output", "completion", "prediction", "sampled", "answer")
_NUMBER = ("sample", "epoch")

# --- lm-eval -------------------------------------------------------------------------------------------------------

_LM_COLUMNS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
               "doc_hash", "prompt_hash", "target_hash"}  # fmt: skip
LM_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.\-:]+)\.jsonl$")


def lm_eval_samples(path: Path, task: str, skipped: set[str]) -> Iterator[LoggedSample]:
    """Yields the questions of a task. A metric with several filters is named `exact_match,strict-match`, as in lm-eval.

    Args:
        skipped: receives the metrics with values that are not numbers, such as perplexities and lists of probabilities.
    """
    rows = list(lines_of(path))
    several = len({row.get("filter", "none") for _, row in rows}) > 1
    found: dict[tuple[str, int], LoggedSample] = {}
    filters: set[tuple[str, str]] = set()
    repeated: dict[tuple[str, str], int] = {}
    for where, row in rows:
        filtered, name = str(row.get("filter", "none")), text_of(row.get("doc_id"))
        number = repeated[name, filtered] = repeated.get((name, filtered), -1) + 1
        filters.add((name, filtered))
        suffix = f",{filtered}" if several or filtered not in ("none", "") else ""
        scores: dict[str, list[Score]] = {}
        for metric in row.get("metrics") or [column for column in row if column not in _LM_COLUMNS]:
            if (score := _lm_score(row.get(metric))) is _NO_NUMBER:
                skipped.add(metric)
            else:
                scores[metric + suffix] = [score]  # type: ignore[list-item]
        sample = found.get((name, number))
        if sample is None:
            found[name, number] = _lm_sample(row, where, name, task, scores)
        else:
            sample.scores |= scores
    yield from found.values()


_NO_NUMBER = object()


def _lm_score(value: Any) -> Any:
    """Returns a number. For a list of booleans (one per instruction), this is the share that is right."""
    if isinstance(value, list) and value and all(isinstance(part, bool) for part in value):
        return sum(value) / len(value)
    if isinstance(value, bool | int | float | None):
        return as_score(value)
    return _NO_NUMBER


def _lm_sample(row: dict[str, Any], where: str, name: str, task: str, scores: dict[str, list[Score]]) -> LoggedSample:
    doc = row.get("doc")
    doc = doc if isinstance(doc, dict) else {"text": doc}
    question = _first(doc, _QUESTION) or _lm_prompt(row.get("arguments"))
    said = _lm_choice(row) or _lm_response(row)
    return LoggedSample(where, name, scores, None, task, question, _lm_reference(row, doc), [said], doc)


def _lm_response(row: dict[str, Any]) -> str:
    """Returns the model's output before any filter."""
    said: Any = row.get("resps") or row.get("filtered_resps")
    while isinstance(said, list) and said:
        said = said[0]
    return text_of(said)


def _lm_choice(row: dict[str, Any]) -> str:
    """Returns the choice with the largest likelihood, or an empty text if the task has no choices."""
    try:
        likelihoods = [float(likelihood) for likelihood, _ in row["filtered_resps"]]
        best = likelihoods.index(max(likelihoods))
        arguments = row["arguments"]
        asked = list(arguments.values()) if isinstance(arguments, dict) else arguments
        said = list(asked[best].values()) if isinstance(asked[best], dict) else asked[best]
        return text_of(said[1]).strip()
    except (LookupError, TypeError, ValueError):
        return ""


def _lm_reference(row: dict[str, Any], doc: dict[str, Any]) -> str:
    target, choices = row.get("target"), doc.get("choices")
    choices = choices.get("text") if isinstance(choices, dict) else choices
    at = int(target) if isinstance(target, int) or (isinstance(target, str) and target.isdigit()) else None
    if isinstance(choices, list) and at is not None and at < len(choices):
        return text_of(choices[at])
    return text_of(target)


def _lm_prompt(arguments: Any) -> str:
    """Returns the prompt of the first request, from either shape that lm-eval writes."""
    first = next(iter(arguments.values()), None) if isinstance(arguments, dict) else (arguments or [None])[0]
    first = list(first.values()) if isinstance(first, dict) else first
    return text_of(first[0]) if isinstance(first, list) and first else ""


# --- inspect_ai ----------------------------------------------------------------------------------------------------

_ZSTD = 93


def inspect_log(path: Path) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """Returns the header of an inspect_ai log, and (place, sample) of every sample."""
    if not zipfile.is_zipfile(path):
        log = parsed(path.read_bytes(), path.name)
        listed = log.get("samples") or []
        return log, ((f"{path.name}, sample {at}", sample) for at, sample in enumerate(listed, 1))
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    header = "header.json" if "header.json" in names else "_journal/start.json"  # for an incomplete log
    if header not in names:
        archive.close()
        raise UserError(Fault(str(path), "a log of inspect_ai", Shown("another archive")))

    def samples() -> Iterator[tuple[str, dict[str, Any]]]:
        with archive:
            for name in names:
                if name.startswith("samples/"):
                    yield f"{path.name}:{name}", parsed(_unpacked(archive, path, name), f"{path.name}:{name}")

    return parsed(_unpacked(archive, path, header), f"{path.name}:{header}"), samples()


def _unpacked(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """Reads a file of an archive. inspect_ai uses Zstandard since 0.3.19x, zipfile only from Python 3.14."""
    info = archive.getinfo(name)
    if info.compress_type != _ZSTD:
        return archive.read(name)
    stream = archive.fp
    assert stream is not None
    stream.seek(info.header_offset)
    extra = struct.unpack("<HH", stream.read(30)[26:30])
    stream.seek(info.header_offset + 30 + sum(extra))
    return _unzstd(stream.read(info.compress_size), path)


def _unzstd(data: bytes, path: Path) -> bytes:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14

        return zstd.decompress(data)
    except ModuleNotFoundError:
        pass
    try:
        import zstandard  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        fix = f"pip install zstandard, or: inspect log convert {path} --to json --output-dir converted"
        raise UserError(Fault(str(path), "zstandard, which unpacks it", Shown("no such package"), fix)) from None
    try:
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def inspect_samples(samples: Iterable[tuple[str, dict[str, Any]]], task: str) -> Iterator[LoggedSample]:
    """Yields a sample per sample and epoch. A scorer with several values gives a metric for each: `scorer.value`.

    A sample that ended in an error has no scores. It counts as not scored.
    """
    held = list(samples)
    scorers = dict.fromkeys(metric for _, sample in held for metric in _inspect_scores(sample))
    for where, sample in held:
        scores = _inspect_scores(sample)
        known: dict[str, list[Score]] = {metric: [scores.get(metric)] for metric in scorers}
        attached = sample.get("attachments") or {}
        question, reference, said = (
            _detached(text, attached)
            for text in (text_of(sample.get("input")), text_of(sample.get("target")), _inspect_answer(sample))
        )
        about = sample.get("metadata") or {}
        name, epoch = text_of(sample["id"]), sample.get("epoch")
        yield LoggedSample(where, name, known, epoch, task, question, reference, [said], about)


def _inspect_scores(sample: dict[str, Any]) -> dict[str, Score]:
    found: dict[str, Score] = {}
    for name, score in (sample.get("scores") or {}).items():
        value = score.get("value") if isinstance(score, dict) else score
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for metric, part in parts.items():
            try:
                found[metric] = as_score(part)
            except ValueError:
                continue
    return found


def _inspect_answer(sample: dict[str, Any]) -> str:
    if error := sample.get("error"):
        return f"(error: {error.get('message', '')})"
    output = sample.get("output") or {}
    if isinstance(said := output.get("completion"), str):
        return said
    choices = output.get("choices") or [{}]
    return text_of((choices[0].get("message") or {}).get("content"))


def _detached(text: str, attached: dict[str, str]) -> str:
    """Returns the text, also if it is long and therefore stored apart from the sample."""
    prefix = "attachment://"
    return attached.get(text.removeprefix(prefix), text) if text.startswith(prefix) else text


# --- OpenAI evals --------------------------------------------------------------------------------------------------


def openai_events(rows: Iterable[tuple[str, Any]]) -> Iterator[LoggedSample]:
    """Reads events of `oaieval --record_path`: `match` has `correct`, `metrics` numbers, and `sampling` the texts."""
    found: dict[str, LoggedSample] = {}
    for where, row in rows:
        name, kind, data = row.get("sample_id"), row.get("type"), row.get("data")
        if name is None or not isinstance(data, dict):
            continue
        sample = found.setdefault(str(name), LoggedSample(where, str(name), {}))
        if kind == "sampling":
            sample.question, sample.answers = text_of(data.get("prompt")), [text_of(data.get("sampled"))]
        elif kind == "match":
            sample.scores.setdefault("correct", []).append(as_score(data.get("correct")))
            sample.reference = text_of(data.get("expected")) or sample.reference
            sample.answers = sample.answers or [text_of(data.get("sampled") or data.get("picked"))]
        elif kind == "metrics":
            for metric, value in data.items():
                if isinstance(value, bool | int | float):
                    sample.scores.setdefault(metric, []).append(as_score(value))
    yield from (sample for sample in found.values() if sample.scores)


def openai_items(rows: Iterable[tuple[str, Any]]) -> Iterator[LoggedSample]:
    """Reads output items of an eval run on OpenAI's platform. A grader is a metric, by its score or by `passed`."""
    for where, row in rows:
        item, sample = row.get("datasource_item") or {}, row.get("sample") or {}
        scores: dict[str, list[Score]] = {}
        for result in row.get("results") or []:
            value = result.get("score", result.get("passed"))
            scores[result.get("name") or "passed"] = [as_score(value)]
        item = item.get("item", item) if isinstance(item, dict) else {}
        name = text_of(row.get("datasource_item_id", row.get("id")))
        question = _first(item, _QUESTION) or text_of(sample.get("input"))
        said = text_of([{**part, "role": "user"} for part in sample.get("output") or []])
        yield LoggedSample(
            where, name, scores, None, "", question, _first(item, (*_REFERENCE, "answer", "ground_truth")), [said], item
        )


# --- a user's own rows ---------------------------------------------------------------------------------------------


def plain_samples(rows: Iterable[tuple[str, Any]], wanted: Iterable[str], path: str) -> Iterator[LoggedSample]:
    """Reads rows with `id` (or `question`) and `correct`, `score`, `scores` or a column requested as a metric."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(Fault(where, "an object with id and correct or score", row))
        question = _first(row, _QUESTION)
        name = text_of(row["id"]) if row.get("id") is not None else question
        if not name:
            raise UserError(Fault(where, "`id`, or `question`", Shown(", ".join(row) or "an empty object")))
        given = {metric: row[metric] for metric in ("correct", "score", *wanted) if metric in row}
        given |= row["scores"] if isinstance(row.get("scores"), dict) else {}
        if not given:
            numbers = [key for key, value in row.items() if isinstance(value, bool | int | float) and key != "id"]
            fix = f"Name the column that is the score: --metric {numbers[0]}" if numbers else "Add one of them."
            raise UserError(Fault(f"{path}, {where}", "`correct`, `score` or `scores`", Shown(", ".join(row)), fix))
        try:
            scores = {metric: _several(value) for metric, value in given.items()}
        except ValueError as error:
            fix = "true, false, a number, null for one that was not scored, or a list of these."
            raise UserError(Fault(where, "scores", Shown(str(error)), fix)) from None
        number = next((row[key] for key in _NUMBER if isinstance(row.get(key), int)), None)
        said = next((row[key] for key in _ANSWER if row.get(key) is not None), "")
        answers = [text_of(part) for part in said] if isinstance(said, list) else [text_of(said)]
        yield LoggedSample(
            where, name, scores, number, text_of(row.get("task")), question, _first(row, _REFERENCE), answers, row
        )


def _several(value: Any) -> list[Score]:
    return [as_score(part) for part in value] if isinstance(value, list) else [as_score(value)]


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((text_of(row[name]) for name in names if row.get(name) not in (None, "")), "")


# --- run folders ---------------------------------------------------------------------------------------------------


def run_samples(answers: Path, side: str, held_out: Path) -> Iterator[LoggedSample]:
    """Yields the answers of a run's base or adapter to the held-out questions. An undecided answer is not scored.

    Args:
        held_out: the file of the questions, which holds their clusters; may be missing.
    """
    known = dict(lines_of(held_out)).values() if held_out.is_file() else ()
    rows = {row["id"]: row for row in known}
    worth: dict[str, Score] = {"correct": 1.0, "incorrect": 0.0}
    for where, row in lines_of(answers):
        said = [row[side], *row[side].get("more", [])]
        scores = [worth.get(one["verdict"]) for one in said]
        about = rows.get(row["id"], {})
        fields = {**about.get("metadata", {}), "cluster": about.get("cluster")}
        replies = [one["response"] for one in said]
        yield LoggedSample(
            where, row["id"], {"accuracy": scores}, None, "", row["question"], row["reference"], replies, fields
        )
