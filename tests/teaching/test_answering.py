from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from socratune.errors import CallError
from socratune.llm.base import Sampling
from socratune.llm.scripted import ScriptedModel
from socratune.rows import Judgement, QARow
from socratune.runs.journal import Journal
from socratune.teaching.student import answer_and_judge


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
