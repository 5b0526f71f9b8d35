"""Opens the log that a user names, and finds out which tool wrote it: `open_log`."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from socratune.errors import Fault, Shown, UserError
from socratune.evaluation.log_formats import (
    LM_NAME,
    inspect_log,
    inspect_samples,
    lm_eval_samples,
    openai_events,
    openai_items,
    plain_samples,
    run_samples,
)
from socratune.evaluation.logs import Log, LoggedSample, gathered, lines_of, parsed

_SIDES = ("base", "adapter")
_ANSWERS = "held_out_answers.jsonl"
_KNOWN = (
    "a run folder, a folder or file of lm-eval --log_samples, a log of inspect_ai (.eval or .json), OpenAI evals, or "
    "JSONL with id and correct or score"
)


def open_logs(a: str, b: str, metrics: Sequence[str] = (), cluster: str | None = None) -> tuple[Log, Log]:
    """Opens two logs for a comparison. `metrics` and errors are those of `compare_logs` and `open_log`."""
    first, second = ([wanted.partition("=")[at] or wanted for wanted in metrics] for at in (0, 2))
    return open_log(a, first, cluster), open_log(b, second, cluster)


def open_log(name: str, metrics: Sequence[str] = (), cluster: str | None = None) -> Log:
    """Opens the log at a path, whichever tool wrote it.

    Args:
        name: a file or folder; for a run folder `RUN:base` or `RUN:adapter`, by default the adapter.
        metrics: columns with scores in a user's own JSONL.
        cluster: the field of a row that holds its cluster.

    Raises:
        UserError: the file is missing or unreadable, or the name fits several logs.
    """
    path, side = _place(name)
    try:
        if path.is_dir():
            return _in_folder(path, name, side, cluster)
        if path.suffix == ".eval":
            return _inspect([path], name, cluster)
        if path.suffix == ".json":
            return _json(path, name, metrics, cluster)
        return _jsonl(path, name, side, metrics, cluster)
    except UserError:
        raise
    except _OTHER_SHAPE as error:
        got = Shown(f"another shape ({type(error).__name__}: {error})")
        raise UserError(Fault(name, _KNOWN, got, "Is it whole, and of one of these tools?")) from error


_OTHER_SHAPE = (
    LookupError, TypeError, AttributeError, ValueError, RecursionError, EOFError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""Errors of readers if a log differs from what its first line or its name says."""


def is_run_folder(name: str) -> bool:
    """Returns True for a run folder that is named without a side."""
    return (Path(name) / _ANSWERS).is_file()


def _place(name: str) -> tuple[Path, str | None]:
    path, side = Path(name), None
    if not path.exists() and name.rpartition(":")[2] in _SIDES:
        before, _, side = name.rpartition(":")
        path = Path(before)
    if not path.exists():
        raise UserError(Fault(name, _KNOWN, Shown("no such file or folder"), "Check the path."))
    return path, side


def _in_folder(path: Path, name: str, side: str | None, cluster: str | None) -> Log:
    if (path / _ANSWERS).is_file():
        return _run(path / _ANSWERS, name, side, cluster)
    if found := sorted(path.rglob("samples_*.jsonl")):
        return _lm_eval(found, name, cluster)
    if found := sorted([*path.glob("*.eval"), *(file for file in path.glob("*.json") if _is_inspect(file))]):
        return _inspect(found, name, cluster)
    if (path / "config.yaml").is_file():
        fix = f"First: socratune validate {path}"
        raise UserError(Fault(name, "a run that is validated", Shown("one without held-out answers"), fix))
    rows = sorted(path.glob("*.jsonl"))
    if len(rows) == 1:
        return _jsonl(rows[0], name, None, (), cluster)
    got = Shown(", ".join(file.name for file in rows[:5]) or "a folder without such a file")
    raise UserError(Fault(name, _KNOWN, got, "Name the file." if rows else "Name another folder."))


# --- run folders ---------------------------------------------------------------------------------------------------


def _run(answers: Path, name: str, side: str | None, cluster: str | None) -> Log:
    side = side or "adapter"
    samples = run_samples(answers, side, answers.with_name("held_out.jsonl"))
    shown = name if name.endswith(f":{side}") else f"{name}:{side}"
    return Log(shown, "Socratune", gathered(samples, shown, cluster))


# --- lm-eval -------------------------------------------------------------------------------------------------------


def _lm_eval(files: list[Path], name: str, cluster: str | None) -> Log:
    """Opens all tasks of one model. If a task was run several times, the latest counts."""
    if len(folders := {file.parent for file in files}) > 1:
        got = Shown(", ".join(sorted(str(folder) for folder in folders)[:4]))
        raise UserError(Fault(name, "the samples of one model", got, "Name one of these folders."))
    newest: dict[str, tuple[str, Path]] = {}
    for file in files:
        named = LM_NAME.match(file.name)
        task, date = (named["task"], named["date"]) if named else (file.stem.removeprefix("samples_"), "")
        newest[task] = max(newest.get(task, ("", file)), (date, file))
    remarks, skipped = [], set[str]()
    if (older := len(files) - len(newest)) > 0:
        remarks.append(f"{name}: older files of the same tasks are left out ({older}).")
    model, lower = _lm_results(file for _, file in newest.values())
    samples = chain.from_iterable(lm_eval_samples(file, task, skipped) for task, (_, file) in newest.items())
    questions = gathered(samples, name, cluster)
    if skipped:
        what = ", ".join(sorted(skipped))
        remarks.append(f"{name}: {what} left out, as a sample's value is no number.")
    return Log(name, "lm-eval", questions, model, _with_filters(lower, questions), remarks)


