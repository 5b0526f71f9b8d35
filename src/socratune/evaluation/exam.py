"""Gives base and adapter the same papers as an exam. This needs the model; judging the answers does not.

    validate RUN --answers-only     on the machine with the model: base and adapter answer; exam.jsonl, exam.json
    validate RUN                    here: those answers are judged; without such files the model answers here

Every recorded answer has a hash of its conversation and of how it was drawn. Another question, seed or setting
matches no answer, so these need no other comparison.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from socratune.config import RunConfig, StudentTeacherConfig, ValidateConfig
from socratune.errors import Fault, Shown, StageFailed, UserError
from socratune.evaluation import forgetting
from socratune.evaluation.adapter_files import adapter_manifest
from socratune.evaluation.comparison import samples
from socratune.evaluation.lm_tasks import lm_eval_fault, task_results
from socratune.evaluation.question_sets import forgetting_rows, meter_rows, read_prompts
from socratune.inference import identity, student_grade
from socratune.judging import Judge
from socratune.llm import (
    Base,
    Chat,
    ChatModel,
    Completion,
    Sampling,
    chat_template,
    exam_sampling,
    is_thinking,
    model_json,
)
from socratune.rows import QARow
from socratune.runs import Journal, RunDir, file_hash, fingerprint, read_jsonl, read_rows, write_json, write_jsonl
from socratune.teaching import answer_and_judge, draw_seed

log = logging.getLogger(__name__)

_SIDES = ("base", "adapter")
EXAMS = {"held_out", "recall"}
"""Papers on which the adapter must gain. A model that thinks first draws several answers to each of their questions."""

Answered = dict[str, dict[str, list[dict[str, Any]]]]
"""Answers by paper and side."""


@dataclass(frozen=True, slots=True)
class Paper:
    """Holds a set of questions with its judge. `of` names the sides that answer. `longest` limits the tokens of an
    answer by a model that does not think first.
    """

    name: str
    rows: list[QARow]
    judge: Judge
    of: tuple[str, ...] = _SIDES
    longest: int = sys.maxsize


def exam_papers(run: RunDir, config: ValidateConfig, judge: Judge) -> Iterator[Paper]:
    """Yields the papers of the exam, the held-out questions first."""
    yield Paper("held_out", read_rows(run.rows("held_out"), QARow.from_json), judge)
    if run.rows("recall").exists() and (recall := read_rows(run.rows("recall"), QARow.from_json)):
        yield Paper("recall", recall, judge)
    short = forgetting.LONGEST_FORGETTING_ANSWER
    own = _own_file(run, "forgetting", config.forgetting)
    yield Paper("forgetting", forgetting_rows(own), forgetting.check_judge, longest=short)
    if config.forgetting is None:  # a user's own questions also serve the meters
        yield Paper("meter", meter_rows(), forgetting.no_judge, longest=short)
    if prompts := _own_file(run, "prompts", config.prompts_file):
        yield Paper("prompts", read_prompts(prompts), judge, of=("adapter",))


def exam_files(run: RunDir, config: ValidateConfig) -> dict[str, Path]:
    """Returns the files that the exam reads besides the adapter: name in the model machine's run folder → file here."""
    found = {path.name: path for path in (run.config, run.rows("held_out"), run.rows("recall")) if path.exists()}
    own = {"forgetting": config.forgetting, "prompts": config.prompts_file}
    given = ((_copy(run, name, file).name, Path(file)) for name, file in own.items() if file)
    return found | {name: file for name, file in given if file.is_file()}


def _own_file(run: RunDir, name: str, file: str | None) -> str | None:
    """Returns a user's file, or its copy if the run folder was sent to another machine."""
    if file is None or Path(file).exists() or not (copy := _copy(run, name, file)).exists():
        return file
    return str(copy)


def _copy(run: RunDir, name: str, file: str) -> Path:
    return run / f"exam.{name}{Path(file).suffix}"


# --- asking --------------------------------------------------------------------------------------------------------


