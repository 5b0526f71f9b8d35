"""validate: is the adapter better than its base on questions neither has seen? The guide's five checks, each real."""

from __future__ import annotations

import asyncio
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from socratune.answering import answer_and_judge
from socratune.config import StudentTeacherConfig, ValidateConfig
from socratune.journal import Journal
from socratune.ledger import Ledger
from socratune.llm.base import ChatModel, Sampling
from socratune.modelref import Base
from socratune.roles import cast
from socratune.rows import QARow
from socratune.rundir import RunDir, StageResult, file_hash, read_rows
from socratune.stats import compare, paired_difference, rows_needed

TIMED_ROWS = 64
REQUIRED_FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json")


async def run(
    run: RunDir,
    config: ValidateConfig,
    base: Base,
    *,
    asking: StudentTeacherConfig,
    spent: dict[str, Any],
    journal: Journal,
    key: str,
    tick: Callable[[int, int], None],
) -> StageResult:
    """Compare base and adapter on `held_out.jsonl`, greedily and by the same judge; the verdict is in the figures.

    Args:
        asking: whose judge and limits hold here too; answers are as long as there at most.
        spent: by the loop, role by role; the limits are those of the whole run.
    """
    rows = read_rows(run.rows("held_out"), QARow.from_json)
    integrity = file_integrity(run.adapter)
    tests: dict[str, Any] = {"file_integrity": integrity}
    if not rows:
        return _result(tests, rows, "No held-out rows: nothing can be proven. Raise split.held_out_share.")
    if not integrity["passed"]:
        return _result(tests, rows, f"The adapter's files are not whole: {'; '.join(integrity['problems'])}.")
    from peft import PeftModel

    from socratune.backends import hf
    from socratune.local_models import LocalModels
    from socratune.student import LocalStudent, serving

    ledger = Ledger(asking.max_usd, asking.max_total_tokens)
    ledger.carry_over(spent)
    # for a judge, also of the base's weights: PEFT puts the adapter into the base itself
    local = LocalModels(load_in_4bit=base.load_in_4bit)
    people = cast(asking, stage="validate", journal=journal, ledger=ledger, local=local.load)
    loaded, tokenizer = hf.load(base.model_name, load_in_4bit=base.load_in_4bit)
    answers, performance = {}, {}
    try:
        for at, who in enumerate(("base", "adapter")):
            model = loaded if who == "base" else PeftModel.from_pretrained(loaded, run.adapter).eval()
            with serving(LocalStudent(model, tokenizer, name=who, fingerprint=key)) as student:
                sampling = student.exam_sampling(asking.max_new_tokens)
                answers[who] = await answer_and_judge(
                    rows,
                    student,
                    people.judge,
                    sampling,
                    journal=journal,
                    key=f"{key}.{who}",
                    concurrency=asking.concurrency,
                    tick=partial(_tick_after, tick, at * len(rows), 2 * len(rows)),
                )
                if who == "adapter":
                    performance = await _performance(student, rows[:TIMED_ROWS], sampling)
    finally:
        await people.close()
        local.close()
    tests |= _tests(rows, answers, config, base.seed) | {"performance": performance}
    return _result(tests, rows, _failure(tests))


def _failure(tests: dict[str, Any]) -> str | None:
    """Why the tests do not prove the adapter better, or None."""
    comparison = tests["base_comparison"]
    if not comparison["passed"]:
        failure = f"The adapter is not proven better than its base: {comparison['verdict']}."
        if comparison.get("rows_needed"):
            failure += f" About {comparison['rows_needed']} held-out rows would show a gain of this size."
        return failure
    failed = [name for name, test in tests.items() if isinstance(test, dict) and not test["passed"]]
    return f"Failed: {', '.join(failed)}." if failed else None