def _lm_results(files: Iterable[Path]) -> tuple[str | None, set[str]]:
    """Returns the model, and the metrics where less is better, from the results beside the samples."""
    model, lower = None, set[str]()
    for file in files:
        named = LM_NAME.match(file.name)
        beside = file.with_name(f"results_{named['date']}.json") if named else file
        if named and beside.is_file():
            results = parsed(beside.read_bytes(), beside.name)
            model = results.get("model_name") or model
            for known in (results.get("higher_is_better") or {}).values():
                lower |= {metric for metric, higher in known.items() if higher is False}
    return model, lower


def _with_filters(lower: set[str], questions: list[Any]) -> frozenset[str]:
    names = {metric for question in questions for metric in question.scores}
    return frozenset(metric for metric in names if metric.partition(",")[0] in lower)


# --- inspect_ai ----------------------------------------------------------------------------------------------------


def _is_inspect(file: Path) -> bool:
    """Recognises a log by its first bytes, because it may have hundreds of megabytes."""
    with file.open("rb") as stream:
        head = stream.read(4096)
    return b'"version"' in head and b'"status"' in head and b'"eval"' in head


def _inspect(files: list[Path], name: str, cluster: str | None) -> Log:
    samples: list[Iterable[LoggedSample]] = []
    remarks, tasks, models, lower = [], list[str](), set[str](), set[str]()
    for file in files:
        header, rows = inspect_log(file)
        about = header.get("eval") or {}
        tasks.append(str(about.get("task", "")))
        models.add(str(about.get("model", "")))
        if (status := header.get("status", "cut short")) != "success":
            remarks.append(f"{file.name} is not a finished log: its status is {status}.")
        samples.append(inspect_samples(rows, tasks[-1]))
    if len(files) > 1 and (len(set(tasks)) < len(tasks) or len(models) > 1):
        got = Shown(f"{len(files)} logs of {len(set(tasks))} tasks and {len(models)} models")
        fix = f"Name one of them, as {files[-1]}."
        raise UserError(Fault(name, "one log of a task, of one model", got, fix))
    questions = gathered(chain.from_iterable(samples), name, cluster)
    return Log(name, "inspect_ai", questions, next(iter(models)) or None, frozenset(lower), remarks)


# --- rows ----------------------------------------------------------------------------------------------------------


def _json(path: Path, name: str, metrics: Sequence[str], cluster: str | None) -> Log:
    if _is_inspect(path):
        return _inspect([path], name, cluster)
    data = parsed(path.read_bytes(), path.name)
    if isinstance(data, dict) and "higher_is_better" in data:
        date = path.stem.removeprefix("results_")
        if files := sorted(path.parent.glob(f"samples_*_{date}.jsonl")):
            return _lm_eval(files, name, cluster)
        fix = "Run it again with --log_samples: a difference of two averages cannot be paired."
        raise UserError(Fault(name, "the samples beside the results of lm-eval", Shown("none"), fix))
    if isinstance(data, dict) and isinstance(data.get("samples"), list):
        return _inspect([path], name, cluster)
    data = data.get("data") if isinstance(data, dict) else data
    if not isinstance(data, list):
        raise UserError(Fault(name, _KNOWN, Shown("other JSON")))
    return _of_rows([(f"{path.name}, row {at}", row) for at, row in enumerate(data, 1)], name, metrics, cluster)


def _jsonl(path: Path, name: str, side: str | None, metrics: Sequence[str], cluster: str | None) -> Log:
    _, first = next(iter(lines_of(path)), ("", None))
    if isinstance(first, dict) and {"base", "adapter", "reference"} <= first.keys():
        return _run(path, name, side, cluster)
    if isinstance(first, dict) and {"doc_id", "filtered_resps"} <= first.keys():
        return _lm_eval([path], name, cluster)
    if first is None:
        raise UserError(Fault(name, _KNOWN, Shown("an empty file")))
    return _of_rows(lines_of(path), name, metrics, cluster)


def _of_rows(rows: Iterable[tuple[str, Any]], name: str, metrics: Sequence[str], cluster: str | None) -> Log:
    """Opens a log of rows, whose first row shows the format."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise UserError(Fault(name, _KNOWN, Shown("no row")))
    head, whole = first[1] if isinstance(first[1], dict) else {}, chain([first], rows)
    if "spec" in head or {"event_id", "sample_id"} <= head.keys():
        model = _evals_model(head)
        return Log(name, "OpenAI evals", gathered(openai_events(whole), name, cluster), model)
    if head.get("object") == "eval.run.output_item":
        return Log(name, "OpenAI evals", gathered(openai_items(whole), name, cluster))
    return Log(name, "JSONL", gathered(plain_samples(whole, metrics, name), name, cluster))


def _evals_model(head: dict[str, Any]) -> str | None:
    functions = (head.get("spec") or {}).get("completion_fns") or []
    return str(functions[0]) if functions else None