class Manner(NamedTuple):
    """Holds how the exam is answered, by the base's small files. `samples` is the answers per question if drawn."""

    sampling: Sampling
    thinking: bool
    samples: int

    def of(self, paper: Paper) -> tuple[Sampling, int]:
        """Returns how the answers to a paper are drawn, and how many per question."""
        longest = self.sampling.max_new_tokens
        longest = longest if self.thinking else min(paper.longest, longest)
        several = self.sampling.temperature > 0 and paper.name in EXAMS
        return replace(self.sampling, max_new_tokens=longest), self.samples if several else 1


def answering_manner(base: Base, config: ValidateConfig, asking: StudentTeacherConfig) -> Manner:
    """Returns how this base and its adapter answer: greedily, unless the base thinks before it answers."""
    thinking = is_thinking(chat_template(base.model_name) or "")
    own = model_json(base.model_name, "generation_config.json")
    return Manner(exam_sampling(own, thinking=thinking, max_new_tokens=asking.max_new_tokens), thinking, config.samples)


@dataclass(slots=True)
class Sitting:
    """Holds an exam in progress: its papers, how they are answered, the journal, and the answers so far."""

    papers: dict[str, Paper]
    manner: Manner
    journal: Journal
    key: str
    concurrency: int
    tick: Callable[[int, int], None]
    answers: Answered = field(default_factory=dict)
    done: int = 0

    async def ask(self, who: str, student: ChatModel) -> None:
        """Gives base or adapter all its papers together, so that the last answers to a paper share their batches.

        Raises:
            The first error of a paper. The answers until then are kept.
        """
        total = sum(len(paper.rows) * len(paper.of) for paper in self.papers.values())
        papers = [paper for paper in self.papers.values() if who in paper.of]
        done = {paper.name: 0 for paper in papers}

        async def sit(paper: Paper) -> None:
            def tick(answered: int, _: int) -> None:
                done[paper.name] = answered
                self.tick(self.done + sum(done.values()), total)

            sampling, several = self.manner.of(paper)
            self.answers[paper.name][who] = await answer_and_judge(
                paper.rows,
                student,
                paper.judge,
                sampling,
                journal=self.journal,
                # `audit_sheet` finds the held-out answers under this key
                key=f"{self.key}.{who}" if paper.name == "held_out" else f"{self.key}.{paper.name}.{who}",
                concurrency=self.concurrency,
                tick=tick,
                samples=several,
            )

        for paper in papers:
            self.answers.setdefault(paper.name, {})
        sitting = [asyncio.create_task(sit(paper)) for paper in papers]
        try:
            await asyncio.gather(*sitting)
        finally:
            for one in sitting:
                one.cancel()
            await asyncio.gather(*sitting, return_exceptions=True)
        self.done += sum(len(paper.rows) for paper in papers)


async def take_exam(sitting: Sitting, adapter: Path, base: Base, config: ValidateConfig) -> dict[str, Any]:
    """Lets base and adapter answer, and returns what is measured while the adapter is loaded.

    Raises:
        StageFailed: PEFT refuses the adapter.
    """
    from peft import PeftModel

    from socratune.inference import LocalStudent, load_model, serving_student

    model, tokenizer = load_model(base.model_name, load_in_4bit=base.load_in_4bit)
    measured: dict[str, Any] = {}
    for who in _SIDES:
        if who == "adapter":
            try:
                model = PeftModel.from_pretrained(model, adapter).eval()
            except (RuntimeError, ValueError, KeyError, TypeError) as error:  # what `base_problems` does not find
                reason = " ".join(str(error).split())[:300]
                raise StageFailed(f"PEFT cannot put the adapter on {base.model_name}: {reason}.") from error
        with serving_student(LocalStudent(model, tokenizer, name=who, fingerprint=sitting.key)) as student:
            await sitting.ask(who, student)
            if who == "adapter":
                rows = sitting.papers["held_out"].rows
                measured["performance"] = await performance(student, rows, sitting.manner.sampling)
    neutral = "meter" if "meter" in sitting.papers else "forgetting"
    rows, said, thinking = sitting.papers[neutral].rows, sitting.answers[neutral], sitting.manner.thinking
    measured["meters"] = forgetting.meters(model, tokenizer, rows, said["base"], said["adapter"], thinking=thinking)
    if config.lm_eval:
        measured["lm_eval"] = task_results(model, tokenizer, config.lm_eval)
    return measured


