"""Builds the judge and the teacher of a run from the models and functions in its configuration."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from socratune.config import StudentTeacherConfig
from socratune.environments import environment_judge
from socratune.errors import CallError
from socratune.judging import Judge, mechanical_judge, still_thinking, undecided_on_error
from socratune.llm import (
    JUDGE_SAMPLING,
    NOBODY,
    OF_ROWS,
    RULES,
    TEACHER_SAMPLING,
    WARM,
    ChatModel,
    ClosableModel,
    Ledger,
    LocalModel,
    Places,
    Role,
    Sampling,
    called_safely,
    endpoints_of,
    judge_messages,
    load_function,
    parse_hint,
    parse_verdict,
    reached_model,
    resolve_alias,
    teacher_messages,
    teacher_of,
)
from socratune.rows import Judgement, QARow
from socratune.runs import Journal
from socratune.teaching.hints import HintRequest, Teacher, arithmetic_teacher, solution_teacher
from socratune.teaching.picking import Pick, judged_pick, pick_first, pick_longest

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Cast:
    """Holds the judge and the teacher of a run, and the models to close when it ends."""

    judge: Judge
    teacher: Teacher
    pick: Pick
    models: list[ClosableModel]

    async def close(self) -> None:
        """Closes the connections."""
        for model in self.models:
            await model.close()


def assemble_cast(
    config: StudentTeacherConfig,
    *,
    stage: str,
    journal: Journal,
    ledger: Ledger,
    local: Callable[[str], LocalModel] | None = None,
    places: Places | None = None,
) -> Cast:
    """Builds the configured judge and teacher. Their calls are recorded as calls of `stage`.

    Args:
        places: the rows at work, where calls may go in batches; None: they are all direct.
        local: gives the model in this process of a name (`LocalModels.load`), and closes it when it is done.
    """
    judge_ref, teacher_ref = resolve_alias(config.judge_model), teacher_of(config)
    reached = endpoints_of(config)
    models: list[ClosableModel] = []

    def asked(role: Role, ref: str, sampling: Sampling) -> tuple[ChatModel, Sampling]:
        kept = {"role": f"{stage}.{role}", "journal": journal, "ledger": ledger}
        asked_model = reached_model(ref, reached[role], sampling, **kept, local=local, places=places)
        models.extend(asked_model.connected)
        return asked_model.model, asked_model.sampling

    judge: Judge = mechanical_judge
    pick: Pick = pick_first if config.trace_pick == "first" else pick_longest
    if config.judge_mode == "mechanical":
        pass
    elif judge_ref == OF_ROWS["judge"]:
        judge = environment_judge
    elif judge_ref.startswith("python:"):
        judge = python_judge(load_function(judge_ref))
    elif judge_ref != RULES["judge"]:
        model, sampling = asked("judge", judge_ref, JUDGE_SAMPLING)
        judge = llm_judge(model, sampling)
        pick = judged_pick(model) if config.trace_pick == "judged" else pick
    if config.judge_mode == "cascade" and judge not in (mechanical_judge, environment_judge):
        judge = cascade(mechanical_judge, judge)
    teacher: Teacher = nobody
    if teacher_ref == RULES["teacher"]:
        teacher = arithmetic_teacher
    elif teacher_ref == OF_ROWS["teacher"]:
        teacher = solution_teacher
    elif teacher_ref.startswith("python:"):
        teacher = python_teacher(load_function(teacher_ref))
    elif teacher_ref != NOBODY:
        teacher = llm_teacher(*asked("teacher", teacher_ref, TEACHER_SAMPLING))
    return Cast(undecided_on_error(judge), teacher, pick, models)


async def nobody(request: HintRequest) -> str | None:
    """Returns no hint: the teacher of a run without one."""
    return None


def llm_judge(model: ChatModel, sampling: Sampling = JUDGE_SAMPLING) -> Judge:
    """Returns a judge that asks a model. After two replies without a verdict the answer is undecided."""

    async def judge(row: QARow, response: str) -> Judgement:
        if still_thinking(response):
            return Judgement("undecided", "llm", "the think block was never closed")
        messages = judge_messages(row.question, row.reference, response)
        # the second time not greedily: a model in this process would say the very same
        for seed, temperature in enumerate((sampling.temperature, max(sampling.temperature, WARM))):
            completion = await model.generate(messages, sampling.drawn(seed, temperature))
            if (verdict := parse_verdict(completion.text, response)) is not None:
                correct, reason = verdict
                return Judgement("correct" if correct else "incorrect", "llm", reason)
        return Judgement("undecided", "llm", "the judge gave no verdict")

    return judge


def cascade(first: Judge, then: Judge) -> Judge:
    """Returns a judge that asks `then` only about what `first` leaves undecided."""

    async def judge(row: QARow, response: str) -> Judgement:
        judgement = await first(row, response)
        return judgement if judgement.verdict != "undecided" else await then(row, response)

    return judge


def llm_teacher(model: ChatModel, sampling: Sampling = TEACHER_SAMPLING) -> Teacher:
    """Returns a teacher that asks a model for a hint. A reply that was cut off may be a thought and gives no hint."""

    async def teach(request: HintRequest) -> str | None:
        attempts = []
        for attempt in request.attempts:
            shown = {"response": attempt.response}
            attempts.append(shown | ({"hint_given": attempt.hint} if attempt.hint else {}))
        messages = teacher_messages(request.row.question, request.row.reference, attempts)
        completion = await model.generate(messages, sampling.drawn(request.seed))
        return parse_hint(completion.text) if completion.stop == "end" else None

    return teach


NEVER_FALSE = 20
"""A judge function that gave no False in this many verdicts is reported in a warning."""


def python_judge(function: Callable[..., Any]) -> Judge:
    """Wraps `function(question, reference, response)` → True, False, or None if it cannot tell. It may be async."""
    counts: Counter[bool | None] = Counter()

    async def judge(row: QARow, response: str) -> Judgement:
        verdict = await called_safely(function, row.question, row.reference, response)
        if verdict is not None and not isinstance(verdict, bool):
            raise CallError(f"{function.__name__} gave {verdict!r}; a judge gives True, False or None.")
        counts[verdict] += 1
        if counts.total() == NEVER_FALSE and not counts[False]:
            log.warning(
                "The judge %s gave no False in %d answers (True: %d, None: %d). A judge returns True for a right "
                "answer, False for a wrong one, and None only where it cannot tell: without a False no hint is asked "
                "for, and nothing counts as wrong.", function.__name__, NEVER_FALSE, counts[True], counts[None],
            )  # fmt: skip
        return Judgement("undecided" if verdict is None else "correct" if verdict else "incorrect", "python")

    return judge


def python_teacher(function: Callable[..., Any]) -> Teacher:
    """Wraps `function(question, reference, responses)` → a hint, or None if it has nothing to say. It may be async."""

    async def teach(request: HintRequest) -> str | None:
        responses = [attempt.response for attempt in request.attempts]
        hint = await called_safely(function, request.row.question, request.row.reference, responses)
        if hint is not None and not isinstance(hint, str):
            raise CallError(f"{function.__name__} gave {hint!r}; a teacher gives a text or None.")
        return hint or None

    return teach
