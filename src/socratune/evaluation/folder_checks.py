"""Checks that the files of a run folder belong together, by their hashes and by what they record of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from socratune.config import RunConfig, is_free
from socratune.evaluation.adapter_files import adapter_manifest, file_integrity
from socratune.evaluation.gate import Proof
from socratune.evaluation.pinning import hashes, known_base, settings_hash
from socratune.llm import is_path, model_location
from socratune.resolve import defaults, dump, flatten
from socratune.rows import Example, QARow
from socratune.runs import PROVENANCE, Pin, RunDir, fingerprint, first_stage_of, iter_rows, pins_faults

_NEW_FILES = ("forgetting_answers.jsonl", f"adapter/{PROVENANCE}")
"""Files that are written only by versions that pin what their proof rests on."""


def folder_faults(
    run: RunDir, config: RunConfig, results: dict[str, Any], pins: Sequence[Pin], claimed: Proof
) -> list[str]:
    """Returns what does not belong together, in full sentences.

    Raises:
        UserError: a file cannot be read.
    """
    by_what = {one.what: one.content for one in pins}
    found = [*_provenance(run, results, pins), *_adapter(run, config, claimed, by_what.get("adapter"))]
    found += [*_statuses(results, claimed), *_settings(config, results, by_what), *_base(config, results, by_what)]
    return [*found, *_pinned_files(run, claimed, by_what), *_rows(run, results)]


def not_pinned_before(pins: Sequence[Pin]) -> str:
    """Returns why nobody can tell if the test was fixed before the training, and an empty text if it was."""
    kinds = [one.what for one in pins]
    if "held_out" in kinds and "train" in kinds:
        return ""
    return (
        "The test was not pinned before the training, as this run was begun by an older version: whether its questions "
        "are those it began with cannot be told. Its answers were counted again."
    )


def _provenance(run: RunDir, results: dict[str, Any], pins: Sequence[Pin]) -> Iterator[str]:
    copy = run.adapter / PROVENANCE
    if not pins:
        if "provenance" in results or any((run / name).exists() for name in _NEW_FILES):
            yield f"{PROVENANCE} is missing, and this run has had one."
        return
    yield from pins_faults(pins, str(results.get("provenance")))
    if not copy.is_file() or copy.read_bytes() != (run / PROVENANCE).read_bytes():
        yield f"adapter/{PROVENANCE} is not the run's: the copy is missing, or another one's."
    if [one.what for one in pins][-1] != "proof":
        yield f"{PROVENANCE} has no entry for the proof."


def _adapter(run: RunDir, config: RunConfig, claimed: Proof, pinned: dict[str, Any] | None) -> Iterator[str]:
    there = adapter_manifest(run.adapter)
    for what, wanted in (("validated", claimed.files), ("trained", (pinned or {}).get("files"))):
        if wanted is not None and there != wanted:
            names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
            yield f"The adapter is not the one that was {what}: {', '.join(sorted(names)[:3])}."
            return
    base = _base_here(config.model)
    if base is None or not claimed.tests["file_integrity"]["passed"]:
        return
    try:
        problems = file_integrity(run.adapter, base)["problems"]
    except OSError:  # parts of a Hub base may be missing here
        return
    yield from (f"The adapter's files do not pass: {problem}." for problem in problems)


def _base_here(model_name: str) -> str | None:
    """Returns the base if it is on this machine (`demo`, a folder, a Hub model in the local cache), else None."""
    if Path(model_location(model_name, fetch=False)).is_dir():
        return model_name
    from huggingface_hub import try_to_load_from_cache

    cached = None if is_path(model_name) else try_to_load_from_cache(model_name, "config.json")
    return str(Path(cached).parent) if isinstance(cached, str) else None


def _statuses(results: dict[str, Any], claimed: Proof) -> Iterator[str]:
    """Compares the places where the results record the verdict."""
    stage = results["stages"].get("validate", {}).get("status")
    told = "done" if claimed.passed else "failed"
    if stage != told:
        yield f"The stage validate ended as {stage!r}, but its outcome is {claimed.status}."
    if results.get("status") in ("passed", "failed") and results["status"] != claimed.status:
        yield f"The run says {results['status']}, but its validation {claimed.status}."


def _settings(config: RunConfig, results: dict[str, Any], pins: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Compares the settings in config.yaml, in the results and at the time of training and proof."""
    ours = flatten(dump(config))
    stored = results.get("config")
    if stored is not None:
        theirs = defaults() | (flatten(stored) if isinstance(stored, dict) else {})
        for key in sorted(ours):
            counts = not is_free(key) and first_stage_of(key) not in (None, "publish")
            if counts and ours[key] != theirs.get(key):
                yield f"config.yaml has {key} {ours[key]!r}, and pipeline_results.json {theirs.get(key)!r}."
    for what, stage in (("train", "train"), ("proof", "validate")):
        if what in pins and pins[what].get("settings") != settings_hash(config, stage):
            yield f"The settings are not those that were pinned with {what!r}."
    if "proof" in pins and pins["proof"].get("gate") != dump(config.validate_.gate):
        yield "The conditions (validate.gate) are not those of the validation."


