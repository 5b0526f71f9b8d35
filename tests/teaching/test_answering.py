from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path

import pytest
from model_server import Answer, ModelServer

from socratune.config import StudentTeacherConfig
from socratune.errors import CallError
from socratune.inference import LocalModels
from socratune.llm.base import Sampling
from socratune.llm.ledger import Ledger
from socratune.llm.scripted import ScriptedModel
from socratune.rows import Judgement, QARow
from socratune.runs.journal import Journal
from socratune.teaching.cast import assemble_cast
from socratune.teaching.student import answer_and_judge, attending_student


def test_an_answer_that_the_judge_refuses_is_undecided_and_the_others_are_judged(tmp_path: Path) -> None:
    rows = [
        QARow(text, [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}], {})
        for text in ("a", "b", "c")
    ]

    async def judge(row: QARow, response: str) -> Judgement:
        if response == "b!":
            raise CallError("the answer was stopped by the provider's content filter")
        return Judgement("correct", "exact")

    model = ScriptedModel(lambda messages: messages[-1]["content"] + "!")
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        work = answer_and_judge(
            rows, model, judge, Sampling(), journal=journal, key="k", concurrency=2, tick=lambda *at: None
        )
        answers = asyncio.run(work)
    assert [answer["response"] for answer in answers] == ["a!", "b!", "c!"]
    assert [answer["verdict"] for answer in answers] == ["correct", "undecided", "correct"]


def test_what_a_server_was_really_told_is_recorded(tmp_path: Path) -> None:
    """llama.cpp would take a top-p of 0.95 and a min-p of 0.05; this one refuses to hear of a min-p."""
    refusal = Answer("Unrecognized request argument supplied: min_p", status=400)

    async def work(server: ModelServer, journal: Journal) -> dict[str, object]:
        config = StudentTeacherConfig(student_model="s", student_api_base=[server.openai_base], temperature=0.5)
        attending = attending_student(
            config, "demo", LocalModels(load_in_4bit=False), vllm_log=tmp_path, journal=journal, ledger=Ledger()
        )
        async with attending as student:
            await student.model.generate([{"role": "user", "content": "?"}], student.sampling)
            return student.recorded()["sampling"]

    behave = lambda body, number: refusal if "min_p" in body else Answer()  # noqa: E731
    with ModelServer(behave) as server, closing(Journal(tmp_path / "j.sqlite")) as journal:
        recorded = asyncio.run(work(server, journal))
    sent = {name: server.seen[-1].body.get(name) for name in ("temperature", "top_p", "top_k", "min_p")}
    assert sent["temperature"] == 0.5 and sent["top_k"] == 0 and sent["min_p"] is None
    assert sent.items() <= recorded.items()


def test_a_fault_of_ours_in_any_judge_of_a_run_leaves_that_answer_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def judge(question, reference, response): return True", "utf-8")

    async def fails(*given: object) -> bool:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(sys.modules["socratune.teaching.cast"], "called_safely", fails)
    row = QARow("r", [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], {})
    config = StudentTeacherConfig(judge_model=f"python:{tmp_path}/mine.py:judge", judge_mode="cascade")
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        people = assemble_cast(config, stage="enhance", journal=journal, ledger=Ledger())
        judgement = asyncio.run(people.judge(row, "something else"))
    assert (judgement.verdict, judgement.judged_by) == ("undecided", "error")
