"""Pins parts of a run in `provenance.json`: the test before the training, the verdict at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from socratune import environments, judging
from socratune.config import DEMO, RunConfig
from socratune.evaluation.adapter_files import adapter_manifest
from socratune.evaluation.gate import Proof, proof_of
from socratune.llm import chat_template, is_path, model_location, model_revision, source_of, weights_hash
from socratune.resolve import defaults, dump, flatten
from socratune.runs import STAGES, RunDir, StageResult, Tick, file_hash, fingerprint, first_stage_of, pin

TEST_FILES = ("held_out.jsonl", "recall.jsonl")
ANSWER_FILES = ("held_out_answers.jsonl", "recall_answers.jsonl", "forgetting_answers.jsonl")


def with_pins(
    stage: str, work: Callable[[Tick], StageResult], run: RunDir, config: RunConfig, results: dict[str, Any]
) -> Callable[[Tick], StageResult]:
    """Wraps a stage's work so that it pins its fixed results before the stage counts as done."""

    def pinned(tick: Tick) -> StageResult:
        if stage == "train":
            pin_held_out(run, config, results)
            pin_training(run, config, results)
        result = work(tick)
        if stage == "split":
            pin_held_out(run, config, results)
        elif stage == "train":
            pin_adapter(run, results)
        elif stage == "validate" and (proof := proof_of(result.figures)):
            pin_proof(run, config, results, proof)
        return result

    return pinned


def pin_held_out(run: RunDir, config: RunConfig, results: dict[str, Any]) -> None:
    """Pins the test and the conditions, when the rows are split and again before any training."""
    if run.rows("held_out").is_file():
        pin(run, results, "held_out", {"files": hashes(run, TEST_FILES), "gate": dump(config.validate_.gate)})


def pin_training(run: RunDir, config: RunConfig, results: dict[str, Any]) -> None:
    """Pins the training data and the base, when the training begins."""
    files = ["train.jsonl", "dev.jsonl", *([run.enhanced.name] if config.train.reads_traces else [])]
    content = {"files": hashes(run, files), "base": known_base(config.model)}
    pin(run, results, "train", {**content, "settings": settings_hash(config, "train")})


def pin_adapter(run: RunDir, results: dict[str, Any]) -> None:
    """Pins the adapter's files, when the training ends."""
    pin(run, results, "adapter", {"files": adapter_manifest(run.adapter)})


def pin_proof(run: RunDir, config: RunConfig, results: dict[str, Any], proof: Proof) -> None:
    """Pins the verdict and what it rests on."""
    content = {
        "files": hashes(run, (*TEST_FILES, *ANSWER_FILES)),
        "adapter": fingerprint(adapter_manifest(run.adapter)),
        "gate": dump(config.validate_.gate),
        "settings": settings_hash(config, "validate"),
        "rules": rules_mark(),
        "numpy": np.__version__,
        "status": proof.status,
        "outcome": fingerprint(proof.to_json()),
    }
    pin(run, results, "proof", content)


def hashes(run: RunDir, names: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Returns the sha256 of those files that exist."""
    return {name: file_hash(run / name) for name in names if (run / name).is_file()}


def settings_hash(config: RunConfig, stage: str) -> str:
    """Returns a hash of every setting that is not at its default and can change a result up to this stage."""
    usual, upto = defaults(), STAGES[: STAGES.index(stage) + 1]
    found = {name: value for name, value in flatten(dump(config)).items() if value != usual.get(name)}
    return fingerprint({name: value for name, value in found.items() if first_stage_of(name) in upto})


def known_base(model_name: str) -> dict[str, Any]:
    """Identifies the base without network access, by hashes of weights and template."""
    folder = Path(model_location(model_name, fetch=False))
    if is_path(model_name) and not folder.is_dir():
        return {"name": folder.name}
    known = {"name": model_name, "revision": model_revision(model_name), "weights": weights_hash(model_name)}
    if folder.is_dir():
        template = chat_template(model_name)
        known |= {"template": None if template is None else fingerprint(template)}
    if model_name != DEMO and (folder.is_dir() or is_path(model_name)):
        known["name"] = folder.name  # the folder's location is private
    if source := source_of(model_name):
        lies_here = is_path(model_name) or Path(model_name).exists()
        known |= {"name": source.file if lies_here else model_name, "gguf": asdict(source)}
    return {part: value for part, value in known.items() if value is not None}


@cache
def rules_mark() -> str:
    """Returns a hash of the judging rules. With other rules, verdicts may differ although nobody altered them."""
    rules = [path for room in (environments, judging) for path in sorted(Path(str(room.__file__)).parent.glob("*.py"))]
    return fingerprint([file_hash(path) for path in (*rules, Path(__file__).with_name("forgetting_checks.py"))])