def _base(config: RunConfig, results: dict[str, Any], pins: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Compares the base known here with the pinned base, or, in an older run, with its student's record."""
    if results.get("model") not in (None, config.model):
        yield f"config.yaml names the base {config.model!r}, and pipeline_results.json {results['model']!r}."
    known = pins.get("train", {}).get("base")
    if known is None:
        student = results["stages"].get("enhance", {}).get("student")
        if not isinstance(student, dict) or student.get("name") != config.model or student.get("engine") == "http":
            return
        known = student
    now = known_base(config.model) if isinstance(known, dict) else {}
    for part in ("weights", "template", "revision"):
        if None not in (known.get(part), now.get(part)) and known[part] != now[part]:
            yield f"The base is not the one it was trained on: {config.model} has other {part} now."
            return


def _pinned_files(run: RunDir, claimed: Proof, pins: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Compares rows and answers with their hashes, and the verdict with its own."""
    said = {"held_out": "were pinned before the training", "train": "were trained on", "proof": "were validated"}
    told: set[str] = set()
    for what, when in said.items():
        files = pins.get(what, {}).get("files") or {}
        now = hashes(run, list(files))
        for name, wanted in files.items():
            if now.get(name) != wanted and name not in told:
                told.add(name)
                yield f"{name} does not hold the rows that {when}."
    proof = pins.get("proof")
    if proof is None:
        return
    if proof.get("adapter") != fingerprint(adapter_manifest(run.adapter)):
        yield "The adapter is not the one that was pinned with the proof."
    if proof.get("status") != claimed.status or proof.get("outcome") != fingerprint(claimed.to_json()):
        yield "The validation in pipeline_results.json is not the one that was pinned with the proof."


def _rows(run: RunDir, results: dict[str, Any]) -> Iterator[str]:
    """Checks that no test question is trained on, and that the files have as many rows as the card reports."""
    stages = results["stages"]
    if run.rows("held_out").is_file() and run.rows("train").is_file():
        tested = {_plain(row.prompt) for row in iter_rows(run.rows("held_out"), QARow.from_json)}
        trained = [_plain(row.prompt) for row in iter_rows(run.rows("train"), Example.from_json)]
        if known := sum(prompt in tested for prompt in trained):
            yield f"{known} rows of train.jsonl ask what held_out.jsonl asks: that is no test."
        told = stages.get("train", {}).get("rows_in")
        if isinstance(told, int) and told != len(trained):
            yield f"The results say that {told} rows were trained on, train.jsonl has {len(trained)}."
    for name in ("train_in", "dev", "held_out", "recall"):
        told, path = stages.get("split", {}).get(name), run.rows(name)
        if isinstance(told, int) and path.is_file():
            with path.open("rb") as stream:
                count = sum(1 for _ in stream)
            if count != told:
                yield f"The results say that {name}.jsonl has {told} rows, it has {count}."


def _plain(turns: list[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    """Returns a conversation without its system turn, with case and whitespace normalised."""
    kept = ((turn["role"], " ".join(turn["content"].casefold().split())) for turn in turns)
    return tuple(turn for turn in kept if turn[0] != "system")