def _tick_after(tick: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    tick(before + done, total)


def _tests(
    rows: list[QARow],
    answers: dict[str, list[dict[str, Any]]],
    config: ValidateConfig,
    seed: int,
) -> dict[str, Any]:
    adapter = answers["adapter"]
    prompts = [
        {"prompt": row.question, "response": answer["response"], "passed": answer["verdict"] == "correct"}
        for row, answer in list(zip(rows, adapter, strict=True))[: config.prompts]
    ]
    length = len(adapter[0]["response"])
    return {
        "basic_inference": {"passed": length > 0, "response_length": length},
        "prompt_responses": prompts,
        "base_comparison": base_comparison(rows, answers, config, seed),
    }


def base_comparison(
    rows: list[QARow], answers: dict[str, list[dict[str, Any]]], config: ValidateConfig, seed: int
) -> dict[str, Any]:
    """The paired comparison of the same questions.

    An answer nobody could judge is taken at its worst for the adapter: the base's as right, the adapter's as wrong. So
    an adapter cannot choose its own test by answering vaguely.
    """
    base = [answer["verdict"] in ("correct", "undecided") for answer in answers["base"]]
    adapter = [answer["verdict"] == "correct" for answer in answers["adapter"]]
    clusters = [row.cluster or row.id for row in rows]
    paired = paired_difference(base, adapter, clusters, draws=config.bootstrap_draws, seed=seed)
    verdict = compare(paired, config.not_worse_margin)
    comparison = {
        "base_accuracy": sum(base) / len(base),
        "adapter_accuracy": sum(adapter) / len(adapter),
        "difference": paired.difference,
        "ci95": [paired.low, paired.high],
        "p": paired.p,
        "n": paired.rows,
        "clusters": paired.clusters,
        "undecided": {
            who: sum(answer["verdict"] == "undecided" for answer in answers[who]) for who in ("base", "adapter")
        },
        "wins": sum(a and not b for b, a in zip(base, adapter, strict=True)),
        "losses": sum(b and not a for b, a in zip(base, adapter, strict=True)),
        "verdict": verdict,
        "passed": verdict == "better",
    }
    if verdict in ("inconclusive", "not_worse"):
        comparison["rows_needed"] = rows_needed(paired)
    return comparison


async def _performance(model: ChatModel, rows: list[QARow], sampling: Sampling) -> dict[str, Any]:
    """Speed over a few questions asked together, and the process's peak memory."""
    import torch

    started = time.monotonic()
    answers = await asyncio.gather(*(model.generate(row.prompt, sampling) for row in rows))
    seconds, tokens = time.monotonic() - started, sum(answer.completion_tokens for answer in answers)
    gpu_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    rss_unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * rss_unit
    return {
        "passed": True,
        "tokens_per_second": round(tokens / seconds, 1),
        "gpu_memory_used_gb": round(gpu_bytes / 1e9, 2),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


def file_integrity(adapter: Path) -> dict[str, Any]:
    """Are all files there, is the adapter's file whole, are its numbers finite and not all zero?"""
    problems = [f"{name} is missing" for name in REQUIRED_FILES if not (adapter / name).is_file()]
    weights = adapter / "adapter_model.safetensors"
    if weights.is_file():
        problems += _weight_problems(weights)
    config = adapter / "adapter_config.json"
    if config.is_file():
        try:
            json.loads(config.read_text("utf-8"))
        except ValueError:
            problems.append("adapter_config.json is not JSON")
    result: dict[str, Any] = {"passed": not problems, "problems": problems}
    files = sorted(path for path in adapter.rglob("*") if path.is_file())
    result["sha256"] = {path.relative_to(adapter).as_posix(): file_hash(path) for path in files}
    return result


def _weight_problems(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as tensors:
            sums = {name: _magnitude(tensors.get_tensor(name)) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        return [f"{path.name} cannot be read ({error})"]
    if not sums:
        return [f"{path.name} holds no tensor"]
    problems = [f"{name} holds a value that is not finite" for name, size in sums.items() if not math.isfinite(size)]
    learned = [size for name, size in sums.items() if "lora_B" in name]
    if learned and not any(learned):
        problems.append("the adapter is untrained: every lora_B matrix is zero")
    return problems


def _magnitude(tensor: Any) -> float:
    """The largest absolute value; not finite where any value is not."""
    return float(tensor.float().abs().max()) if tensor.numel() else 0.0


def _result(tests: dict[str, Any], rows: list[QARow], failure: str | None) -> StageResult:
    validation: dict[str, Any] = {"status": "failed" if failure else "passed", "tests": tests}
    if failure:
        validation["reason"] = failure
    return StageResult(rows_in=len(rows), rows_out=len(rows), figures={"validation": validation}, failure=failure)