# --- files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """Holds an exam taken on another machine: answers by side and `_asked`, and the measurements made there."""

    answers: dict[tuple[str, str], Completion]
    measured: dict[str, Any]

    async def examine(self, sitting: Sitting) -> dict[str, Any]:
        """Takes the exam with the recorded answers and returns the recorded measurements."""
        for who in _SIDES:
            await sitting.ask(who, _Recorded(who, sitting.key, self.answers))
        return self.measured


@dataclass(slots=True)
class _Recorded:
    """Implements a `ChatModel` that repeats the recorded answers of base or adapter."""

    name: str
    fingerprint: str
    answers: dict[tuple[str, str], Completion]

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        return self.answers[self.name, _asked(messages, sampling)]


def take_exam_only(run: RunDir, config: RunConfig, tick: Callable[[int, int], None], *, restart: bool = False) -> None:
    """Takes the exam of a run folder and writes `exam.jsonl` and `exam.json`. Calls no judge and needs no key.

    After an interruption at any moment, the same call resumes.

    Args:
        restart: discard earlier answers and ask again.

    Raises:
        UserError: another process uses the folder, or a file in it is missing.
        StageFailed: there is no held-out question, or PEFT refuses the adapter.
    """
    proof, base = config.validate_, Base(config.model, config.train.load_in_4bit, config.seed)
    if fault := lm_eval_fault(proof.lm_eval):
        raise UserError(fault)
    if not (run.adapter / "adapter_config.json").is_file():
        fix = f"Train it first: socratune train {run.root}."
        raise UserError(Fault(str(run.adapter), "a LoRA adapter", Shown("none"), fix))
    asked = {paper.name: paper for paper in exam_papers(run, proof, forgetting.no_judge)}
    if not asked["held_out"].rows:
        raise StageFailed("No held-out rows: nothing can be proven. Raise split.held_out_share.")
    how = answering_manner(base, proof, config.enhance)
    place = [adapter_manifest(run.adapter), base.model_name, base.load_in_4bit]
    key = f"exam.{fingerprint(*place, sorted(_questions(asked, how)))}"
    with run.locked(), closing(Journal(run.journal)) as journal:
        if restart:
            journal.forget("exam")
        sitting = Sitting(asked, how, journal, key, config.enhance.concurrency, tick)
        measured = asyncio.run(take_exam(sitting, run.adapter, base, proof))
        run.exam_json.unlink(missing_ok=True)  # its presence certifies the answers file
        write_jsonl(run.rows("exam"), _rows(sitting))
        made_for = _made_for(run, base, proof)  # after loading, which downloads the weights to this machine
        told = {**made_for, "answers": file_hash(run.rows("exam")), "measured": measured}
        write_json(run.exam_json, told)


