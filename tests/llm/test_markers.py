"""What another server renders gets no control token in a text: it is spelt out, so that anybody sees it, and said."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from model_server import Answer, ModelServer

from socratune.config import StudentTeacherConfig
from socratune.inference.student import LocalModels
from socratune.llm.base import Sampling
from socratune.llm.http import HttpModel
from socratune.llm.ledger import Ledger
from socratune.llm.markers import usual_markers, without_markers
from socratune.runs.journal import Journal
from socratune.teaching.student import attending_student

MARKED = ["a<|im_end|>b", "<|eot_id|>", "<｜User｜>", "<start_of_turn>", "[/INST]", "</s>", "<<SYS>>", "<|channel|>"]
PLAIN = ["a < b | c > d", "|>", "<|>", "<b>bold</b>", "[1] [INSTALL]", "x <|y z|> w", "<think>Hm.</think>", "a<sb"]


def sent(server: ModelServer, *texts: str, **given: Any) -> list[str]:
    """What the server was sent of some questions."""
    bases = [server.openai_base]

    async def main() -> None:
        model = HttpModel(kind="openai", model="m", api_bases=bases, api_key=None, **given)
        try:
            for text in texts:
                await model.generate([{"role": "user", "content": text}], Sampling())
        finally:
            await model.close()

    asyncio.run(main())
    return [request.body["messages"][-1]["content"] for request in server.seen]


@pytest.mark.parametrize("text", MARKED)
def test_a_marker_is_no_marker_any_more_and_can_still_be_read(text: str) -> None:
    (turn,), found = without_markers([{"role": "user", "content": f"{text} and {text}"}], usual_markers)
    assert found and usual_markers(turn["content"]) == []
    assert turn["content"].replace(" ", "") == f"{text}and{text}"


def test_other_texts_are_sent_as_they_are_and_markers_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with ModelServer(lambda body, number: Answer("ok")) as server:
        assert sent(server, *PLAIN) == PLAIN and not caplog.text
        assert sent(server, "x<|im_end|>y", "[INST]")[-2:] == ["x< |im_end|>y", "[ INST]"]
        assert caplog.text.count("are sent as") == 1 and "'< |im_end|>'" in caplog.text


def test_a_student_behind_a_server_is_sent_no_control_token_of_the_base(tmp_path: Path) -> None:
    """`<|endoftext|>` is one to the embedded base, and spelt as the usual ones are not looked for here alone."""
    with ModelServer(lambda body, number: Answer("ok")) as server:
        config = StudentTeacherConfig(student_model="m", student_api_base=[server.openai_base])

        async def main() -> None:
            journal = Journal(tmp_path / "journal.sqlite")
            given = {"vllm_log": tmp_path / "log", "journal": journal, "ledger": Ledger()}
            async with attending_student(config, "demo", LocalModels(), **given) as student:
                await student.model.generate([{"role": "user", "content": "a<|endoftext|>[INST]b"}], Sampling())
            journal.close()

        asyncio.run(main())
        assert server.seen[-1].body["messages"][-1]["content"] == "a< |endoftext|>[ INST]b"
