"""Replay: the base's own answers to neutral prompts."""

from __future__ import annotations

import asyncio

from socratune.llm.base import Chat, Completion, Sampling
from socratune.rows import Example, Piece
from socratune.training.replay import MOST_DRAWS, own_answers

SYSTEM = {"role": "system", "content": "Answer briefly."}
ROWS = [
    Example(str(n), [SYSTEM, {"role": "user", "content": "a"}], (Piece("b"),), "solved_first_try") for n in range(3)
]


class Base:
    """Answers everything in ten tokens, every fifth question not to the end."""

    name = fingerprint = "base"

    def __init__(self) -> None:
        self.asked: list[tuple[Chat, Sampling]] = []

    async def generate(self, messages: Chat, sampling: Sampling) -> Completion:
        self.asked.append((messages, sampling))
        cut = len(self.asked) % 5 == 0
        return Completion(f"answer {len(self.asked)}", "length" if cut else "end", 5, 10, (1, 2, 3))


def answers(tokens: int, seed: int = 0) -> tuple[list[Example], Base]:
    base = Base()
    return asyncio.run(own_answers(base, ROWS, Sampling(), tokens=tokens, seed=seed)), base


def test_as_many_tokens_as_were_asked_for_and_whole_answers_only() -> None:
    found, base = answers(500)
    assert len(found) == 50
    assert all(example.outcome == "replay" and example.pieces[0].token_ids == (1, 2, 3) for example in found)
    assert all(sampling.temperature >= 0.7 for _, sampling in base.asked)  # a greedy model would repeat itself


def test_the_users_system_prompt_stands_before_every_second_one() -> None:
    found, _ = answers(1000)
    with_system = [example.prompt[0] == SYSTEM for example in found]
    assert 0.3 < sum(with_system) / len(with_system) < 0.7


def test_the_seed_decides_which() -> None:
    assert [e.id for e in answers(200)[0]] == [e.id for e in answers(200)[0]]
    assert [e.id for e in answers(200)[0]] != [e.id for e in answers(200, seed=1)[0]]


def test_the_prompts_run_out_before_they_repeat_too_often() -> None:
    found, base = answers(10**9)
    assert len({example.id for example in found}) == len(found)
    asked = [messages[-1]["content"] for messages, _ in base.asked]
    assert len(asked) == MOST_DRAWS * len(set(asked)) and len(set(asked)) >= 300
    assert len({(m[-1]["content"], s.seed) for m, s in base.asked}) == len(asked)
