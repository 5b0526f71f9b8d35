"""The student-teacher loop with scripted models: who is asked what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from socratune.hints import HintRequest
from socratune.judge import mechanical_judge
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.scripted import ScriptedModel
from socratune.rows import QARow, Trace
from socratune.stages.enhance import Loop, enhance_row

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What is 15 * 13?"}
ROW = QARow("r", [SYSTEM, QUESTION, {"role": "assistant", "content": "15 * 13 = 195."}], {})


class Teacher:
    def __init__(self, *hints: str | None) -> None:
        self.hints = list(hints)
        self.requests: list[HintRequest] = []

    async def __call__(self, request: HintRequest) -> str | None:
        self.requests.append(request)
        return self.hints.pop(0)


def run(answer: Callable[[Chat], str], teacher: Teacher, row: QARow = ROW, **changes) -> tuple[Trace, ScriptedModel]:
    student = ScriptedModel(answer)
    settings = {"sampling": Sampling(), "max_iterations": 3, "thinking_format": "direct", "names": {}, **changes}
    loop = Loop(student=student, judge=mechanical_judge, teacher=teacher, **settings)
    return asyncio.run(enhance_row(row, loop)), student


def answers(*texts: str) -> Callable[[Chat], str]:
    left = list(texts)
    return lambda messages: left.pop(0)


def test_a_right_answer_is_never_doubted() -> None:
    teacher = Teacher()
    trace, student = run(answers("195"), teacher)
    assert (trace.outcome, len(trace.attempts), teacher.requests) == ("solved_first_try", 1, [])
    assert student.seen == [[SYSTEM, QUESTION]]


def test_a_hint_leads_to_a_fresh_private_retry() -> None:
    teacher = Teacher("Split 13.")
    trace, student = run(answers("180", "15 * 10 + 15 * 3 = 195"), teacher)
    assert trace.outcome == "solved_with_hint"
    assert [a.hint for a in trace.attempts] == ["Split 13.", None]
    assert [a.verdict for a in trace.attempts] == ["incorrect", "correct"]
    retry = student.seen[1]
    assert [m["role"] for m in retry] == ["system", "user"]
    assert "Be brief." in retry[0]["content"] and "Split 13." in retry[0]["content"]
    assert retry[1] == QUESTION
    assert "180" not in str(retry)


def test_the_iterative_retry_is_the_guides_dialogue() -> None:
    _, student = run(answers("180", "195"), Teacher("Split 13."), thinking_format="iterative")
    assert [m["content"] for m in student.seen[1][2:]] == ["180", "Hint: Split 13."]


def test_the_teacher_is_not_asked_after_the_last_attempt() -> None:
    teacher = Teacher("one", "two")
    trace, _ = run(answers("1", "2", "3"), teacher)
    assert (trace.outcome, len(trace.attempts), len(teacher.requests)) == ("unsolved", 3, 2)
    assert [len(request.attempts) for request in teacher.requests] == [1, 2]


def test_undecided_is_not_wrong_and_asks_no_teacher() -> None:
    teacher = Teacher()
    trace, _ = run(answers("about two hundred"), teacher)
    assert (trace.outcome, teacher.requests) == ("undecided", [])


def test_a_hint_that_leaks_is_asked_for_once_more() -> None:
    trace, student = run(answers("180", "195"), Teacher("It is 195.", "Split 13."))
    assert (trace.outcome, trace.hints_rejected) == ("solved_with_hint", 1)
    assert "195" not in str(student.seen[1])
    trace, student = run(answers("180"), Teacher("It is 195.", "Really, 195."))
    assert (trace.outcome, trace.hints_rejected, len(student.seen)) == ("unsolved", 2, 1)


def test_a_teacher_with_nothing_to_say_ends_the_row() -> None:
    trace, _ = run(answers("180"), Teacher(None))
    assert (trace.outcome, trace.attempts[0].hint) == ("unsolved", None)


def test_one_attempt_means_no_hint() -> None:
    teacher = Teacher()
    trace, _ = run(answers("180"), teacher, max_iterations=1)
    assert (trace.outcome, teacher.requests) == ("unsolved", [])


def test_a_cut_off_answer_is_not_wrong() -> None:
    class CutOff(ScriptedModel):
        async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
            return Completion("15 * 1", stop="length")

    loop = Loop(CutOff(str), mechanical_judge, Teacher(), Sampling(), 3, "direct", {})
    trace = asyncio.run(enhance_row(ROW, loop))
    assert (trace.outcome, trace.attempts[0].judged_by) == ("undecided", "truncated")


def test_every_row_and_attempt_has_its_own_seed_and_retries_are_warm() -> None:
    seen: list[Sampling] = []

    class Watching(ScriptedModel):
        async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
            seen.append(sampling)
            return Completion("180")

    other = QARow("other", ROW.messages, {})
    for row in (ROW, other, ROW):
        loop = Loop(Watching(str), mechanical_judge, Teacher("a", "b"), Sampling(seed=5), 3, "direct", {})
        asyncio.run(enhance_row(row, loop))
    seeds = [sampling.seed for sampling in seen]
    assert seeds[:3] == seeds[6:]
    assert len(set(seeds)) == 6
    assert [sampling.temperature for sampling in seen[:3]] == [0.0, 0.7, 0.7]
