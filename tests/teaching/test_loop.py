"""The student-teacher loop with scripted models: who is asked what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from socratune.config import CurateConfig
from socratune.errors import CallError
from socratune.judging.rules import mechanical_judge
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.scripted import ScriptedModel
from socratune.rows import QARow, Trace
from socratune.runs.folder import RunDir, read_jsonl, write_jsonl
from socratune.stages import curate
from socratune.teaching.hints import HintRequest
from socratune.teaching.loop import Loop, Rules, enhance_row, rejection, training_text
from socratune.teaching.picking import Pick, pick_first, pick_longest

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


def run(
    answer: Callable[[Chat], str], teacher: Teacher, row: QARow = ROW, pick: Pick = pick_longest, **changes
) -> tuple[Trace, ScriptedModel]:
    student = ScriptedModel(answer)
    loop = Loop(student, mechanical_judge, teacher, Sampling(), Rules(**changes), {}, pick)
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

    loop = Loop(CutOff(str), mechanical_judge, Teacher(), Sampling(), Rules(), {})
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
        loop = Loop(Watching(str), mechanical_judge, Teacher("a", "b"), Sampling(seed=5), Rules(), {})
        asyncio.run(enhance_row(row, loop))
    seeds = [sampling.seed for sampling in seen]
    assert seeds[:3] == seeds[6:]
    assert len(set(seeds)) == 6
    assert [sampling.temperature for sampling in seen[:3]] == [0.0, 0.7, 0.7]


def test_samples_come_before_hints_and_two_right_ones_are_enough() -> None:
    teacher = Teacher()
    trace, student = run(answers("180", "15 * 13 = 195", "195"), teacher, attempts=4)
    assert (trace.outcome, len(student.seen), teacher.requests) == ("solved_first_try", 3, [])
    assert (trace.pass_rate, trace.chosen) == (2 / 3, 2)  # the longer one shows more of its work
    trace, _ = run(answers("180", "15 * 13 = 195", "195"), teacher, attempts=4, pick=pick_first)
    assert trace.chosen == 2
    assert {messages[-1]["content"] for messages in student.seen} == {QUESTION["content"]}


def test_caps_hold_together() -> None:
    from socratune.stages.curate import _room

    shares = {"hinted": 0.4, "mastered": 0.25}
    for hinted, mastered, other in ((600, 600, 200), (1000, 1000, 10), (3, 3, 100)):
        room = _room({"hinted": hinted, "mastered": mastered}, shares, hinted + mastered + other)
        whole = other + sum(room.values())
        assert room["hinted"] <= 0.4 * whole and room["mastered"] <= 0.25 * whole and min(room.values()) > 0


def test_a_hint_is_for_the_newest_wrong_attempt_and_nothing_else_is_shown_as_wrong() -> None:
    teacher = Teacher("Split 13.")
    texts = ("180", "I would rather not say.", "195")
    trace, student = run(answers(*texts), teacher, attempts=2, thinking_format="iterative")
    assert [attempt.hint for attempt in trace.attempts] == ["Split 13.", None, None]
    assert student.seen[2][-2] == {"role": "assistant", "content": "180"}
    assert training_text(trace) == "180\nAha! Split 13.\n195"


def test_an_evidence_try_that_nobody_can_judge_asks_no_teacher() -> None:
    teacher, row = Teacher(), QARow("r", ROW.messages, {"evidence": "15 times 13 is 195."})
    trace, _ = run(answers("180", "I would rather not say."), teacher, row)
    assert (trace.outcome, trace.gap, teacher.requests) == ("undecided", None, [])


def test_an_answer_that_speaks_of_the_passage_is_not_trained_on_without_it() -> None:
    row = QARow("r", ROW.messages, {"evidence": "15 times 13 is 195."})
    for format_ in ("direct", "iterative"):
        trace, _ = run(answers("180", "According to the passage, it is 195."), Teacher(), row, thinking_format=format_)
        assert trace.outcome == "solved_with_evidence"
        assert getattr(rejection(trace), "reason", "") == "hint_echo"


def test_an_unsolved_row_is_dropped_or_trained_on_its_reference_or_on_the_students_wording_of_it() -> None:
    wrong = ["180", "181", "182"]
    dropped, _ = run(answers(*wrong), Teacher("Split.", "Split 13."))
    assert (dropped.outcome, dropped.chosen, training_text(dropped)) == ("unsolved", None, None)
    as_given, _ = run(answers(*wrong), Teacher("Split.", "Split 13."), unsolved="reference")
    assert (as_given.outcome, training_text(as_given)) == ("trained_on_reference", "15 * 13 = 195.")
    told, student = run(answers(*wrong, "15 * 13 = 195"), Teacher("Split.", "Split 13."), unsolved="rewrite")
    assert (told.outcome, training_text(told), told.attempts[3].given) == ("rewritten", "15 * 13 = 195", "reference")
    assert "195" in student.seen[3][0]["content"] and "195" not in student.seen[2][0]["content"]
    still, _ = run(answers(*wrong, "180"), Teacher("Split.", "Split 13."), unsolved="rewrite")
    assert (still.outcome, still.chosen) == ("unsolved", None)


def test_a_row_that_the_evidence_solves_lacks_knowledge_and_gets_no_hint() -> None:
    teacher = Teacher()
    row = QARow("r", ROW.messages, {"evidence": "15 times 13 is 195."})
    trace, student = run(answers("180", "181", "As it says, 195", "x"), teacher, row, attempts=2)
    assert (trace.outcome, trace.gap, trace.chosen, teacher.requests) == ("solved_with_evidence", "knowledge", 3, [])
    assert "15 times 13 is 195." in student.seen[2][0]["content"]
    assert trace.attempts[2].given == "evidence"


def test_a_row_that_the_evidence_does_not_solve_lacks_skill_and_gets_a_hint() -> None:
    row = QARow("r", ROW.messages, {"context": "Multiplication is repeated addition."})
    trace, student = run(answers("180", "181", "195"), Teacher("Split 13."), row)
    assert (trace.outcome, trace.gap, trace.chosen) == ("solved_with_hint", "skill", 3)
    assert "repeated addition" not in str(student.seen[2])


def test_a_hint_is_answered_several_times_if_need_be() -> None:
    trace, _ = run(answers("180", "181", "195"), Teacher("Split 13."), hint_attempts=2)
    assert (trace.outcome, trace.chosen, [a.given for a in trace.attempts]) == (
        "solved_with_hint", 3, ["question", "hint", "hint"],
    )  # fmt: skip


def test_hinted_multiple_choice_needs_two_of_three() -> None:
    question = {"role": "user", "content": "Which?\nA) x\nB) y\nC) z\nD) w"}
    row = QARow("r", [question, {"role": "assistant", "content": "B"}], {})
    trace, _ = run(answers("A", "B", "C", "D"), Teacher("Rule out A."), row, hint_attempts=2, max_iterations=2)
    assert trace.outcome == "unsolved"
    trace, _ = run(answers("A", "B", "C", "B"), Teacher("Rule out A."), row, hint_attempts=3, max_iterations=2)
    assert (trace.outcome, trace.chosen) == ("solved_with_hint", 4)


def test_an_answer_that_speaks_of_the_hint_is_drawn_once_more() -> None:
    echoing = "As the hint says, split 13: 195"
    trace, _ = run(answers("180", echoing, "15 * 10 + 15 * 3 = 195"), Teacher("Split 13."))
    assert (trace.outcome, trace.chosen) == ("solved_with_hint", 3)
    trace, _ = run(answers("180", echoing, echoing), Teacher("Split 13."))
    assert trace.outcome == "solved_with_hint"
    why = rejection(trace)
    assert why is not None and why.reason == "hint_echo" and why.detail.endswith("'the hint'")


def test_clean_keeps_only_what_is_found_without_the_hint() -> None:
    trace, student = run(answers("180", "195 hinted", "170", "195 alone"), Teacher("Split."), thinking_format="clean")
    assert (trace.outcome, trace.chosen, rejection(trace)) == ("solved_with_hint", 4, None)
    assert "Split." not in str(student.seen[3])
    trace, _ = run(answers("180", "195 hinted", *["170"] * 4), Teacher("Split."), thinking_format="clean")
    assert (trace.chosen, getattr(rejection(trace), "reason", "")) == (2, "not_found_unaided")


def test_a_call_that_fails_for_good_is_the_rows_outcome_not_a_verdict() -> None:
    def refuse(messages: Chat) -> str:
        raise CallError("content filter")

    trace, _ = run(refuse, Teacher())
    assert (trace.outcome, trace.error, trace.chosen) == ("error", "content filter", None)


def test_caps_keep_the_mix(tmp_path: Path) -> None:
    hinted, own, mastered = (
        run(answers("180", "195"), Teacher("Split."))[0],
        run(answers("180", "195", "195"), Teacher(), attempts=3)[0],
        run(answers("195", "195"), Teacher(), attempts=2)[0],
    )
    traces = [
        replace(trace, row=QARow(f"{kind}-{n}", ROW.messages, {}))
        for kind, trace in (("hinted", hinted), ("own", own), ("mastered", mastered))
        for n in range(30)
    ]
    run_dir = RunDir(tmp_path)
    write_jsonl(run_dir.enhanced, (trace.to_json("x") for trace in traces))
    result = curate.curate_traces(run_dir, CurateConfig())
    kept = [data["id"].split("-")[0] for data in read_jsonl(run_dir.rows("train"))]
    assert kept.count("own") == 30
    assert kept.count("hinted") == 30  # 30 of 90 are less than 40 %
    assert kept.count("mastered") == 20  # a quarter of 80
    assert result.figures["dropped"] == {"too_many_mastered": 10}
    curate.curate_traces(run_dir, CurateConfig(max_hinted_share=0.1, max_mastered_share=1))
    kept = [data["id"].split("-")[0] for data in read_jsonl(run_dir.rows("train"))]
    assert (kept.count("hinted"), kept.count("mastered")) == (6, 30)  # 7 of 67 would be more than a tenth
