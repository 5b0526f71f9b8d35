"""The in-process student against transformers' own generate."""

from __future__ import annotations

import asyncio
import copy
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demo_rows

from socratune.chat import prompt_ids
from socratune.config import DEMO_DATA
from socratune.errors import UserError
from socratune.llm.base import Completion, Sampling
from socratune.local_models import LocalModels
from socratune.student import LocalStudent, serving

QUESTIONS = [row["messages"][:-1] for row in demo_rows("held_out", 40)]
LONG = [{"role": "user", "content": "What is 47 * 83? " * 12}]


@pytest.fixture(scope="module")
def student(demo_base: tuple[Any, Any]) -> Iterator[LocalStudent]:
    with serving(LocalStudent(*demo_base, name="demo", fingerprint="demo", max_batch=16)) as student:
        yield student


def ask(student: LocalStudent, chats: list[Any], **sampling: Any) -> list[Completion]:
    async def all_at_once() -> list[Completion]:
        settings = [Sampling(**{"max_new_tokens": 64, "seed": at, **sampling}) for at in range(len(chats))]
        return await asyncio.gather(*map(student.generate, chats, settings))

    return asyncio.run(all_at_once())


def test_greedy_answers_are_generates(student: LocalStudent, demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    chats = [*QUESTIONS[:10], LONG, *QUESTIONS[10:20]]  # more than a batch, of unlike lengths: rows leave and join
    for chat, completion in zip(chats, ask(student, chats, max_new_tokens=48), strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, chat)])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        assert [*(completion.token_ids or ()), 2] == expected[0, ids.shape[1] :].tolist()  # 2 is <|im_end|>
        assert completion.prompt_tokens == ids.shape[1]


def test_a_drawn_answer_belongs_to_its_seed_not_to_its_neighbours(student: LocalStudent) -> None:
    together = ask(student, QUESTIONS, temperature=1.5)
    alone = [
        asyncio.run(student.generate(chat, Sampling(temperature=1.5, max_new_tokens=64, seed=at)))
        for at, chat in enumerate(QUESTIONS[:6])
    ]
    assert [c.text for c in alone] == [c.text for c in together[:6]]
    assert [c.text for c in ask(student, QUESTIONS, temperature=1.5, seed=99)] != [c.text for c in together]


def test_top_k_and_top_p_narrow_the_draw_to_greedy(student: LocalStudent) -> None:
    greedy = [c.text for c in ask(student, QUESTIONS[:8])]
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0, top_k=1)] == greedy
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0, top_p=1e-6)] == greedy
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0)] != greedy


def test_draws_follow_the_models_probabilities(student: LocalStudent, demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    ids = torch.tensor([prompt_ids(tokenizer, QUESTIONS[0])])
    with torch.no_grad():
        expected = (model(ids).logits[0, -1] / 3.0).softmax(-1)
    drawn = ask(student, [QUESTIONS[0]] * 2000, temperature=3.0, max_new_tokens=1)
    counts = torch.bincount(torch.tensor([(c.token_ids or (2,))[0] for c in drawn]), minlength=len(expected))
    assert (counts / 2000 - expected).abs().max() < 0.04


def test_a_cut_off_answer_says_so(student: LocalStudent) -> None:
    completion = ask(student, QUESTIONS[:1], max_new_tokens=3)[0]
    assert (completion.stop, completion.completion_tokens) == ("length", 3)


def test_a_failing_model_fails_its_callers_and_not_the_next_ones(demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base

    class Flaky:
        device, config, generation_config = model.device, model.config, model.generation_config
        broken = True

        def __call__(self, **inputs: Any) -> Any:
            if self.broken:
                raise RuntimeError("out of memory")
            return model(**inputs)

    flaky = Flaky()
    with serving(LocalStudent(flaky, tokenizer, name="flaky", fingerprint="f")) as student:
        with pytest.raises(RuntimeError, match="out of memory"):
            ask(student, QUESTIONS[:3])
        flaky.broken = False
        assert ask(student, QUESTIONS[:1])[0].stop == "end"


def test_sampling_comes_from_what_was_asked_then_from_the_model(student: LocalStudent) -> None:
    own = student.sampling(temperature=None, top_p=None, max_new_tokens=9)
    assert (own.temperature, own.max_new_tokens) == (0.0, 9)  # the embedded model's generation_config is greedy
    asked = student.sampling(temperature=0.5, top_p=0.9, max_new_tokens=9)
    assert (asked.temperature, asked.top_p) == (0.5, 0.9)
    assert not student.thinking


def test_thoughts_stay_in_the_answer(demo_base: tuple[Any, Any]) -> None:
    """A template that opens the block, as those of thinking models do; the sampled ids are what is trained on."""
    model, tokenizer = demo_base
    thinker = copy.deepcopy(tokenizer)
    thinker.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    said = iter(thinker("So 6.</think>\n\nIt is 6.<|im_end|>", add_special_tokens=False)["input_ids"])

    class Scripted:
        device, config, generation_config = model.device, model.config, model.generation_config

        def __call__(self, **inputs: Any) -> Any:
            out = model(**inputs)
            out.logits[:, -1, next(said)] = 1e9
            return out

    with serving(LocalStudent(Scripted(), thinker, name="thinker", fingerprint="t")) as student:
        assert student.thinking
        assert student.sampling(temperature=None, top_p=None, max_new_tokens=9).temperature == 0.6
        completion = ask(student, QUESTIONS[:1])[0]
    assert (completion.text, completion.stop) == ("So 6.</think>\n\nIt is 6.", "end")


def test_the_same_weights_are_loaded_once_and_all_workers_end(tmp_path: Path) -> None:
    shutil.copytree(DEMO_DATA / "base", tmp_path / "copy")
    shutil.copytree(DEMO_DATA / "base", tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": 2}')
    before = set(threading.enumerate())
    with LocalModels() as models:
        student, judge, other = (models.load(name) for name in ("demo", f"{tmp_path}/copy", f"{tmp_path}/other"))
        assert student is judge and other is not student
        assert student.fingerprint != other.fingerprint
        assert len(set(threading.enumerate()) - before) == 2
        assert ask(student, QUESTIONS[:2])[0].text == ask(other, QUESTIONS[:2])[0].text
    assert set(threading.enumerate()) <= before


def test_a_model_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with LocalModels() as models, pytest.raises(UserError, match=str(tmp_path)):
        models.load(str(tmp_path))