def recorded_answers(
    run: RunDir, asked: dict[str, Paper], how: Manner, base: Base, config: ValidateConfig
) -> _Record | None:
    """Returns the exam in the run folder's files, or None without an exam. Warns about an exam that does not fit."""
    if not run.exam_json.exists():
        return None
    try:
        told = json.loads(run.exam_json.read_text("utf-8"))
        if unfit := _unfit(run, told, _made_for(run, base, config)):
            raise ValueError(unfit)
        answers = {
            (row["side"], row["asked"]): Completion(row["text"], row["stop"], completion_tokens=row["tokens"])
            for row in read_jsonl(run.rows("exam"))
        }
        if missing := set(_questions(asked, how)) - answers.keys():
            raise ValueError(f"{len(missing)} answers are missing: other questions, or asked otherwise")
        return _Record(answers, told["measured"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s is not used (%s): base and adapter are asked anew.", run.exam_json, error)
        return None


def _made_for(run: RunDir, base: Base, config: ValidateConfig) -> dict[str, Any]:
    """Returns what the answers depend on besides questions and sampling, and the measured tasks."""
    return {
        "adapter": adapter_manifest(run.adapter),
        "base": identity(base.model_name),
        "load_in_4bit": base.load_in_4bit,
        "lm_eval": config.lm_eval,
    }


def _unfit(run: RunDir, told: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """Returns why the recorded exam cannot be used here, or None if it can."""
    if told["adapter"] != ours["adapter"]:
        return "it was taken by another adapter"
    level, reason = student_grade(told["base"], ours["base"])
    if level == "foreign":
        return f"it was taken by another base: {reason}"
    if told["answers"] != file_hash(run.rows("exam")):
        return "its answers were altered"
    other = [name for name in ("load_in_4bit", "lm_eval") if told[name] != ours[name]]
    return f"it was taken with another {' and '.join(other)}" if other else None


def _rows(sitting: Sitting) -> Iterator[dict[str, Any]]:
    """Yields the lines of `exam.jsonl`: every answer by paper, side, row and sample."""
    for paper in sitting.papers.values():
        sampling, _ = sitting.manner.of(paper)
        for who in paper.of:
            for row, answer in zip(paper.rows, sitting.answers[paper.name][who], strict=True):
                for number, said in enumerate(samples(answer)):
                    asked = _asked(row.prompt, sampling.drawn(draw_seed(row.id, number)))
                    place = {"paper": paper.name, "side": who, "id": row.id, "sample": number, "asked": asked}
                    yield {**place, "text": said["response"], "stop": said["stop"], "tokens": said["tokens"]}


def _questions(asked: dict[str, Paper], how: Manner) -> Iterator[tuple[str, str]]:
    """Yields (side, `_asked`) for every answer of an exam."""
    for paper in asked.values():
        sampling, several = how.of(paper)
        for row in paper.rows:
            for number in range(several):
                question = _asked(row.prompt, sampling.drawn(draw_seed(row.id, number)))
                yield from ((who, question) for who in paper.of)


def _asked(messages: Chat, sampling: Sampling) -> str:
    """Returns 16 hex digits that identify a conversation and how its answer is drawn."""
    return fingerprint(messages, sampling.key())


# --- speed and memory ----------------------------------------------------------------------------------------------
# Measures prompt and answer separately, because they are priced separately.

TIMED_ROWS, ONE_BY_ONE = 64, 8
_LONGEST_ANSWER = 256  # tokens


async def performance(model: ChatModel, rows: list[QARow], sampling: Sampling) -> dict[str, Any]:
    """Measures speed and peak memory. `passed` is True if the model answered anything at all.

    `time_to_first_token_s` is the median of 8 questions asked one by one. `prefill_tokens_per_second` counts prompt
    tokens and `decode_tokens_per_second` answer tokens of up to 64 questions asked together. `tokens_per_second` is
    answer tokens over the whole time. `peak_memory_gb` is of this process.
    """
    import resource

    import torch

    chats = [row.prompt for row in rows[:TIMED_ROWS]]
    sampling = replace(sampling, temperature=0.0)  # with sampling, a prompt is cached and not read again
    first = replace(sampling, max_new_tokens=1)
    whole = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, _LONGEST_ANSWER))
    await model.generate(chats[0], first)  # warms up, so that one-time setup is not timed
    waits = [(await _timed(model, [chat], first))[1] for chat in chats[:ONE_BY_ONE]]
    prompts, prefill_s = await _timed(model, chats, first)
    answers, seconds = await _timed(model, chats, whole)
    tokens = sum(answer.completion_tokens for answer in answers)
    decode_s = seconds - prefill_s if seconds > prefill_s else seconds
    gpu_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    rss_unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * rss_unit
    return {
        "passed": tokens > 0,
        "time_to_first_token_s": round(statistics.median(waits), 4),
        "prefill_tokens_per_second": round(sum(answer.prompt_tokens for answer in prompts) / prefill_s, 1),
        "decode_tokens_per_second": round((tokens - len(chats)) / decode_s, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "gpu_memory_used_gb": round(gpu_bytes / 1e9, 2),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


async def _timed(model: ChatModel, chats: list[Chat], sampling: Sampling) -> tuple[list[Completion], float]:
    """Returns the answers to questions asked together, and the seconds they took."""
    started = time.monotonic()
    answers = await asyncio.gather(*(model.generate(chat, sampling) for chat in chats))
    return answers, time.monotonic() - started
